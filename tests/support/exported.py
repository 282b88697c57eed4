"""Payloads as other people's programs write them.

Spans and events are made by the SDKs of OpenTelemetry and CloudEvents; Lighthouse is no library of ours, so its report
is one that it made, kept in a file.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cloudevents.core.v1.event import CloudEvent
from google.protobuf.json_format import MessageToDict, MessageToJson
from opentelemetry.exporter.otlp.json.common import trace_encoder as as_json
from opentelemetry.exporter.otlp.proto.common import trace_encoder as as_proto
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.sdk.trace import ReadableSpan


class Request(NamedTuple):
    """One request to a service: when it ended, how long it took, with which status of HTTP."""

    service: str
    end_us: int
    latency_us: int = 90_000
    status: int = 200


def exported(
    requests: Sequence[Request], scopes: Sequence[str] = ("shop.http",), *, with_client: bool = True
) -> tuple[Sequence[ReadableSpan], list[str]]:
    """What the SDK makes of them, a server span each and a client span in it; and their trace ids.

    A failure is a status of 5xx in the attributes of the server span; its client span says that it failed each time,
    which nobody may count. A service is one resource; its requests take turns in the scopes.
    """
    exporter = InMemorySpanExporter()
    trace_ids = []
    providers = {service: _provider(service, exporter) for service in dict.fromkeys(each.service for each in requests)}
    for number, request in enumerate(requests):
        tracer = providers[request.service].get_tracer(scopes[number % len(scopes)], "1.2.3")
        end, start = request.end_us * 1000, (request.end_us - request.latency_us) * 1000
        server = tracer.start_span(
            "GET /cart", None, SpanKind.SERVER,
            {"http.route": "/cart", "http.response.status_code": request.status, "tags": ["a", "b"]}, start_time=start,
        )  # fmt: skip
        if with_client:
            client = tracer.start_span("GET /stock", None, SpanKind.CLIENT, start_time=start)
            client.set_status(StatusCode.ERROR, "no stock")
            client.end(end)
        server.add_event("queried", {"rows": 3}, timestamp=start + 1)
        server.end(end)
        trace_ids.append(f"{server.get_span_context().trace_id:032x}")
    return exporter.get_finished_spans(), trace_ids


def _provider(service: str, exporter: InMemorySpanExporter) -> TracerProvider:
    provider = TracerProvider(resource=Resource.create({"service.name": service}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


def sdks_proto(spans: Sequence[ReadableSpan]) -> bytes:
    """As the protobuf of the SDK's own encoder."""
    return as_proto.encode_spans(spans).SerializeToString()


def sdks_json(spans: Sequence[ReadableSpan]) -> bytes:
    """As the JSON of the SDK's own encoder."""
    return as_json.encode_spans(spans).to_json().encode()


def sdks_proto_as_json(spans: Sequence[ReadableSpan]) -> bytes:
    """As the JSON that protobuf's own library makes of it."""
    return protobufs_json(as_proto.encode_spans(spans))


def protobufs_json(made: ExportTraceServiceRequest) -> bytes:
    """As the JSON of protobuf's own library: ids in base64, enums by name, many lines."""
    return MessageToJson(made).encode()


def collectors_json(made: ExportTraceServiceRequest) -> bytes:
    """As OTLP defines its JSON: ids in hex, enums as numbers, one line."""
    told = MessageToDict(made, use_integers_for_enums=True)
    for of_resource, resource in zip(told["resourceSpans"], made.resource_spans, strict=True):
        for of_scope, scope in zip(of_resource["scopeSpans"], resource.scope_spans, strict=True):
            for each, span in zip(of_scope["spans"], scope.spans, strict=True):
                each |= {"traceId": span.trace_id.hex(), "spanId": span.span_id.hex()}
                if span.parent_span_id:
                    each["parentSpanId"] = span.parent_span_id.hex()
    return json.dumps(told, separators=(",", ":")).encode()


def cloud_event(number: int, request: Request) -> CloudEvent:
    """An event about a request; its id is its number."""
    about = {
        "id": f"request-{number}", "source": f"/{request.service}", "type": "shop.request", "specversion": "1.0",
        "subject": "GET /cart", "time": datetime.fromtimestamp(request.end_us / 1e6, UTC),
        "datacontenttype": "application/json", "partitionkey": request.service,
    }  # fmt: skip
    return CloudEvent(about, {"took": {"ms": request.latency_us / 1000}, "status": request.status})


REPORT = Path(__file__).parents[1] / "fuzz" / "corpus" / "lighthouse" / "made-by-12.8.2.json"
"""What Lighthouse 12.8.2 said of a page with a slow script: `lighthouse URL --output json`. Every value is as it was
made. Of 240 KB most is left out: all audits but six, most of the timing, where texts are from.
"""


def lighthouse_report(url: str, at_us: int, score: float | None = 0.82, **changes: Any) -> dict[str, Any]:
    """That report, as if it were of a page that redirects, of another time and with another score."""
    made = json.loads(REPORT.read_bytes())
    made["categories"]["performance"]["score"] = score
    return {
        **made, "requestedUrl": url, "mainDocumentUrl": f"{url}?next=1", "finalDisplayedUrl": f"{url}#top",
        "finalUrl": f"{url}?next=1",
        "fetchTime": datetime.fromtimestamp(at_us / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        **changes,
    }  # fmt: skip

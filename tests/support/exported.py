"""Payloads as other people's libraries write them: spans of OpenTelemetry's SDK, events of CloudEvents' SDK."""

from __future__ import annotations

import json
from datetime import UTC, datetime
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


def exported(requests: Sequence[Request]) -> tuple[Sequence[ReadableSpan], list[str]]:
    """What the SDK makes of them, a server span each and a client span in it; and their trace ids.

    A failure is a status of 5xx in the attributes of the server span; its client span says that it failed each time,
    which nobody may count.
    """
    exporter = InMemorySpanExporter()
    trace_ids = []
    for request in requests:
        provider = TracerProvider(resource=Resource.create({"service.name": request.service}), shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        tracer = provider.get_tracer("shop.http", "1.2.3")
        end, start = request.end_us * 1000, (request.end_us - request.latency_us) * 1000
        server = tracer.start_span(
            "GET /cart", None, SpanKind.SERVER,
            {"http.route": "/cart", "http.response.status_code": request.status, "tags": ["a", "b"]}, start_time=start,
        )  # fmt: skip
        client = tracer.start_span("GET /stock", None, SpanKind.CLIENT, start_time=start)
        client.set_status(StatusCode.ERROR, "no stock")
        client.end(end)
        server.add_event("queried", {"rows": 3}, timestamp=start + 1)
        server.end(end)
        trace_ids.append(f"{server.get_span_context().trace_id:032x}")
    return exporter.get_finished_spans(), trace_ids


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


def lighthouse_report(url: str, at_us: int, score: float | None = 0.82, **changes: Any) -> dict[str, Any]:
    """A report with every field that the published schema of a result and of its settings names."""
    agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/147.0.0.0 Safari/537.36"
    metric = {
        "id": "largest-contentful-paint", "title": "Largest Contentful Paint", "description": "When it was painted.",
        "score": 0.7, "scoreDisplayMode": "numeric", "numericValue": 2890.4, "numericUnit": "millisecond",
        "displayValue": "2.9\u00a0s", "scoringOptions": {"p10": 2500, "median": 4000}, "warnings": [],
    }  # fmt: skip
    return {
        "lighthouseVersion": "13.4.0", "requestedUrl": url, "mainDocumentUrl": f"{url}?next=1",
        "finalDisplayedUrl": f"{url}#top", "finalUrl": f"{url}?next=1",
        "fetchTime": datetime.fromtimestamp(at_us / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "gatherMode": "navigation", "runWarnings": ["The page may not be loading as expected."], "userAgent": agent,
        "environment": {
            "networkUserAgent": agent, "hostUserAgent": agent, "benchmarkIndex": 2419,
            "credits": {"axe-core": "4.11.2"},
        },
        "audits": {"largest-contentful-paint": metric},
        "configSettings": _settings(),
        "categories": {
            "performance": {
                "id": "performance", "title": "Performance", "score": score,
                "supportedModes": ["navigation", "timespan", "snapshot"],
                "auditRefs": [{"id": metric["id"], "weight": 25, "group": "metrics", "acronym": "LCP"}],
            },
            "seo": {"id": "seo", "title": "SEO", "description": "Found.", "manualDescription": "More.", "score": 0.1,
                    "auditRefs": []},
        },
        "categoryGroups": {"metrics": {"title": "Metrics", "description": ""}},
        "stackPacks": [{"id": "react", "title": "React", "iconDataURL": "data:image/svg+xml,", "descriptions": {}}],
        "entities": [{"name": "example.com", "homepage": url, "category": "other", "isFirstParty": True,
                      "isUnrecognized": True, "origins": [url]}],
        "fullPageScreenshot": {
            "screenshot": {"data": "data:image/webp;base64,UklGRg==", "width": 412, "height": 823},
            "nodes": {"1-0-IMG": {"id": "", "top": 0, "bottom": 10, "left": 0, "right": 10, "width": 10, "height": 10}},
        },
        "timing": {"entries": [{"startTime": 1.5, "name": "lh:config", "duration": 500, "entryType": "measure",
                                "gather": True}], "total": 15_000},
        "i18n": {"rendererFormattedStrings": {"varianceDisclaimer": "Values are estimated."},
                 "icuMessagePaths": {"core/audits/seo.js | title": [{"path": "audits.x.title", "values": {"n": 1}}]}},
        **changes,
    }  # fmt: skip


def _settings() -> dict[str, Any]:
    return {
        "output": ["json"], "locale": "en-US", "maxWaitForFcp": 30_000, "maxWaitForLoad": 45_000,
        "blockedUrlPatterns": None, "additionalTraceCategories": None, "auditMode": False, "gatherMode": False,
        "disableStorageReset": False, "clearStorageTypes": ["file_systems", "shader_cache"], "debugNavigation": False,
        "skipAboutBlank": False, "usePassiveGathering": False, "formFactor": "mobile",
        "screenEmulation": {"mobile": True, "width": 412, "height": 823, "deviceScaleFactor": 1.75, "disabled": False},
        "emulatedUserAgent": True, "throttlingMethod": "simulate",
        "throttling": {"rttMs": 150, "throughputKbps": 1638.4, "requestLatencyMs": 562.5,
                       "downloadThroughputKbps": 1474.56, "uploadThroughputKbps": 675, "cpuSlowdownMultiplier": 4},
        "onlyAudits": None, "onlyCategories": None, "skipAudits": None, "extraHeaders": None, "channel": "cli",
        "precomputedLanternData": None, "pauseAfterFcpMs": 1000, "pauseAfterLoadMs": 1000,
        "networkQuietThresholdMs": 1000, "cpuQuietThresholdMs": 1000, "blankPage": "about:blank",
        "disableFullPageScreenshot": False, "ignoreStatusCode": False, "useTraceForLantern": False,
    }  # fmt: skip

"""What a span of OTLP and an event of JSON cost to decode, beside a parser that does nothing else.

Spans come as the Collector's exporter writes them: many resources, scopes and spans a record, half of the spans such as
count. Subject and floor read the same bytes. A record of 10,000 spans is decoded by itself: so long the event loop
waits for one, as nothing can be done between two spans of a record. It is also decoded where every span counts. Sources
have the limits that they have by default; what does not fit them gets the setting that it needs, and its row says so.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import job
import msgspec
import numpy as np
from core import BATCH, Event, payloads
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from table import Figure, Row, cpu_seconds, row

from evaluator.core.event import SeriesTable
from evaluator.runtime.collector import prefer_throughput
from evaluator.wire.config.load import load_rules
from evaluator.wire.decode import SourceDecoder
from evaluator.wire.records import Record, Records

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from evaluator.wire.config.model import SourceConfig

SPANS = 100_000
EVENTS = 200_000
MEBIBYTE = 1 << 20
BATCHED = 200
"""Spans of a record; a Collector that batches has some hundreds to 8,192."""

LARGE = 10_000
LARGE_RECORDS = 5
RESOURCES, SCOPES = 40, 2

RULES = """\
version: 1
sources: {{bench: {{topic: bench, format: {format}{more}}}}}
surfaces: {{api: {{source: bench, group_by: [{groups}], owners: ["@bench"]}}}}
"""
ALL_COUNT = ', where: {span.name: "*"}'
SPAN_GROUPS = "{field: service.name, as: service}, {field: http.route, as: route}"
EVENT_GROUPS = "{field: surface, as: api}"
EVENT_FIELDS = (
    ', fields: {time: time, latency: duration_ms, latency_unit: ms, failed: {status: ">= 500"}, trace_id: trace_id}'
)


def source(name: str, groups: str = SPAN_GROUPS, more: str = "") -> SourceConfig:
    """A source of this format, with series by what its spans or events are grouped by."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rules.yaml"
        path.write_text(RULES.format(format=name, groups=groups, more=more))
        return load_rules([path]).sources["bench"]


def setting(values: Sequence[bytes]) -> str:
    """The setting without which the largest of these is too large for a source; none where it needs none."""
    largest = max(map(len, values))
    return f"max_record_bytes: {-(-largest // MEBIBYTE)}MiB" if largest > source("json").max_record_bytes else ""


# -- spans --------------------------------------------------------------------------------------------------


def request(count: int, rng: np.random.Generator) -> ExportTraceServiceRequest:
    """A request of `count` spans, evenly over resources and scopes, each with eight attributes."""
    made = ExportTraceServiceRequest()
    resources = min(RESOURCES, max(1, count // BATCHED * SCOPES))
    each = count // (resources * SCOPES)
    for number in range(resources):
        of_resource = made.resource_spans.add()
        about = {"service.name": f"service-{number:02d}", "host.name": f"host-{number:04d}", "k8s.pod.name": "pod-0",
                 "telemetry.sdk.language": "python", "deployment.environment.name": "production"}  # fmt: skip
        _attribute(of_resource.resource.attributes, about)
        for scope in range(SCOPES):
            of_scope = of_resource.scope_spans.add()
            of_scope.scope.name = f"library.{scope}"
            _spans(of_scope.spans, each, rng)
    return made


def _spans(spans: Any, count: int, rng: np.random.Generator) -> None:  # noqa: ANN401  # protobuf's
    latencies, routes = rng.lognormal(18, 0.6, count).astype(int).tolist(), rng.integers(0, 10, count).tolist()
    for number, (latency, route) in enumerate(zip(latencies, routes, strict=True)):
        status = 503 if number % 100 == 0 else 200
        end = job.START_MS * 1_000_000 + number * 1_000_000
        span = spans.add(
            trace_id=rng.bytes(16), span_id=rng.bytes(8), parent_span_id=rng.bytes(8), name=f"GET /v1/{route}",
            kind=2 + number % 2, start_time_unix_nano=end - latency, end_time_unix_nano=end,
        )  # fmt: skip
        span.status.code = 2 if status == 503 else 0
        _attribute(span.attributes, {
            "http.request.method": "GET", "http.route": f"/v1/{route}", "http.response.status_code": status,
            "url.scheme": "https", "server.address": "api.example.com", "server.port": 443,
            "network.protocol.version": "1.1", "user_agent.original": "python-httpx/0.28",
        })  # fmt: skip


def _attribute(attributes: Any, values: dict[str, str | int]) -> None:  # noqa: ANN401  # protobuf's
    for key, value in values.items():
        attributes.add(key=key, value={"string_value": value} if isinstance(value, str) else {"int_value": value})


def as_json(made: ExportTraceServiceRequest) -> bytes:
    """A request as OTLP defines its JSON: protobuf's own, but ids in hex and enums as numbers."""
    told = MessageToDict(made, use_integers_for_enums=True)
    for of_resource, resource in zip(told["resourceSpans"], made.resource_spans, strict=True):
        for of_scope, scope in zip(of_resource["scopeSpans"], resource.scope_spans, strict=True):
            for told_span, span in zip(of_scope["spans"], scope.spans, strict=True):
                ids = {"traceId": span.trace_id, "spanId": span.span_id, "parentSpanId": span.parent_span_id}
                told_span |= {name: each.hex() for name, each in ids.items()}
    return json.dumps(told, separators=(",", ":")).encode()


class _KeyValue(msgspec.Struct, gc=False):
    key: str
    value: msgspec.Raw


class _Status(msgspec.Struct, gc=False):
    code: int = 0


class _Span(msgspec.Struct, rename="camel", gc=False):
    """The fields that a rule needs, and not the others."""

    trace_id: str
    span_id: str
    name: str
    kind: int
    start_time_unix_nano: str
    end_time_unix_nano: str
    attributes: list[_KeyValue]
    status: _Status | None = None


class _Scope(msgspec.Struct, gc=False):
    spans: list[_Span]


class _Resource(msgspec.Struct, gc=False):
    attributes: list[_KeyValue]


class _ResourceSpans(msgspec.Struct, rename="camel", gc=False):
    resource: _Resource
    scope_spans: list[_Scope]


class _Request(msgspec.Struct, rename="camel", gc=False):
    resource_spans: list[_ResourceSpans]


class Encoding(NamedTuple):
    """How requests are written, and the parser that reads them and nothing else."""

    format: str
    encode: Callable[[ExportTraceServiceRequest], bytes]
    floor: str
    parse: Callable[[bytes], object]


ENCODINGS = (
    Encoding("otlp_proto", lambda made: made.SerializeToString(), "protobuf alone",
             ExportTraceServiceRequest.FromString),
    Encoding("otlp_json", as_json, "msgspec, typed, alone", msgspec.json.Decoder(_Request).decode),
)  # fmt: skip


def span_rows() -> Iterator[Row | Figure]:
    """Spans in records of some hundreds, and one record of 10,000."""
    rng = np.random.default_rng(7)
    small = [request(BATCHED, rng) for _ in range(SPANS // BATCHED)]
    large = [request(LARGE, rng) for _ in range(LARGE_RECORDS)]
    for encoding in ENCODINGS:
        floor = encoding.floor, encoding.parse
        values = [encoding.encode(made) for made in small]
        bytes_of = round(sum(map(len, values)) / SPANS)
        name = f"{encoding.format}, {BATCHED} spans of {bytes_of} bytes a record"
        yield _row(name, "spans", SPANS, source(encoding.format), values, floor)
        values = [encoding.encode(made) for made in large]
        needs = setting(values)
        name = f"{encoding.format}, records of {LARGE:,} spans and {round(len(values[0]) / 1e6, 1)} MB"
        more = f", {needs}" if needs else ""
        for which, where in (("", ""), (", each of which counts", ALL_COUNT)):
            config = source(encoding.format, more=more + where)
            measured = _row(f"{name}{which}{more}", "spans", LARGE * LARGE_RECORDS, config, values, floor)
            yield measured
            yield Figure("formats", f"{encoding.format}, a record of {LARGE:,} spans{which}",
                         LARGE / measured.rate * 1000, "ms",
                         {f"{encoding.floor}_ms": round(LARGE / measured.floor_rate * 1000, 1)})  # fmt: skip


# -- events -------------------------------------------------------------------------------------------------


def event_rows() -> Iterator[Row]:
    """One event a record, and arrays of them."""
    events = list(payloads(EVENTS, 140))
    one, several = msgspec.json.Decoder(Event).decode, msgspec.json.Decoder(list[Event]).decode
    floor = "msgspec, typed, alone"
    yield _row("json, one event a record", "events", EVENTS, source("json", EVENT_GROUPS, EVENT_FIELDS), events,
               (floor, one))  # fmt: skip
    arrays = [b"[" + b",".join(events[begin : begin + 100]) + b"]" for begin in range(0, EVENTS, 100)]
    yield _row("json, arrays of 100 events", "events", EVENTS,
               source("json", EVENT_GROUPS, f"{EVENT_FIELDS}, batch: array"), arrays, (floor, several))  # fmt: skip


def _row(
    name: str, unit: str, count: int, config: SourceConfig, values: Sequence[bytes],
    floor: tuple[str, Callable[[bytes], object]],
) -> Row:  # fmt: skip
    """Decoding these values, about `BATCH` spans or events at a time, in turns with the parser alone."""
    records = [Record(number, job.START_MS + 10**8, None, value) for number, value in enumerate(values)]
    at_once = max(1, BATCH * len(values) // count)
    batches = [Records.of(records[begin : begin + at_once]) for begin in range(0, len(records), at_once)]
    what, parse = floor

    def decode() -> None:
        decoder, table = SourceDecoder(config), SeriesTable({"api": 20_000})
        for batch in batches:
            decoded = decoder.decode(batch, table, None)
            decoded.events.trace_ids(range(0, len(decoded.events), 20))
            assert not decoded.rejections

    def alone() -> None:
        for value in values:
            parse(value)

    return row("formats", name, unit, count, partial(cpu_seconds, decode), (what, partial(cpu_seconds, alone)))


def rows() -> Iterator[Row | Figure]:
    """All of them."""
    prefer_throughput()
    yield from span_rows()
    yield from event_rows()

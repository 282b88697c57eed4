"""OTLP: what real producers vary, each of which means the same; and what must not be taken for it."""

from __future__ import annotations

import base64
import json
import random
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.json_format import ParseDict
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status
from opentelemetry.sdk.resources import Resource as SdkResource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from support.decoded import Event, Seen, events, record, seen
from support.exported import collectors_json, protobufs_json, sdks_json
from support.spans import NOON_NS, TRACE_ID, any_value, attributes, request, span

from evaluator.wire.config.matcher import Matcher
from evaluator.wire.formats import otlp_json, otlp_proto
from evaluator.wire.formats.json import MAX_DEPTH
from evaluator.wire.records import Records
from evaluator.wire.span import Picked, Scope, SpanReader

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

JSON = {"format": "otlp_json"}
PROTO = {"format": "otlp_proto"}
EVENT = Event(latency=250_000, trace_id=TRACE_ID)


def of_span(*group_by: str, source: dict[str, Any] | None = None, **changes: Any) -> Event:
    """The one event of a span with these fields."""
    (event,) = events(source or JSON, request(span(**changes)), group_by=group_by)
    return event


def test_a_span_is_an_event_at_its_end_that_took_the_time_since_its_start() -> None:
    assert of_span() == EVENT


@pytest.mark.parametrize("kind", [2, "2", "SPAN_KIND_SERVER", "span_kind_server", "Server", "SERVER", "server", 2.0])
def test_a_kind_is_a_number_or_a_name_in_any_case_with_or_without_prefix(kind: object) -> None:
    assert of_span("span.kind", kind=kind) == replace(EVENT, group=("server",))


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        (5, "consumer"), (3, "client"), (4, "producer"), (1, "internal"), (0, "internal"), (None, "internal"),
        ("", "internal"), ("SPAN_KIND_UNSPECIFIED", "internal"), ("unspecified", "internal"), (6, ""), ("front", ""),
        ([2, 3], "internal"), ({}, "internal"), ("9" * 5000, ""),
    ],
)  # fmt: skip
def test_every_kind_has_its_name(kind: object, found: str) -> None:
    source = {**JSON, "where": {"span.name": "*"}}
    assert of_span("span.kind", source=source, kind=kind).group == (found,)


def test_only_server_and_consumer_spans_count_unless_the_config_says_otherwise() -> None:
    value = request(*(span(kind=kind) for kind in (0, 1, 2, 3, 4, 5)))
    assert seen(JSON, record(0, value)) == Seen([EVENT, EVENT], skipped=4)
    clients = {**JSON, "where": {"span.kind": "client"}}
    assert seen(clients, record(0, value)) == Seen([EVENT], skipped=5)


@pytest.mark.parametrize("code", [2, 2.0, "2", "STATUS_CODE_ERROR", "status_code_error", "Error", "ERROR", "error"])
def test_a_status_of_error_is_a_failure_however_it_is_written(code: object) -> None:
    assert of_span(status={"code": code, "message": "no"}).outcome == "failed"


@pytest.mark.parametrize("status", ["ERROR", 2, [{"code": 2}], True])
def test_a_status_that_is_no_object_is_a_fault_and_not_good(status: object) -> None:
    found = seen(JSON, record(0, request(span(status=status), span())))
    assert (len(found.events), found.rejections) == (1, [(0, 0, "wrong_shape")])


@pytest.mark.parametrize("status", [None, {}, {"code": 0}, {"code": 1}, {"code": "STATUS_CODE_OK"}, {"code": None}])
def test_any_other_status_or_none_is_no_failure(status: object) -> None:
    assert of_span(status=status).outcome == "good"


@pytest.mark.parametrize("code", [3, -1, 2.5, "2.0", "STATUS_CODE_FATAL", "code_error", "failed"])
def test_a_status_that_the_schema_does_not_know_is_none_and_no_failure(code: object) -> None:
    """What else the span says of itself decides."""
    assert of_span("span.status", status={"code": code}) == replace(EVENT, group=("",))
    http = attributes(http__response__status_code=500)
    assert of_span(status={"code": code}, attributes=http).outcome == "failed"


@pytest.mark.parametrize(
    ("kind", "http", "outcome"),
    [
        ("server", {"http__response__status_code": 500}, "failed"),
        ("server", {"http__status_code": 503}, "failed"),
        ("server", {"http__status_code": "503"}, "failed"),
        ("server", {"http__response__status_code": 499}, "good"),
        ("server", {"http__response__status_code": 404}, "good"),
        ("consumer", {"http__response__status_code": 500}, "good"),
    ],
)
def test_a_server_fails_with_5xx_and_nobody_with_4xx(kind: str, http: dict[str, Any], outcome: str) -> None:
    assert of_span(kind=kind, attributes=attributes(**http)).outcome == outcome


@pytest.mark.parametrize(
    "time", [str(NOON_NS), NOON_NS, float(NOON_NS), f"{NOON_NS // 10**9}e9", f"0{NOON_NS}", f"{NOON_NS}.0"]
)
def test_a_time_is_text_or_a_number(time: object) -> None:
    assert of_span(endTimeUnixNano=time, startTimeUnixNano=str(NOON_NS - 250_000_000)) == EVENT


def test_a_difference_of_nanoseconds_is_taken_before_rounding() -> None:
    event = of_span(startTimeUnixNano=str(NOON_NS + 600), endTimeUnixNano=str(NOON_NS + 1400))
    assert (event.after_noon, event.latency) == (1, 1)


@pytest.mark.parametrize("end", [0, "0", None, 0.0])
def test_a_span_without_end_has_no_time_and_one_without_start_no_latency(end: object) -> None:
    value = request(span(endTimeUnixNano=end), span(startTimeUnixNano=end))
    assert seen(JSON, record(0, value)) == Seen([replace(EVENT, latency=None)], [(0, 0, "missing_time")])


@pytest.mark.parametrize("end", ["soon", "", [1, 2], {"a": 1}, True, "9" * 5000, 10**400, 1e300, -5000])
def test_an_end_that_is_no_time_rejects_its_span_only(end: object) -> None:
    value = request(span(endTimeUnixNano=end), span())
    assert seen(JSON, record(0, value)) == Seen([EVENT], [(0, 0, "bad_value")])


@pytest.mark.parametrize("start", ["soon", [1, 2], {"a": 1}, True, 0.5, str(NOON_NS + 10**6), 10**400, -1e300])
def test_a_start_that_is_no_time_or_after_the_end_costs_the_latency_only(start: object) -> None:
    value = request(span(startTimeUnixNano=start, status={"code": 2}))
    expected = Event(outcome="failed", trace_id=TRACE_ID)
    assert seen(JSON, record(0, value)) == Seen([expected], bad_latencies=1)


@pytest.mark.parametrize(
    ("written", "found"),
    [
        (TRACE_ID, TRACE_ID),
        (TRACE_ID.upper(), TRACE_ID),
        (base64.b64encode(bytes.fromhex(TRACE_ID)).decode(), TRACE_ID),
        ("0" * 32, ""),
        ("", ""),
        (None, ""),
        ("xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"),
        ("not base64 at all!!!!==", "not base64 at all!!!!=="),
        (12, "12"),
        ({"a": 1}, '{"a":1}'),
    ],
)
def test_an_id_is_hex_in_any_case_or_base64(written: object, found: str) -> None:
    assert of_span(traceId=written).trace_id == found


def test_attributes_are_of_the_span_or_else_of_its_resource() -> None:
    changes = {"attributes": attributes(http__route="/users", region="span")}
    value = request(span(**changes), span(), resource=attributes(service__name="checkout", region="resource"))
    found = events(JSON, value, group_by=["service.name", "region", "http.route", "scope.name", "span.name"])
    assert [event.group for event in found] == [
        ("checkout", "span", "/users", "http", "GET /users/{id}"),
        ("checkout", "resource", "", "http", "GET /users/{id}"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ("a", "a"), (True, "true"), (7, "7"), (-7, "-7"), (1.5, "1.5"), ([1, "a"], '[1,"a"]'), ([1], "1"), ([], "[]"),
        ({"b": 1}, '{"b":1}'), ({"b": {"c": [1, {"d": 2}]}}, '{"b":{"c":[1,{"d":2}]}}'), ("\ud83d", "\ufffd"),
        ([["x"]], "x"),
    ],
)  # fmt: skip
def test_every_type_of_attribute_has_a_label(value: object, label: str) -> None:
    assert of_span("a.b", attributes=[{"key": "a.b", "value": any_value(value)}]).group == (label,)


@pytest.mark.parametrize(
    ("given", "label"),
    [
        ([{"key": "a.b", "value": {"intValue": 7}}], "7"),
        ([{"key": "a.b", "value": {"intValue": "x"}}], "x"),
        ([{"key": "a.b", "value": {"doubleValue": "NaN"}}], "NaN"),
        ([{"key": "a.b", "value": {"doubleValue": 5}}], "5"),
        ([{"key": "a.b", "value": {"bytesValue": "AQI="}}], "AQI="),
        ([{"key": "a.b", "value": {}}], ""),
        ([{"key": "a.b", "value": None}], ""),
        ([{"key": "a.b"}], ""),
        ([{"value": any_value("x")}], ""),
        ([{"key": "a", "value": any_value({"b": "nested"})}], "nested"),
        ([{"key": "a", "value": any_value({"b": "nested"})}, {"key": "a.b", "value": any_value("flat")}], "nested"),
        ([{"key": "a", "value": any_value("x")}, {"key": "a.b", "value": any_value("flat")}], "flat"),
        ([{"key": "a.b", "value": any_value(1)}, {"key": "a.b", "value": any_value(2)}], "2"),
        ([5, None, "x", {"key": "a.b", "value": any_value("good")}], "good"),
        ("none", ""),
    ],
)
def test_an_attribute_is_found_where_it_is(given: object, label: str) -> None:
    assert of_span("a.b", attributes=given).group == (label,)


@pytest.mark.parametrize(
    ("state", "weight"),
    [
        ("ot=th:c", 4), ("ot=th:8", 2), ("ot=th:0", 1), ("ot=rv:abcdef01234567;th:c", 4), ("vendor=a:b, ot=th:c", 4),
        ("ot=th:C", 4), ("ot=th:fd70a3d70a3d7", 100), ("ot=th:5", 1), ("ot=th:6", 2), ("", 1), (None, 1),
        ("ot=rv:0", 1), ("other=th:c", 1), ("ot=p:8;r:62", 1), (5, 1),
    ],
)  # fmt: skip
def test_a_sampled_span_stands_for_as_many_as_its_threshold_says(state: object, weight: int) -> None:
    assert of_span(traceState=state).weight == weight


@pytest.mark.parametrize("threshold", ["", "x", "-1", "1.5", "123456789012345", "1E+2", " c", "ffffffffffffff"])
def test_a_threshold_that_nobody_can_read_rejects_its_span(threshold: str) -> None:
    value = request(span(traceState=f"ot=th:{threshold}"), span())
    assert seen(JSON, record(0, value)) == Seen([EVENT], [(0, 0, "bad_value")])


def test_unknown_keys_are_nobodys_business_at_any_level() -> None:
    value = request(span(newField={"a": [1]}))
    value["resourceSpans"][0]["resource"]["entityRefs"] = [{"type": "service", "idKeys": ["service.name"]}]
    value["resourceSpans"][0]["deprecated"] = value["other"] = [[[]]]
    assert events(JSON, value) == [EVENT]


def test_names_are_those_of_the_schema_or_those_from_before_it() -> None:
    snake = {
        "resource_spans": [{"scope_spans": [{"spans": [{
            "trace_id": TRACE_ID, "kind": 2, "start_time_unix_nano": NOON_NS - 250_000_000,
            "end_time_unix_nano": NOON_NS,
        }]}]}]
    }  # fmt: skip
    old = {"resourceSpans": [{"instrumentationLibrarySpans": [{"spans": [span()]}]}]}
    assert events(JSON, snake, old) == [EVENT, EVENT]


@pytest.mark.parametrize(
    "value",
    [
        {}, {"resourceSpans": []}, {"resourceSpans": None}, {"resourceSpans": [{}]},
        {"resourceSpans": [{"resource": {}, "scopeSpans": [{"spans": []}]}]}, {"resource_spans": []},
        {"resourceSpans": [{"scopeSpans": None}, {"scopeSpans": [{"scope": None, "spans": None}]}]},
    ],
)  # fmt: skip
def test_an_empty_envelope_is_skipped(value: object) -> None:
    assert seen(JSON, record(0, value)) == Seen([], skipped=1)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "not_json"),
        ("{", "not_json"),
        (b'{"resourceSpans":[{"schemaUrl":"\xff"}]}', "not_json"),
        ('{"resourceSpans":' + "[" * 300 + "]" * 300 + "}", "not_json"),
        ('{"x":' * 100_000, "not_json"),
        ("[]", "wrong_shape"),
        ("5", "wrong_shape"),
        ({"resourceSpans": 5}, "wrong_shape"),
        ({"resourceSpans": {}}, "wrong_shape"),
        ({"resourceSpans": [5]}, "wrong_shape"),
        ({"resourceSpans": [{"scopeSpans": ["x"]}]}, "wrong_shape"),
        ({"resourceSpans": [{"scopeSpans": [{"spans": 1}]}]}, "wrong_shape"),
        ({"some": "log line"}, "wrong_shape"),
        ({"resourceLogs": [{}]}, "unsupported"),
        ({"resource_metrics": [{}]}, "unsupported"),
    ],
)
def test_what_is_no_request_is_rejected(value: object, reason: str) -> None:
    assert seen(JSON, record(0, value), record(1, request(span()))) == Seen([EVENT], [(0, 0, reason)])


def test_what_is_no_span_rejects_itself_only_and_counts_in_the_order() -> None:
    value = request(span(), 5, span(), None, span(endTimeUnixNano=0), span())
    assert seen(JSON, record(3, value)) == Seen(
        [EVENT] * 3, [(3, 1, "wrong_shape"), (3, 3, "wrong_shape"), (3, 4, "missing_time")]
    )


def test_the_index_counts_through_resources_and_scopes() -> None:
    one, other = request(span(), span()), request(span(endTimeUnixNano=0), span())
    one["resourceSpans"] += other["resourceSpans"]
    assert seen(JSON, record(0, one)) == Seen([EVENT] * 3, [(0, 2, "missing_time")])


SPAN_ID = "eee19b7ec3c1b174"


@pytest.mark.parametrize(
    ("name", "field", "forms"),
    [
        ("spanId", "span.id", [SPAN_ID, SPAN_ID.upper(), "7uGbfsPBsXQ="]),
        ("traceId", "span.trace_id", [TRACE_ID, TRACE_ID.upper(), "W47/95gDgQPSabYzgT/GDA=="]),
    ],
)
def test_an_event_that_comes_again_is_known_in_whatever_form_its_id_is(name: str, field: str, forms: list[str]) -> None:
    """A second collector on the way may write it in another one."""
    source = {**JSON, "dedup": 10, "fields": {"id": field}}
    records = [record(offset, request(span(**{name: form}))) for offset, form in enumerate(forms)]
    assert seen(source, *records, group_by=[field]) == Seen([replace(EVENT, group=(forms[0],))], duplicates=2)


def test_a_retried_batch_counts_once_with_dedup() -> None:
    value = request(span(spanId="00000000000000aa"), span(spanId="00000000000000bb"), span(spanId=None))
    found = seen({**JSON, "dedup": 10}, record(0, value), record(1, value))
    assert (len(found.events), found.duplicates) == (4, 2)


# -- protobuf ------------------------------------------------------------------------------------------------


def message(*spans: Span, service: str = "checkout") -> bytes:
    about = Resource(attributes=[proto_attribute("service.name", string_value=service)])
    of_resource = ResourceSpans(resource=about, scope_spans=[ScopeSpans(spans=spans)])
    return ExportTraceServiceRequest(resource_spans=[of_resource]).SerializeToString()


def proto_span(**changes: Any) -> Span:
    fields = {
        "trace_id": bytes.fromhex(TRACE_ID), "kind": Span.SPAN_KIND_SERVER, "end_time_unix_nano": NOON_NS,
        "start_time_unix_nano": NOON_NS - 250_000_000, **changes,
    }  # fmt: skip
    return Span(**fields)


def proto_attribute(key: str, **value: Any) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(**value))


def test_a_span_as_protobuf_is_the_same_event() -> None:
    value = message(
        proto_span(status=Status(code=Status.STATUS_CODE_ERROR), trace_state="ot=th:8"),
        proto_span(attributes=[proto_attribute("http.response.status_code", int_value=500)]),
        proto_span(kind=Span.SPAN_KIND_CLIENT),
        proto_span(kind=9),
        proto_span(trace_id=b"", start_time_unix_nano=0),
    )
    failed = replace(EVENT, outcome="failed", group=("checkout",))
    assert seen(PROTO, record(0, value), group_by=["service.name"]) == Seen(
        [replace(failed, weight=2), failed, Event(group=("checkout",))], skipped=2
    )


def test_a_server_span_without_end_is_rejected_as_protobuf_too() -> None:
    value = message(proto_span(end_time_unix_nano=0), proto_span())
    assert seen(PROTO, record(0, value)) == Seen([EVENT], [(0, 0, "missing_time")])


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ({"string_value": "x"}, "x"), ({"bool_value": False}, "false"), ({"int_value": -3}, "-3"),
        ({"double_value": 1.5}, "1.5"), ({"double_value": float("nan")}, "NaN"),
        ({"double_value": float("-inf")}, "-Infinity"), ({"bytes_value": b"\x01\x02"}, "AQI="), ({}, ""),
        ({"string_value_strindex": 3}, ""),
        ({"array_value": ArrayValue(values=[AnyValue(int_value=1)])}, "1"),
        ({"array_value": ArrayValue(values=[AnyValue(int_value=1), AnyValue()])}, "[1,null]"),
        ({"kvlist_value": KeyValueList(values=[proto_attribute("k", int_value=1)])}, '{"k":1}'),
    ],
)  # fmt: skip
def test_every_type_of_attribute_has_a_label_as_protobuf(value: dict[str, Any], label: str) -> None:
    value_ = message(proto_span(attributes=[proto_attribute("a.b", **value)]))
    (event,) = events(PROTO, value_, group_by=["a.b"])
    assert event.group == (label,)


@pytest.mark.parametrize("value", [b"\xff", b"{}", b"\n\x05abc", b"\x0a\x02\x12\xff", b"[" * 100])
def test_bytes_that_are_no_request_are_rejected(value: bytes) -> None:
    assert seen(PROTO, record(0, value), record(1, message(proto_span()))) == Seen([EVENT], [(0, 0, "wrong_shape")])


@pytest.mark.parametrize("value", [b"", b"\n\0", b"\n\2\n\0", b"\n\2\x12\0"])
def test_an_empty_message_is_skipped(value: bytes) -> None:
    assert seen(PROTO, record(0, value)) == Seen([], skipped=1)


# -- by content ----------------------------------------------------------------------------------------------


def padded(length: int) -> bytes:
    """A request whose only resource takes so many bytes."""
    for size in range(length):
        value = message(proto_span(), service="x" * size)
        if value[1] == length:
            return value
    raise AssertionError(length)


def test_either_encoding_is_told_by_its_content() -> None:
    brace = padded(ord("{"))
    assert brace.startswith(b"\n{")
    as_json = json.dumps(request(span()))
    values = [as_json.encode(), f"\r\n {as_json}".encode(), f"\n{as_json}".encode(), message(proto_span()), brace]
    assert events({"format": "otlp"}, *values) == [EVENT] * 5
    rejected = [(0, 0, "not_json"), (1, 0, "not_json"), (2, 0, "wrong_shape"), (3, 0, "wrong_shape")]
    broken = [record(n, value) for n, value in enumerate([b"{", b"\n{", b"\xff", b"\n\x05"])]
    assert seen({"format": "otlp"}, *broken) == Seen([], rejected)
    assert seen({"format": "otlp"}, record(0, b"")) == Seen([], skipped=1)


# -- what OpenTelemetry itself writes ------------------------------------------------------------------------


def sdk_spans() -> Sequence[ReadableSpan]:
    """Three spans of an instrumented service, through the SDK."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(resource=SdkResource.create({"service.name": "checkout", "shards": [1, 2]}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("shop.http", "1.2.3")
    start = NOON_NS - 250_000_000
    for kind, status, code in (
        (SpanKind.SERVER, StatusCode.UNSET, 200), (SpanKind.SERVER, StatusCode.ERROR, 200),
        (SpanKind.SERVER, StatusCode.OK, 503), (SpanKind.CLIENT, StatusCode.ERROR, 500),
    ):  # fmt: skip
        made = tracer.start_span("GET /cart", None, kind, {"http.response.status_code": code}, start_time=start)
        made.add_event("queried", {"rows": 3}, timestamp=start + 1)
        made.set_status(status)
        made.end(NOON_NS)
    return exporter.get_finished_spans()


def test_what_the_sdk_exports_comes_out_the_same_in_every_encoding() -> None:
    spans = sdk_spans()
    made = encode_spans(spans)
    groups = ["service.name", "scope.name", "http.response.status_code", "shards"]
    values = [sdks_json(spans), collectors_json(made), protobufs_json(made)]
    as_json = [seen({"format": "otlp"}, record(0, value), group_by=groups) for value in values]
    as_proto = seen({"format": "otlp"}, record(0, made.SerializeToString()), group_by=groups)
    assert as_json == [as_proto] * 3
    assert as_proto.skipped == 1
    assert [(event.after_noon, event.outcome, event.latency, event.group) for event in as_proto.events] == [
        (0, "good", 250_000, ("checkout", "shop.http", "200", "[1,2]")),
        (0, "failed", 250_000, ("checkout", "shop.http", "200", "[1,2]")),
        (0, "failed", 250_000, ("checkout", "shop.http", "503", "[1,2]")),
    ]
    assert all(len(event.trace_id) == 32 for event in as_proto.events)


@pytest.mark.parametrize(
    ("scopes_of", "encoded"),
    [
        pytest.param(otlp_json.scopes_of, lambda value: json.dumps(value).encode(), id="typed"),
        pytest.param(otlp_json.lenient, lambda value: json.dumps(value).encode(), id="lenient"),
        pytest.param(
            otlp_proto.scopes_of(),
            lambda value: ParseDict(value, ExportTraceServiceRequest()).SerializeToString(),
            id="protobuf",
        ),
    ],
)
def test_a_resource_is_looked_through_once_however_many_scopes_it_has(scopes_of: Any, encoded: Any) -> None:
    """Else a record of a megabyte could keep us busy for hours."""
    looked_through: list[str] = []

    def noted(found: Scope) -> Scope:
        def pick(attributes: Iterable[Any], wanted: frozenset[str]) -> Picked:
            some = list(attributes)
            looked_through.extend("resource" if each is found.resource else "span" for each in some)
            return found.pick(some, wanted)

        return replace(found, pick=pick)

    reader = SpanReader(["service.name"], lambda value: [noted(each) for each in scopes_of(value)])
    (one,), (other,) = (request(span(), resource=given)["resourceSpans"] for given in (None, []))
    one["scopeSpans"] *= 3
    read = reader([encoded({"resourceSpans": [one, other]})], Records.of([]))
    assert read.columns == [["checkout"] * 3 + [None]]
    assert Counter(looked_through) == {"resource": 2, "span": 4}


def test_nobody_looks_at_the_attributes_of_a_span_that_the_filter_keeps_out() -> None:
    """Of a server's request most spans are internal ones and those of its own calls."""
    looked_at: list[object] = []

    def pick(attributes: Iterable[Any], wanted: frozenset[str]) -> Picked:
        some = list(attributes)
        looked_at.extend(some)
        return {name: [None] * len(some) for name in wanted}

    spans = [Span(kind=kind, attributes=[proto_attribute("number", int_value=number)])
             for number, kind in enumerate((2, 3, 1, 2))]  # fmt: skip
    where = Matcher.of({"span.kind": "server", "http.route": "/users"}, {"span.kind": "consumer"})
    reader = SpanReader(["http.route"], lambda _: [Scope("of the resource", None, spans, pick)], where=where)
    read = reader([b""], Records.of([]))
    assert looked_at == [spans[0].attributes, spans[3].attributes, "of the resource"]
    assert (read.count, read.index, read.skipped) == (2, [0, 3], 2)


@pytest.mark.parametrize("copies", [1, 40])
@pytest.mark.parametrize("where", ["span", "client", "resource"])
@pytest.mark.parametrize("kind", ["list", "object"])
def test_nesting_is_too_deep_wherever_nobody_looks(kind: str, where: str, copies: int) -> None:
    """MAX_DEPTH levels are JSON and one more is none; a span has seven around its attributes, a resource four."""

    def of(levels: int) -> bytes:
        brackets = levels - (4 if where == "resource" else 7)
        text = "[" * brackets + "]" * brackets if kind == "list" else '{"x":' * brackets + "0" + "}" * brackets
        client = {"kind": 3} if where == "client" else {}
        holder = {"resource": text} if where == "resource" else {}
        value = request(*[span(**client, attributes=None if holder else "HERE")] * copies, span(), resource=[])
        if holder:
            value["resourceSpans"][0]["resource"]["attributes"] = "HERE"
        return json.dumps(value).replace('"HERE"', text).encode()

    events = 1 if where == "client" else copies + 1
    found = [seen(JSON, record(0, of(levels))) for levels in (MAX_DEPTH, MAX_DEPTH + 1)]
    assert [len(each.events) for each in found] == [events, 0]
    assert found[1].rejections == [(0, 0, "not_json")]


@pytest.mark.parametrize("copies", [1, 40])
@pytest.mark.parametrize(
    "attribute",
    [any_value("[{" * 200), any_value({"a": {"b": [1]}}), {"more": [{}] * 200}, {"stringValue": '\\"[' * 300}],
)
def test_many_brackets_are_not_deep(attribute: dict[str, Any], copies: int) -> None:
    made = [{"key": f"unasked.{number}", "value": attribute} for number in range(128)]
    value = request(*[span(attributes=[*made, *attributes(http__route="/a")])] * copies)
    found = events({**JSON, "max_record_bytes": "64MiB"}, value, group_by=["http.route"])
    assert found == [replace(EVENT, group=("/a",))] * copies


def test_what_is_no_text_makes_a_record_no_json_wherever_nobody_looks() -> None:
    client = span(kind=3, attributes=attributes(unasked="HERE"))
    value = json.dumps(request(span(), client)).encode().replace(b"HERE", b"\xff")
    assert seen(JSON, record(0, value)) == Seen([], [(0, 0, "not_json")])


def test_an_attribute_that_nobody_can_read_costs_its_span_nothing_else() -> None:
    odd = [{"key": "odd", "value": {"stringValue": [1, 2]}}, *attributes(a="x")]
    assert of_span("a", attributes=odd).group == ("x",)


def test_spans_in_pieces_have_one_resource() -> None:
    """What is no span parts them: a scope of each piece."""
    value = request(*[span(), 0] * 3)
    scopes = [each for each in otlp_json.scopes_of(json.dumps(value).encode()) if isinstance(each, Scope)]
    scopes = [each for each in scopes if each.spans]
    assert (len(scopes), len({id(each.resource) for each in scopes})) == (3, 1)


def test_a_record_of_ten_thousand_spans_of_many_resources_is_ten_thousand_events() -> None:
    rng = random.Random(7)
    kinds = [rng.randrange(1, 6) for _ in range(10_000)]
    spans = [span(kind=kind, spanId=f"{n:016x}") for n, kind in enumerate(kinds)]
    pieces = {f"service-{at}": spans[at : at + 250] for at in range(0, 10_000, 250)}
    requests = [request(*piece, resource=attributes(service__name=name)) for name, piece in pieces.items()]
    value = {"resourceSpans": [each for one in requests for each in one["resourceSpans"]]}
    source = {**JSON, "max_record_bytes": "64MiB"}
    found = seen(source, record(0, value), group_by=["service.name"])
    counted = [kind for kind in kinds if kind in {2, 5}]
    assert (len(found.events), found.skipped) == (len(counted), 10_000 - len(counted))
    assert len({event.group for event in found.events}) == 40

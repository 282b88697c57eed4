"""Spans of OTLP as plain dictionaries, and as the encodings that OpenTelemetry's own libraries make of them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from support.payloads import mostly

NOON_NS = 1_769_601_600_000_000_000
TRACE_ID = "5b8efff798038103d269b633813fc60c"


def attributes(**values: Any) -> list[dict[str, Any]]:
    """Attributes as JSON writes them; `__` in a name stands for a dot."""
    return [{"key": key.replace("__", "."), "value": any_value(value)} for key, value in values.items()]


def any_value(value: Any) -> dict[str, Any]:
    """A value as JSON writes it: integers as text, everything in an object that names its type."""
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case list():
            return {"arrayValue": {"values": [any_value(each) for each in value]}}
        case dict():
            return {"kvlistValue": {"values": [{"key": k, "value": any_value(v)} for k, v in value.items()]}}
        case _:
            return {"stringValue": value}


def span(**changes: Any) -> dict[str, Any]:
    """A server span that took 250 ms, without status."""
    return {
        "traceId": TRACE_ID,
        "spanId": "eee19b7ec3c1b174",
        "name": "GET /users/{id}",
        "kind": 2,
        "startTimeUnixNano": str(NOON_NS - 250_000_000),
        "endTimeUnixNano": str(NOON_NS),
        **changes,
    }


def request(*spans: Any, resource: list[dict[str, Any]] | None = None, scope: str = "http") -> dict[str, Any]:
    """A request with one resource and one scope."""
    about = {"attributes": attributes(service__name="checkout") if resource is None else resource}
    return {"resourceSpans": [{"resource": about, "scopeSpans": [{"scope": {"name": scope}, "spans": list(spans)}]}]}


# -- requests that real and hostile producers send, as strategies ----------------------------------------------

_texts = st.sampled_from(["", "a", "http", "x\ud83d", "\u00e9", "5", "0", "-1", "1e3", TRACE_ID, TRACE_ID.upper()])
_numbers = st.sampled_from([0, 1, 2, 3, 5, -1, 2.0, 0.5, 1e300, NOON_NS, 2**63, 2**64, 10**30, -0.0])
odd = st.recursive(
    st.one_of(st.none(), st.booleans(), _texts, _numbers),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["a", "key", "values", "code"]), inner, max_size=2)
    ),
    max_leaves=4,
)
_keys = st.sampled_from(["a", "a.b", "a.b.c", "b", "http.status_code", "service.name", ""])
_plain_values = st.one_of(_texts, st.booleans(), st.integers(-5, 600), st.sampled_from([0.5, -1.0, 1e20]))
_values = st.recursive(
    _plain_values, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_keys, inner, max_size=2), max_leaves=3
).map(any_value)
_any_values = st.one_of(
    _values,
    st.dictionaries(
        st.sampled_from(["stringValue", "intValue", "int_value", "boolValue", "doubleValue", "arrayValue",
                         "kvlistValue", "bytesValue", "more"]),
        odd, max_size=2,
    ),
)  # fmt: skip
_attributes = st.lists(
    st.one_of(
        st.fixed_dictionaries({"key": _keys, "value": _values}),
        st.fixed_dictionaries({"key": _keys, "value": _any_values}),
        st.fixed_dictionaries({}, optional={"key": odd, "value": odd}),
    ),
    max_size=3,
)


def _mostly(common: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Nine of ten times `common`, else anything: a span has so many fields that most would be odd."""
    return st.integers(0, 9).flatmap(lambda number: odd if number == 9 else common)


_times = st.one_of(
    st.integers(NOON_NS - 10**9, NOON_NS).map(str), st.integers(NOON_NS - 10**9, NOON_NS), st.sampled_from(["0", 0])
)
spans = st.fixed_dictionaries(
    {},
    optional={
        "traceId": _mostly(st.sampled_from([TRACE_ID, TRACE_ID.upper(), "W47/95gDgQPSabYzgT/GDA==", "0" * 32])),
        "spanId": _mostly(st.sampled_from(["eee19b7ec3c1b174", "7uGbfsPBsXQ="])),
        "traceState": _mostly(st.sampled_from(["", "ot=th:c", "ot=rv:1;th:8,x=y", "ot=th:zz", "th:c"])),
        "name": _mostly(_texts),
        "kind": _mostly(st.sampled_from([0, 1, 2, 3, 4, 5, 6, "2", "SPAN_KIND_SERVER", "Consumer", "front"])),
        "startTimeUnixNano": _mostly(_times),
        "start_time_unix_nano": _mostly(_times),
        "endTimeUnixNano": _mostly(_times),
        "attributes": _mostly(_attributes),
        "status": _mostly(st.fixed_dictionaries({}, optional={"code": _numbers | _texts, "message": _texts})),
        "events": _mostly(st.lists(st.fixed_dictionaries({"name": _texts, "attributes": _attributes}), max_size=1)),
        "flags": _mostly(st.integers(0, 300)),
    },
)
_scopes = st.fixed_dictionaries(
    {},
    optional={
        "scope": _mostly(st.fixed_dictionaries({"name": _texts}, optional={"version": _texts})),
        "spans": _mostly(st.lists(_mostly(spans), max_size=4)),
    },
)
_resources = st.fixed_dictionaries(
    {},
    optional={
        "resource": _mostly(st.fixed_dictionaries({"attributes": _mostly(_attributes)})),
        "scopeSpans": _mostly(st.lists(_mostly(_scopes), max_size=2)),
        "schemaUrl": _mostly(_texts),
    },
)
requests = mostly(
    st.lists(spans, min_size=1, max_size=4).map(lambda some: request(*some)),
    st.fixed_dictionaries({}, optional={"resourceSpans": _mostly(st.lists(_mostly(_resources), max_size=2)), "x": odd}),
)
"""Requests as JSON has them: mostly right, each part of them sometimes anything else."""


# -- requests of which protobuf's own JSON can be sure --------------------------------------------------------

_tidy_plain = st.one_of(
    st.sampled_from(["", "a", "http", "5"]), st.booleans(), st.integers(-5, 600), st.sampled_from([0.5, -1.0])
)
_tidy_values = st.recursive(
    _tidy_plain,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_keys, inner, max_size=2),
    max_leaves=3,
).map(any_value)
tidy_requests = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "traceId": st.just("W47/95gDgQPSabYzgT/GDA=="),
            "traceState": st.sampled_from(["", "ot=th:c", "ot=rv:1;th:8,x=y"]),
            "name": st.sampled_from(["", "a", "GET /"]),
            "kind": st.sampled_from([0, 1, 2, 3, 4, 5, "SPAN_KIND_SERVER"]),
            "startTimeUnixNano": _times,
            "endTimeUnixNano": _times,
            "attributes": st.lists(st.fixed_dictionaries({"key": _keys, "value": _tidy_values}), max_size=3),
            "status": st.fixed_dictionaries({}, optional={"code": st.integers(0, 2), "message": st.just("no")}),
        },
    ),
    min_size=1,
    max_size=4,
).map(lambda some: request(*some))
"""What a producer writes that keeps to the standard, but for ids, which protobuf's JSON has in base64."""

"""Fields of real producers that do not say what they seem to, what becomes of them, and why.

One row for each lie. The rows are the contract: whoever changes what becomes of one changes a verdict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pytest
from support.decoded import NOON, Event, Seen, record, seen
from support.spans import NOON_NS, TRACE_ID, attributes, request, span

ISO = "2026-01-28T12:00:00Z"
MASKED = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"
JSON: dict[str, Any] = {
    "format": "json",
    "fields": {
        "time": "time", "latency": "ms", "latency_unit": "ms", "failed": {"status": ">= 500"}, "trace_id": "trace",
        "id": "trace", "weight": "weight",
    },
}  # fmt: skip
SPANS: dict[str, Any] = {"format": "otlp_json"}


def json_source(**fields: Any) -> dict[str, Any]:
    """The source with other fields; None leaves one out."""
    return {**JSON, "fields": {name: path for name, path in {**JSON["fields"], **fields}.items() if path is not None}}


IN_US, IN_S, TIME_IN_MS = json_source(latency_unit="us"), json_source(latency_unit="s"), json_source(time_unit="ms")


class Lie(NamedTuple):
    """What a producer writes, what we make of it, and why."""

    source: Mapping[str, Any]
    value: Any
    expected: Seen
    why: str
    group_by: Sequence[str] = ()


def line(**changes: Any) -> dict[str, Any]:
    return {"time": ISO, "ms": 250, "status": 200, "trace": "a", **changes}


def of_span(**changes: Any) -> dict[str, Any]:
    return request(span(**changes))


OK = Event(latency=250_000, trace_id="a")
SPAN = Event(latency=250_000, trace_id=TRACE_ID)
BAD_VALUE, FUTURE = Seen([], [(0, 0, "bad_value")]), Seen([], [(0, 0, "future")])

LIES = {
    "a_time_in_seconds": Lie(JSON, line(time=NOON // 1000), Seen([OK]), "the magnitude tells the unit"),
    "a_time_in_milliseconds": Lie(JSON, line(time=NOON), Seen([OK]), "the magnitude tells the unit"),
    "a_time_in_nanoseconds": Lie(JSON, line(time=NOON_NS), Seen([OK]), "the magnitude tells the unit"),
    "a_time_as_text": Lie(JSON, line(time=str(NOON)), Seen([OK]), "JSON has no 64-bit integers, so many write text"),
    "a_local_time": Lie(
        JSON, line(time="2026-01-28T12:00:00"), BAD_VALUE, "whose clock it is nobody knows; hours off, it would be late"
    ),
    "a_date": Lie(JSON, line(time="2026-01-28"), BAD_VALUE, "a day is no time of an event"),
    "a_fast_clock": Lie(
        JSON, line(time="2026-01-28T12:05:00Z"), FUTURE, "it would move the watermark and make all others late"
    ),
    "a_slow_clock": Lie(
        JSON, line(time="2026-01-28T11:00:00Z"), Seen([Event(-3_600_000_000, latency=250_000, trace_id="a")]),
        "it may be a backlog; whether it is late, its pane decides",
    ),
    "a_time_of_zero": Lie(
        JSON, line(time=0), Seen([Event(-NOON * 1000, latency=250_000, trace_id="a")]), "1970 is a time, and late"
    ),
    "milliseconds_where_seconds_are_meant": Lie(
        json_source(time_unit="s"), line(time=NOON), BAD_VALUE, "the year 58046 is none"
    ),
    "microseconds_where_milliseconds_are_meant": Lie(
        TIME_IN_MS, line(time=NOON * 1000), BAD_VALUE, "the year 58046 is none; `auto` would have told the unit"
    ),
    "nanoseconds_where_milliseconds_are_meant": Lie(
        TIME_IN_MS, line(time=NOON_NS), BAD_VALUE, "no year at all; `auto` would have told the unit"
    ),
    "seconds_where_milliseconds_are_meant": Lie(
        TIME_IN_MS, line(time=NOON // 1000), Seen([Event(NOON - NOON * 1000, latency=250_000, trace_id="a")]),
        "1970 is a time, and late: whoever names a unit means it",
    ),
    "a_status_as_text": Lie(JSON, line(status="503"), Seen([Event(0, "failed", 250_000, (), 1, "a")]), "numeric text"),
    "a_status_of_minus_one": Lie(JSON, line(status=-1), Seen([OK]), "only the format knows that -1 is a crash"),
    "a_status_in_words": Lie(JSON, line(status="Internal Server Error"), Seen([OK]), "it is no number above 499"),
    "a_status_that_is_null": Lie(
        JSON, line(status=None), Seen([Event(0, "unknown", 250_000, (), 1, "a")]), "neither good nor bad"
    ),
    "a_crash_of_vercel": Lie(
        {"format": "vercel"},
        {"timestamp": NOON, "requestId": "a", "statusCode": -1, "proxy": {"timestamp": NOON, "statusCode": 502}},
        Seen([Event(0, "failed", None, (), 1, "a")]), "so its documentation says",
    ),
    "a_revalidation_of_vercel": Lie(
        {"format": "vercel"},
        {"timestamp": NOON, "requestId": "a", "statusCode": 500, "proxy": {"timestamp": NOON, "statusCode": -1}},
        Seen([], skipped=1), "nobody waited for it",
    ),
    "a_level": Lie(JSON, line(level="fatal"), Seen([OK]), "completions with status 500 are logged at info"),
    "a_duration_of_minus_one": Lie(
        JSON, line(ms=-1, status=500), Seen([Event(0, "failed", None, (), 1, "a")], bad_latencies=1),
        "not measured is no latency, but the failure is one",
    ),
    "a_negative_duration": Lie(
        JSON, line(ms=-250), Seen([Event(trace_id="a")], bad_latencies=1), "a clock was set back; its size says nothing"
    ),
    "a_start_after_its_end": Lie(
        json_source(latency={"from": "began", "to": "time"}, latency_unit=None), line(began="2026-01-28T12:00:00.250Z"),
        Seen([Event(trace_id="a")], bad_latencies=1), "two clocks; the event stays",
    ),
    "microseconds_of_duration_where_milliseconds_are_meant": Lie(
        JSON, line(ms=250_000), Seen([Event(latency=250_000_000, trace_id="a")]),
        "four minutes is a duration: no number tells its unit, so a source has to say it",
    ),
    "milliseconds_of_duration_where_microseconds_are_meant": Lie(
        IN_US, line(ms=250), Seen([Event(latency=250, trace_id="a")]),
        "so is a quarter of a millisecond: a cache may be that fast",
    ),
    "a_duration_in_words": Lie(
        JSON, line(ms="12ms"), Seen([Event(trace_id="a")], bad_latencies=1), "its unit may be another one tomorrow"
    ),
    "a_duration_of_a_whole_epoch": Lie(
        JSON, line(ms=NOON), Seen([Event(trace_id="a")], bad_latencies=1), "somebody forgot to subtract the start"
    ),
    "a_duration_of_a_whole_epoch_in_seconds": Lie(
        IN_S, line(ms=NOON // 1000), Seen([Event(trace_id="a")], bad_latencies=1), "so it is in the unit of the source"
    ),
    "a_duration_of_a_whole_epoch_in_a_larger_unit": Lie(
        JSON, line(ms=NOON // 1000), Seen([Event(latency=NOON, trace_id="a")]),
        "20 days may be how long a job took: only above 31 years a duration cannot be one",
    ),
    "a_masked_id": Lie(
        {**JSON, "dedup": 100, "batch": "array"}, [line(trace=MASKED)] * 2,
        Seen([Event(latency=250_000, trace_id=MASKED)] * 2), "the mask is the same for all, so it is nobody's id",
    ),
    "a_dashed_id": Lie(
        JSON, line(trace="0f8fad5b-d9cb-469f-a165-70867728950e"),
        Seen([Event(latency=250_000, trace_id="0f8fad5b-d9cb-469f-a165-70867728950e")]), "shown as it can be searched",
    ),
    "a_weight_of_zero": Lie(JSON, line(weight=0), BAD_VALUE, "an event that stands for none cannot be told from a bug"),
    "text_that_looks_like_markup": Lie(
        JSON, line(service="<script>alert(1)</script>"),
        Seen([Event(0, "good", 250_000, ("<script>alert(1)</script>",), 1, "a")]),
        "text is text; who shows it escapes it", ["service"],
    ),
    "text_that_looks_like_a_label": Lie(
        JSON, line(service='a",severity="page'), Seen([Event(0, "good", 250_000, ('a",severity="page',), 1, "a")]),
        "text is text; who writes labels escapes it", ["service"],
    ),
    "half_a_character": Lie(
        JSON, '{"time":"' + ISO + '","ms":250,"status":200,"trace":"a","service":"x\\ud83d"}',
        Seen([Event(0, "good", 250_000, ("x\ufffd",), 1, "a")]), "a producer cut the text in the middle", ["service"],
    ),
    "a_span_that_never_ended": Lie(
        SPANS, of_span(endTimeUnixNano="0"), Seen([], [(0, 0, "missing_time")]), "protobuf writes what is unset as 0"
    ),
    "a_span_that_never_began": Lie(
        SPANS, of_span(startTimeUnixNano="0"), Seen([Event(trace_id=TRACE_ID)]), "else it would have taken 56 years"
    ),
    "a_span_that_ended_before_it_began": Lie(
        SPANS, of_span(startTimeUnixNano=str(NOON_NS + 10**6)), Seen([Event(trace_id=TRACE_ID)], bad_latencies=1),
        "two clocks; the event stays",
    ),
    "a_span_in_milliseconds": Lie(
        SPANS, of_span(startTimeUnixNano=NOON - 250, endTimeUnixNano=NOON),
        Seen([Event(NOON // 1000 - NOON * 1000, latency=0, trace_id=TRACE_ID)]),
        "nanoseconds are the format's unit: half an hour after 1970 is late, and seen as such",
    ),
    "an_id_of_zeros": Lie(SPANS, of_span(traceId="0" * 32), Seen([Event(latency=250_000)]), "W3C: no id"),
    "an_id_in_base64": Lie(SPANS, of_span(traceId="W47/95gDgQPSabYzgT/GDA=="), Seen([SPAN]), "protobuf's own JSON"),
    "a_client_error_of_a_server": Lie(
        SPANS, of_span(attributes=attributes(http__response__status_code=404)), Seen([SPAN]), "the client's fault"
    ),
    "an_ok_with_a_5xx": Lie(
        SPANS, of_span(status={"code": 1}, attributes=attributes(http__response__status_code=500)),
        Seen([Event(0, "failed", 250_000, (), 1, TRACE_ID)]), "the caller saw a failure, whatever was set",
    ),
    "a_client_span_of_the_same_request": Lie(
        SPANS, of_span(kind=3), Seen([], skipped=1), "one request would count many times"
    ),
    "a_failed_run_with_a_score_of_null": Lie(
        {"format": "lighthouse"}, {"fetchTime": ISO, "categories": {"performance": {"score": None}}},
        Seen([Event(outcome="failed")]), "a failed run, not one with the score 0",
    ),
    "a_skipped_check": Lie(
        {"format": "drift"}, {"kind": "drift", "time": ISO, "status": "skipped"}, Seen([Event(outcome="unknown")]),
        "what did not run is not clean",
    ),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_what_becomes_of_a_field_that_lies(lie: Lie) -> None:
    assert seen(lie.source, record(0, lie.value), group_by=lie.group_by) == lie.expected, lie.why

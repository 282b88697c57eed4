"""The two encodings of OTLP, and the two ways of its JSON, are one; and no bytes raise."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fuzz.targets import check
from google.protobuf.json_format import ParseDict, ParseError
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support.payloads import documents, mostly, mutated
from support.spans import requests, tidy_requests

from evaluator.wire.config.matcher import Matcher
from evaluator.wire.formats import otlp, otlp_json, otlp_proto
from evaluator.wire.span import SpanReader

if TYPE_CHECKING:
    from evaluator.wire.formats import Read

PATHS = (
    "span.name", "span.kind", "span.status", "span.start", "span.end", "span.duration", "span.id", "span.trace_id",
    "span.weight", "scope.name", "a", "a.b", "a.b.c", "service.name", "http.status_code",
)  # fmt: skip
IDS = {"span.id", "span.trace_id"}
TYPED = SpanReader(PATHS, otlp_json.scopes_of)
LENIENT = SpanReader(PATHS, otlp_json.lenient)
PROTO = SpanReader(PATHS, otlp_proto.scopes_of())
EITHER = SpanReader(PATHS, otlp.scopes_of())


def encoded(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def shown(read: Read) -> tuple[object, ...]:
    """Everything in it; repr tells 1 from 1.0 and True."""
    columns = [repr(list(column)) for column in read.columns]
    return columns, read.count, read.position, read.index, read.faults, read.skipped


def rows(read: Read) -> list[tuple[object, ...]]:
    return [*zip(*read.columns, strict=True)]


payloads = mostly(requests.map(encoded) | requests.map(lambda value: json.dumps(value).encode()), documents | mutated())


def test_the_typed_way_never_answers_differently_from_the_lenient_one() -> None:
    examples, reached = 0, 0

    @given(st.lists(payloads, min_size=1, max_size=3))
    def law(values: list[bytes]) -> None:
        nonlocal examples, reached
        found = TYPED(values, ())
        assert shown(found) == shown(LENIENT(values, ()))
        examples += 1
        reached += bool(found.count)

    law()
    assert reached * 2 > examples


def test_a_request_means_the_same_as_json_and_as_protobuf() -> None:
    examples, reached = 0, 0

    @given(mostly(tidy_requests, requests))
    def law(value: dict[str, Any]) -> None:
        nonlocal examples, reached
        examples += 1
        if any(unlike in json.dumps(value) for unlike in (r"\ud83d", "start_time")):
            return  # no text for protobuf's own JSON, and a field that is there twice
        try:
            message = ParseDict(value, ExportTraceServiceRequest())
        except (ParseError, TypeError, AttributeError, ValueError):
            return  # it is stricter, too
        found, expected = TYPED([encoded(value)], ()), PROTO([message.SerializeToString()], ())
        if found.faults:
            return  # but not everywhere: it takes an empty list for a message
        reached += 1
        assert without_ids(found) == without_ids(expected)
        assert (found.position, found.index, found.skipped) == (expected.position, expected.index, expected.skipped)

    law()
    assert reached * 2 > examples


FILTERS = [
    {"span.kind": ["server", "consumer"]},
    {"span.kind": "client", "a": "*"},
    {"span.status": "!= error", "span.duration": "> 5"},
    {"span.name": "*"},
]


def test_a_filter_takes_away_spans_that_it_does_not_hold_for_and_changes_nothing_else() -> None:
    examples, reached = 0, 0

    @given(st.lists(payloads, min_size=1, max_size=3), st.lists(st.sampled_from(FILTERS), min_size=1, max_size=2))
    def law(values: list[bytes], cases: list[dict[str, object]]) -> None:
        nonlocal examples, reached
        where = Matcher.of(*cases)
        whole, less = TYPED(values, ()), SpanReader(PATHS, otlp_json.scopes_of, where=where)(values, ())
        of_whole, of_less = placed(whole), placed(less)
        assert (less.faults, less.skipped) == (whole.faults, whole.skipped + whole.count - less.count)
        assert [place for place in of_whole if place in of_less] == [*of_less]
        assert {place: repr(row) for place, row in of_less.items()} == {
            place: repr(of_whole[place]) for place in of_less
        }
        held = [place for place, row in of_whole.items() if where.holds(dict(zip(PATHS, row, strict=True)).get)]
        assert {*held} <= of_less.keys()
        if not any("a" in case for case in cases):
            assert [*of_less] == held
        examples += 1
        reached += less.count < whole.count

    law()
    assert reached * 4 > examples


def placed(read: Read) -> dict[tuple[int, int], tuple[object, ...]]:
    """The rows by record and index."""
    places = zip(read.position or (), read.index or (), strict=True)
    return dict(zip(places, rows(read), strict=True))


def without_ids(read: Read) -> list[object]:
    """The columns but those of ids, which protobuf's own JSON has in base64 only."""
    return [list(column) for path, column in zip(PATHS, read.columns, strict=True) if path not in IDS]


proto_messages = st.lists(
    st.sampled_from([b"\x0a", b"\x12", b"\x22", b"\x02", b"\x04", b"\x09", b"\x4a", b"\x00", b"a"])
)


@given(st.lists(st.one_of(st.binary(max_size=60), proto_messages.map(b"".join), payloads), max_size=4))
def test_no_bytes_raise_and_every_event_keeps_its_place(values: list[bytes]) -> None:
    for reader in (TYPED, PROTO, EITHER):
        check(reader(values, ()), values)


@given(st.lists(payloads, max_size=4))
def test_what_a_record_says_does_not_depend_on_its_neighbours(values: list[bytes]) -> None:
    whole = TYPED(values, ())
    alone = [TYPED([value], ()) for value in values]
    assert repr(rows(whole)) == repr([row for each in alone for row in rows(each)])
    assert [fault for _, _, fault in whole.faults] == [fault for each in alone for _, _, fault in each.faults]

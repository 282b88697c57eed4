"""How many events a record may have, and how many are taken in at once."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from itertools import repeat
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support.decoded import NOON, Event, Seen, config_of, record, seen, source_of, unfiltered

from evaluator.core.event import SECOND, EpochUs, SeriesTable
from evaluator.core.partial import IdleAdvance
from evaluator.runtime.aggregate_stage import AggregateStage, Timing
from evaluator.runtime.log.port import Fetched
from evaluator.runtime.topics import Topics
from evaluator.wire import formats
from evaluator.wire.decode import SourceDecoder
from evaluator.wire.formats import EVENTS_AT_ONCE
from evaluator.wire.records import Record, Records
from evaluator.wire.span import Scope, SpanReader

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from evaluator.runtime.log.port import Outgoing


SIZE = 4 * 2**20 - 200
"""A little below `max_record_bytes`."""


def full_of(piece: bytes, before: bytes = b"", after: bytes = b"") -> bytes:
    return before + piece * (SIZE // len(piece)) + after


def of_spans(piece: str, last: str, more: str = "") -> bytes:
    before = b'{"resourceSpans": [{' + more.encode() + b'"scopeSpans": [{"spans": ['
    return full_of(piece.encode(), before, f"{last}]}}]}}]}}".encode())


def delimited(field: int, content: bytes) -> bytes:
    """A field of protobuf with a length."""
    length, size = b"", len(content)
    while size >= 128:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([field << 3 | 2]) + length + bytes([size]) + content


EMPTY_SPANS = delimited(1, delimited(2, full_of(delimited(2, b""))))
EMPTY_SCOPES = delimited(1, full_of(delimited(2, b"")))
EMPTY_RESOURCES = full_of(delimited(1, b""))
OBJECTS, NUMBERS = full_of(b"{},", b"[", b"{}]"), full_of(b"0,", b"[", b"0]")


@pytest.mark.parametrize(
    ("source", "value"),
    [
        pytest.param({"format": "json", "batch": "array"}, OBJECTS, id="json array"),
        pytest.param({"format": "json", "batch": "array"}, NUMBERS, id="json array of numbers"),
        pytest.param({"format": "json", "batch": "array"}, full_of(b"[],", b"[", b'{"a.b": []}]'), id="json lenient"),
        pytest.param({"format": "json", "batch": "lines"}, full_of(b"{}\n"), id="json lines"),
        pytest.param({"format": "json", "batch": "lines"}, full_of(b"x\n"), id="json lines that are none"),
        pytest.param({"format": "json", "batch": "auto"}, full_of(b"x\n"), id="json auto"),
        pytest.param({"format": "json", "batch": "auto"}, full_of(b"{}\n"), id="json auto lines"),
        pytest.param({"format": "vercel"}, OBJECTS, id="vercel array"),
        pytest.param({"format": "vercel"}, full_of(b"{}\n"), id="vercel lines"),
        pytest.param({"format": "supabase"}, gzip.compress(OBJECTS), id="supabase gzip"),
        pytest.param({"format": "supabase"}, gzip.compress(NUMBERS), id="supabase gzip of numbers"),
        pytest.param({"format": "otlp_json"}, of_spans("{},", "{}"), id="otlp_json typed"),
        pytest.param({"format": "otlp_json"}, of_spans("{},", "{}", '"other": 1, '), id="otlp_json lenient"),
        pytest.param({"format": "otlp_json"}, of_spans("{},0,", "{}"), id="otlp_json with what is no span"),
        pytest.param(
            {"format": "otlp_json"}, full_of(b"{},", b'{"resourceSpans": [{"scopeSpans": [', b"{}]}]}"),
            id="otlp_json scopes",
        ),
        pytest.param({"format": "otlp_json"}, full_of(b"{},", b'{"resourceSpans": [', b"{}]}"), id="otlp_json roots"),
        pytest.param(
            {"format": "otlp_json"}, full_of(b"{},", b'{"other": 1, "resourceSpans": [', b"{}]}"),
            id="otlp_json lenient resources",
        ),
        pytest.param({"format": "otlp_proto"}, EMPTY_SPANS, id="otlp_proto"),
        pytest.param({"format": "otlp_proto"}, EMPTY_SCOPES, id="otlp_proto scopes"),
        pytest.param({"format": "otlp_proto"}, EMPTY_RESOURCES, id="otlp_proto resources"),
        pytest.param({"format": "otlp"}, EMPTY_SPANS, id="otlp of protobuf"),
        pytest.param({"format": "otlp"}, of_spans("{},", "{}"), id="otlp of json"),
    ],
)  # fmt: skip
def test_four_megabytes_of_the_smallest_event_are_one_fault(source: Mapping[str, Any], value: bytes) -> None:
    assert seen(source, record(0, value), record(1, b"")).rejections[0] == (0, 0, "too_large")


LINES = {"format": "json", "batch": "lines", "fields": {"time": "t"}}
LINE = json.dumps({"t": NOON}).encode()


@pytest.mark.parametrize(
    ("source", "event", "join"),
    [
        (LINES, LINE, b"\n%s"),
        ({**LINES, "batch": "array"}, LINE, b"[%s]"),
        ({**LINES, "batch": "auto"}, LINE, b"\n%s"),
        ({"format": "vercel", "where": {"t": "*"}, **LINES, "batch": "auto"}, LINE, b"[%s]"),
    ],
)
def test_a_record_may_have_as_many_events_as_the_source_says(
    source: Mapping[str, Any], event: bytes, join: bytes
) -> None:
    def of(count: int) -> bytes:
        return join % (b"," if b"[" in join else b"\n").join([event] * count)

    limited = {**source, "max_record_events": 3}
    found = seen(limited, record(0, of(3)), record(1, of(4)), record(2, of(1)))
    assert found == Seen([Event(outcome="unknown")] * 4, [(1, 0, "too_large")])


@pytest.mark.parametrize("name", ["otlp_proto", "otlp_json"])
def test_spans_of_all_scopes_and_resources_count(name: str) -> None:
    def of(*spans: int) -> bytes:
        made = ExportTraceServiceRequest()
        for count in spans:
            scope = made.resource_spans.add().scope_spans.add()
            for _ in range(count):
                scope.spans.add(kind=2, end_time_unix_nano=NOON * 10**6, start_time_unix_nano=NOON * 10**6)
        if name == "otlp_proto":
            return made.SerializeToString()
        span = {"kind": 2, "endTimeUnixNano": NOON * 10**6, "startTimeUnixNano": NOON * 10**6}
        return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span] * count}]} for count in spans]}).encode()

    limited = {"format": name, "max_record_events": 3}
    found = seen(limited, record(0, of(1, 2)), record(1, of(2, 2)), record(2, of(3)), record(3, of(4)))
    assert (len(found.events), found.rejections) == (6, [(1, 0, "too_large"), (3, 0, "too_large")])


def test_spans_count_once_whatever_stands_between_them() -> None:
    """Scopes of a thousand with a key that nobody knows, and scopes of which half are no spans."""
    full = [{"other": 1, "spans": [{"kind": 2}] * 1000}] * 20
    mixed = [{"spans": [{"kind": 2}, 0]}] * 6700
    for scopes, events in ((full, 20_000), (mixed, 6700)):
        value = json.dumps({"resourceSpans": [{"scopeSpans": scopes}]}).encode()
        source = source_of({"format": "otlp_json"})
        records = Records.of([record(0, value)])
        assert formats.get("otlp_json").reader(source, ())(records.values, records).count == events  # type: ignore[arg-type]


def test_the_letter_says_what_to_raise() -> None:
    source = source_of({**LINES, "max_record_events": 2})
    decoded = SourceDecoder(source).decode(
        [record(0, LINE + b"\n" + LINE + b"\n" + LINE)], SeriesTable({"surface": 9}), None
    )
    assert [each.detail for each in decoded.rejections] == ["more than 2 events, which is max_record_events"]


def test_no_more_spans_are_made_than_may_be_there() -> None:
    """It would never end."""
    endless: Iterator[Scope] = repeat(Scope((), None, (), lambda _, __: {}))
    read = SpanReader(["span.name"], lambda _: endless, 1000)([b""], Records.of([]))
    assert (read.count, [fault.reason for *_, fault in read.faults]) == (0, ["too_large"])


# -- in one turn ---------------------------------------------------------------------------------------------

EACH = 3000
BATCH = b"\n".join(json.dumps({"t": NOON + number, "s": number % 7}).encode() for number in range(EACH))
TURN = -(-EVENTS_AT_ONCE // EACH)
"""Records of so many events that a turn takes: up to the one with which there are enough."""
RULED: Mapping[str, Any] = {**LINES, "fields": {"time": "t", "failed": {"s": "3"}}}


@pytest.mark.parametrize("name", ["json", "supabase", "otlp_proto", "otlp_json"])
def test_a_reader_stops_behind_the_record_with_which_there_are_enough(name: str) -> None:
    spans = ExportTraceServiceRequest()
    for _ in range(EACH):
        spans.resource_spans.add().scope_spans.add().spans.add(kind=2)
    value = {
        "otlp_proto": spans.SerializeToString(),
        "otlp_json": json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [{}] * EACH}]}]}).encode(),
    }.get(name, b"[" + b",".join([b"{}"] * EACH) + b"]")
    source = unfiltered(source_of({"format": name, **({"batch": "array"} if name == "json" else {})}))
    reader = formats.get(name).reader(source, ("span.name",))
    records = Records.of([record(offset, value) for offset in range(TURN + 3)])
    read = reader(records.values, records)  # type: ignore[arg-type]  # none of them is None
    assert (read.until, read.count, (read.position or [])[-1]) == (TURN, TURN * EACH, TURN - 1)
    whole = records[:TURN]
    assert reader(whole.values, whole).until is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value", "most"),
    [
        ("json", b"[" + b"0," * (EACH - 1) + b"0]", TURN),
        ("json", b"[]", EVENTS_AT_ONCE),
        ("json", b"[" + b"0," * 20_000 + b"0]", 1),
        ("otlp_json", json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [0] * EACH}]}]}).encode(), TURN),
        ("otlp_json", json.dumps({"resourceSpans": [{}] * EACH}).encode(), TURN),
        ("otlp_json", json.dumps({"resourceSpans": [{}] * 20_001}).encode(), 1),
        ("supabase", gzip.compress(b"[" + b"0," * (EACH - 1) + b"0]"), TURN),
    ],
)
def test_what_gives_no_event_counts_as_well(name: str, value: bytes, most: int) -> None:
    """Nothing but faults, or nothing at all, takes as long."""
    source = source_of({"format": name, **({"batch": "array"} if name == "json" else {})})
    records = Records.of([record(offset, value) for offset in range(most + 1)])
    read = formats.get(name).reader(source, ("span.name",))(records.values, records)  # type: ignore[arg-type]
    assert (read.count, read.until) == (0, most)


def test_records_behind_the_turn_are_counted_when_they_are_read() -> None:
    """Those without a value, and those that are too large, are seen before anything is parsed."""
    big = b"x" * (len(BATCH) + 1)
    values = [None, BATCH, big, *[BATCH] * (TURN - 1), None, big, BATCH]
    records = [Record(10 + at, NOON, None, value) for at, value in enumerate(values)]
    source = source_of({**RULED, "max_record_bytes": f"{len(BATCH)}B"})
    decoder, table = SourceDecoder(source), SeriesTable({"surface": 9})
    first = decoder.decode(records, table, None)
    assert (first.records, len(first.events), first.skipped) == (TURN + 4, TURN * EACH, 2)
    assert [each.offset for each in first.rejections] == [12, 10 + TURN + 3]
    second = decoder.decode(records[first.records :], table, None)
    assert (second.records, len(second.events), second.skipped, second.rejections) == (1, EACH, 0, [])


def stage_of(source: Mapping[str, Any], idle: tuple[IdleAdvance, ...] = ()) -> AggregateStage:
    alerts = {"A": {"surface": "surface", "when": "error_count > 1", "window": "1m", "severity": "page"}}
    config = config_of(source, alerts=alerts)
    return AggregateStage(config, "events", 0, 1, 4, Topics("app"), Timing(SECOND), Counter(), idle)


def taken_in(
    stage: AggregateStage, fetched: Fetched
) -> tuple[list[int], Sequence[Outgoing], Mapping[tuple[str, ...], int]]:
    """The offsets at which it wanted a turn for the others, what it wrote at the end, what it counted."""
    stops: list[int] = []
    rest: Fetched | None = fetched
    while rest is not None:
        rest = stage.apply(rest)
        stops.append(stage.next_offset)
    outbox = stage.freeze(EpochUs((NOON + 10**6) * 1000))
    assert outbox is not None
    return stops, outbox.records, stage.tallies


def fetch(count: int) -> Fetched:
    return Fetched([record(offset, BATCH) for offset in range(count)], count, count, EpochUs(NOON * 1000))


def test_a_fetch_of_many_events_is_taken_in_in_turns_and_comes_out_as_if_it_were_many_fetches() -> None:
    count = 2 * TURN + 1
    in_turns, one_by_one = stage_of(RULED), stage_of(RULED)
    for stage in (in_turns, one_by_one):
        stage.restore([], (0, 0), None)
        stage.freeze(EpochUs(NOON * 1000))
    whole = fetch(count)
    for at in range(count - 1):
        piece = whole._replace(records=whole.records[at : at + 1], next_offset=at + 1)
        assert one_by_one.apply(piece) is None
    stops, *written = taken_in(in_turns, whole)
    assert stops == [TURN, 2 * TURN, count]
    _, *expected = taken_in(one_by_one, whole._replace(records=whole.records[-1:]))
    assert written == expected
    assert in_turns.tallies["records", "events", "ok"] == count * EACH


def test_decisions_of_a_clock_keep_their_place_between_turns() -> None:
    """Everything after the advance is late: it is taken in at its offset, in the middle of the second turn."""
    at = TURN + 2
    stage = stage_of(RULED, (IdleAdvance(at, EpochUs((NOON + 10**7) * 1000)),))
    stage.restore([], (0, 0), None)
    stage.freeze(EpochUs(NOON * 1000))
    stops, _, tallies = taken_in(stage, fetch(2 * TURN + 1))
    assert stops == [TURN, 2 * TURN + 1]
    assert tallies["late", "surface"] == (2 * TURN + 1 - at) * EACH


def test_ids_before_a_restart_are_learned_in_turns() -> None:
    source = {**RULED, "dedup": 100, "fields": {**RULED["fields"], "id": "t"}}
    first = stage_of(source)
    first.restore([], (0, 0), None)
    first.freeze(EpochUs(NOON * 1000))
    count = TURN + 2
    _, written, _ = taken_in(first, fetch(count))
    stored = [Record(at, NOON, each.key, each.value) for at, each in enumerate(written)
              if each.topic == first.own.topic]  # fmt: skip
    again = stage_of(source)
    again.restore(stored, (0, count), None)
    assert again.next_offset == 0
    stops, _, tallies = taken_in(again, fetch(count + 1))
    assert stops == [TURN, count + 1]
    assert (tallies["duplicates", "events"], tallies["records", "events", "ok"]) == (EACH, 0)

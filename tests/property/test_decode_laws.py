"""Laws of decoding, over payloads that real and hostile producers send."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.payloads import documents, encoded, mostly, mutated, objects, plain_values

from evaluator.core.event import MAX_LATENCY, EpochUs, SeriesTable
from evaluator.core.rule import GroupField
from evaluator.wire.column import ABSENT, BAD, latencies, times
from evaluator.wire.config.matcher import Matcher, parse_test
from evaluator.wire.config.model import FieldsConfig, SourceConfig, SurfaceConfig
from evaluator.wire.decode import Decoded, SourceDecoder
from evaluator.wire.dedup import Dedup
from evaluator.wire.instant import instant
from evaluator.wire.number import micros, number_of
from evaluator.wire.records import Record

BATCHES = ("one", "array", "lines", "auto")


raw_numbers = st.one_of(
    st.integers(-10, 10**20),
    st.integers(10**12, 10**13),
    st.floats(-10, 1e20),
    st.floats(0, 1e13),
    st.sampled_from([0, -0.0, 0.5, 1.5, 2.5, -0.5, 500, 1500, 2500, -500, 10**11, 10**14, 10**17, 10**15, 10**15 + 1,
                     10**12, 10**12 + 0.5, 253_402_300_799, 253_402_300_800, 253402300799999999, 253402300800000000,
                     2.534023008e17, 2**53 + 1, 2.0**53, 2**63, 1e308, -1e308, float("inf"), float("-inf"), 10**400]),
)  # fmt: skip
one_kind = st.one_of(
    st.lists(st.integers(10**12, 2 * 10**12)),
    st.lists(st.floats(0, 1e6)),
    st.lists(st.one_of(st.integers(0, 10**6), st.floats(0, 1e6))),
)
iso_times = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(
            ["2026-01-28T12:00", "2026-01-28 12:00", "1970-01-01T00:00", "9999-12-31T23:59", "2026-02-29T1:00"]
        ),
        st.sampled_from([":00", ":59", ":60", "", ":0", "Z"]),
        st.sampled_from([".5", ".0000005", ".9999999", ".", "", "0"]),
        st.sampled_from(["Z", "+01", "-0130", "+24:00", "", "z", "+01:60"]),
    ),
)
columns = st.one_of(
    one_kind,
    st.lists(iso_times | st.just("1769601600000")),
    st.lists(raw_numbers),
    st.lists(st.one_of(raw_numbers, st.none(), st.booleans(), st.text(max_size=3), raw_numbers.map(str))),
)


@given(columns, st.sampled_from(["s", "ms", "us", "ns", "auto"]))
def test_a_column_of_times_is_what_each_time_is_alone(column: list[object], unit: str) -> None:
    expected = [ABSENT if value is None else BAD if (at := instant(value, unit)) < 0 else at for value in column]
    assert times(tuple(column), unit).tolist() == expected


@given(columns, st.sampled_from(["s", "ms", "us", "ns"]))
def test_a_column_of_latencies_is_what_each_latency_is_alone(column: list[object], unit: str) -> None:
    def alone(value: object) -> int:
        number = number_of(value)
        length = None if number is None else micros(number, unit)
        return ABSENT if value is None else length if length is not None and 0 <= length <= MAX_LATENCY else BAD

    assert latencies(tuple(column), unit).tolist() == [alone(value) for value in column]


T0 = 1_769_601_600_000


def matcher(**tests: object) -> Matcher:
    return Matcher((tuple((path, parse_test(test)) for path, test in tests.items()),))


SOURCE = SourceConfig(
    "events",
    "t",
    "json",
    FieldsConfig(
        time="t", latency="http.status", latency_unit="ms", failed=matcher(status=">= 500"), trace_id="user.id",
        id="user.name.first", weight="w",
    ),
    (
        SurfaceConfig("a", Matcher(((("user.id", parse_test("u1")),),)), (GroupField("status", "status"),), 3),
        SurfaceConfig("b", matcher(key="k"), (GroupField("header:h", "h"), GroupField("user.name", "name"))),
    ),
    where=matcher(other="!= null"),
    max_record_bytes=5000,
    dedup=2,
)  # fmt: skip

timed = st.builds(
    lambda late, text: text.removesuffix("}") + (", " if text != "{}" else "") + f'"t":{T0 + late}}}',
    st.integers(-60_000, 45_000),
    objects(plain_values),
).map(encoded)
timed_arrays = st.lists(timed, max_size=3).map(lambda events: b"[" + b",".join(events) + b"]")


def record_runs(events: st.SearchStrategy[bytes]) -> st.SearchStrategy[list[Record]]:
    """Runs of records of one partition, most of which hold `events`."""
    steps = st.tuples(
        st.integers(1, 3),
        st.sampled_from([T0, T0, T0 + 10_000, -1, 0, None, 2**63 - 1, -(2**63)]),
        st.sampled_from([None, b"k", b"\xff"]),
        mostly(events, st.one_of(st.none(), documents, mutated(), st.binary(max_size=20))),
        st.sampled_from([(), (("h", b"v"),), (("h", None),), (("h", b"\xff"),)]),
    )
    return st.lists(steps, min_size=2, max_size=12).map(placed)


def placed(steps: list[tuple[Any, ...]]) -> list[Record]:
    """Records whose offsets are the sums of the steps."""
    offsets = accumulate(step for step, *_ in steps)
    return [Record(offset, *rest) for offset, (_, *rest) in zip(offsets, steps, strict=True)]


records = record_runs(timed)
clocks = st.sampled_from([None, T0 * 1000, (T0 - 20_000) * 1000])


def table() -> SeriesTable:
    return SeriesTable({surface.name: surface.max_series for surface in SOURCE.surfaces})


def columns_of(decoded: list[Decoded]) -> tuple[object, ...]:
    """Everything that was decoded, put together."""
    batches = [each.events for each in decoded]
    return (
        [offset for each in batches for offset in each.offset.tolist()],
        [time for each in batches for time in each.time.tolist()],
        [failed for each in batches for failed in each.failed.tolist()],
        [latency for each in batches for latency in each.latency.tolist()],
        [series for each in batches for series in each.series.tolist()],
        [trace for each in batches for trace in each.trace_ids(range(len(each)))],
        [w for each in batches for w in ([1] * len(each) if each.weight is None else each.weight.tolist())],
        [rejection for each in decoded for rejection in each.rejections],
        [sum(counts) for counts in zip(*((each.skipped, each.duplicates, each.bad_latencies, each.unmatched,
                                           each.oversized_groups, each.ok) for each in decoded), strict=True)],
    )  # fmt: skip


@pytest.mark.parametrize("batch", BATCHES)
def test_no_bytes_raise_out_of_decode_and_every_record_is_accounted_for(batch: str) -> None:
    examples, reached = 0, 0
    source = replace(SOURCE, batch=batch)  # type: ignore[arg-type]  # one of them

    @given(record_runs(timed_arrays if batch == "array" else timed), clocks)
    def law(sent: list[Record], now: int | None) -> None:
        nonlocal examples, reached
        decoded = SourceDecoder(source).decode(sent, table(), None if now is None else EpochUs(now))
        examples += 1
        reached += decoded.ok > 0
        accounted = decoded.ok + decoded.skipped + decoded.duplicates + len(decoded.rejections)
        assert accounted == len(sent) if batch == "one" else accounted >= len(sent)
        assert all(len(column) == decoded.ok for column in (decoded.events.series, decoded.events.time))

    law()
    assert reached * 2 > examples


@given(records, clocks, st.sets(st.integers(0, 12)))
def test_how_a_log_is_cut_into_batches_changes_nothing(sent: list[Record], now: int | None, cuts: set[int]) -> None:
    clock = None if now is None else EpochUs(now)
    whole = SourceDecoder(SOURCE).decode(sent, table(), clock)
    edges = sorted({0, len(sent)} | {cut for cut in cuts if cut < len(sent)})
    in_pieces, shared = SourceDecoder(SOURCE), table()
    pieces = [in_pieces.decode(sent[a:b], shared, clock) for a, b in pairwise(edges)]
    assert columns_of(pieces or [in_pieces.decode([], shared, clock)]) == columns_of([whole])


@given(records, clocks, st.integers(0, 12))
def test_recorded_decisions_take_the_place_of_the_clock_also_across_a_restart(
    sent: list[Record], now: int | None, restart: int
) -> None:
    undisturbed, first = SourceDecoder(SOURCE), table()
    before = undisturbed.decode(sent[:restart], first, None if now is None else EpochUs(now))
    after = undisturbed.decode(sent[restart:], first, None if now is None else EpochUs(now))
    recorded = {(r.offset, r.index) for each in (before, after) for r in each.rejections if r.by_clock}

    again, second = SourceDecoder(SOURCE), table()
    again.decode(sent[:restart], second, None, recorded)
    restarted = SourceDecoder(SOURCE)
    start = sent[restart].offset if restart < len(sent) else 0
    restarted.prime([each for each in sent[:restart] if each.offset >= start - SOURCE.dedup], recorded)
    without_detail = [replace(r, detail="") for r in after.rejections]
    repeated = restarted.decode(sent[restart:], second, None, recorded)
    assert [replace(r, detail="") for r in repeated.rejections] == without_detail
    assert columns_of([replace(repeated, rejections=[])]) == columns_of([replace(after, rejections=[])])


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["a", "b", "c", ""])), max_size=30), st.integers(1, 4)
)  # fmt: skip
def test_duplicates_are_a_function_of_the_offsets(steps: list[tuple[int, str]], reach: int) -> None:
    dedup, offset = Dedup(reach), 0
    seen: list[tuple[int, str]] = []
    for step, identity in steps:
        offset += step
        earlier = any(each == identity and at >= offset - reach for at, each in seen)
        assert dedup.fresh(offset, identity) is (not identity or not earlier)
        assert len(dedup) <= len({each for at, each in seen if at >= offset - reach} | {identity})
        seen.append((offset, identity))

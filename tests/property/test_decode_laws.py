"""Laws of decoding, over payloads that real and hostile producers send."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluator.core.event import MAX_LATENCY, EpochUs, SeriesTable
from evaluator.core.rule import GroupField
from evaluator.wire.column import ABSENT, BAD, latencies, times
from evaluator.wire.config.matcher import Matcher, parse_test
from evaluator.wire.config.model import FieldsConfig, SourceConfig, SurfaceConfig
from evaluator.wire.decode import Decoded, SourceDecoder
from evaluator.wire.dedup import Dedup
from evaluator.wire.formats.json import JsonReader
from evaluator.wire.instant import instant
from evaluator.wire.number import micros, number_of

PATHS = ("t", "status", "user.id", "user.name.first", "http.status", "\u00e9")
BATCHES = ("one", "array", "lines", "auto")

# Tokens are written as text: most of what matters here no JSON library would write.
ODD_VALUES = [
    "null", "true", "false", "0", "-0", "-0.0", "1.0", "1e5", "1E-5", "1e400", "-1e400", "1e-400", "NaN", "Infinity",
    "-Infinity", "01", "1.", ".5", "+1", "--1", "9007199254740993", "18446744073709551616", "1" * 40, "1" * 4300,
    "-" + "1" * 4300, "1" * 4301, "1" * 400 + ".5", '""', '"x"', '"12"', '"1e3"', '"\\u0041"', '"\\ud83d"',
    '"\\udc00x"', '"\\ud83d\\ude00"', '"\\ud83d\\u0041"', '"\\x"', '"\x01"', '"\x7f"', '"\u00e9"', '"a', "[]", "[1]",
    '[["x"]]', "[1,2]", "{}", '{"id":1}', "[[", "]", "tru", "", "[null]", '[{"id":[7]}]', '"2026-01-28T12:00:00Z"',
    "1769601600000", "1769601600000.5", "[" * 150 + "]" * 150, "[" * 199 + "]" * 199, "[" * 200 + "]" * 200,
    "[" * 201 + "]" * 201, '{"a":' * 198 + "1" + "}" * 198, '{"a":' * 250 + "1" + "}" * 250, '"' + "[" * 300 + '"',
    '"' + '\\"[' * 300 + '"', '{"id":1,"id":"x"}', '{"id":1,"name":null}', '{"name":{"first":"a"},"id":2.5}',
    '{"name":[{"first":"a"}]}', '{"name.first":"b"}', '{"status":500}',
]  # fmt: skip
KEYS = [
    "t", "status", "user", "id", "http", "user.id", "user.name", "user.name.first", "name.first", "http.status",
    "\u00e9", "\\u00e9", "\\u0074", "sta\\u0074us", "other", "", "t ", "\\ud800",
]  # fmt: skip

plain_values = st.one_of(
    st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=8), st.booleans(), st.none()
).map(lambda value: json.dumps(value))
values = st.one_of(plain_values, st.sampled_from(ODD_VALUES))
spaces = st.sampled_from(["", "", "", " ", "\n", "\t\r\n", "\x0b", "\ufeff"])


@st.composite
def objects(draw: st.DrawFn, value: st.SearchStrategy[str] = values) -> str:
    members = draw(st.lists(st.tuples(st.sampled_from(KEYS), value), max_size=5))
    user = draw(st.sampled_from(["", '"user":{"id":"u1","name":{"first":"f"}}', '"user":{"id":7}']))
    texts = [f'"{key}":{each}' for key, each in members] + ([user] if user else [])
    return "{" + ",".join(draw(st.permutations(texts))) + "}"


documents = st.one_of(
    objects(plain_values),
    objects(),
    values,
    st.builds(lambda a, text, b: a + text + b, spaces, objects(), spaces),
    st.lists(objects(), max_size=4).map(lambda events: "[" + ",".join(events) + "]"),
    st.lists(st.one_of(objects(), values), max_size=4).map("\n".join),
).map(lambda text: text.encode("utf-8", "surrogatepass"))


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    value = bytearray(draw(documents))
    for _ in range(draw(st.integers(0, 3)) if value else 0):
        at = draw(st.integers(0, len(value) - 1))
        value[at : at + draw(st.integers(0, 2))] = draw(st.one_of(st.binary(max_size=2), st.sampled_from(
            [b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b'"', b"\\", b"{", b"]", b",", b"\n", b"\x00", b"e", b"."]
        )))  # fmt: skip
    return bytes(value)


class Count:
    """How many examples of a law there were, and how many reached what it is about."""

    def __init__(self) -> None:
        self.examples = self.reached = 0


@pytest.mark.parametrize("batch", BATCHES)
def test_the_typed_way_never_answers_differently_from_the_lenient_one(batch: str) -> None:
    count = Count()
    typed, lenient = JsonReader(PATHS, batch), JsonReader(PATHS, batch, typed=False)
    assert typed._typed is not None  # noqa: SLF001  # else there is nothing to compare

    @settings(max_examples=600, deadline=None)
    @given(st.lists(st.one_of(documents, documents, mutated()), min_size=1, max_size=4))
    def law(payloads: list[bytes]) -> None:
        found, expected = typed(payloads, ()), lenient(payloads, ())
        count.examples += 1
        count.reached += bool(found.rows)
        # Rows of one event a record need no positions; repr tells 1 from 1.0 and True.
        position = found.position if found.position is not None else list(range(len(payloads)))
        index = found.index if found.index is not None else [0] * len(payloads)
        assert repr(found.rows) == repr(expected.rows)
        assert (position, index) == (expected.position, expected.index)
        assert (found.faults, found.skipped) == (expected.faults, expected.skipped)

    law()
    assert count.reached * 2 > count.examples


def test_every_odd_value_alone_is_read_the_same_in_both_ways() -> None:
    typed, lenient = JsonReader(PATHS, "one"), JsonReader(PATHS, "one", typed=False)
    for key in KEYS:
        payloads = [f'{{"{key}":{value},"status":200}}'.encode() for value in ODD_VALUES]
        found, expected = typed(payloads, ()), lenient(payloads, ())
        assert repr(found.rows) == repr(expected.rows)
        assert found.faults == expected.faults


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
columns = st.one_of(
    one_kind,
    st.lists(raw_numbers),
    st.lists(st.one_of(raw_numbers, st.none(), st.booleans(), st.text(max_size=3), raw_numbers.map(str))),
)


@settings(max_examples=500, deadline=None)
@given(columns, st.sampled_from(["s", "ms", "us", "ns", "auto"]))
def test_a_column_of_times_is_what_each_time_is_alone(column: list[object], unit: str) -> None:
    expected = [ABSENT if value is None else BAD if (at := instant(value, unit)) < 0 else at for value in column]
    assert times(tuple(column), unit).tolist() == expected


@settings(max_examples=500, deadline=None)
@given(columns, st.sampled_from(["s", "ms", "us", "ns"]))
def test_a_column_of_latencies_is_what_each_latency_is_alone(column: list[object], unit: str) -> None:
    def alone(value: object) -> int:
        number = number_of(value)
        length = None if number is None else micros(number, unit)
        return ABSENT if value is None else length if length is not None and 0 <= length <= MAX_LATENCY else BAD

    assert latencies(tuple(column), unit).tolist() == [alone(value) for value in column]


T0 = 1_769_601_600_000


class Rec(NamedTuple):
    offset: int
    timestamp: int | None
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


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
    lambda late, text: text.replace("{", f'{{"t":{T0 + late},', 1).replace(",}", "}"),
    st.integers(-60_000, 60_000),
    objects(),
).map(lambda text: text.encode("utf-8", "surrogatepass"))
records = st.lists(
    st.tuples(
        st.integers(1, 3),
        st.sampled_from([T0, T0, T0 + 10_000, -1, 0, None, 2**63 - 1, -(2**63)]),
        st.sampled_from([None, b"k", b"\xff"]),
        st.one_of(st.none(), timed, timed, timed, documents, mutated(), st.binary(max_size=20)),
        st.sampled_from([(), (("h", b"v"),), (("h", None),), (("h", b"\xff"),)]),
    ),
    max_size=12,
).map(
    lambda rows: [
        Rec(sum(step for step, *_ in rows[: number + 1]), *rest) for number, (_, *rest) in enumerate(rows)
    ]
)
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
        [trace for each in batches for trace in each.trace_id],
        [w for each in batches for w in ([1] * len(each) if each.weight is None else each.weight.tolist())],
        [rejection for each in decoded for rejection in each.rejections],
        [sum(counts) for counts in zip(*((each.skipped, each.duplicates, each.bad_latencies, each.unmatched,
                                           each.oversized_groups, each.ok) for each in decoded), strict=True)],
    )  # fmt: skip


@pytest.mark.parametrize("batch", BATCHES)
def test_no_bytes_raise_out_of_decode_and_every_record_is_accounted_for(batch: str) -> None:
    count = Count()
    source = replace(SOURCE, batch=batch)  # type: ignore[arg-type]  # one of them

    @settings(max_examples=200, deadline=None)
    @given(records, clocks)
    def law(sent: list[Rec], now: int | None) -> None:
        decoded = SourceDecoder(source).decode(sent, table(), None if now is None else EpochUs(now))
        count.examples += len(sent) > 0
        count.reached += decoded.ok > 0
        accounted = decoded.ok + decoded.skipped + decoded.duplicates + len(decoded.rejections)
        assert accounted == len(sent) if batch == "one" else accounted >= len(sent)
        assert all(len(column) == decoded.ok for column in (decoded.events.series, decoded.events.trace_id))

    law()
    assert count.reached * 2 > count.examples or batch == "array"


@settings(max_examples=300, deadline=None)
@given(records, clocks, st.sets(st.integers(0, 12)))
def test_how_a_log_is_cut_into_batches_changes_nothing(sent: list[Rec], now: int | None, cuts: set[int]) -> None:
    clock = None if now is None else EpochUs(now)
    whole = SourceDecoder(SOURCE).decode(sent, table(), clock)
    edges = sorted({0, len(sent)} | {cut for cut in cuts if cut < len(sent)})
    in_pieces, shared = SourceDecoder(SOURCE), table()
    pieces = [in_pieces.decode(sent[a:b], shared, clock) for a, b in zip(edges, edges[1:], strict=False)]
    assert columns_of(pieces or [in_pieces.decode([], shared, clock)]) == columns_of([whole])


@settings(max_examples=300, deadline=None)
@given(records, clocks, st.integers(0, 12))
def test_recorded_decisions_take_the_place_of_the_clock_also_across_a_restart(
    sent: list[Rec], now: int | None, restart: int
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


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["a", "b", "c", ""])), max_size=30), st.integers(1, 4)
)  # fmt: skip
def test_duplicates_are_a_function_of_the_offsets(steps: list[tuple[int, str]], reach: int) -> None:
    dedup, seen, offset = Dedup(reach), [], 0
    for step, identity in steps:
        offset += step
        earlier = any(each == identity and at >= offset - reach for at, each in seen)
        assert dedup.fresh(offset, identity) is (not identity or not earlier)
        assert len(dedup) <= len({each for at, each in seen if at >= offset - reach} | {identity})
        seen.append((offset, identity))

"""From records to event columns: what becomes of each event, and in which order that is decided."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from evaluator.core.event import FAILED, GOOD, NO_LATENCY, NO_SCORE, UNKNOWN, UNMATCHED, EpochUs, SeriesKey, SeriesTable
from evaluator.core.rule import GroupField
from evaluator.wire.config.matcher import Matcher, parse_test
from evaluator.wire.config.model import FieldsConfig, LatencySpan, SourceConfig, SurfaceConfig
from evaluator.wire.decode import Decoded, Reason, SourceDecoder
from evaluator.wire.records import Record
from evaluator.wire.rejection import KEPT

if TYPE_CHECKING:
    from collections.abc import Collection

T0 = 1_769_601_600_000
"""2026-01-28T12:00:00Z in milliseconds."""


def matcher(**tests: object) -> Matcher:
    return Matcher((tuple((path.replace("__", "."), parse_test(test)) for path, test in tests.items()),))


FIELDS = FieldsConfig(time="t", latency="ms", latency_unit="ms", failed=matcher(status=">= 500"), trace_id="trace")
SOURCE = SourceConfig("events", "t.events", "json", FIELDS, (SurfaceConfig("api"),))


def record(offset: int = 0, timestamp: int | None = T0, **event: object) -> Record:
    return Record(offset, timestamp, None, json.dumps({"t": T0, **event}).encode())


def table_of(source: SourceConfig) -> SeriesTable:
    return SeriesTable({surface.name: surface.max_series for surface in source.surfaces})


def decode(
    *records: Record, source: SourceConfig = SOURCE, now: int | None = None, recorded: Collection[tuple[int, int]] = ()
) -> Decoded:
    clock = None if now is None else EpochUs(now)
    return SourceDecoder(source).decode(records, table_of(source), clock, recorded)


def reasons(decoded: Decoded) -> list[tuple[int, int, str]]:
    return [(each.offset, each.index, str(each.reason)) for each in decoded.rejections]


def with_fields(source: SourceConfig = SOURCE, **fields: object) -> SourceConfig:
    return replace(source, fields=replace(source.fields, **fields))  # type: ignore[arg-type]  # any of its fields


def test_events_become_columns() -> None:
    decoded = decode(
        record(7, status=200, ms=12.5, trace="abc"), record(9, status="503", ms=-1), record(10, ms=None, trace=12)
    )
    events = decoded.events
    assert events.offset.tolist() == [7, 9, 10]
    assert events.time.tolist() == [T0 * 1000] * 3
    assert events.failed.tolist() == [GOOD, FAILED, UNKNOWN]
    assert events.latency.tolist() == [12_500, NO_LATENCY, NO_LATENCY]
    assert events.series.tolist() == [0, 0, 0]
    assert events.trace_ids([0, 1, 2]) == ["abc", "", "12"]
    assert events.weight is None
    assert (decoded.ok, decoded.bad_latencies, decoded.rejections) == (3, 1, [])


def test_of_the_faults_of_a_record_few_are_kept_and_all_are_counted() -> None:
    """Four megabytes of zeros would be two million rejections."""
    values = [0] * 500 + [{}] * 500 + [{"t": T0}] + [{"t": "soon"}] * 7 + [0]
    source = replace(SOURCE, batch="array")
    made = Record(3, T0, None, json.dumps(values).encode())
    decoded = decode(made, made._replace(offset=4), source=source)
    assert len(decoded.events) == 2
    assert len(decoded.rejections) < 5 * KEPT
    counted = Counter[tuple[int, str]]()
    for each in decoded.rejections:
        counted[each.offset, each.reason] += each.events
    expected = {Reason.WRONG_SHAPE: 501, Reason.MISSING_TIME: 500, Reason.BAD_VALUE: 7}
    assert counted == {(offset, reason): count for offset in (3, 4) for reason, count in expected.items()}
    assert [each.index for each in decoded.rejections[:KEPT]] == list(range(KEPT))


def test_no_records_give_no_events() -> None:
    decoded = decode()
    assert (decoded.ok, decoded.skipped, len(decoded.events.series)) == (0, 0, 0)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        pytest.param(b"", "not_json", id="empty"),
        pytest.param(b" \n", "not_json", id="blank"),
        pytest.param(b"{", "not_json", id="truncated"),
        pytest.param(b'\xef\xbb\xbf{"t":1}', "not_json", id="byte_order_mark"),
        pytest.param(b'{"t":NaN}', "not_json", id="nan"),
        pytest.param(b'{"t":1769601600000,"x":Infinity}', "not_json", id="infinity_in_a_field_nobody_asks_for"),
        pytest.param(b'{"t":1769601600000,"x":"\xff"}', "not_json", id="not_utf8_in_a_field_nobody_asks_for"),
        pytest.param(b'{"t":1769601600000,"x":' + b"[" * 300 + b"]" * 300 + b"}", "not_json", id="nested_300_deep"),
        pytest.param(b'{"t":' * 100_000, "not_json", id="nested_100000_deep"),
        pytest.param(b"[]", "wrong_shape", id="array"),
        pytest.param(b"null", "wrong_shape", id="null"),
        pytest.param(b"12", "wrong_shape", id="number"),
        pytest.param(b"{}", "missing_time", id="no_time"),
        pytest.param(b'{"t":null}', "missing_time", id="null_time"),
        pytest.param(b'{"t":true}', "bad_value", id="boolean_time"),
        pytest.param(b'{"t":"soon"}', "bad_value", id="text_time"),
        pytest.param(b'{"t":1e400}', "bad_value", id="time_beyond_the_doubles"),
        pytest.param(b'{"t":' + b"9" * 6000 + b"}", "bad_value", id="time_of_6000_digits"),
        pytest.param(b'{"t":-1}', "bad_value", id="before_1970"),
        pytest.param(b'{"t":[1,2]}', "bad_value", id="list_time"),
        pytest.param(b'{"t":1769601700000}', "future", id="later_than_its_record"),
    ],
)
def test_a_bad_record_is_rejected_with_its_reason_and_its_neighbours_are_not(value: bytes, reason: str) -> None:
    decoded = decode(record(3), Record(4, T0, None, value), record(5))
    assert reasons(decoded) == [(4, 0, reason)]
    assert decoded.events.offset.tolist() == [3, 5]


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b'{"t":"1769601600000"}', id="digits_in_a_string"),
        pytest.param(b'{"t":[1769601600000]}', id="list_of_one"),
        pytest.param(b'{"t":1769601600000.0}', id="integral_double"),
        pytest.param(b'{"t":"2026-01-28T12:00:00Z"}', id="iso"),
        pytest.param(b'{"t":1,"t":1769601600000}', id="the_last_of_two_keys"),
        pytest.param(b'{"t":1769601600000,"x":"\\ud83d"}', id="half_a_surrogate_pair"),
        pytest.param(b'{"t":1769601600000,"x":1e400}', id="a_number_beyond_the_doubles_that_nobody_asks_for"),
        pytest.param(b'{"t":1769601600000,"x":' + b"[" * 150 + b"]" * 150 + b"}", id="nested_150_deep"),
    ],
)
def test_what_real_producers_vary_is_accepted(value: bytes) -> None:
    assert decode(Record(0, T0, None, value)).events.time.tolist() == [T0 * 1000]


@pytest.mark.parametrize("latency", [-1, -0.001, "fast", True, 1e400, 10**18 + 1, {"a": 1}])
def test_a_bad_latency_is_dropped_and_counted_but_the_event_stays(latency: object) -> None:
    text = json.dumps({"t": T0, "status": 500, "ms": latency}).replace("Infinity", "1e400")
    decoded = decode(Record(0, T0, None, text.encode()))
    assert decoded.events.latency.tolist() == [NO_LATENCY]
    assert decoded.events.failed.tolist() == [FAILED]
    assert decoded.bad_latencies == 1


def test_a_latency_of_ten_to_the_15_us_is_the_largest() -> None:
    decoded = decode(record(0, ms=10**12), record(1, ms=10**12 + 1), record(2, ms=10**12 + 0.5))
    assert decoded.events.latency.tolist() == [10**15, NO_LATENCY, NO_LATENCY]


def test_a_tombstone_is_skipped_and_a_record_that_is_too_large_is_rejected() -> None:
    source = replace(SOURCE, max_record_bytes=30)
    decoded = decode(record(1), Record(2, T0, None, None), record(3, text="x" * 30), record(4), source=source)
    assert decoded.events.offset.tolist() == [1, 4]
    assert decoded.skipped == 1
    assert reasons(decoded) == [(3, 0, "too_large")]


def test_events_that_fail_where_are_skipped_before_anything_of_them_is_judged() -> None:
    source = replace(SOURCE, where=matcher(kind="done"))
    decoded = decode(record(0, kind="start", t="nonsense"), record(1, kind="done"), record(2), source=source)
    assert decoded.events.offset.tolist() == [1]
    assert (decoded.skipped, decoded.rejections) == (2, [])


def test_one_and_true_are_not_the_same_to_a_matcher() -> None:
    source = with_fields(failed=matcher(bad=True))
    decoded = decode(*(record(n, bad=bad) for n, bad in enumerate([True, 1, 1.0, "true"])), source=source)
    assert decoded.events.failed.tolist() == [FAILED, GOOD, GOOD, GOOD]
    one_by_one = SourceDecoder(source)
    found = [one_by_one.decode([record(n, bad=bad)], table_of(source), None) for n, bad in enumerate([1, True, 1.0])]
    assert [each.events.failed.tolist() for each in found] == [[GOOD], [FAILED], [GOOD]]


def test_failed_is_unknown_without_a_test_and_where_no_field_of_it_is_present() -> None:
    assert decode(record(status=500), source=with_fields(failed=None)).events.failed.tolist() == [UNKNOWN]
    source = with_fields(failed=matcher(status=">= 500", code="!= ok"))
    decoded = decode(record(0, status=None), record(1, status=500), record(2, code="ok"), source=source)
    assert decoded.events.failed.tolist() == [UNKNOWN, FAILED, GOOD]


class TestFutureGuard:
    """T0 is the record's timestamp, the clock is in microseconds, max_future is 30 s."""

    def test_an_event_may_be_max_future_after_its_record_and_no_more(self) -> None:
        decoded = decode(record(0, t=T0 + 30_000), record(1, t=(T0 + 30_000) * 1000 + 1))
        assert decoded.events.offset.tolist() == [0]
        assert reasons(decoded) == [(1, 0, "future")]
        assert not decoded.rejections[0].by_clock

    def test_it_is_the_clocks_decision_only_where_the_record_would_have_let_it_pass(self) -> None:
        decoded = decode(record(0, t=T0 + 25_000), record(1, t=T0 + 31_000), record(2), now=(T0 - 10_000) * 1000)
        assert [(each.offset, each.by_clock) for each in decoded.rejections] == [(0, True), (1, False)]
        assert decoded.events.offset.tolist() == [2]

    @pytest.mark.parametrize("timestamp", [-1, 0])
    def test_an_absent_record_timestamp_leaves_the_clock_alone(self, timestamp: int) -> None:
        late = record(0, timestamp, t=T0 + 31_000)
        assert decode(late, now=T0 * 1000).rejections[0].by_clock
        assert decode(late, now=None).ok == 1

    def test_without_an_envelope_it_is_off(self) -> None:
        assert decode(record(0, None, t=T0 * 2), now=T0 * 1000).ok == 1

    def test_a_timestamp_of_any_size_does_no_harm(self) -> None:
        assert decode(record(0, 2**63 - 1), record(1, -(2**63)), now=T0 * 1000).ok == 2

    def test_a_recorded_decision_is_made_again_and_no_other(self) -> None:
        decoded = decode(record(0), record(1), record(2), recorded=[(1, 0), (2, 1)])
        assert [(each.offset, each.reason, each.by_clock) for each in decoded.rejections] == [(1, Reason.FUTURE, True)]
        assert decoded.events.offset.tolist() == [0, 2]


class TestSurfaces:
    SOURCE = replace(
        SOURCE,
        surfaces=(
            SurfaceConfig("special", matcher(fn__id="f2")),
            SurfaceConfig("functions", matcher(app="api"), (GroupField("fn.id", "fn_id"), GroupField("region", "r"))),
        ),
    )

    def test_the_first_surface_whose_match_holds_takes_the_event(self) -> None:
        table = table_of(self.SOURCE)
        records = [
            record(0, app="api", fn={"id": "f1"}, region=1.0),
            record(1, app="api", fn=[{"id": ["f2"]}]),
            record(2, app="web", fn={"id": "f1"}),
            record(3, app="api", **{"fn.id": True}),
            record(4, app="api", fn={"id": ""}, region={"a": [1]}),
        ]
        decoded = SourceDecoder(self.SOURCE).decode(records, table, None)
        assert decoded.events.series.tolist() == [0, 1, UNMATCHED, 2, 3]
        assert table.keys == [
            SeriesKey("functions", ("f1", "1")),
            SeriesKey("special"),
            SeriesKey("functions", ("true", "")),
            SeriesKey("functions", ("", '{"a":[1]}')),
        ]
        assert (decoded.ok, decoded.unmatched) == (5, 1)

    def test_a_group_value_above_1_kib_is_the_overflow_value_and_counted(self) -> None:
        table = table_of(self.SOURCE)
        values = ["x" * 1024, "x" * 1025, "\u00e9" * 513, "y" * 5000]
        records = [record(n, app="api", region=value) for n, value in enumerate(values)]
        decoded = SourceDecoder(self.SOURCE).decode(records, table, None)
        assert decoded.events.series.tolist() == [0, 1, 1, 1]
        assert table.keys[1] == SeriesKey("functions", ("", "__overflow__"))
        assert decoded.oversized_groups == 3

    def test_every_table_numbers_the_series_from_its_own_beginning(self) -> None:
        decoder = SourceDecoder(self.SOURCE)
        first, second = [record(n, app="api", region=n) for n in range(3)], [record(9, app="api", region=2)]
        decoder.decode(first, table_of(self.SOURCE), None)
        table = table_of(self.SOURCE)
        assert decoder.decode(second, table, None).events.series.tolist() == [0]
        assert table.keys == [SeriesKey("functions", ("", "2"))]

    def test_past_max_series_new_values_share_the_overflow_series(self) -> None:
        surfaces = (SurfaceConfig("api", None, (GroupField("user", "user"),), max_series=2),)
        source = replace(SOURCE, surfaces=surfaces)
        table = table_of(source)
        decoded = SourceDecoder(source).decode([record(n, user=n) for n in (1, 2, 3, 1, 4)], table, None)
        assert decoded.events.series.tolist() == [0, 1, 2, 0, 2]


class TestDuplicates:
    SOURCE = with_fields(replace(SOURCE, dedup=3), id="id")

    def test_an_id_is_dropped_within_reach_and_each_sight_of_it_extends_that(self) -> None:
        ids = {10: "a", 13: "a", 16: "a", 20: "a", 21: None, 22: None, 23: "", 24: ""}
        decoded = decode(*(record(offset, id=each) for offset, each in ids.items()), source=self.SOURCE)
        assert decoded.events.offset.tolist() == [10, 20, 21, 22, 23, 24]
        assert decoded.duplicates == 2

    def test_rejected_and_skipped_events_are_not_remembered_but_unmatched_ones_are(self) -> None:
        source = replace(self.SOURCE, where=matcher(skip="!= yes"), surfaces=(SurfaceConfig("api", matcher(app="x")),))
        decoded = decode(
            record(0, id="a", t="bad"),
            record(1, id="a", skip="yes"),
            record(2, id="a", app="other"),
            record(3, id="a", app="x"),
            source=source,
        )
        assert decoded.events.offset.tolist() == [2]
        assert (decoded.duplicates, decoded.unmatched, decoded.skipped) == (1, 1, 1)

    def test_a_primed_decoder_knows_what_an_undisturbed_one_knows(self) -> None:
        records = [
            record(n, id=each, t=T0 + late)
            for n, (each, late) in enumerate([("a", 0), ("b", 20_000), ("c", 0), ("a", 0), ("b", 0), ("d", 0)])
        ]
        clock, table = EpochUs((T0 - 15_000) * 1000), table_of(self.SOURCE)
        undisturbed = SourceDecoder(self.SOURCE).decode(records, table, clock)
        recorded = [(each.offset, each.index) for each in undisturbed.rejections if each.by_clock]
        restarted = SourceDecoder(self.SOURCE)
        restarted.prime(records[:3], recorded)
        decoded = restarted.decode(records[3:], table, None)
        assert recorded == [(1, 0)]
        assert undisturbed.events.offset.tolist() == [0, 2, 4, 5]
        assert decoded.events.offset.tolist() == [4, 5]

    def test_the_same_id_twice_in_one_record_is_a_duplicate(self) -> None:
        source = replace(self.SOURCE, batch="array")
        value = json.dumps([{"t": T0, "id": 1}, {"t": T0, "id": 1}, {"t": T0, "id": "1"}]).encode()
        decoded = decode(Record(0, T0, None, value), source=source)
        assert (decoded.ok, decoded.duplicates) == (1, 2)


class TestBatches:
    GOOD = b'{"t":1769601600000}'

    @pytest.mark.parametrize(
        ("batch", "value", "times", "rejected"),
        [
            ("array", b"[%(g)s, %(g)s]", 2, []),
            ("array", b"[%(g)s, 1, null, {}, %(g)s]", 2, ["wrong_shape", "wrong_shape", "missing_time"]),
            ("array", b"%(g)s", 0, ["wrong_shape"]),
            ("array", b"[%(g)s, ]", 0, ["not_json"]),
            ("lines", b"%(g)s\n\r\n%(g)s\r\n", 2, []),
            ("lines", b"%(g)s\n{\n%(g)s", 2, ["not_json"]),
            ("lines", b"\n", 0, ["not_json"]),
            ("one", b"[%(g)s]", 0, ["wrong_shape"]),
            ("auto", b" [%(g)s]", 1, []),
            ("auto", b"[%(g)s]\n[", 0, ["not_json"]),
            ("auto", b'{\n"t":1769601600000\n}\n', 1, []),
            ("auto", b"{\n%(g)s\n%(g)s", 2, ["not_json"]),
            ("auto", b'{\n"t":\n', 0, ["not_json"]),
            ("auto", b"3", 0, ["wrong_shape"]),
            ("auto", b"", 0, ["not_json"]),
        ],
    )
    def test_a_bad_event_rejects_only_itself(self, batch: str, value: bytes, times: int, rejected: list[str]) -> None:
        source = replace(SOURCE, batch=batch)  # type: ignore[arg-type]  # one of them
        last = record(6) if batch != "array" else Record(6, T0, None, b"[]")
        decoded = decode(Record(5, T0, None, value % {b"g": self.GOOD}), last, source=source)
        assert [reason for _, _, reason in reasons(decoded)] == rejected
        assert decoded.events.offset.tolist() == [5] * times + ([6] if batch != "array" else [])

    def test_an_empty_array_is_skipped(self) -> None:
        decoded = decode(Record(0, T0, None, b" [ ] "), source=replace(SOURCE, batch="array"))
        assert (decoded.ok, decoded.skipped, decoded.rejections) == (0, 1, [])

    def test_the_index_of_a_rejection_is_that_of_the_event_in_its_record(self) -> None:
        value = json.dumps([{"t": T0}, {"t": "x"}, 5, {"t": T0 * 2}, {}]).encode()
        decoded = decode(Record(9, T0, None, value), source=replace(SOURCE, batch="array"))
        assert reasons(decoded) == [
            (9, 1, "bad_value"), (9, 2, "wrong_shape"), (9, 3, "future"), (9, 4, "missing_time"),
        ]  # fmt: skip

    def test_a_batch_of_many_events_may_hold_more_brackets_than_one_event_may_be_deep(self) -> None:
        value = json.dumps([{"t": T0, "x": {"y": [1]}}] * 1000).encode()
        assert decode(Record(0, T0, None, value), source=replace(SOURCE, batch="array")).ok == 1000


class TestFieldsOfTheRecord:
    def test_the_record_timestamp_is_the_time_where_no_field_is_configured(self) -> None:
        source = with_fields(time=None)
        decoded = decode(record(0, T0 + 5), record(1, -1), record(2, 0), record(3, None), source=source)
        assert decoded.events.time.tolist() == [(T0 + 5) * 1000]
        assert reasons(decoded) == [(1, 0, "missing_time"), (2, 0, "missing_time"), (3, 0, "missing_time")]

    def test_a_configured_time_that_is_absent_is_not_replaced_by_the_records(self) -> None:
        assert reasons(decode(record(t=None))) == [(0, 0, "missing_time")]

    def test_a_latency_may_be_the_difference_of_a_header_and_the_record(self) -> None:
        span = LatencySpan("header:x-produced-at", "record.timestamp")
        source = with_fields(time="record.timestamp", latency=span, latency_unit=None)
        headers = [(("x-produced-at", b"1"), ("x-produced-at", str(T0 - 250).encode())), (), (("x-produced-at", b"?"),)]
        records = [record(n)._replace(headers=each) for n, each in enumerate(headers)]
        late = record(3)._replace(headers=(("x-produced-at", str(T0 + 1).encode()),))
        decoded = decode(*records, late, source=source)
        assert decoded.events.latency.tolist() == [250_000, NO_LATENCY, NO_LATENCY, NO_LATENCY]
        assert decoded.bad_latencies == 2

    def test_key_header_and_topic_match_and_are_absent_without_an_envelope(self) -> None:
        surfaces = (SurfaceConfig("api", matcher(key="k", record__topic="t.events"), (GroupField("header:h", "h"),)),)
        source = replace(SOURCE, surfaces=surfaces)
        table = table_of(source)
        full = record(0)._replace(key=b"k", headers=(("h", b"v\xff"),))
        decoded = SourceDecoder(source).decode([full, full._replace(offset=1, timestamp=None)], table, None)
        assert decoded.events.series.tolist() == [0, UNMATCHED]
        assert table.keys == [SeriesKey("api", ("v\ufffd",))]

    def test_a_field_of_the_record_belongs_to_every_event_of_its_batch(self) -> None:
        source = replace(with_fields(time="record.timestamp"), batch="array")
        decoded = decode(
            Record(0, T0, None, b"[{},{}]"),
            Record(1, T0 + 1, None, b"x"),
            Record(2, T0 + 2, None, b"[{}]"),
            source=source,
        )
        assert decoded.events.time.tolist() == [T0 * 1000, T0 * 1000, (T0 + 2) * 1000]


@pytest.mark.parametrize(
    ("weight", "expected"), [(1, 1), ("3", 3), (2.0, 2), (None, 1), (0, None), (-1, None), (1.5, None), (True, None),
                             (2**31, None), ("x", None)]
)  # fmt: skip
def test_a_weight_is_an_integer_from_one(weight: object, expected: int | None) -> None:
    decoded = decode(record(0, w=weight), record(1, w=7), source=with_fields(weight="w"))
    assert decoded.events.weight is not None
    assert decoded.events.weight.tolist() == ([7] if expected is None else [expected, 7])
    assert [str(each.reason) for each in decoded.rejections] == (["bad_value"] if expected is None else [])


def test_weights_of_one_need_no_column() -> None:
    assert decode(record(w=1), source=with_fields(weight="w")).events.weight is None


RUNS = replace(with_fields(score="s", deploy="d", context="c"), deploying=("api",))


@pytest.mark.parametrize(
    ("score", "expected"), [(0.82, 820_000), (0, 0), (1, 1_000_000), ("0.5", 500_000), (None, NO_SCORE),
                            (1.0000004, 1_000_000), (-0.0000004, 0), (0.0000005, 0), (0.0000015, 2), (1.000001, None),
                            (-0.01, None), (82, None), ("82%", None), (True, None), ([], None)],
)  # fmt: skip
def test_a_score_is_a_number_from_0_to_1_in_millionths(score: object, expected: int | None) -> None:
    decoded = decode(record(0, s=score), record(1, s=0.5), source=RUNS)
    assert decoded.events.runs is not None
    assert decoded.events.runs.score.tolist() == ([500_000] if expected is None else [expected, 500_000])
    assert reasons(decoded) == ([(0, 0, "bad_value")] if expected is None else [])


def test_a_bad_score_is_told_as_it_was_written() -> None:
    (rejection,) = decode(record(0, s=82), source=RUNS).rejections
    assert rejection.detail == "s is 82, no score from 0 to 1"


def test_a_bad_score_is_rejected_though_no_rule_asks_for_it() -> None:
    source = with_fields(score="s")
    assert reasons(decode(record(0, s=2), record(1, s=1), source=source)) == [(0, 0, "bad_value")]
    assert decode(record(1, s=1), source=source).events.runs is None


def test_a_run_that_failed_has_no_score() -> None:
    runs = decode(record(0, s=0.9, status=500), record(1, s=0.9, status=200), record(2, s=0.9), source=RUNS).events.runs
    assert runs is not None
    assert runs.score.tolist() == [NO_SCORE, 900_000, 900_000]


def test_a_run_has_a_deploy_and_a_context_and_both_are_cut() -> None:
    long = "v" * 300
    decoded = decode(record(0, d="a1", c="pr"), record(1, d=7, c=""), record(2), record(3, d=long, c=long), source=RUNS)
    runs = decoded.events.runs
    assert runs is not None
    assert list(runs.deploy) == ["a1", "7", "", "v" * 256]
    assert list(runs.context) == ["pr", "main", "main", "v" * 256]


def test_trace_ids_are_cut_at_256_bytes() -> None:
    traces = ["x" * 300, "\u00e9" * 200, "y" * 256]
    decoded = decode(*(record(n, trace=trace) for n, trace in enumerate(traces)))
    assert decoded.events.trace_ids([0, 1, 2]) == ["x" * 256, "\u00e9" * 128, "y" * 256]


def test_memory_does_not_grow_with_the_number_of_distinct_values() -> None:
    surfaces = (SurfaceConfig("api", None, (GroupField("user", "user"),), max_series=10),)
    decoder = SourceDecoder(replace(SOURCE, surfaces=surfaces))
    for start in range(0, 100_000, 10_000):
        records = [record(n, user=f"user-{n}") for n in range(start, start + 10_000)]
        decoder.decode(records, SeriesTable({"api": 10}), None)
    assert len(decoder._classifier._known) <= 65_536 + 10_000  # noqa: SLF001  # the bound is the subject


def test_only_records_with_an_event_are_held_for_their_trace_ids() -> None:
    source = replace(SOURCE, where=matcher(status=200))
    few = decode(record(1, status=200), Record(2, T0, None, None), record(3, status=404, x="y" * 10_000), source=source)
    assert few.ok == 1
    assert few.events.held < 1000
    assert few.events.trace_ids([0]) == [""]

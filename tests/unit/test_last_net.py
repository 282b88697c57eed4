"""A decoder with a bug: what its records become, and that nothing else changes."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from evaluator.core.event import SECOND, EpochUs, SeriesTable
from evaluator.core.rule import GroupField
from evaluator.errors import SchemasMissing
from evaluator.runtime.aggregate_stage import AggregateStage, Timing
from evaluator.runtime.last_net import LastNet
from evaluator.runtime.log.port import Fetched, Partition
from evaluator.runtime.topics import Topics
from evaluator.wire import partial as partial_wire
from evaluator.wire.config.load import load_rules
from evaluator.wire.config.model import FieldsConfig, SourceConfig, SurfaceConfig
from evaluator.wire.decode import SourceDecoder
from evaluator.wire.records import Record
from evaluator.wire.rejection import MAX_DETAIL, Reason
from evaluator.wire.text import rfc3339

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from evaluator.core.event import Int8s
    from evaluator.wire.decode import Decoded

START = 1_769_558_400 * SECOND
SOURCE = SourceConfig(
    "events", "t", "json", FieldsConfig(time="t", id="i"), (SurfaceConfig("api", group_by=(GroupField("g", "g"),)),),
    dedup=4,
)  # fmt: skip
PLACE = Partition("t", 0)


class Buggy(SourceDecoder):
    """Fails at an event of the group "bug", and where one of "one" and one of "other" are in the same batch."""

    error: type[Exception] = KeyError
    calls = decoded = 0
    most = 1 << 20

    def _outcomes(self, events: Any) -> Int8s:
        self.calls += 1
        self.decoded += len(events)
        if len(events) > self.most:
            raise MemoryError
        groups = set(self._values(events, ["g"])[0])
        if "bug" in groups or {"one", "other"} <= groups:
            raise self.error(f"nobody\nforesaw {sorted(groups)} " + "of this " * MAX_DETAIL)
        return super()._outcomes(events)


def record(offset: int, group: str = "a", identity: str = "") -> Record:
    at = START + offset * SECOND
    return Record(offset, at // 1000, b"k", orjson.dumps({"t": rfc3339(EpochUs(at)), "g": group, "i": identity}))


def net(decoder: Any, tallies: Counter[tuple[str, ...]] | None = None) -> LastNet:
    return LastNet(decoder, "events", PLACE, Counter() if tallies is None else tallies)


def table() -> SeriesTable:
    return SeriesTable({"api": 2})


def decoded_by(net: LastNet, sent: Sequence[Record], into: SeriesTable) -> list[Decoded]:
    """All of them, in as many turns as it takes."""
    turns, rest = [], sent
    while rest:
        turns.append(net.decode(rest, into, None, ()))
        rest = rest[turns[-1].records :]
    return turns


def told(turns: Sequence[Decoded]) -> tuple[list[tuple[int, int, str]], int, list[tuple[int, str]]]:
    """Events with the numbers of their series, how many duplicates, and what was rejected."""
    events = [
        (offset, series, trace)
        for each in turns
        for offset, series, trace in zip(
            each.events.offset.tolist(), each.events.series.tolist(), each.events.trace_ids(range(each.ok)), strict=True
        )
    ]
    return events, sum(each.duplicates for each in turns), [(r.offset, r.reason) for t in turns for r in t.rejections]


groups = st.sampled_from(["a", "b", "c", "d", "bug", "one", "other"])


@given(st.lists(st.tuples(groups, st.sampled_from(["", "x", "y"])), max_size=25), st.integers(0, 25))
# The one at which it fails is a duplicate only where the first one is still known.
@example([("a", "x"), *[("a", "")] * 2, ("bug", "x"), *[("a", "")] * 3, ("a", "x")], 6)
# A bug is the first that a restart reads again, and an id stands behind it.
@example([("a", ""), ("bug", ""), ("a", "x"), ("a", ""), ("a", "x")], 4)
def test_what_is_not_the_bugs_comes_out_as_if_the_rest_had_never_been_there(
    sent: list[tuple[str, str]], restart: int
) -> None:
    records = [record(n, group, identity) for n, (group, identity) in enumerate(sent)]
    good = [each for each, (group, _) in zip(records, sent, strict=True) if group != "bug"]
    bugs = [(each.offset, Reason.DECODER_BUG) for each in records if each not in good]
    with capture_logs():
        plain, tallies, into = told([SourceDecoder(SOURCE).decode(good, table(), None)]), Counter[Any](), table()
        turns = decoded_by(net(Buggy(SOURCE), tallies), records, into)
        assert told(turns) == (*plain[:2], bugs)
        assert tallies == Counter({("decoder_bugs", "events"): len(bugs)} if bugs else {})

        # A restart knows what was known: the ids, and of which records they are not.
        undisturbed, restarted = net(Buggy(SOURCE)), net(Buggy(SOURCE))
        decoded_by(undisturbed, records[:restart], table())
        before = records[max(0, restart - SOURCE.dedup) : restart]
        while before:
            before = before[restarted.prime(before, ()) :]
        expected = told(decoded_by(undisturbed, records[restart:], table()))
        assert told(decoded_by(restarted, records[restart:], table())) == expected


def test_a_detail_names_the_bug_on_one_short_line() -> None:
    (turn,) = decoded_by(net(Buggy(SOURCE)), [record(3, "bug")], table())
    (rejection,) = turn.rejections
    assert rejection.detail.startswith("KeyError at test_last_net.py:")
    assert "nobody\\nforesaw ['bug'] of this of" in rejection.detail
    assert len(rejection.detail) == MAX_DETAIL
    assert (rejection.offset, rejection.index, rejection.events, turn.ok) == (3, 0, 1, 0)


def test_each_bug_is_logged_once_with_its_traceback_and_counted_every_time() -> None:
    tallies: Counter[tuple[str, ...]] = Counter()
    with capture_logs() as logged:
        decoded_by(net(Buggy(SOURCE), tallies), [record(n, "bug") for n in range(9)], table())
    (line,) = logged
    assert (line["event"], line["log_level"], line["source"], line["partition"], line["offset"]) == (
        "decoder.bug", "error", "events", 0, 0,
    )  # fmt: skip
    assert line["bug"].startswith("KeyError at test_last_net.py:")
    assert "in _outcomes" in line["trace"]
    assert not any("['bug']" in str(value) for value in line.values())  # logs hold no payloads
    assert tallies["decoder_bugs", "events"] == 9


def test_a_log_of_nothing_else_costs_an_attempt_a_record() -> None:
    buggy = Buggy(SOURCE)
    decoded_by(net(buggy), [record(n, "bug") for n in range(1000)], table())
    empty = 1000  # what makes the answer of a record that has none
    assert buggy.calls < 1000 + empty + 20


@pytest.mark.parametrize(("every", "calls", "decoded"), [(1000, 40, 5000), (10, 1500, 8000)])
def test_bad_records_among_good_ones_cost_a_few_attempts(every: int, calls: int, decoded: int) -> None:
    buggy = Buggy(SOURCE)
    decoded_by(net(buggy), [record(n, "bug" if n % every == every - 1 else "a") for n in range(1000)], table())
    assert buggy.calls < calls
    assert buggy.decoded < decoded


@pytest.mark.parametrize("error", [MemoryError, SchemasMissing])
def test_what_is_no_bug_of_a_decoder_is_not_for_the_net(error: type[Exception]) -> None:
    buggy = Buggy(SOURCE)
    buggy.error = error
    with pytest.raises(error):
        decoded_by(net(buggy), [record(0), record(1, "bug")], table())


def test_memory_for_fewer_records_is_enough() -> None:
    buggy = Buggy(SOURCE)
    buggy.most = 3
    turns = decoded_by(net(buggy), [record(n) for n in range(20)], table())
    assert (sum(turn.ok for turn in turns), [turn.rejections for turn in turns if turn.rejections]) == (20, [])


def test_an_error_that_cannot_say_what_it_is_is_named_all_the_same() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    buggy = Buggy(SOURCE)
    buggy.error = Mute
    (turn,) = decoded_by(net(buggy), [record(0, "bug")], table())
    assert turn.rejections[0].detail.startswith("Mute at test_last_net.py:")


def test_schemas_are_asked_for_where_a_record_cannot_be_looked_at() -> None:
    class Unsure(SourceDecoder):
        def check(self, records: Sequence[Record]) -> None:
            for each in records:
                if each.value == b"?":
                    raise IndexError
                if each.value == b"!":
                    raise SchemasMissing([7])

    odd, missing = (record(0)._replace(value=value) for value in (b"?", b"!"))
    net(Unsure(SOURCE)).check([record(0), odd])
    with pytest.raises(SchemasMissing):
        net(Unsure(SOURCE)).check([record(0), odd, missing])


def test_what_fails_without_any_record_ends_the_process() -> None:
    class Broken(SourceDecoder):
        def _outcomes(self, events: Any) -> Int8s:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        net(Broken(SOURCE)).decode([], table(), None, ())


def test_a_trace_id_that_cannot_be_read_is_none() -> None:
    class Late(SourceDecoder):
        def decode(self, *given: Any) -> Decoded:
            decoded = super().decode(*given)
            pick = decoded.events.trace_ids

            def picked(chosen: Sequence[int]) -> Sequence[str]:
                if 2 in chosen:
                    raise IndexError
                return pick(chosen)

            decoded.events.trace_ids = picked
            return decoded

    tallies: Counter[tuple[str, ...]] = Counter()
    source = replace(SOURCE, fields=replace(SOURCE.fields, trace_id="g"))
    decoded = net(Late(source), tallies).decode([record(n, f"g{n}") for n in range(5)], table(), None, ())
    with capture_logs() as logged:
        assert decoded.events.trace_ids([0, 1, 2, 4]) == ["g0", "g1", "", "g4"]
    assert [line["offset"] for line in logged] == [2]
    assert tallies == {("decoder_bugs", "events"): 1}


def test_a_batch_that_is_dropped_is_gone_without_the_collector() -> None:
    decoded = net(SourceDecoder(SOURCE)).decode([record(n) for n in range(5)], table(), None, ())
    columns = [weakref.ref(column) for column in (decoded.events.offset, decoded.events.time)]
    gc.disable()
    try:
        del decoded
        assert [column() for column in columns] == [None, None]
    finally:
        gc.enable()


def stage(folder: Path, tallies: Counter[tuple[str, ...]]) -> AggregateStage:
    """A stage with such a decoder, that has begun afresh."""
    rules = folder / "rules.yaml"
    rules.write_text(
        "version: 1\nsources:\n"
        "  events: {topic: t, format: json, out_of_orderness: 5s, fields: {time: t, failed: {s: 500}}}\n"
        "surfaces: {api: {source: events, group_by: [g]}}\n"
        "alerts: {A: {surface: api, when: error_count > 1, window: 1m, severity: page}}\n"
    )
    begun = AggregateStage(
        load_rules([rules]), "events", 0, 1, 1, Topics("app"), Timing(SECOND), tallies, decoder=Buggy
    )
    begun.restore([], (0, 0), None)
    begun.freeze(EpochUs(START))
    return begun


def apply(stage: AggregateStage, sent: Sequence[Record], next_offset: int, at: int) -> None:
    """What was fetched `at` seconds after the start, in as many turns as it takes."""
    rest: Fetched | None = Fetched(sent, next_offset, next_offset, EpochUs(START + at * SECOND))
    with capture_logs():
        while rest is not None:
            rest = stage.apply(rest)


def test_a_stage_sends_such_a_record_to_the_dead_letters_and_goes_on(tmp_path: Path) -> None:
    tallies: Counter[tuple[str, ...]] = Counter()
    begun = stage(tmp_path, tallies)
    sent = [record(0, "a"), record(1, "bug"), record(2, "b"), record(3, "c")]
    apply(begun, sent, 4, at=0)
    outbox = begun.freeze(EpochUs(START + 60 * SECOND))
    assert outbox is not None
    (letter,) = [each for each in outbox.records if each.topic == "slo.dlq"]
    headers = dict(letter.headers)
    assert (letter.key, letter.value) == (b"k", sent[1].value)
    assert (headers["offset"], headers["reason"], headers["events"]) == (b"1", b"decoder_bug", b"1")
    partial = partial_wire.decode(next(r.value for r in outbox.records if r.topic == "app.partials") or b"")
    assert [series.values for series, *_ in partial.cells] == [("a",), ("b",), ("c",)]
    assert partial.end == begun.next_offset == 4
    assert (tallies["records", "events", "ok"], tallies["rejected", "events", "decoder_bug"]) == (3, 1)


def test_such_records_do_not_keep_a_partition_busy(tmp_path: Path) -> None:
    begun = stage(tmp_path, Counter())
    apply(begun, [record(0)], 1, at=0)
    for number in range(1, 13):
        apply(begun, [record(n, "bug") for n in (2 * number - 1, 2 * number)], 2 * number + 1, at=5 * number)
    assert begun.watermark == START + (60 - 5) * SECOND

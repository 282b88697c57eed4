"""Partials as bytes: what is too large travels in parts, and parts add up to the whole."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.fold import Event, Fold
from support.rules import rule, rules

from evaluator.core.event import FAILED, GOOD, MINUTE, DurationUs, EpochUs, SeriesKey
from evaluator.core.partial import FutureRejection, IdleAdvance, Partial
from evaluator.core.rule import Deploys
from evaluator.errors import StateGap
from evaluator.wire import partial as wire
from evaluator.wire.envelope import decision_line, read_decisions


def large() -> Partial:
    """A partial of so many series that it does not fit into one record, with a decision of a clock."""
    fold = Fold(rules(rule(), group_by=("f",)))
    fold.feed(0, [Event(n, n, FAILED, 7, SeriesKey("api", (f"{n:0900}",)), "t" * 200) for n in range(900)])
    fold.aggregators[0].idle(EpochUs(5 * MINUTE))
    return replace(fold.aggregators[0].take(), sequence=1)


def merged(*parts: Partial) -> Fold:
    fold = Fold(rules(rule(), group_by=("f",)))
    for part in parts:
        fold.evaluator.merge(part)
    fold.transitions += fold.evaluator.decide().transitions
    return fold


def test_a_small_partial_is_one_record_that_reads_as_it_was() -> None:
    fold = Fold(rules(rule()))
    fold.feed(0, [Event(0, 5, FAILED, 7, trace_id="abc", weight=3)])
    partial = fold.aggregators[0].take()
    (value,) = wire.encode(partial)
    assert wire.decode(value) == partial


def test_the_parts_of_a_large_partial_fit_and_add_up_to_it() -> None:
    whole = large()
    values = wire.encode(whole)
    parts = [wire.decode(value) for value in values]
    assert len(values) > 1
    assert max(map(len, values)) <= wire.PART_LIMIT
    assert [(part.part, part.parts) for part in parts] == [(n, len(parts)) for n in range(len(parts))]
    assert tuple(cells for part in parts for cells in part.cells) == whole.cells
    assert [bool(part.idle_advances) for part in parts] == [True] + [False] * (len(parts) - 1)
    assert merged(*parts).ids() == merged(large()).ids() != []


def test_rejections_by_a_clock_travel_in_parts_too() -> None:
    """A clock that is behind may reject all events of many batches."""
    rejected = tuple(FutureRejection(10**9 + n // 20_000, n % 20_000) for n in range(100_000))
    whole = replace(large(), future_rejections=rejected)
    values = wire.encode(whole)
    parts = [wire.decode(value) for value in values]
    assert max(map(len, values)) <= wire.PART_LIMIT
    assert tuple(each for part in parts for each in part.future_rejections) == rejected
    assert tuple(cells for part in parts for cells in part.cells) == whole.cells
    (alone,) = [wire.encode(replace(whole, cells=(), future_rejections=rejected[:1]))]
    assert len(alone) == 1


def test_run_events_travel_in_parts_too_and_keep_their_order() -> None:
    judged = rules(rule(), rule("Deploy", deploys=Deploys(DurationUs(MINUTE)), min_samples=1), group_by=("f",))
    keys = [SeriesKey("api", (name,)) for name in "ab"]
    fold = Fold(judged)
    fold.feed(0, [Event(n, n // 9, GOOD, 7, keys[n % 2], f"{n:0200}", deploy="d" * 200, score=n) for n in range(2000)])
    whole = replace(fold.aggregators[0].take(), sequence=1)
    values = wire.encode(whole)
    parts = [wire.decode(value) for value in values]
    assert len(values) > 1
    assert max(map(len, values)) <= wire.PART_LIMIT
    of_series = {key: [run for part in parts for found, (run,) in part.runs if found == key] for key in keys}
    assert tuple((key, tuple(runs)) for key, runs in of_series.items()) == whole.runs
    assert sum(len(part.cells) for part in parts) == len(keys)
    ended = Fold(judged)
    for part in parts:
        ended.evaluator.merge(part)
    changes = ended.evaluator.changes()
    waiting = [len(found) for place in changes.waiting if (found := ended.evaluator.waiting(place)) is not None]
    assert sum(waiting) == 2000


def test_time_moves_only_with_the_last_part() -> None:
    parts = [wire.decode(value) for value in wire.encode(large())]
    assert merged(*parts[:-1]).transitions == []


def test_a_missing_part_is_refused() -> None:
    parts = [wire.decode(value) for value in wire.encode(large())]
    with pytest.raises(StateGap):
        merged(parts[0], *parts[2:], replace(parts[0], part=0))


def test_recorded_decisions_read_as_they_were_written() -> None:
    decisions = [IdleAdvance(7, EpochUs(1_769_558_400_000_001)), FutureRejection(9, 2)]
    lines = [decision_line("events", 3, decision) for decision in decisions]
    assert read_decisions(lines, "d.ndjson") == {("events", 3): decisions}

"""Both stages by hand: what is on time, what begins, what silence does."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from support.fold import Event, Fold, events_at
from support.rules import DAY, rule, rules

from evaluator.core.condition import Condition, Kind, Op
from evaluator.core.decide import Progress, Walk
from evaluator.core.event import FAILED, GOOD, MINUTE, EpochUs, SeriesKey
from evaluator.core.packed import pack
from evaluator.core.pane import Counts, Pane
from evaluator.core.panes import Panes
from evaluator.core.verdict import Verdict
from evaluator.core.watermark import SourceTime
from evaluator.errors import StateGap

if TYPE_CHECKING:
    from collections.abc import Iterator


def said(fold: Fold) -> list[tuple[str, int]]:
    """Reason and window end in minutes of each transition, in order."""
    return [(t.reason.value, t.at // MINUTE) for t in fold.transitions]


def test_an_event_on_the_end_of_a_pane_belongs_to_the_next_one() -> None:
    fold = Fold(rules(rule()))
    fold.feed(0, [Event(0, MINUTE, FAILED), Event(1, 2 * MINUTE, GOOD)])
    fold.commit(0)
    assert said(fold) == [("breached", 2)]


def test_an_event_at_the_watermark_is_late_for_the_pane_that_ends_there() -> None:
    #  minute   0      1      2
    #           |......|x     |      the x at 1:00 moves W to 1:00; the next failure at 0:59 is late
    fold = Fold(rules(rule()))
    fold.feed(0, [Event(0, MINUTE, GOOD), Event(1, MINUTE - 1, FAILED), Event(2, 3 * MINUTE, GOOD)])
    fold.commit(0)
    assert (said(fold), fold.aggregators[0].tallies["late", "api"]) == ([], 1)


def test_events_of_one_record_do_not_make_each_other_late() -> None:
    fold = Fold(rules(rule()))
    fold.feed(0, [Event(0, 5 * MINUTE, GOOD), Event(0, MINUTE - 1, FAILED), Event(1, 6 * MINUTE, GOOD)])
    fold.commit(0)
    assert said(fold) == [("breached", 1), ("recovered", 6)]


def test_a_partition_that_is_behind_holds_the_source_back() -> None:
    fold = Fold(rules(rule()), partitions=2)
    fold.feed(0, events_at([0, 5 * MINUTE]))
    fold.commit(0)
    assert said(fold) == []
    fold.feed(1, events_at([90 * 1_000_000]))
    fold.commit(1)
    assert said(fold) == [("breached", 1)]


def test_no_event_of_a_partition_is_late_because_another_is_ahead() -> None:
    fold = Fold(rules(rule()), partitions=2)
    fold.feed(0, events_at([0, 60 * MINUTE], GOOD))
    fold.commit(0)
    fold.feed(1, events_at([MINUTE // 2, 60 * MINUTE]))
    fold.commit(1)
    assert said(fold)[0] == ("breached", 1)


@pytest.mark.parametrize("silence", [3 * MINUTE, DAY, 400 * DAY])
def test_a_silence_of_any_length_is_a_few_steps(silence: int) -> None:
    fold = Fold(rules(rule(required=2)))
    fold.feed(0, [*events_at([0, MINUTE]), Event(2, silence, GOOD)])
    fold.commit(0)
    assert len(fold.verdicts) < 12


def test_sparse_events_look_at_each_pane_a_few_times() -> None:
    class Counted(Panes):
        looks = 0

        def __iter__(self) -> Iterator[int]:
            Counted.looks += len(self)
            return super().__iter__()

    one = Pane(Counts(n=1, known=1), EpochUs(0), EpochUs(0))
    panes = Counted()
    for index in range(0, 1000, 2):
        panes.add(index, pack(replace(one, last=EpochUs(index * MINUTE))))
    walk = Walk(rule(), Progress(), panes, SourceTime(EpochUs(1000 * MINUTE)), EpochUs(0))
    walk.run()
    assert sum(window.length for window in walk.decided) == 1000
    assert Counted.looks <= 3 * len(panes)


def test_a_firing_alert_expires_a_day_after_the_newest_event() -> None:
    fold = Fold(rules(rule()))
    fold.feed(0, [Event(0, 0, FAILED), Event(1, 3 * DAY, GOOD, series=None)])
    fold.commit(0)
    assert said(fold) == [("breached", 1), ("expired", DAY // MINUTE)]


def test_a_forgotten_series_begins_afresh() -> None:
    fold = Fold(rules(rule(required=2, max_gap=10**6)))
    fold.feed(0, [Event(0, 0, FAILED), Event(1, 8 * DAY, FAILED), Event(2, 9 * DAY, GOOD, series=None)])
    fold.commit(0)
    assert said(fold) == []


def test_fewer_requests_than_expected_fire_in_silence() -> None:
    few = Condition("request_count < 1", "request_count", Kind.REQUEST_COUNT, Op.LT, Fraction(1))
    fold = Fold(rules(rule(conditions=(few,), required=3)))
    fold.feed(0, [Event(0, 0, GOOD), Event(1, 90 * MINUTE, GOOD, series=None)])
    fold.commit(0)
    assert said(fold) == [("breached", 4)]
    shown = [(w.verdict, w.start // MINUTE, w.length) for w in fold.transitions[0].windows]
    assert shown == [(Verdict.BREACH, 1, 3)]


def test_a_missing_partial_is_refused() -> None:
    fold = Fold(rules(rule()))
    fold.feed(0, events_at([0]))
    fold.commit(0)
    fold.feed(0, [Event(1, MINUTE)])
    lost = replace(fold.aggregators[0].take(), sequence=2, prev=1)
    fold.feed(0, [Event(2, MINUTE)])
    after = replace(fold.aggregators[0].take(), sequence=3, prev=lost.end)
    with pytest.raises(StateGap, match="must follow offset 1, but it follows 2"):
        fold.evaluator.merge(after)


def test_a_repeated_partial_is_refused() -> None:
    fold = Fold(rules(rule()))
    fold.feed(0, events_at([0]))
    partial = replace(fold.aggregators[0].take(), sequence=1)
    fold.evaluator.merge(partial)
    with pytest.raises(StateGap):
        fold.evaluator.merge(partial)


def test_the_evidence_of_a_firing_is_from_its_own_windows() -> None:
    fold = Fold(rules(rule()))
    failing = Event(0, 5, FAILED, 7, trace_id="abc")
    fold.feed(0, [failing, Event(1, 3 * MINUTE, GOOD)])
    fold.commit(0)
    assert [(e.trace_id, e.time, e.latency) for e in fold.transitions[0].failing] == [("abc", 5, 7)]


def test_series_of_a_surface_are_judged_apart() -> None:
    fold = Fold(rules(rule(), group_by=("f",)))
    one, two = SeriesKey("api", ("1",)), SeriesKey("api", ("2",))
    fold.feed(0, [Event(0, 0, FAILED, series=one), Event(1, 0, GOOD, series=two), Event(2, 5 * MINUTE, series=None)])
    fold.commit(0)
    assert [(t.key, t.reason.value) for t in fold.transitions] == [('api/A{f="1"}', "breached")]

"""What is waited for: when its windows begin, what stands for an event that never came, and what is forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.fold import Event, Fold, events_at
from support.rules import DAY, absence, rule, rules

from evaluator.core.aggregate import Aggregator
from evaluator.core.evaluate import Evaluator
from evaluator.core.event import FAILED, MINUTE, SECOND, EpochUs, SeriesKey
from evaluator.core.partial import Origin
from evaluator.core.snapshot import ProgressId
from evaluator.core.verdict import Verdict
from evaluator.wire import state
from evaluator.wire.record import Publisher, alert_record

if TYPE_CHECKING:
    from evaluator.core.rule import RuleSet
    from evaluator.core.snapshot import Snapshot

WAITING = absence("Silent", 5 * MINUTE)
API = SeriesKey("api")


def said(fold: Fold) -> list[tuple[str, str, int]]:
    """Rule, reason and window end in minutes of each transition, in order."""
    return [(t.rule.name, t.reason.value, t.at // MINUTE) for t in fold.transitions]


def decided(fold: Fold) -> list[tuple[str, int, int]]:
    """Verdict and first and last end, in minutes, of the runs of windows about absence."""
    return [
        (window.verdict.value, window.end // MINUTE, window.last_end // MINUTE)
        for about, _, window in fold.verdicts
        if about.is_about_absence
    ]


def ticks(*minutes: float) -> list[Event]:
    """Events of no surface, which move the watermark."""
    return [Event(number, int(minute * MINUTE), series=None) for number, minute in enumerate(minutes)]


def stored(evaluator: Evaluator, rules: RuleSet) -> Snapshot:
    """What a restart reads of everything that changed so far."""
    changes = evaluator.changes()
    records = [state.pane_record(place, evaluator.pane(place)) for place in changes.panes]
    records += [
        state.progress_record(place, evaluator.progress(place), evaluator.totals(place.series))
        for place in changes.progress
    ]
    meta = state.encode_meta(state.Meta(0, 0, 1, 0, rules.hash, evaluator.sources, evaluator.rules))
    snapshot = state.restore([*records, (state.META_KEY, meta)]).snapshot
    assert snapshot is not None
    return snapshot


def test_an_event_that_is_exactly_as_old_as_allowed_is_not_too_old() -> None:
    #  minute   0    1    2    3    4    5    6    7
    #           |    |x   |    |    |    |    |    |     at 6:00 the x is 5m old, at 7:00 older
    fold = Fold(rules(WAITING))
    fold.feed(0, [Event(0, MINUTE), Event(1, 7 * MINUTE, series=None)])
    fold.commit(0)
    assert said(fold) == [("Silent", "breached", 7)]


def test_decisions_begin_with_what_was_read_first_though_the_surface_came_later() -> None:
    fold = Fold(rules(WAITING))
    fold.feed(0, [*ticks(1.5), Event(1, 9 * MINUTE), Event(2, 10 * MINUTE, series=None)])
    fold.commit(0)
    assert said(fold) == [("Silent", "breached", 7), ("Silent", "recovered", 10)]
    assert [run[1:] for run in decided(fold) if run[0] == "BREACH"] == [(7, 7), (8, 8), (9, 9)]


def test_the_earliest_first_event_of_all_partitions_counts() -> None:
    fold = Fold(rules(WAITING), partitions=2)
    fold.feed(0, ticks(4.5, 9))
    fold.feed(1, ticks(2.5, 9))
    fold.commit(0)
    fold.commit(1)
    assert said(fold) == [("Silent", "breached", 8)]


def test_what_was_not_read_is_not_held_against_the_surface() -> None:
    """Reading began at offset 7: the first event, 2:30, and the lateness of 30s settle that 3:00 is where we see."""
    judged = rules(WAITING, out_of_orderness=30 * SECOND)
    fold = Fold(judged)
    fold.aggregators = [Aggregator(judged, judged.sources["events"], 0, 1, 1, start=7)]
    fold.feed(0, [Event(7, 150 * SECOND, series=None), Event(8, 10 * MINUTE, series=None)])
    fold.commit(0)
    assert decided(fold)[0][:2] == ("OK", 4)
    assert said(fold) == [("Silent", "breached", 9)]


@pytest.mark.parametrize("commits", [True, False])
def test_a_first_event_behind_the_clock_of_its_partition_changes_no_beginning(*, commits: bool) -> None:
    """Partition 1 was idle up to 8:00 when its first event came, of 0:10: windows up to there may be decided."""
    fold = Fold(rules(WAITING), partitions=2)
    fold.feed(0, ticks(2.5, 8))
    fold.commit(0)
    fold.aggregators[1].idle(EpochUs(8 * MINUTE))
    if commits:
        fold.commit(1)
    fold.feed(1, ticks(1 / 6))
    fold.commit(1)
    assert decided(fold)[0][:2] == ("OK", 3)
    assert said(fold) == [("Silent", "breached", 8)]


def test_a_new_rule_begins_with_its_first_whole_window_and_waits_from_there() -> None:
    before = Fold(rules(rule()))
    before.feed(0, events_at([0, 90 * SECOND]))
    before.commit(0)
    judged = rules(rule(), WAITING, hash="sha256:new")
    after = Fold(judged)
    after.evaluator = Evaluator(judged, stored(before.evaluator, before.rules))
    after.aggregators = [Aggregator(judged, judged.sources["events"], 0, 1, 1, 2, before.aggregators[0].time)]
    after.aggregators[0]._origin = Origin(0, judged.hash)  # noqa: SLF001  # what the stage hands over
    after._sent = before._sent  # noqa: SLF001  # the same chain
    after.feed(0, [Event(2, 100 * SECOND, series=None)])
    after.commit(0)
    after.feed(0, [Event(3, 10 * MINUTE, series=None)])
    after.commit(0)
    assert decided(after)[0][:2] == ("OK", 3)
    assert said(after)[-1] == ("Silent", "breached", 7)


def test_a_silence_of_a_year_is_a_few_runs_of_windows() -> None:
    fold = Fold(rules(WAITING))
    fold.feed(0, [Event(0, 0), Event(1, 365 * DAY, series=None)])
    fold.commit(0)
    last = 365 * DAY // MINUTE
    assert decided(fold) == [("OK", 1, 1), ("OK", 2, 2), ("OK", 3, 5), ("BREACH", 6, 6), ("BREACH", 7, 7),
                             ("BREACH", 8, last)]  # fmt: skip
    progress = fold.evaluator.progress(ProgressId(API, "Silent"))
    assert progress is not None
    assert [(w.verdict, w.n, w.last_end // MINUTE) for w in progress.windows] == [
        (Verdict.OK, 1, 1), (Verdict.OK, 0, 5), (Verdict.BREACH, 0, last),
    ]  # fmt: skip


def test_the_surface_as_a_whole_takes_no_place_among_its_series() -> None:
    surface = rules(WAITING, rule(), group_by=("f",))
    one = surface.surfaces["api"]
    judged = rules(WAITING, rule(), surfaces={"api": type(one)("api", "events", one.group_by, max_series=2)})
    fold = Fold(judged)
    x, y, z = (SeriesKey("api", (value,)) for value in "xyz")
    for number, series in enumerate((x, y, z)):
        fold.feed(0, [Event(number, MINUTE, FAILED, series=series)])
        fold.commit(0)
    fold.finish(3 * MINUTE)
    assert sorted(t.series.values for t in fold.transitions) == [("__overflow__",), ("x",), ("y",)]
    assert fold.evaluator.totals(API).bad == 0, "each event counts once"


def test_what_is_waited_for_is_known_from_the_start_and_never_forgotten() -> None:
    judged = rules(WAITING, rule())
    fold = Fold(judged)
    assert fold.evaluator.changes().progress == [ProgressId(API, "Silent")]
    fold.feed(0, [Event(0, 0), Event(1, 8 * DAY, series=None)])
    fold.commit(0)
    again = Evaluator(judged, stored(fold.evaluator, judged))
    for evaluator in (fold.evaluator, again):
        assert evaluator.progress(ProgressId(API, "A")) is None
        kept = evaluator.progress(ProgressId(API, "Silent"))
        assert kept is not None
        assert (kept.newest, kept.streak.phase.value) == (0, "firing")


def test_only_the_shard_of_the_whole_surface_waits() -> None:
    judged = rules(WAITING, group_by=("f",))
    evaluators = [Evaluator(judged, None, shard, 4) for shard in range(4)]
    assert sorted(len(evaluator.changes().progress) for evaluator in evaluators) == [0, 0, 0, 1]


def test_an_alert_says_since_when_nothing_came() -> None:
    fold = Fold(rules(absence("Silent", 5 * MINUTE), group_by=("f",)))
    fold.feed(0, [Event(0, 30 * SECOND, series=SeriesKey("api", ("x",))), Event(1, 6 * MINUTE, series=None)])
    fold.commit(0)
    (fired,) = fold.transitions
    record = alert_record(fired, Publisher("app", "", "", ""), [], late=False)
    summary = "api: no event since 1970-01-01T00:00:30Z, expected every 300000000us"
    assert (record["key"], record["annotations"]) == ("api/Silent", {"summary": summary})
    assert record["labels"] == {"alertname": "Silent", "severity": "page", "surface": "api"}

"""What a change of the rules does: nothing, or something said aloud (docs/semantics.md, 12)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from support.fold import Event, Fold
from support.rules import rule, rules

from evaluator.core.aggregate import Aggregator
from evaluator.core.alert import key_of
from evaluator.core.evaluate import Evaluator, Snapshot
from evaluator.core.event import FAILED, GOOD, MINUTE, EpochUs, SeriesKey
from evaluator.core.partial import Origin

if TYPE_CHECKING:
    from evaluator.core.alert import Transition
    from evaluator.core.rule import RuleSet


def snapshot_of(evaluator: Evaluator) -> Snapshot:
    """What a restart reads."""
    changes = evaluator.changes()
    panes = {place: pane for place in changes.panes if (pane := evaluator.pane(place)) is not None}
    progress = {place: found for place in changes.progress if (found := evaluator.progress(place)) is not None}
    totals = {place.series: evaluator.totals(place.series) for place in progress}
    return Snapshot(evaluator.sources, evaluator.rules, panes, progress, totals)


def restarted(before: Fold, changed: RuleSet) -> Fold:
    """The same log under other rules; stage 1 says which panes the old rules filled."""
    after = Fold(changed)
    after.evaluator = Evaluator(changed, snapshot_of(before.evaluator))
    after.aggregators = before.aggregators
    for aggregator in after.aggregators:
        aggregator._origin = Origin(changed.revision, changed.hash)  # noqa: SLF001  # a restart makes a new one
    after._sent, after._sequence = before._sent, before._sequence  # noqa: SLF001  # the same chain
    return after


def firing() -> Fold:
    fold = Fold(rules(rule(), rule("Other")))
    fold.feed(0, [Event(0, 0, FAILED), Event(1, MINUTE, FAILED)])
    fold.commit(0)
    return fold


def said(transitions: list[Transition]) -> list[tuple[str, str, int]]:
    return [(t.rule.name, t.reason.value, t.at // MINUTE) for t in transitions]


def test_a_restart_under_the_same_rules_changes_nothing() -> None:
    after = restarted(firing(), firing().rules)
    assert after.evaluator.decide().transitions == []
    assert after.evaluator.changes().progress == []


def test_a_removed_rule_resolves_at_its_last_decided_window() -> None:
    after = restarted(firing(), rules(rule("Other"), hash="sha256:new"))
    assert said(after.evaluator.decide().transitions) == [("A", "rule_removed", 1)]


def test_a_changed_rule_resolves_and_begins_again_on_whole_panes() -> None:
    changed = rules(rule(severity="ticket", definition="A2"), rule("Other"), hash="sha256:new")
    after = restarted(firing(), changed)
    assert said(after.evaluator.decide().transitions) == [("A", "rule_changed", 1)]
    after.feed(0, [Event(2, MINUTE + 1, FAILED)])
    partial = replace(after.aggregators[0].take(), sequence=2, prev=2, since=EpochUs(2 * MINUTE))
    after.evaluator.merge(partial)
    after._sent[0] = partial.end  # noqa: SLF001  # the same chain
    after.feed(0, [Event(3, 3 * MINUTE, FAILED), Event(4, 5 * MINUTE, GOOD)])
    after.commit(0)
    # The window from 1:00 was filled under the old rules: the changed one begins with the pane from 2:00 on.
    assert said([t for t in after.transitions if t.rule.name == "A"]) == [("A", "breached", 4)]


def test_the_labels_of_a_changed_rule_resolve_as_they_fired() -> None:
    changed = rules(rule(severity="ticket", definition="A2"), rule("Other"), hash="sha256:new")
    (resolved,) = restarted(firing(), changed).evaluator.decide().transitions
    assert resolved.labels["severity"] == "page"


def test_a_new_rule_waits_until_every_partition_reports_under_its_config() -> None:
    after = restarted(firing(), rules(rule(), rule("Other"), rule("New"), hash="sha256:new"))
    assert after.evaluator.rules["New"].begin is None
    after.feed(0, [Event(2, 4 * MINUTE, FAILED), Event(3, 6 * MINUTE, GOOD)])
    after.commit(0)
    assert after.evaluator.rules["New"].begin == 6 * MINUTE


def test_series_of_a_former_group_by_are_let_go() -> None:
    series = SeriesKey("api", ("x",))
    fold = Fold(rules(rule(), group_by=("f",)))
    fold.feed(0, [Event(0, 0, FAILED, series=series), Event(1, MINUTE + 1, FAILED, series=series)])
    fold.commit(0)
    after = restarted(fold, rules(rule(definition="A2"), group_by=("f", "g"), hash="sha256:new"))
    assert said(after.evaluator.decide().transitions) == [("A", "rule_changed", 1)]
    # What stage 1 sent before its own restart is read under the new rules.
    after.feed(0, [Event(2, MINUTE + 2, FAILED, series=series)])
    after.commit(0)
    (place,) = after.evaluator.changes().progress
    assert after.evaluator.progress(place) is None
    known = after.evaluator.rule_of(place)
    assert key_of(known.rule, known.surface, place.series) == 'api/A{f="x"}'


def test_editing_annotations_changes_no_state() -> None:
    after = restarted(firing(), rules(rule(annotations={"a": "b"}), rule("Other"), hash="sha256:new"))
    assert after.evaluator.decide().transitions == []
    after.feed(0, [Event(2, 2 * MINUTE, GOOD), Event(3, 4 * MINUTE, GOOD)])
    after.commit(0)
    assert ("A", "recovered", 3) in said(after.transitions)


@pytest.mark.parametrize("every", [1, 3, 78])
def test_a_rule_that_begins_later_shows_the_same_evidence_however_its_first_window_was_cut(every: int) -> None:
    """Its panes are complete long before its first window ends."""
    hour = rule("Hour", window=60 * MINUTE, every=5 * MINUTE, min_samples=1)
    before = Fold(rules(rule("Other")))
    before.feed(0, [Event(0, 0, GOOD)])
    before.commit(0)
    changed = rules(rule("Other"), hour, hash="sha256:new")
    after = restarted(before, changed)
    time = before.aggregators[0].time
    after.aggregators = [Aggregator(changed, changed.sources["events"], 0, 1, 1, start=1, time=time)]
    minutes = range(2, 80)
    # It begins with the first that is reported under the new config.
    for some in ([1], *(minutes[first : first + every] for first in range(0, len(minutes), every))):
        events = [Event(n, n * MINUTE, FAILED if n == 12 else GOOD, trace_id=f"t{n}") for n in some]
        after.feed(0, events)
        after.commit(0)
    (fired,) = [t for t in after.transitions if t.rule.name == "Hour" and t.reason.value == "breached"]
    assert [event.trace_id for event in fired.failing] == ["t12"]

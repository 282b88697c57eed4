"""What a change of the rules does: nothing, or something said aloud (docs/semantics.md, 12)."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
from support.fold import Event, Fold
from support.rules import absence, rule, rules

from evaluator.core.aggregate import Aggregator
from evaluator.core.alert import key_of
from evaluator.core.condition import Condition, Kind, Op
from evaluator.core.evaluate import Evaluator
from evaluator.core.event import FAILED, GOOD, MINUTE, DurationUs, EpochUs, SeriesKey
from evaluator.core.partial import Origin
from evaluator.core.rule import Deploys, Rule
from evaluator.core.snapshot import Snapshot

if TYPE_CHECKING:
    from evaluator.core.alert import Transition
    from evaluator.core.rule import RuleSet


def snapshot_of(evaluator: Evaluator) -> Snapshot:
    """What a restart reads."""
    changes = evaluator.changes()
    panes = [(place, pane) for place in changes.panes if (pane := evaluator.pane(place)) is not None]
    progress = {place: found for place in changes.progress if (found := evaluator.progress(place)) is not None}
    totals = {place.series: evaluator.totals(place.series) for place in progress}
    waiting = {place: found for place in changes.waiting if (found := evaluator.waiting(place)) is not None}
    groups = {place: found for place in changes.groups if (found := evaluator.group(place)) is not None}
    return Snapshot(evaluator.sources, evaluator.rules, panes, progress, totals, waiting, groups)


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


LOW = Condition("score < 0.75", "score", Kind.SCORE, Op.LT, Fraction(3, 4))


def about_deploys(**changes: Any) -> Rule:
    """A rule over deploys that settle for five minutes."""
    settle = DurationUs(5 * MINUTE)
    return rule(conditions=(LOW,), deploys=Deploys(settle), window=settle, every=settle, **changes)


def runs(*given: tuple[int, str, int]) -> list[Event]:
    """Runs of (minute, deploy, score in hundredths), an offset each, of which the first is its minute."""
    return [Event(minute, minute * MINUTE, deploy=deploy, score=score * 10**4) for minute, deploy, score in given]


def with_runs(*given: tuple[int, str, int]) -> Fold:
    fold = Fold(rules(about_deploys(), rule("Other")))
    fold.feed(0, runs(*given))
    fold.commit(0)
    return fold


def judged_after(before: Fold, changed: RuleSet, *given: tuple[int, str, int]) -> tuple[list[str], Fold]:
    """The deploys that are judged under the changed rules, by what comes after the change."""
    after = restarted(before, replace(changed, hash="sha256:new"))
    after.commit(0)
    after.feed(0, runs(*given))
    after.finish(60 * MINUTE)
    return [window.deploy or "" for judged, _, window in after.verdicts if judged.deploys is not None], after


def test_a_changed_rule_does_not_judge_a_deploy_of_which_it_saw_the_end_only() -> None:
    """`b` was open when the rule changed; `a` was closed, and stays so."""
    before = with_runs((0, "a", 90), (1, "b", 90), (2, "b", 90))
    changed = rules(about_deploys(definition="changed"), rule("Other"))
    assert judged_after(before, changed, (3, "b", 10), (4, "a", 10), (5, "c", 10), (6, "d", 90))[0] == ["c", "d"]


def test_a_rule_that_stays_goes_on_with_its_deploys() -> None:
    before = with_runs((0, "a", 90), (1, "b", 90), (2, "b", 90))
    after = judged_after(before, rules(about_deploys(), rule("Other")), (3, "b", 10), (4, "a", 10), (5, "c", 10))[1]
    assert [(w.deploy, w.n) for judged, _, w in after.verdicts if judged.deploys is not None] == [("b", 3), ("c", 1)]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [(rules(rule("Other")), "rule_removed"), (rules(about_deploys(definition="x"), rule("Other")), "rule_changed"),
     (rules(rule(definition="x"), rule("Other")), "rule_changed")],
)  # fmt: skip
def test_a_rule_about_deploys_resolves_at_the_end_of_the_last_deploy_that_it_judged(
    changed: RuleSet, reason: str
) -> None:
    before = with_runs((0, "a", 10), (3, "b", 10), (4, "b", 10), (5, "c", 10), (6, "c", 10))
    assert said(before.transitions) == [("A", "breached", 0)]
    after = restarted(before, replace(changed, hash="sha256:new"))
    assert said(after.evaluator.decide().transitions) == [("A", reason, 4)]


def test_runs_that_wait_and_groups_are_let_go_with_the_last_rule_about_deploys() -> None:
    before = with_runs((0, "a", 90), (1, "b", 90), (2, "b", 90))
    stored = snapshot_of(before.evaluator)
    assert stored.waiting
    assert {(place.deploy, group.pane is None) for place, group in stored.groups.items()} == {("a", True), ("b", False)}
    changes = Evaluator(rules(rule("Other"), hash="sha256:new"), stored).changes()
    assert set(changes.waiting) == stored.waiting.keys()
    assert set(changes.groups) == stored.groups.keys()


def test_groups_of_a_surface_that_is_split_now_are_let_go_though_it_is_still_judged_as_a_whole() -> None:
    before = with_runs((0, "a", 90), (1, "b", 90), (2, "b", 90))
    stored = snapshot_of(before.evaluator)
    split = rules(about_deploys(definition="x"), absence("Silent", 5 * MINUTE), group_by=("f",), hash="sha256:new")
    changes = Evaluator(split, stored).changes()
    assert set(changes.groups) == stored.groups.keys()
    assert set(changes.waiting) == stored.waiting.keys()

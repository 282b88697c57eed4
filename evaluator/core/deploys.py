"""Run groups of one series, for one rule with `window: deploy`: which there are, when they close, what they decide.

The events of a series are taken in the order (time, partition, offset), each once no earlier one can come. In that
order there is one open group a context, at most:

    closes with         an event of another deploy of its context, the `runs`-th event of its own,
                        or `settle` of silence after its last event
    never opens again   what still comes of its deploy is late

A group is judged when it closes, as the window from its first event to its last. It knows verdicts and streaks as
`decide.py` does, and no grid.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from evaluator.core.decide import WINDOWS_KEPT, Proof, turn_of
from evaluator.core.event import EpochUs
from evaluator.core.runs import CLOSED, RunGroup, median_of, stored
from evaluator.core.streak import INACTIVE, Phase, Reason, advance
from evaluator.core.verdict import Effect, judge
from evaluator.core.watermark import BEGINNING

if TYPE_CHECKING:
    from evaluator.core.decide import Progress, Turn
    from evaluator.core.rule import Deploys, Rule
    from evaluator.core.runs import RunEvent, StoredGroup
    from evaluator.core.streak import Streak
    from evaluator.core.verdict import Window


class Deploy(NamedTuple):
    """What the events of a group have in common."""

    context: str
    deploy: str


@dataclass(slots=True)
class Groups:
    """The groups of a series: the open ones, and the deploys whose group is closed."""

    open: dict[Deploy, RunGroup] = field(default_factory=dict)
    closed: set[Deploy] = field(default_factory=set)

    def __bool__(self) -> bool:
        """Whether anything is known of any deploy."""
        return bool(self.open or self.closed)

    def restore(self, deploy: Deploy, group: StoredGroup) -> None:
        """Keep a group that was stored."""
        opened = group.group
        if opened is None:
            self.closed.add(deploy)
        else:
            self.open[deploy] = opened

    def stored(self, deploy: Deploy) -> StoredGroup | None:
        """The stored form of a group, None where there is none."""
        if deploy in self.open:
            return stored(self.open[deploy])
        return CLOSED if deploy in self.closed else None


class DeployWalk:
    """Takes events of one series for `rule`, in order, and decides the groups that close.

    A group that began before `since` is grouped, not decided: not all of it was read, or not under this rule. The
    groups of `changed` are to be stored, and the progress if it `is_touched`.
    """

    def __init__(self, rule: Rule, progress: Progress, groups: Groups, since: EpochUs) -> None:
        self.turns: list[Turn] = []
        self.decided: list[Window] = []
        self.changed: set[Deploy] = set()
        self.is_touched = False
        assert rule.deploys is not None
        self._deploys: Deploys = rule.deploys
        self._counted = rule.counted
        self._rule, self._progress, self._groups, self._since = rule, progress, groups, since

    def take(self, event: RunEvent) -> bool:
        """The next event in order; whether it counts. What its time closes is closed before it."""
        self.pass_time(event.time)
        self._progress.newest, self.is_touched = event.time, True
        place = Deploy(event.context, event.deploy)
        if not event.deploy or place in self._groups.closed:
            return False
        self.changed.add(place)
        group = self._groups.open.get(place)
        if group is None:
            for other in [each for each in self._groups.open if each.context == place.context]:
                self._close(other)
            group = self._groups.open[place] = RunGroup.begun(event, self._counted)
        else:
            group.add(event, self._counted)
        if group.runs == self._deploys.runs:
            self._close(place)
        return True

    def pass_time(self, until: EpochUs) -> None:
        """No event before `until` will come: groups that settled close, and a silent series is forgotten."""
        if self._progress.newest == BEGINNING:
            return
        opened = ((group.pane.last, place) for place, group in self._groups.open.items())
        for _, place in sorted(each for each in opened if each[0] <= until - self._deploys.settle):
            self._close(place)
        if self._progress.newest <= until - self._rule.forget_after:
            self._forget(EpochUs(self._progress.newest + self._rule.forget_after))

    def _close(self, place: Deploy) -> None:
        group = self._groups.open.pop(place)
        self._groups.closed.add(place)
        self.changed.add(place)
        if group.pane.first >= self._since:
            self._decide(place, group)

    def _decide(self, place: Deploy, group: RunGroup) -> None:
        progress, deploys, pane = self._progress, self._deploys, group.pane
        sums = group.sums(median_of(Counter(progress.bases)))
        window = judge(self._rule, pane.first, pane.last, sums)._replace(deploy=place.deploy, context=place.context)
        counts = place.context in deploys.contexts
        if not counts:
            window = window._replace(effect=Effect.SHOWN)
        self.decided.append(window)
        self.is_touched = True
        progress.windows = _with(progress.windows, window)
        if place.context == deploys.baseline_context and sums.scored.value is not None:
            progress.bases = (*progress.bases, sums.scored.value)[-deploys.baseline :]
        if counts:
            self._advance(window, group)

    def _advance(self, window: Window, group: RunGroup) -> None:
        progress, before = self._progress, self._progress.streak
        progress.next_end = EpochUs(window.end + self._rule.every)
        if group.pane.failing:
            progress.failing = Proof(window.start, group.pane.failing)
        if group.pane.slowest:
            progress.slowest = Proof(window.start, group.pane.slowest)
        # A group has an event at its end: a held one is never the silence that expires.
        step = advance(self._rule, before, window.effect, window.start, window.end, window.end)
        progress.streak = step.streak
        if step.reason is not None:
            self._turn(step.reason, window.end, step.streak if step.reason is Reason.BREACHED else before)

    def _forget(self, at: EpochUs) -> None:
        progress, groups = self._progress, self._groups
        if progress.streak.phase is Phase.FIRING:
            self._turn(Reason.EXPIRED, at, progress.streak)
        self.changed |= groups.open.keys() | groups.closed
        groups.open.clear()
        groups.closed.clear()
        progress.streak, progress.next_end, progress.windows, progress.bases = INACTIVE, None, (), ()
        progress.newest, progress.failing, progress.slowest = BEGINNING, None, None
        self.is_touched = True

    def _turn(self, reason: Reason, at: EpochUs, streak: Streak) -> None:
        self.turns.append(turn_of(self._progress, reason, at, streak))


def _with(windows: tuple[Window, ...], window: Window) -> tuple[Window, ...]:
    """`windows` with one more at the end; those that count and those that are only shown do not push out each other."""
    kept = (*windows, window)
    alike = [each for each in kept if (each.effect is Effect.SHOWN) == (window.effect is Effect.SHOWN)]
    return kept if len(alike) <= WINDOWS_KEPT else tuple(each for each in kept if each is not alike[0])

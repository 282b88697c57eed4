"""Blindness: a window that should have been decided long ago and was not, because we cannot see.

It is no verdict and changes no streak (docs/semantics.md, 6). The page shows it at once. Who reads the alert
topic only is told by `EvaluatorBlind`, the one alert that a clock decides: it fires where a source was seen to
be blind for a while without a break, and resolves once nothing is overdue any more. Which episode is open is
part of the shard's state, so that each is told once, whoever owns the shard.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from evaluator.core.alert import Transition, key_of, labels_of
from evaluator.core.event import SECOND, DurationUs, EpochUs, SeriesKey, shard_of
from evaluator.core.rule import GroupField, Rule, Surface
from evaluator.core.streak import Phase, Reason, Streak
from evaluator.core.watermark import BEGINNING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from evaluator.core.rule import RuleSet
    from evaluator.core.snapshot import SourceState

ALERT = "EvaluatorBlind"
SURFACE = "evaluator"
"""What the alert is about: ourselves. The source is a label."""

OBSERVED = DurationUs(30 * SECOND)
"""How long a source is seen to be blind before it is told: a restart that catches up at once tells nothing."""

LOOK_EVERY = SECOND
UNWATCHED = DurationUs(10 * SECOND)
"""A longer time between two looks is a break: nobody knows what was to be seen meanwhile."""


class Telling(NamedTuple):
    """Whether and how blindness is told: the severity of the alert, and how long it is observed first."""

    severity: str = "page"
    observed: DurationUs = OBSERVED


@dataclass(frozen=True, slots=True)
class Episode:
    """A blindness that was told and is not over. `starts_at` is the end of the first window that was overdue."""

    starts_at: EpochUs
    fired_at: EpochUs
    severity: str


def overdue(
    every: Iterable[int], watermark: EpochUs | None, since: EpochUs, rules: RuleSet, now: EpochUs
) -> EpochUs | None:
    """The end of the first window that is overdue by more than `blind_after`, over the steps `every`.

    Before there is a watermark, the first window that we could have decided is the one that runs `since`.
    """
    last = since if watermark is None else watermark
    end = min(((last // step + 1) * step for step in every), default=None)
    return EpochUs(end) if end is not None and now - end > rules.blind_after else None


class Blindness:
    """Watches the sources that one shard answers for. `episodes` are those that the shard has told."""

    def __init__(
        self, rules: RuleSet, shard: int, shards: int, telling: Telling | None, episodes: Mapping[str, Episode]
    ) -> None:
        self.episodes = dict(episodes)
        self._rules, self._telling = rules, telling
        self._watched = [name for name in rules.sources if shard_of(_series(name), shards) == shard]
        self._steps = {name: rules.grids_of(name) for name in self._watched}
        self._blind_since: dict[str, EpochUs] = {}
        self._began: EpochUs | None = None
        self._looked = BEGINNING

    def look(self, now: EpochUs, sources: Mapping[str, SourceState]) -> list[Transition]:
        """What is to be told, at most once a second. The result is to be published, or this object thrown away."""
        if self._telling is None and not self.episodes:
            return []
        if 0 <= now - self._looked < LOOK_EVERY:
            return []
        if not 0 <= now - self._looked <= UNWATCHED:
            self.forget()
        self._looked = now
        self._began = now if self._began is None else self._began
        second = EpochUs(now // SECOND * SECOND)
        gone = [name for name in sorted(self.episodes) if self._telling is None or name not in self._watched]
        told = [self._resolve(name, second, Reason.RULE_REMOVED) for name in gone]
        if self._telling is None:
            return told
        for name in self._watched:
            state = sources.get(name)
            watermark = None if state is None or state.time.watermark == BEGINNING else state.time.watermark
            late = overdue(self._steps[name], watermark, self._began, self._rules, now)
            if name in self.episodes:
                if late is None and watermark is not None:
                    told.append(self._resolve(name, second, Reason.RECOVERED))
            elif late is None:
                self._blind_since.pop(name, None)
            elif now - self._blind_since.setdefault(name, now) >= self._telling.observed:
                told.append(self._fire(name, Episode(late, second, self._telling.severity)))
        return told

    def forget(self) -> None:
        """What was seen so far does not count any more: there was a break, or no clock to trust."""
        self._blind_since.clear()

    def _fire(self, name: str, episode: Episode) -> Transition:
        del self._blind_since[name]
        self.episodes[name] = episode
        return transition(self._rules, name, episode, Reason.BLIND, episode.fired_at)

    def _resolve(self, name: str, now: EpochUs, reason: Reason) -> Transition:
        return transition(self._rules, name, self.episodes.pop(name), reason, now)


def streak_of(turn: Transition) -> Streak:
    """What the status of a blindness that fired shows."""
    return Streak(Phase.FIRING, 1, turn.starts_at, turn.fired_at)


def transition(rules: RuleSet, source: str, episode: Episode, reason: Reason, at: EpochUs) -> Transition:
    """An episode's beginning or end, in the form of every other alert."""
    surface = Surface(SURFACE, source, (GroupField("source", "source"),))
    rule = Rule(
        name=ALERT, surface=SURFACE, severity=episode.severity, conditions=(), window=rules.blind_after,
        every=rules.blind_after, required=1, among=None, resolve_after=1, max_gap=0, expire_after=DurationUs(0),
        forget_after=DurationUs(0), definition="",
    )  # fmt: skip
    series = _series(source)
    return Transition(
        rule=rule, surface=surface, series=series, labels=labels_of(rule, surface, series),
        key=key_of(rule, surface, series), reason=reason, at=at, starts_at=episode.starts_at,
        fired_at=episode.fired_at,
    )  # fmt: skip


def _series(source: str) -> SeriesKey:
    return SeriesKey(SURFACE, (source,))

"""Run groups: what is kept of the runs of one deploy.

A rule with `window: deploy` has no grid of time. Its unit is the events of a series that share a deploy and a context
(what they were made for: main, a pull request). Which groups there are and when they close is in `deploys.py`; this
module knows single events, which the windows of time never see, and what a group of them adds up to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evaluator.core import sketch
from evaluator.core.event import FAILED, NO_LATENCY, NO_SCORE, UNKNOWN, DurationUs, EpochUs
from evaluator.core.packed import Packed, pack, unpacked
from evaluator.core.pane import Counts, Evidence, Pane
from evaluator.core.sums import Scored, Sums, summed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class RunEvent(NamedTuple):
    """One on-time event. `deploy` is "" where it has none; `score` in 10^-6, or NO_SCORE, as one that failed has."""

    time: EpochUs
    offset: int
    deploy: str
    context: str
    failed: int
    latency: DurationUs | int
    score: int
    weight: int
    trace_id: str


@dataclass(slots=True)
class RunGroup:
    """The events of a series with one deploy and one context, so far.

    `scores` says how often each score occurs, so that it grows with the scores there are and not with the runs.
    """

    pane: Pane
    scores: dict[int, int] = field(default_factory=dict)

    @classmethod
    def begun(cls, event: RunEvent, thresholds: Sequence[int]) -> RunGroup:
        """The group of a single event. Latencies over each of the `thresholds` are counted."""
        return cls(_pane_of(event, thresholds), {} if event.score == NO_SCORE else {event.score: 1})

    @property
    def runs(self) -> int:
        """How many events there are, whatever they weigh."""
        return self.pane.events.n

    def add(self, event: RunEvent, thresholds: Sequence[int]) -> None:
        """One more event."""
        other = RunGroup.begun(event, thresholds)
        self.pane.merge(other.pane)
        for score in other.scores:
            self.scores[score] = self.scores.get(score, 0) + 1

    def sums(self, base: int | None) -> Sums:
        """What the group is judged by; `base` is the score that a drop is measured from, None: there is none."""
        sums = summed([pack(self.pane).counted])
        sums.scored = Scored(sum(self.scores.values()), median_of(self.scores), base)
        return sums


def _pane_of(event: RunEvent, thresholds: Sequence[int]) -> Pane:
    evidence = (Evidence(event.time, event.trace_id, event.latency),)
    has_latency = event.latency != NO_LATENCY
    return Pane(
        weighted=_counts_of(event, event.weight, thresholds),
        raw=None if event.weight == 1 else _counts_of(event, 1, thresholds),
        first=event.time, last=event.time, lat_max=event.latency,
        lat_sum=event.weight * event.latency if has_latency else 0,
        bins={int(sketch.bins_of(np.array([event.latency]))[0]): event.weight} if has_latency else {},
        failing=evidence if event.failed == FAILED else (), slowest=evidence if has_latency else (),
    )  # fmt: skip


def _counts_of(event: RunEvent, weight: int, thresholds: Sequence[int]) -> Counts:
    return Counts(
        n=weight,
        known=weight if event.failed != UNKNOWN else 0,
        bad=weight if event.failed == FAILED else 0,
        lat_n=weight if event.latency != NO_LATENCY else 0,
        over={threshold: weight if event.latency > threshold else 0 for threshold in thresholds},
    )


def median_of(counted: Mapping[int, int]) -> int | None:
    """The median of values that occur as often as counted, the lower of the middle two; None without any."""
    rank, seen = (sum(counted.values()) + 1) // 2, 0
    for value in sorted(counted):
        seen += counted[value]
        if seen >= rank:
            return value
    return None


class StoredGroup(NamedTuple):
    """A group as it is stored; without a pane it is closed, and only known not to be opened again."""

    pane: Packed | None = None
    scores: tuple[tuple[int, int], ...] = ()

    @property
    def group(self) -> RunGroup | None:
        """The group, None if it is closed."""
        return None if self.pane is None else RunGroup(unpacked(self.pane), dict(self.scores))


CLOSED = StoredGroup()


def stored(group: RunGroup) -> StoredGroup:
    """The stored form of an open group; equal groups are equal bytes."""
    return StoredGroup(pack(group.pane.copy()), tuple(sorted(group.scores.items())))

"""Counts of durations in fixed buckets, for the metrics; cheap enough to observe on every commit."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from math import inf

COMMIT_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""A commit on a near broker takes 10 ms, one that waits for a leader to move half a minute."""

DELAY_S = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)
"""An alert comes `out_of_orderness` and a few commits after its window: seconds to minutes, hours when behind."""


class Histogram:
    """Durations in seconds, of which each bucket counts those up to its bound."""

    __slots__ = ("_counts", "bounds", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = (*bounds, inf)
        self.sum = 0.0
        self._counts = [0] * len(self.bounds)

    def observe(self, seconds: float) -> None:
        """Count one duration. A negative one, which only a clock that was set back makes, counts as none."""
        seconds = max(0.0, seconds)
        self._counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds

    def cumulative(self) -> list[tuple[float, int]]:
        """For each bound how many durations were at most that; the last bound is infinity."""
        return list(zip(self.bounds, accumulate(self._counts), strict=True))

    def copy(self) -> Histogram:
        """The same as it is now."""
        same = Histogram(self.bounds[:-1])
        same.sum, same._counts = self.sum, self._counts.copy()
        return same

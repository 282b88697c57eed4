"""What a window is judged by: its panes, added up as they are packed."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from evaluator.core import sketch
from evaluator.core.event import NO_LATENCY, Int64s
from evaluator.core.packed import EXACT, Unsigned, bins_of, counts_of, layout_of
from evaluator.core.pane import CARRY_BITS, Counts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from fractions import Fraction

    from evaluator.core.event import DurationUs


@dataclass(slots=True)
class Sums:
    """The counts of a window; `raw` is None while every weight was 1.

    `numbers` and `counts` are the bins of its panes, ascending for each pane; `panes` says of how many.
    """

    weighted: Counts
    raw: Counts | None = None
    lat_sum: int = 0
    lat_max: int = NO_LATENCY
    numbers: Int64s = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    counts: Unsigned = field(default_factory=lambda: np.zeros(0, dtype=np.uint8))
    panes: int = 0

    @property
    def events(self) -> Counts:
        """The counts of events, whatever they weigh."""
        return self.weighted if self.raw is None else self.raw

    def add(self, other: Sums) -> None:
        """Add another's counts."""
        if self.raw is not None or other.raw is not None:
            self.raw = self.weighted.copy() if self.raw is None else self.raw
            self.raw.add(other.events)
        self.weighted.add(other.weighted)
        self.lat_sum += other.lat_sum
        self.lat_max = max(self.lat_max, other.lat_max)
        self.numbers = np.concatenate((self.numbers, other.numbers))
        self.counts = np.concatenate((self.counts, other.counts))
        self.panes += other.panes

    def quantile(self, q: Fraction) -> DurationUs | None:
        """Estimate of the nearest-rank quantile of the latencies at `q` in (0, 1), within 1 %; None without any."""
        numbers, counts = self.numbers, self.counts
        if not len(numbers):
            return None
        if self.panes > 1:
            order = np.argsort(numbers.astype(np.uint16), kind="stable")
            numbers, counts = numbers[order], counts[order]
        seen = np.cumsum(counts, dtype=np.int64 if self.weighted.lat_n < EXACT else object)
        rank = -(-q.numerator * int(seen[-1]) // q.denominator)
        return sketch.shown(int(numbers[np.searchsorted(seen, rank)]))


def nothing(thresholds: tuple[int, ...]) -> Sums:
    """A window without events."""
    return Sums(Counts(over=dict.fromkeys(thresholds, 0)))


def summed(panes: Sequence[bytes]) -> Sums:
    """The sum of packed panes (at least one) of one series by what they counted."""
    if len(panes) == 1:
        return _of_one(panes[0])
    alike: defaultdict[bytes, list[bytes]] = defaultdict(list)
    for counted in panes:
        alike[counted[: layout_of(counted).prefix]].append(counted)
    whole, *others = (_summed_alike(each) for each in alike.values())
    for other in others:
        whole.add(other)
    return whole


def _of_one(counted: bytes) -> Sums:
    its = layout_of(counted)
    values = its.head.unpack_from(counted)
    bins, begin, over = values[its.bins], its.head.size, values[its.over]
    return Sums(
        weighted=counts_of(values[its.weighted], over),
        raw=None if its.raw is None else counts_of(values[its.raw], over),
        lat_sum=(values[its.carry] << CARRY_BITS) + values[its.lat_sum],
        lat_max=values[its.lat_max],
        numbers=np.cumsum(np.frombuffer(counted, its.step, bins, begin), dtype=np.int64) + values[its.lowest],
        counts=np.frombuffer(counted, its.count, bins, begin + its.step.itemsize * bins),
        panes=1,
    )


def _summed_alike(panes: list[bytes]) -> Sums:
    """The sum of panes of one layout that counted the same thresholds."""
    its = layout_of(panes[0])
    columns = list(zip(*map(its.head.unpack_from, panes), strict=True))
    over = [threshold for threshold, *_ in columns[its.over]]
    numbers, counts = bins_of(panes, columns[its.bins], columns[its.lowest], its)
    return Sums(
        weighted=counts_of(list(map(sum, columns[its.weighted])), over),
        raw=None if its.raw is None else counts_of(list(map(sum, columns[its.raw])), over),
        lat_sum=(sum(columns[its.carry]) << CARRY_BITS) + sum(columns[its.lat_sum]),
        lat_max=max(columns[its.lat_max]),
        numbers=numbers,
        counts=counts,
        panes=len(panes),
    )

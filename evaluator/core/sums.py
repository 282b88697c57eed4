"""What a window is judged by: its panes, added up as they are packed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evaluator.core import sketch
from evaluator.core.event import NO_LATENCY
from evaluator.core.packed import EXACT, bins_in, bins_of, counts_of, layout_of
from evaluator.core.pane import CARRY_BITS, Counts

if TYPE_CHECKING:
    from fractions import Fraction

    from evaluator.core.event import DurationUs, Int64s
    from evaluator.core.packed import Unsigned


class Scored(NamedTuple):
    """The scores of a run group, in 10^-6: how many, their median, and what a drop is measured from."""

    size: int = 0
    value: int | None = None
    base: int | None = None


UNSCORED = Scored()


@dataclass(slots=True)
class Sums:
    """The counts of a window; `raw` is None while every weight was 1. `panes` are what was added up.

    `newest` is the newest event up to its end, and `silence` how old that is at its end: for `expect_every` only.
    Only run groups have scores.
    """

    weighted: Counts
    raw: Counts | None = None
    lat_sum: int = 0
    lat_max: int = NO_LATENCY
    panes: Sequence[bytes] = ()
    newest: int = 0
    silence: int = 0
    scored: Scored = UNSCORED

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
        self.panes = [*self.panes, *other.panes]

    def quantile(self, q: Fraction) -> DurationUs | None:
        """Estimate of the nearest-rank quantile of the latencies at `q` in (0, 1), within 1 %; None without any.

        Only here bins are looked at: most windows are judged without.
        """
        if not self.panes:
            return None
        numbers, counts = _bins(self.panes)
        if not len(numbers):
            return None
        seen = np.add.accumulate(counts, dtype=np.int64 if self.weighted.lat_n < EXACT else object)
        rank = -(-q.numerator * int(seen[-1]) // q.denominator)
        return sketch.shown(int(numbers[seen.searchsorted(rank)]))


def _bins(panes: Sequence[bytes]) -> tuple[Int64s, Unsigned]:
    """Numbers and counts of the bins of packed panes, ascending; a number once for each pane that has it."""
    if len(panes) == 1:
        return bins_in(panes[0])
    columns = zip(*map(bins_of, _alike(panes)), strict=True)
    numbers, counts = map(np.concatenate, columns)
    order = np.argsort(numbers.astype(np.uint16), kind="stable")
    return numbers[order], counts[order]


def nothing(thresholds: tuple[int, ...]) -> Sums:
    """A window without events."""
    return Sums(Counts(over=dict.fromkeys(thresholds, 0)))


def summed(panes: Sequence[bytes]) -> Sums:
    """The sum of packed panes (at least one) of one series by what they counted."""
    whole, *others = map(_summed_alike, _alike(panes))
    for other in others:
        whole.add(other)
    return whole


def _alike(panes: Sequence[bytes]) -> list[list[bytes]]:
    """The panes by shape and thresholds."""
    if len(panes) == 1:
        return [[panes[0]]]
    found: defaultdict[bytes, list[bytes]] = defaultdict(list)
    for counted in panes:
        found[counted[: layout_of(counted).prefix]].append(counted)
    return list(found.values())


def _summed_alike(panes: list[bytes]) -> Sums:
    """The sum of panes of one shape that counted the same thresholds."""
    its = layout_of(panes[0])
    rows = list(map(its.head.unpack_from, panes))
    values = rows[0] if len(rows) == 1 else [*map(sum, zip(*rows, strict=True))]
    over = rows[0][its.over]
    return Sums(
        weighted=counts_of(values[its.weighted], over),
        raw=None if its.raw is None else counts_of(values[its.raw], over),
        lat_sum=(values[its.carry] << CARRY_BITS) + values[its.lat_sum],
        lat_max=max(row[its.lat_max] for row in rows),
        panes=panes,
    )

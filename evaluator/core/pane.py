"""Panes: what is kept of the events of one series in one step of time.

A pane holds only integers that can be added, the largest latency, and a little evidence. Merging is
associative and commutative to the byte: two processes that saw the halves of a pane agree with one that
saw all of it. A pane never says whether something is wrong; windows of panes do (`verdict.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import itemgetter
from typing import NamedTuple

from evaluator.core.event import NO_LATENCY, DurationUs, EpochUs

CARRY_BITS = 62
"""Sums of latencies are stored in pieces of this many bits."""

EVIDENCE = 5
"""Events kept as proof, each of the failing and the slowest: enough to start a search, few enough to carry."""


class Evidence(NamedTuple):
    """One event that an alert can point at. `trace_id` is "" and `latency` NO_LATENCY where absent."""

    time: EpochUs
    trace_id: str
    latency: DurationUs | int


_by_latency = itemgetter(2, 1, 0)


@dataclass(slots=True)
class Counts:
    """Counters of events: all, those with a known outcome, the failed, those with a latency, the slow.

    `over[T]` counts the latencies strictly above T microseconds, for each T that a rule names.
    """

    n: int = 0
    known: int = 0
    bad: int = 0
    lat_n: int = 0
    over: dict[int, int] = field(default_factory=dict)

    def add(self, other: Counts) -> None:
        """Add another's counts. A threshold that only one side counted is no longer known."""
        self.n += other.n
        self.known += other.known
        self.bad += other.bad
        self.lat_n += other.lat_n
        over, others = self.over, other.over
        if over.keys() != others.keys():
            self.over = {t: over[t] + others[t] for t in sorted(over.keys() & others.keys())}
            return
        for t in over:
            over[t] += others[t]

    def copy(self) -> Counts:
        """An independent copy."""
        return Counts(self.n, self.known, self.bad, self.lat_n, dict(self.over))


@dataclass(slots=True)
class Pane:
    """What is known of one series in `[k * step, (k + 1) * step)`.

    `weighted` counts with the events' weights; `raw` counts events, and is None while every weight was 1.
    `lat_sum` is weight times latency in microseconds, less `lat_carry` times 2^62: the stored form has 64 bits,
    and heavy events may exceed them. `lat_max` the largest latency (NO_LATENCY: none).
    `bins` is the sketch (`sketch.py`). `first` and `last` are the earliest and latest event times.
    """

    weighted: Counts
    first: EpochUs
    last: EpochUs
    raw: Counts | None = None
    lat_sum: int = 0
    lat_max: int = NO_LATENCY
    bins: dict[int, int] = field(default_factory=dict)
    failing: tuple[Evidence, ...] = ()
    slowest: tuple[Evidence, ...] = ()
    lat_carry: int = 0

    @property
    def lat_total(self) -> int:
        """Weight times latency, added up, whole."""
        return (self.lat_carry << CARRY_BITS) + self.lat_sum

    @property
    def events(self) -> Counts:
        """The counts of events, whatever they weigh."""
        return self.weighted if self.raw is None else self.raw

    def merge(self, other: Pane) -> None:
        """Add another pane of the same series and time."""
        if self.raw is not None or other.raw is not None:
            self.raw = self.weighted.copy() if self.raw is None else self.raw
            self.raw.add(other.events)
        self.weighted.add(other.weighted)
        self.lat_sum += other.lat_sum
        self.lat_carry += other.lat_carry
        self.lat_max = max(self.lat_max, other.lat_max)
        self.first, self.last = min(self.first, other.first), max(self.last, other.last)
        bins = self.bins
        for index, count in other.bins.items():
            bins[index] = bins.get(index, 0) + count
        if other.failing:
            self.failing = strongest(self.failing + other.failing, failing=True) if self.failing else other.failing
        if other.slowest:
            self.slowest = strongest(self.slowest + other.slowest, failing=False) if self.slowest else other.slowest

    def in_order(self) -> Pane:
        """The pane itself, its bins sorted: equal panes are equal bytes, however they were merged."""
        indexes = list(self.bins)
        if indexes != (ascending := sorted(indexes)):
            self.bins = {index: self.bins[index] for index in ascending}
        if self.lat_carry or self.lat_sum >> CARRY_BITS:
            self.lat_carry, self.lat_sum = divmod(self.lat_total, 1 << CARRY_BITS)
        return self

    def copy(self) -> Pane:
        """An independent copy."""
        raw = None if self.raw is None else self.raw.copy()
        return Pane(
            self.weighted.copy(), self.first, self.last, raw, self.lat_sum, self.lat_max,
            dict(self.bins), self.failing, self.slowest, self.lat_carry,
        )  # fmt: skip


def strongest(events: tuple[Evidence, ...], *, failing: bool) -> tuple[Evidence, ...]:
    """The up to five events that prove most, strongest first; the same five in whatever order they came."""
    if len(events) <= 1:
        return events
    # There are ten at most but for ties, and they mostly come in two runs that are in order already: sorting them is
    # faster than a heap. Among failing ones the newest win, which is the order of the tuples themselves; else the
    # slowest, then by trace id and time.
    return tuple(sorted(events, key=None if failing else _by_latency, reverse=True)[:EVIDENCE])

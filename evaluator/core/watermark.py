"""What time is it, as far as the log tells.

`W_p` of a partition is the largest time of an accepted event less the allowed disorder, and it moves by a
clock only on a partition that was read to its end. `W` of a source is the least of all its partitions: up
to there nothing on time can still come. Neither ever goes back.
"""

from __future__ import annotations

from dataclasses import dataclass

from evaluator.core.event import EpochUs

BEGINNING = EpochUs(-(2**62))
"""Stands for minus infinity: before every event, and far from overflowing an int64."""

NEVER = EpochUs(2**62)
"""After every event."""


@dataclass(slots=True)
class PartitionTime:
    """The time of one partition: watermark, coverage, and the first accepted event.

    `covered` is the moment from which everything was read: BEGINNING where reading began at offset 0, None
    while it began later and nothing was accepted since. `first` is None until an event was accepted. Where a
    clock had moved the watermark before, it is not before that: others may have decided up to there. `is_over` says
    that there will never be more: even what is exactly as old as the watermark is complete.
    """

    watermark: EpochUs = BEGINNING
    covered: EpochUs | None = BEGINNING
    first: EpochUs | None = None
    is_over: bool = False


@dataclass(frozen=True, slots=True)
class SourceTime:
    """The time of a whole source: its watermark, and from when on windows are whole."""

    watermark: EpochUs = BEGINNING
    covered: EpochUs = BEGINNING
    is_over: bool = False

    @property
    def complete(self) -> EpochUs:
        """No event before this moment will come. One exactly at the watermark may, until the input is over."""
        return EpochUs(self.watermark + self.is_over)


def combine(partitions: dict[int, PartitionTime], count: int, before: SourceTime) -> SourceTime:
    """The time of a source of `count` partitions, of which those in `partitions` were heard of.

    A partition that was not heard of holds the watermark where it was; it never goes back.
    """
    if len(partitions) < count:
        return before
    watermark = min(time.watermark for time in partitions.values())
    covered = max((time.covered for time in partitions.values() if time.covered is not None), default=BEGINNING)
    is_over = all(time.is_over for time in partitions.values())
    return SourceTime(EpochUs(max(watermark, before.watermark)), EpochUs(max(covered, before.covered)), is_over)

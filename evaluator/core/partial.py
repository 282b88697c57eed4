"""The partial: all that stage 1 tells stage 2 about a run of offsets of one partition.

It is a value of the core and the payload of an internal topic (`wire/partial.py` gives it bytes). The chain
is per shard: `prev` is the `end` of the last partial that was sent to that shard, so that a lost or a
repeated one is seen at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from evaluator.core.event import DurationUs, EpochUs, SeriesKey, shard_of
from evaluator.core.packed import Packed
from evaluator.core.runs import RunEvent
from evaluator.core.watermark import PartitionTime

if TYPE_CHECKING:
    from collections.abc import Iterable

_T = TypeVar("_T")


class Cell(NamedTuple):
    """A piece of a pane and where it belongs, `[slot * step, (slot + 1) * step)`."""

    step: DurationUs
    slot: int
    pane: Packed

    @property
    def end(self) -> EpochUs:
        """The first moment after the pane."""
        return EpochUs((self.slot + 1) * self.step)


@dataclass(frozen=True, slots=True)
class IdleAdvance:
    """A clock's decision: at `offset` the partition was idle and its watermark moved to `until`."""

    offset: int
    until: EpochUs


@dataclass(frozen=True, slots=True)
class FutureRejection:
    """A clock's decision: event `index` of the record at `offset` was ahead of the clock."""

    offset: int
    index: int


ClockDecision = IdleAdvance | FutureRejection


@dataclass(frozen=True, slots=True)
class Origin:
    """Under which configuration a partial was made."""

    revision: int = 0
    config: str = ""


@dataclass(frozen=True, slots=True)
class Partial:
    """Stage 1's news of the offsets `[begin, end)` of one source partition.

    `partitions` is how many the topic has. `prev` is None in the first partial to a shard. `lost` are
    offsets that were given up. `sequence` rises by 1 per committed transaction of the partition, `part`
    counts the pieces of one that was too large, from 0 to `parts` - 1. `since` is the end of the newest
    pane filled under an earlier configuration (None: there was none). `idle_advances` and
    `future_rejections` are what a clock decided. `counted` are the thresholds that
    each pane width of a surface counts. `appended` is when the records that moved the watermark past a window
    end were appended (None: none did); it decides nothing. `runs` are the on-time events of series that are judged
    by run groups, in log order.
    """

    source: str
    partition: int
    partitions: int
    begin: int
    end: int
    sequence: int
    before: EpochUs
    time: PartitionTime
    origin: Origin
    prev: int | None = None
    lost: tuple[int, int] | None = None
    part: int = 0
    parts: int = 1
    since: EpochUs | None = None
    idle_advances: tuple[IdleAdvance, ...] = ()
    future_rejections: tuple[FutureRejection, ...] = ()
    counted: dict[str, dict[DurationUs, tuple[int, ...]]] = field(default_factory=dict)
    cells: tuple[tuple[SeriesKey, tuple[Cell, ...]], ...] = ()
    runs: tuple[tuple[SeriesKey, tuple[RunEvent, ...]], ...] = ()
    appended: EpochUs | None = None

    def split(self, shards: int) -> list[Partial]:
        """One partial per shard, each with the cells and runs of the series that it owns."""
        dealt = zip(_dealt(self.cells, shards), _dealt(self.runs, shards), strict=True)
        return [replace(self, cells=cells, runs=runs) for cells, runs in dealt]


def _dealt(of_series: Iterable[tuple[SeriesKey, _T]], shards: int) -> list[tuple[tuple[SeriesKey, _T], ...]]:
    """What each shard owns."""
    dealt: list[list[tuple[SeriesKey, _T]]] = [[] for _ in range(shards)]
    for each in of_series:
        dealt[shard_of(each[0], shards)].append(each)
    return [tuple(of_shard) for of_shard in dealt]

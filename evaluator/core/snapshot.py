"""What a shard must not forget, where each part of it is kept, and what it hands on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from evaluator.core.alert import Transition
from evaluator.core.decide import Progress
from evaluator.core.event import DurationUs, EpochUs, SeriesKey
from evaluator.core.packed import Packed
from evaluator.core.panes import Sealed
from evaluator.core.partial import Origin
from evaluator.core.rule import Rule, Surface
from evaluator.core.runs import RunEvent, StoredGroup
from evaluator.core.verdict import Window
from evaluator.core.watermark import PartitionTime, SourceTime


class PaneId(NamedTuple):
    """Where a pane is kept."""

    series: SeriesKey
    step: DurationUs
    slot: int


class ProgressId(NamedTuple):
    """Where the progress of an alert over a series is kept."""

    series: SeriesKey
    rule: str


class WaitingId(NamedTuple):
    """Where run events are kept that came with one partial, until they are taken in order."""

    series: SeriesKey
    partition: int
    begin: int
    part: int


class GroupId(NamedTuple):
    """Where a run group of a series and an alert is kept."""

    series: SeriesKey
    rule: str
    context: str
    deploy: str


class Crumb(NamedTuple):
    """No event before offset `end` is later than `newest`: where to look for the events of a window."""

    newest: EpochUs
    end: int


@dataclass(slots=True)
class PartitionState:
    """What a shard knows of one source partition: the chain, its time, and the config it reports under."""

    end: int
    time: PartitionTime
    origin: Origin
    since: EpochUs | None = None
    next_part: int = 0
    trail: tuple[Crumb, ...] = ()


@dataclass(slots=True)
class SourceState:
    """The partitions of a source, and the source's own time."""

    partitions: dict[int, PartitionState] = field(default_factory=dict)
    count: int = 0
    time: SourceTime = SourceTime()


@dataclass(frozen=True, slots=True)
class KnownRule:
    """A rule as it was last judged, so that it can be resolved when it is gone or changed.

    `begin` is where its windows begin; None until every partition reported under the rule's config.
    """

    rule: Rule
    surface: Surface
    begin: EpochUs | None


@dataclass(slots=True)
class Totals:
    """On-time events of a series by outcome, since it is known."""

    good: int = 0
    bad: int = 0
    unknown: int = 0


@dataclass(slots=True)
class Snapshot:
    """All that a shard must not forget. There are by far the most panes: nothing looks one of them up by its id."""

    sources: dict[str, SourceState] = field(default_factory=dict)
    rules: dict[str, KnownRule] = field(default_factory=dict)
    panes: list[tuple[PaneId, Packed | Sealed]] = field(default_factory=list)
    progress: dict[ProgressId, Progress] = field(default_factory=dict)
    totals: dict[SeriesKey, Totals] = field(default_factory=dict)
    waiting: dict[WaitingId, tuple[RunEvent, ...]] = field(default_factory=dict)
    groups: dict[GroupId, StoredGroup] = field(default_factory=dict)


@dataclass(slots=True)
class Decisions:
    """What was decided: phase changes, and the windows of each alert and series in order."""

    transitions: list[Transition] = field(default_factory=list)
    verdicts: list[tuple[Rule, SeriesKey, Window]] = field(default_factory=list)


@dataclass(slots=True)
class Changes:
    """What changed since the last `changes`: ids whose value is gone from the snapshot were forgotten."""

    panes: list[PaneId]
    progress: list[ProgressId]
    waiting: list[WaitingId] = field(default_factory=list)
    groups: list[GroupId] = field(default_factory=list)

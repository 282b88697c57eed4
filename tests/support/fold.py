"""The two stages run directly, without a log: partitions of events in, transitions out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from evaluator.core.aggregate import Aggregator
from evaluator.core.alert import Transition
from evaluator.core.evaluate import Evaluator
from evaluator.core.event import (
    MAIN,
    NO_LATENCY,
    NO_SCORE,
    UNMATCHED,
    EpochUs,
    EventBatch,
    RunColumns,
    SeriesKey,
    SeriesTable,
    listed,
)
from evaluator.core.rule import Rule, RuleSet
from evaluator.core.verdict import Window
from evaluator.core.watermark import BEGINNING
from evaluator.wire import state

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from evaluator.core.event import DurationUs


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `failed` is GOOD, FAILED or UNKNOWN; `series` None means that no surface matched."""

    offset: int
    time: int
    failed: int = 0
    latency: int = NO_LATENCY
    series: SeriesKey | None = SeriesKey("api")
    trace_id: str = ""
    weight: int = 1
    deploy: str = ""
    score: int = NO_SCORE
    context: str = MAIN


def batch(events: Sequence[Event], table: SeriesTable) -> EventBatch:
    """Events as columns, their series interned in `table`."""
    weights = np.array([event.weight for event in events], dtype=np.int64)
    series = [UNMATCHED if event.series is None else table.intern(event.series) for event in events]
    return EventBatch(
        offset=np.array([event.offset for event in events], dtype=np.int64),
        time=np.array([event.time for event in events], dtype=np.int64),
        failed=np.array([event.failed for event in events], dtype=np.int8),
        latency=np.array([event.latency for event in events], dtype=np.int64),
        series=np.array(series, dtype=np.int32),
        trace_ids=listed([event.trace_id for event in events]),
        weight=None if (weights == 1).all() else weights,
        runs=RunColumns(
            np.array([event.score for event in events], dtype=np.int64),
            [event.deploy for event in events],
            [event.context for event in events],
        ),
    )


@dataclass
class Fold:
    """Both stages of one source, fed by hand."""

    rules: RuleSet
    partitions: int = 1
    source: str = "events"
    starts: tuple[int, ...] = ()
    shards: int = 1
    transitions: list[Transition] = field(default_factory=list)
    verdicts: list[tuple[Rule, SeriesKey, Window]] = field(default_factory=list)

    def __post_init__(self) -> None:
        source = self.rules.sources[self.source]
        starts = self.starts or (0,) * self.partitions
        self.aggregators = [
            Aggregator(self.rules, source, p, self.partitions, self.shards, starts[p]) for p in range(self.partitions)
        ]
        self.evaluators = [Evaluator(self.rules, None, shard, self.shards) for shard in range(self.shards)]
        # What each shard has stored, compacted.
        self.stored: list[dict[bytes, bytes]] = [{} for _ in range(self.shards)]
        self._sent: dict[int, int] = {}
        self._sequence: dict[int, int] = {}

    def feed(self, partition: int, events: Sequence[Event]) -> None:
        """Hand a run of records to stage 1; nothing goes on before `commit`."""
        aggregator = self.aggregators[partition]
        if events:
            columns = batch(events, aggregator.table)
            aggregator.add(columns, events[0].offset, events[-1].offset + 1)

    def commit(self, partition: int) -> None:
        """Take a partial and let stage 2 decide."""
        sequence = self._sequence[partition] = self._sequence.get(partition, 0) + 1
        partial = replace(self.aggregators[partition].take(), sequence=sequence, prev=self._sent.get(partition))
        self._sent[partition] = partial.end
        for evaluator, of_shard in zip(self.evaluators, partial.split(self.shards), strict=True):
            evaluator.merge(of_shard)
            decided = evaluator.decide()
            self.transitions += decided.transitions
            self.verdicts += decided.verdicts

    @property
    def evaluator(self) -> Evaluator:
        """The first shard, mostly the only one."""
        return self.evaluators[0]

    @evaluator.setter
    def evaluator(self, evaluator: Evaluator) -> None:
        self.evaluators[0] = evaluator

    def store(self, shard: int = 0) -> dict[bytes, bytes]:
        """Write what changed of a shard's state; returns all that it has stored."""
        evaluator, stored = self.evaluators[shard], self.stored[shard]
        changes = evaluator.changes()
        records = [
            *(state.pane_record(place, evaluator.pane(place)) for place in changes.panes),
            *(
                state.progress_record(place, evaluator.progress(place), evaluator.totals(place.series))
                for place in changes.progress
            ),
            *(state.waiting_record(place, evaluator.waiting(place)) for place in changes.waiting),
            *(state.group_record(place, evaluator.group(place)) for place in changes.groups),
        ]
        for key, value in records:
            stored.pop(key, None)
            if value is not None:
                stored[key] = value
        meta = state.Meta(1, 0, self.shards, 0, self.rules.hash, evaluator.sources, evaluator.rules)
        stored[state.META_KEY] = state.encode_meta(meta)
        return stored

    def restart(self, shard: int = 0) -> None:
        """A shard goes on elsewhere, with what it stored."""
        snapshot = state.restore(self.store(shard).items()).snapshot
        self.evaluators[shard] = Evaluator(self.rules, snapshot, shard, self.shards)

    def finish(self, until: int | None = None) -> None:
        """The input ended: every partition's watermark moves to the largest accepted time."""
        newest = max((a.newest for a in self.aggregators if a.newest is not None), default=BEGINNING)
        end = EpochUs(max(newest, BEGINNING if until is None else until))
        for partition, aggregator in enumerate(self.aggregators):
            aggregator.end(end)
            self.commit(partition)

    def ids(self) -> list[tuple[str, str, int]]:
        """What identifies the transitions, in the documented order."""
        return sorted((t.id, t.reason.value, t.at) for t in self.transitions)


def events_at(times: Iterable[DurationUs | int], failed: int = 1) -> list[Event]:
    """One event a record at each time."""
    return [Event(offset, time, failed) for offset, time in enumerate(times)]

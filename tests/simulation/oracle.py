"""The judge of a seed: one process that nothing happens to, on the same records, given what clocks decided."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import orjson

from evaluator.core.decide import Progress
from evaluator.core.event import SECOND, EpochUs
from evaluator.core.panes import Sealed
from evaluator.core.partial import ClockDecision, IdleAdvance
from evaluator.core.runs import RunEvent, StoredGroup
from evaluator.core.snapshot import GroupId, PaneId, ProgressId, WaitingId
from evaluator.core.watermark import BEGINNING
from evaluator.runtime.clock import VirtualClock
from evaluator.runtime.log.memory import MemoryLog
from evaluator.runtime.log.port import Outgoing, Partition, TopicSpec
from evaluator.runtime.service import World, build, prepare
from evaluator.runtime.topics import Topics
from evaluator.runtime.worker import Pace
from evaluator.wire import state as state_wire
from evaluator.wire.config.load import Config

START = EpochUs(1_769_558_400 * SECOND)
TOPICS = Topics("sim")


class Judged(NamedTuple):
    """What the undisturbed pass finds."""

    alerts: list[dict[str, object]]
    state: dict[bytes, object]
    late: int


class Oracle(NamedTuple):
    """One process that nothing happens to, on the same records, given what clocks decided."""

    config: Config
    partitions: int
    shards: int
    records: list[Outgoing]
    decisions: dict[tuple[str, int], list[ClockDecision]]

    async def run(self) -> Judged:
        """Judge everything in one pass."""
        clock = VirtualClock(asyncio.get_running_loop())
        log = MemoryLog(clock=clock)
        await log.create([TopicSpec("t", self.partitions)])
        await log.append(self.records)
        shards = self.shards
        partitions = await prepare(log, self.config, TOPICS, shards)
        world = World(shards, 0, 1 << 62, Pace(10_000, 0.0, aligns=False), is_replay=True, status=False)
        service = build(log, self.config, TOPICS, clock, world, partitions, self.decisions)
        await service.worker.start()
        await service.worker.drain()
        alerts, state = await outcome(log, shards)
        assert not any(tally == "decoder_bugs" for tally, *_ in service.tallies)
        late = sum(count for tally, count in service.tallies.items() if tally[0].startswith("late"))
        return Judged(alerts, state, late)


async def outcome(log: MemoryLog, shards: int) -> tuple[list[dict[str, object]], dict[bytes, object]]:
    """The committed alerts, less what names offsets and clocks, and the state of every shard by key."""
    alerts = []
    for record in await log.read(Partition(TOPICS.alerts, 0)):
        alert = orjson.loads(record.value or b"")
        del alert["provenance"], alert["evaluated_late"]
        alerts.append(alert)
    state: dict[bytes, bytes] = {}
    for shard in range(shards):
        for record in await log.read(Partition(TOPICS.state, shard)):
            key = b"%d " % shard + (record.key or b"")
            if record.value is None:
                state.pop(key, None)
            elif record.key != state_wire.META_KEY:
                state[key] = record.value
    found: dict[bytes, object] = {}
    waiting: dict[bytes, list[object]] = {}
    for key, value in state.items():
        stored = _of_series(key, value)
        for place, events in stored.waiting.items():
            # Which commit brought an event decides nothing.
            waiting.setdefault(repr((key[:2], place.series, place.partition)).encode(), []).extend(events)
        found[key] = stored[:-1]
    found = {key: stored for key, stored in found.items() if key.partition(b" ")[2][:1] != b"w"}
    return alerts, found | {key: sorted(events) for key, events in waiting.items()}


class Stored(NamedTuple):
    """What one record of the state says."""

    panes: dict[PaneId, bytes]
    progress: dict[ProgressId, Progress]
    groups: dict[GroupId, StoredGroup]
    waiting: dict[WaitingId, tuple[RunEvent, ...]]


def _of_series(key: bytes, value: bytes) -> Stored:
    """What a stored record means for verdicts to come.

    Left out is what depends on how the log was cut and decides nothing: evidence of panes that are decided (it is
    dropped from memory, not from the record), how far into a silence was looked, and counters for the page.
    """
    snapshot = state_wire.restore([(state_wire.META_KEY, _SOME_META), (key.partition(b" ")[2], value)]).snapshot
    assert snapshot is not None
    opened = ((place, pane.opened if isinstance(pane, Sealed) else pane) for place, pane in snapshot.panes)
    panes = {place: pane.counted for place, pane in opened}
    for progress in snapshot.progress.values():
        progress.seen = BEGINNING
    return Stored(panes, snapshot.progress, snapshot.groups, snapshot.waiting)


_SOME_META = state_wire.encode_meta(state_wire.Meta(0, 0, 1, 0, ""))


def name_of(alert: dict[str, object]) -> str:
    return f"{alert['status']} {alert['id']}"


def difference(one: dict[str, object], other: dict[str, object]) -> str:
    for name in one.keys() | other.keys():
        if one.get(name) != other.get(name):
            return f"{name} is {one.get(name)} instead of {other.get(name)}"
    return ""


def order(decision: ClockDecision) -> tuple[int, int]:
    return decision.offset, decision.until if isinstance(decision, IdleAdvance) else decision.index

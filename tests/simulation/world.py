"""The whole service on the in-memory log under a virtual clock, with a crash wherever a test wants one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson

from evaluator.core.event import SECOND, EpochUs
from evaluator.runtime.clock import VirtualClock
from evaluator.runtime.log.memory import MemoryLog
from evaluator.runtime.log.port import Outgoing, Partition, TopicSpec
from evaluator.runtime.service import World, build, prepare
from evaluator.runtime.topics import Topics
from evaluator.runtime.worker import Pace
from evaluator.wire.codecs import CODECS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from evaluator.runtime.stage import Observer
    from evaluator.runtime.worker import Worker
    from evaluator.wire.codecs import Codecs
    from evaluator.wire.config.load import Config

START = EpochUs(1_769_558_400 * SECOND)
TOPICS = Topics("sim")
PACE = Pace(7, 0.2)
"""A few records a turn: there are many moments at which something can happen."""

PATIENCE = 2_000
"""Turns after which a run that did not finish is stuck."""


class Crash(BaseException):
    """The process is gone: nothing of it may clean up. No `except Exception` sees it."""


class Cluster:
    """The log that outlives the processes."""

    def __init__(self, config: Config, records: Sequence[Sequence[bytes]], shards: int = 2) -> None:
        self.config, self.shards = config, shards
        self.clock = VirtualClock(asyncio.get_running_loop(), EpochUs(START + 86_400 * SECOND))
        self.log = MemoryLog(clock=self.clock)
        self._records = records

    async def fill(self) -> None:
        """Create the topics and write the source's records."""
        (source,) = self.config.rules.sources.values()
        await self.log.create([TopicSpec(source.topic, len(self._records))])
        await self.log.append([
            Outgoing(source.topic, None, value, index)
            for index, values in enumerate(self._records)
            for value in values
        ])  # fmt: skip

    async def process(
        self, step: Callable[[str], Awaitable[None]] | None = None, *, config: Config | None = None,
        observer: Observer | None = None, name: str = "evaluator", codecs: Codecs = CODECS, pace: Pace = PACE,
    ) -> Worker:  # fmt: skip
        """Start a process; `step` is awaited around everything that it does to the log."""
        log, config = self.log.connect(step=step, name=name), config or self.config
        partitions = await prepare(log, config, TOPICS, self.shards)
        # What a clock tells of blindness has no second opinion to be compared with.
        world = World(self.shards, SECOND, 5 * SECOND, pace, codecs=codecs, telling=None)
        worker = build(log, config, TOPICS, self.clock, world, partitions, observer=observer).worker
        await worker.start()
        return worker

    async def run(self, worker: Worker) -> None:
        """Turn until everything was read, decided and committed."""
        for _ in range(PATIENCE):
            await worker.turn()
            if await self._is_done(worker):
                await worker.aggregate.commit_all()
                await worker.evaluate.poll(0, 100)
                await worker.evaluate.commit_all()
                if await self._is_done(worker):
                    return
        message = "the service did not finish"
        raise AssertionError(message)

    async def _is_done(self, worker: Worker) -> bool:
        stages = [*worker.source_stages(), *worker.shard_stages()]
        if len(stages) < len(self._records) + self.shards:
            return False
        ends = [await self.log.bounds(stage.input) for stage in stages]
        now = self.clock.now()
        return all(
            stage.next_offset >= end and not stage.due(now) for stage, (_, end) in zip(stages, ends, strict=True)
        )

    async def alerts(self) -> list[dict[str, object]]:
        """What a read_committed reader of the alerts topic sees, less what names offsets."""
        records = await self.log.read(Partition(TOPICS.alerts, 0))
        alerts = [orjson.loads(record.value or b"") for record in records]
        for alert in alerts:
            del alert["provenance"]
        return sorted(alerts, key=lambda alert: (alert["endsAt"] or alert["firedAt"], alert["key"], alert["status"]))

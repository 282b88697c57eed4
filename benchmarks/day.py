"""Whether memory stays where it is while a day passes.

The whole service on the in-memory log, in a process of its own whose time jumps to the next thing to do: 50 series
with an event a second each, rules over a minute and over half an hour, a commit every ten seconds. What was consumed
goes from the log, which is no part of what is measured. Resident memory is looked at every hour; when the second one
has passed, every window was full, and so was all that is kept of the windows before.
"""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import core
import job
import numpy as np
from table import Figure

from evaluator.core.event import SECOND, EpochUs
from evaluator.runtime.clock import VirtualClock, VirtualLoop
from evaluator.runtime.collector import prefer_throughput
from evaluator.runtime.log.follow import Follower
from evaluator.runtime.log.memory import MemoryLog
from evaluator.runtime.log.port import Partition, TopicSpec
from evaluator.runtime.logs import configure
from evaluator.runtime.service import World, build, prepare
from evaluator.runtime.topics import Topics
from evaluator.runtime.worker import Pace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from evaluator.runtime.worker import Worker

HOURS, HOUR_S = 24, 3_600
SETTLED = 2
SERIES = 50
EVENTS_A_SECOND = 50
FAILING = 0.01
STEP_S = 10
"""Seconds of events at a time, and between two commits."""

RULES = f"""{job.RULES}\
  Longer: {{surface: voice-api, when: [error_ratio > 1.2%, p95 > 480ms], window: 30m, every: 1m, severity: ticket}}
"""
WORLD = World(
    shards=core.SHARDS, commit_interval=STEP_S * SECOND, state_interval=6 * STEP_S * SECOND, pace=Pace(poll_s=STEP_S)
)  # fmt: skip
PAGE = resource.getpagesize()


def resident_mb() -> float:
    """Of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 2**20


def events_of(step: int, rng: np.random.Generator) -> list[bytes]:
    """What comes in one step, evenly."""
    count = EVENTS_A_SECOND * STEP_S
    times = (job.START_MS + step * STEP_S * 1000 + np.arange(count) * 1000 // EVENTS_A_SECOND).tolist()
    latencies = np.round(rng.lognormal(5, 0.6, count), 1).tolist()
    statuses = np.where(rng.random(count) < FAILING, 503, 200).tolist()
    trace = rng.bytes(16 * count).hex()
    return [
        f'{{"time":{at},"surface":"voice-api-{number % SERIES:03d}","duration_ms":{took},"status":{status},'
        f'"trace_id":"{trace[32 * number : 32 * number + 32]}","route":"/v1/call"}}'.encode()
        for number, (at, took, status) in enumerate(zip(times, latencies, statuses, strict=True))
    ]


class Day:
    """A service, its log, and what has come of it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.clock = VirtualClock(loop, EpochUs(job.START_MS * 1000))
        self.log, self.topics = MemoryLog(clock=self.clock, compact_every=100), Topics("bench")
        self.config = core.loaded(RULES)
        self.source = Partition("bench-events", 0)
        self.alerts = 0
        self._follower = Follower(self.log, self.topics.alerts)

    async def passes(self, hours: int) -> list[float]:
        """The resident MB after each hour. Ends the program where not every event was judged."""
        await self.log.create([TopicSpec(self.source.topic, 1)])
        partitions = await prepare(self.log, self.config, self.topics, WORLD.shards)
        service = build(self.log, self.config, self.topics, self.clock, WORLD, partitions)
        async with asyncio.TaskGroup() as together:
            together.create_task(service.worker.run(), name="worker")
            resident = [await self._hour(hour, service.worker) for hour in range(hours)]
            service.worker.stop()
        judged, written = service.tallies["records", "bench", "ok"], hours * HOUR_S * EVENTS_A_SECOND
        if judged != written:
            sys.exit(f"{judged} of {written} events were judged")
        return resident

    async def _hour(self, hour: int, worker: Worker) -> float:
        rng = np.random.default_rng(hour)
        for step in range(hour * HOUR_S // STEP_S, (hour + 1) * HOUR_S // STEP_S):
            await self.clock.sleep(STEP_S)  # they come when they all have happened
            values = events_of(step, rng)
            await self.log.append_values(self.source, values, [self.clock.now() // 1000] * len(values))
            await self._forget(worker)
        return resident_mb()

    async def _forget(self, worker: Worker) -> None:
        """Let go of what was consumed."""
        for stage in (*worker.source_stages(), *worker.shard_stages()):
            await self.log.trim(stage.input, stage.next_offset)
        self.alerts += len(await self._follower.news())
        for partition, position in self._follower.positions.items():
            await self.log.trim(partition, position)


def lived(hours: int) -> dict[str, object]:
    """Let the hours pass; returns the resident MB after each of them, and how many alerts there were."""
    prefer_throughput()
    configure("error", "json")
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        day = Day(runner.get_loop())
        return {"resident_mb": runner.run(day.passes(hours)), "alerts": day.alerts}


def figures(hours: int = HOURS) -> Iterator[Figure]:
    """What the table shows of it."""
    command = [sys.executable, __file__, str(hours)]
    told = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    resident, more = told["resident_mb"], {"alerts": told["alerts"]}
    settled, last = resident[SETTLED - 1], resident[-1]
    what = f"{SERIES} series, {EVENTS_A_SECOND} events/s, resident"
    yield Figure("day", f"{what} after hour {SETTLED}", settled, "MB")
    yield Figure("day", f"{what} after hour {hours}", last, "MB", more)
    yield Figure("day", f"{what} at the most, from hour {SETTLED} on", max(resident[SETTLED - 1 :]), "MB")
    yield Figure("day", f"growth from hour {SETTLED} to hour {hours}", (last / settled - 1) * 100, "%",
                 {"MB_by_hour": " ".join(f"{each:.0f}" for each in resident)})  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(lived(int(sys.argv[1]))))

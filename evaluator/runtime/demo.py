"""The demo: the whole service on the in-memory log, with made-up traffic, faster than real time.

The stages, the worker, the records and the page are those of the daemon. Only the clock runs faster and the
log lives in this process.
"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from evaluator.core.event import MINUTE, SECOND, DurationUs, EpochUs
from evaluator.core.watermark import BEGINNING
from evaluator.runtime.clock import ScaledClock, SystemClock
from evaluator.runtime.live import Address, Tail, WorkerHealth, serve, work_until
from evaluator.runtime.log.memory import MemoryLog
from evaluator.runtime.log.port import Partition, TopicSpec
from evaluator.runtime.metrics import Metrics
from evaluator.runtime.service import World, build, prepare
from evaluator.runtime.topics import Topics
from evaluator.runtime.traffic import Scenario
from evaluator.runtime.view import View
from evaluator.runtime.web.app import make_app
from evaluator.runtime.worker import Pace, Worker
from evaluator.wire.envelope import envelope

if TYPE_CHECKING:
    from collections.abc import Callable

    from evaluator.wire.config.load import Config

SPEED = 60.0
"""A minute a second: an incident of minutes fires and resolves while somebody watches."""

BEFORE_NOW = 15 * MINUTE
"""Simulated time begins this long ago, so that the page shows times that look like now."""

LOOK_EVERY_S = 15.0
"""Simulated seconds between two looks of the tail: a quarter of a real one."""


REFRESH_S = 2
"""Real seconds after which the page is drawn anew."""


class Play(NamedTuple):
    """What to play. `seconds` is real time, None: until stopped. `dump` gets every record as an envelope."""

    address: Address
    url: str
    incident: bool = True
    seconds: float | None = None
    seed: int = 1
    dump: BinaryIO | None = None


class Stage(NamedTuple):
    """The log, its clock, and what plays on it."""

    clock: ScaledClock
    log: MemoryLog
    input: Partition
    topics: Topics
    worker: Worker


async def play(config: Config, wish: Play, say: Callable[[str], None], tell: Callable[[bytes], None]) -> None:
    """Run until stopped. `say` is given lines for a person, `tell` every alert record that is published."""
    start = EpochUs((SystemClock().now() - BEFORE_NOW) // MINUTE * MINUTE)
    clock = ScaledClock(start, SPEED)
    log = MemoryLog(clock=clock)
    (source,) = config.rules.sources.values()
    await log.create([TopicSpec(source.topic, 1)])
    topics = Topics("demo")
    world = World(
        shards=4, commit_interval=10 * SECOND, state_interval=20 * SECOND, pace=Pace(5_000, 6.0), external_url=wish.url
    )
    view = View(config.rules, clock)
    metrics = Metrics(view)
    service = build(log, config, topics, clock, world, await prepare(log, config, topics, 4), observer=metrics)
    metrics.attach(service.worker, service.tallies)
    health = WorkerHealth(service.worker, clock)
    runner = await serve(make_app(view, metrics, health, refresh_s=REFRESH_S), wish.address)
    stopped = _stop_signal()
    say(f"page     {wish.url}/\nmetrics  {wish.url}/metrics\ntime     {SPEED:.0f} times as fast as real")
    try:
        stage = Stage(clock, log, Partition(source.topic, 0), topics, service.worker)
        await _run(stage, wish, start, Tail(log, topics, view, tell), metrics, stopped)
    finally:
        await runner.cleanup()


async def _run(stage: Stage, wish: Play, start: EpochUs, tail: Tail, metrics: Metrics, stopped: asyncio.Event) -> None:
    scenario = Scenario(start, wish.seed)
    if not wish.incident:
        scenario = Scenario(start, wish.seed, incident_for=DurationUs(0))
    await stage.worker.start()
    beside = {
        "traffic": _traffic(stage, scenario, wish.dump),
        "tail": tail.follow(stage.clock, LOOK_EVERY_S),
        "loop lag": metrics.watch_loop(SystemClock()),
    }
    await work_until(stage.worker, _end(stopped, wish.seconds), beside)
    # As at the end of a replay's input: time moves to the newest event, so that both decide the same windows.
    await stage.worker.drain()
    stages = stage.worker.source_stages()
    newest = max((s.newest for s in stages if s.newest is not None), default=BEGINNING)
    for source_stage in stages:
        source_stage.finish(newest)
    await stage.worker.drain()
    await stage.worker.shut_down()
    await tail.look()


async def _traffic(stage: Stage, scenario: Scenario, dump: BinaryIO | None) -> None:
    """Write events as their time comes, and let go of those that were consumed."""
    events = scenario.events()
    arrival, value = next(events)
    while True:
        now, due = stage.clock.now(), []
        while arrival <= now:
            due.append((arrival // 1000, value))
            arrival, value = next(events)
        if due:
            if dump is not None:
                dump.writelines(envelope(timestamp, None, written, ()) for timestamp, written in due)
            await stage.log.append_values(stage.input, [v for _, v in due], [t for t, _ in due])
        consumed = [(s.input, s.next_offset) for s in stage.worker.source_stages()]
        consumed += [(s.input, s.next_offset) for s in stage.worker.shard_stages()]
        for partition, offset in consumed:
            await stage.log.trim(partition, offset)
        await stage.clock.sleep(5)


def _stop_signal() -> asyncio.Event:
    """Set by Ctrl-C and SIGTERM from now on."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    return stopped


async def _end(stopped: asyncio.Event, seconds: float | None) -> None:
    """Wait for a signal, or for the time that was asked for."""
    try:
        await asyncio.wait_for(stopped.wait(), seconds)
    except TimeoutError:
        return

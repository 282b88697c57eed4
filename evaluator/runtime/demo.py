"""The demo: the whole service with made-up traffic, faster than real time, on the in-memory log or on a broker.

The stages, the worker, the records and the page are those of the daemon. Only the clock runs faster, and without
a broker the log lives in this process.
"""

from __future__ import annotations

import asyncio
import signal
from fractions import Fraction
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from evaluator.core.event import MINUTE, SECOND, DurationUs, EpochUs
from evaluator.core.watermark import BEGINNING
from evaluator.runtime.clock import HurriedClock, ScaledClock, SystemClock
from evaluator.runtime.fleet import Fleet
from evaluator.runtime.live import Address, Tail, WorkerHealth, serve, work_until
from evaluator.runtime.log.memory import MemoryLog
from evaluator.runtime.log.port import Log, Outgoing, Partition, TopicSpec
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
    """What to play. `seconds` is real time, None: until stopped. `dump` gets every record as an envelope.

    `kafka` is a log on real brokers, with the names of topics that are this demo's alone. `max_rejected` is the
    page's.
    """

    address: Address
    url: str
    max_rejected: Fraction
    incident: bool = True
    seconds: float | None = None
    seed: int = 1
    dump: BinaryIO | None = None
    kafka: tuple[Log, Topics] | None = None


class Stage(NamedTuple):
    """The log, its clock, and what plays on it."""

    clock: ScaledClock
    log: Log
    input: Partition
    topics: Topics
    worker: Worker


async def play(config: Config, wish: Play, say: Callable[[str], None], tell: Callable[[bytes], None]) -> None:
    """Run until stopped. `say` is given lines for a person, `tell` every alert record that is published."""
    start = EpochUs((SystemClock().now() - BEFORE_NOW) // MINUTE * MINUTE)
    clock: ScaledClock = ScaledClock(start, SPEED)
    log, topics = wish.kafka or (MemoryLog(clock=clock), Topics("demo"))
    # A client of real brokers waits in real seconds.
    workers_clock = clock if wish.kafka is None else HurriedClock(start, SPEED)
    (source,) = config.rules.sources.values()
    await log.create([TopicSpec(source.topic, 1)])
    world = World(
        shards=4, commit_interval=10 * SECOND, state_interval=20 * SECOND, external_url=wish.url,
        # Its minutes are seconds: what no broker can do in time is no blindness.
        telling=None,
        pace=Pace(5_000, 6.0 if wish.kafka is None else 0.1),
    )  # fmt: skip
    view = View(config.rules, clock, wish.max_rejected)
    metrics = Metrics(view)
    service = build(log, config, topics, workers_clock, world, await prepare(log, config, topics, 4), observer=metrics)
    metrics.attach(service.worker, service.tallies)
    health = WorkerHealth(service.worker, workers_clock)
    fleet = Fleet(log, service.worker, config.rules)
    runner = await serve(make_app(view, metrics, health, fleet, refresh_s=REFRESH_S), wish.address)
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
    await tail.stop()


async def _traffic(stage: Stage, scenario: Scenario, dump: BinaryIO | None) -> None:
    """Write events as their time comes."""
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
            await stage.log.append([Outgoing(stage.input.topic, None, v, 0, timestamp=t) for t, v in due])
        if isinstance(stage.log, MemoryLog):
            await _forget(stage)
        await stage.clock.sleep(5)


async def _forget(stage: Stage) -> None:
    """Let go of what was consumed: a demo may run for days."""
    for source_stage in stage.worker.source_stages():
        await stage.log.trim(source_stage.input, source_stage.next_offset)
    for shard_stage in stage.worker.shard_stages():
        await stage.log.trim(shard_stage.input, shard_stage.next_offset)


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

"""Processes die with a transaction open, freeze, and lose their broker: every transition is seen exactly once."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

from kafka.service import MINUTE_US, SHARDS, START_US, Service, minutes
from support.cluster import OURS_MS, Cluster, own_broker

from evaluator.runtime.log.port import Partition

if TYPE_CHECKING:
    from pathlib import Path

    from kafka.service import Process

MOMENTS = ("first_send", "before_commit")


def ids(alerts: list[dict[str, Any]]) -> list[str]:
    """The transitions, in an order that does not depend on who published first."""
    return sorted(f"{alert['status']} {alert['id']}" for alert in alerts)


async def killed(service: Service, stage: str, moment: str, pending: str | int) -> None:
    """Let a process die at a failpoint, and prove that it left a transaction that nobody will see."""
    topic = service.topics.alerts if stage == "evaluate" else service.topics.partials
    places = [Partition(topic, index) for index in range(1 if stage == "evaluate" else SHARDS)]
    before = await service.aborted(places)
    process = service.start({"stage": stage, "moment": moment, "pending": pending})
    assert await process.ended() == -signal.SIGKILL, process.output()
    assert await service.aborted(places) > before


async def test_kill_9_inside_a_transaction_of_either_stage_loses_and_doubles_nothing(
    kafka: Cluster, tmp_path: Path
) -> None:
    async with Service(kafka, tmp_path).running() as service:
        await service.write([*minutes(0, 2), *minutes(2, 5, bad=True)])
        fires_at = START_US + 4 * MINUTE_US
        await service.write(minutes(5, 6, bad=True))
        for moment in MOMENTS:
            await killed(service, "aggregate", moment, fires_at)
        for moment in MOMENTS:
            await killed(service, "evaluate", moment, "firing")
        await service.write([*minutes(6, 8), *minutes(8, 10, slow=True), *minutes(10, 14)])
        resolves_at = START_US + 7 * MINUTE_US
        for moment in MOMENTS:
            await killed(service, "aggregate", moment, resolves_at)
        for moment in MOMENTS:
            await killed(service, "evaluate", moment, "resolved")
        expected = service.replayed()
        assert {alert["status"] for alert in expected} == {"firing", "resolved"}
        last = service.start()
        await service.until(len(expected), last)
        last.signal(signal.SIGTERM)
        assert await last.ended() == 0, last.output()
        assert ids(await service.alerts()) == ids(expected)


async def drip(service: Service, done: asyncio.Event) -> None:
    """Events of an hour, a minute at a time, with an incident now and then."""
    for minute in range(60):
        bad = minute % 20 in {5, 6, 7, 8}
        await service.write(minutes(minute, minute + 1, bad=bad, slow=minute % 30 in {20, 21, 22}))
        await asyncio.sleep(0.3)
    done.set()


async def test_a_process_that_freezes_beyond_its_session_writes_nothing_and_fences_nobody(
    kafka: Cluster, tmp_path: Path
) -> None:
    async with Service(kafka, tmp_path).running() as service:
        done = asyncio.Event()
        writing = asyncio.create_task(drip(service, done))
        one, other = service.start(), service.start()
        for process in (one, other, one):
            await asyncio.sleep(3)
            process.signal(signal.SIGSTOP)
            await asyncio.sleep(2.5 * service.session_s)
            process.signal(signal.SIGCONT)
        await writing
        await end_equal(service, one, other)


async def test_a_broker_that_restarts_in_the_middle_costs_time_and_nothing_else(tmp_path: Path) -> None:
    broker = own_broker()
    broker.start()
    try:
        async with Service(Cluster(broker.bootstrap, OURS_MS), tmp_path).running() as service:
            done = asyncio.Event()
            one, other = service.start(), service.start()
            await service.write(minutes(0, 12, bad=True))
            await service.until(1, one, other)
            for end in (broker.stop, broker.kill):
                await asyncio.to_thread(end)
                await asyncio.sleep(1)
                await asyncio.to_thread(broker.start)
                first = 12 if end == broker.stop else 24
                await service.write([*minutes(first, first + 6), *minutes(first + 6, first + 12, bad=True)])
            await service.write(minutes(36, 40))
            done.set()
            await end_equal(service, one, other)
    finally:
        broker.close()


async def end_equal(service: Service, *processes: Process) -> None:
    """Everything that replay finds is there once, nothing else, and the processes end in order."""
    expected = service.replayed()
    assert len(expected) > 4
    await service.until(len(expected), *processes)
    for process in processes:
        process.signal(signal.SIGTERM)
    assert [await process.ended() for process in processes] == [0] * len(processes)
    assert ids(await service.alerts()) == ids(expected)

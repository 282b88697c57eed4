"""What a process does about its surroundings: signals, logs that nobody reads, absent brokers, a second fleet."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from typing import TYPE_CHECKING

import orjson
import pytest
from service import Process, Service, minutes
from support.cluster import OURS_MS, Cluster, own_broker

from evaluator.cli.healthcheck import get
from evaluator.runtime.watchdog import NOT_READY_S

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any


def logged(process: Process, event: str) -> list[dict[str, Any]]:
    """What the process said under this name."""
    lines = [orjson.loads(line) for line in process.output().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def ids(alerts: list[dict[str, Any]]) -> list[str]:
    """In an order that no interleaving of shards changes."""
    return sorted(alert["id"] for alert in alerts)


async def test_sighup_is_answered_with_one_line_and_the_evaluation_goes_on(kafka: Cluster, tmp_path: Path) -> None:
    async with Service(kafka, tmp_path).running() as service:
        process = service.start()
        await service.write(minutes(0, 2))
        await service.write(minutes(2, 5, bad=True))
        await service.until(2, process)
        process.signal(signal.SIGHUP)
        await service.write(minutes(5, 9))
        alerts = await service.until(4, process)
        assert [alert["status"] for alert in alerts] == ["firing", "firing", "resolved", "resolved"]
        (line,) = logged(process, "reload.unsupported")
        assert "restart" in line["hint"]
        process.signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.ended(), 30) == 0


@pytest.mark.parametrize("reader", ["is_gone", "reads_nothing"])
async def test_logs_that_nobody_reads_do_not_stop_the_evaluation(reader: str, kafka: Cluster, tmp_path: Path) -> None:
    async with Service(kafka, tmp_path).running() as service:
        out, into = os.pipe()
        try:
            if reader == "reads_nothing":
                fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, 4096)
            process = service.run(into)
            os.close(into)
            await service.write(minutes(0, 2))
            if reader == "is_gone":
                os.close(out)
            await service.write(minutes(2, 5, bad=True))
            await service.until(2, process)
            for _ in range(100):
                process.signal(signal.SIGHUP)
                await asyncio.sleep(0.01)
            await service.write(minutes(5, 9))
            await service.until(4, process)
            process.signal(signal.SIGTERM)
            assert await process.ended() == 0
            assert ids(await service.alerts()) == ids(service.replayed())
        finally:
            if reader == "reads_nothing":
                os.close(out)


async def test_brokers_that_are_away_make_it_unready_and_not_unhealthy_until_they_are_back(tmp_path: Path) -> None:
    broker = own_broker()
    broker.start()
    try:
        async with Service(Cluster(broker.bootstrap, OURS_MS), tmp_path).running() as service:
            process = service.start()
            await service.write(minutes(0, 5, bad=True))
            await service.until(2, process)
            assert await answer(process, "/-/ready") == 200
            await asyncio.to_thread(broker.stop)
            async with asyncio.timeout(NOT_READY_S + 15):
                while await answer(process, "/-/ready") == 200:
                    assert await answer(process, "/-/healthy") == 200
                    await asyncio.sleep(1)
            assert await service.metric(process, "evaluator_ready") == 0
            assert await answer(process, "/-/healthy") == 200
            assert process.popen.poll() is None
            await asyncio.to_thread(broker.start)
            async with asyncio.timeout(30):
                # The page is asked at any moment, the log line comes with the next turn.
                while await answer(process, "/-/ready") == 503 or len(logged(process, "worker.ready")) == 1:
                    await asyncio.sleep(0.2)
            (line,) = logged(process, "worker.not_ready")
            assert "no broker has answered a fetch" in line["reason"]
            assert len(logged(process, "worker.ready")) == 2
            await service.write(minutes(5, 9))
            await service.until(4, process)
            assert ids(await service.alerts()) == ids(service.replayed())
    finally:
        broker.close()


async def answer(process: Process, path: str) -> int:
    """The status of a page."""
    status, _ = await asyncio.to_thread(get, f"http://127.0.0.1:{process.port}", path)
    return status

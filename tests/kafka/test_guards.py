"""What a process does about its surroundings: signals, logs that nobody reads, absent brokers, a second fleet."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import orjson
from service import Process, Service, minutes

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from support.cluster import Cluster


def logged(process: Process, event: str) -> list[dict[str, Any]]:
    """What the process said under this name."""
    lines = [orjson.loads(line) for line in process.output().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


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

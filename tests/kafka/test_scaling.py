"""More shards and more replicas: the same alerts, and nobody is disturbed more than has to be."""

from __future__ import annotations

import asyncio
import http.client
import signal
import time
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from kafka.service import PATIENCE_S, RULES, Service, minutes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kafka.service import Process
    from support.cluster import Cluster

Place: TypeAlias = tuple[str, int]

SECONDS = 15.0
"""A replica takes part in a few seconds on an idle machine. These processes share theirs with the broker, and more."""


@pytest.mark.parametrize("shards", [1, 4, 16])
async def test_any_number_of_shards_gives_the_same_alerts(kafka: Cluster, tmp_path: Path, shards: int) -> None:
    async with Service(kafka, tmp_path, shards=shards).running() as service:
        bad, slow = minutes(2, 6, bad=True), minutes(8, 10, slow=True)
        await service.write([*minutes(0, 2), *bad, *minutes(6, 8), *slow, *minutes(10, 14)])
        expected = service.replayed()  # on four shards, whatever is given here
        process = service.start()
        found = await service.until(len(expected), process)
        process.signal(signal.SIGTERM)
        assert await process.ended() == 0, process.output()
        assert sorted(alert["id"] for alert in found) == sorted(alert["id"] for alert in expected)
        assert {(alert["alertname"], alert["status"]) for alert in found} == {
            (name, status) for name in ("Failing", "Slow") for status in ("firing", "resolved")
        }


def own(status: dict[str, Any]) -> dict[Place, str]:
    """The state of each task of the process whose status it is."""
    tasks = (task for task in status["tasks"] if task["owner"] == status["replica"])
    return {(task["topic"], task["partition"]): task["state"] for task in tasks}


async def shared(processes: list[Process], everything: int) -> list[set[Place]]:
    """Wait until every partition runs in exactly one of them, and none has nothing: what each has."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        states = [own(await process.status()) for process in processes]
        running = [{place for place, state in tasks.items() if state == "running"} for tasks in states]
        if all(running) and sum(map(len, running)) == len(set[Place]().union(*running)) == everything:
            return running
        assert time.monotonic() < deadline, states
        await asyncio.sleep(0.1)


async def first_ready(process: Process, check: Callable[[int], None]) -> float:
    """Seconds from its first answer, when it joins, to its being ready; `check` is given every answer before that."""
    began, joined = time.monotonic(), None
    while (code := (await process.ready())[0]) != http.client.OK:
        check(code)
        if code and joined is None:
            joined = time.monotonic()
        assert process.popen.poll() is None, process.output()
        assert time.monotonic() < began + PATIENCE_S
        await asyncio.sleep(0.02)
    return time.monotonic() - (joined or time.monotonic())


async def restores(process: Process) -> int:
    """How many partitions it has taken over."""
    return int((await process.status())["restores"]["count"])


async def test_a_new_replica_takes_part_within_seconds_and_what_stays_where_it_is_is_not_restored(
    kafka: Cluster, tmp_path: Path
) -> None:
    # Slow machines are silent between two writes, and silence is read as time that passes.
    patient = RULES.replace("idle_after: 10s", "idle_after: 1h")
    async with Service(kafka, tmp_path, rules=patient, partitions=4).running() as service:
        everything = service.partitions + service.shards
        await service.write(minutes(0, 2))
        one = service.start()
        said: set[int] = set()
        await first_ready(one, said.add)
        (all_of_it,) = await shared([one], everything)
        assert said <= {0, http.client.SERVICE_UNAVAILABLE}
        assert await restores(one) == everything

        two = service.start()
        took = await first_ready(two, said.add)
        states = own(await two.status())
        assert took < SECONDS
        assert states  # it says that it is ready when it has work, not before
        assert set(states.values()) == {"running"}
        stayed, moved = await shared([one, two], everything)
        assert (stayed | moved, stayed & moved) == (all_of_it, set())
        assert len(moved) == service.partitions // 2 + service.shards // 2  # the fair share, and no more
        # Who was there before gave everything up for a moment, and went on where it was.
        assert await restores(one) == everything
        assert await restores(two) == len(moved)
        assert (await one.ready())[0] == http.client.OK

        await service.write([*minutes(2, 6, bad=True), *minutes(6, 14)])
        expected = service.replayed()
        two.signal(signal.SIGTERM)
        began = time.monotonic()
        while (code := (await two.ready())[0]) != 0:
            assert code in {http.client.OK, http.client.SERVICE_UNAVAILABLE}
        assert await two.ended() == 0, two.output()
        assert await shared([one], everything) == [all_of_it]
        assert time.monotonic() - began < SECONDS
        assert await restores(one) == everything + len(moved)
        found = await service.until(len(expected), one)
        one.signal(signal.SIGTERM)
        assert await one.ended() == 0, one.output()
        assert sorted(alert["id"] for alert in found) == sorted(alert["id"] for alert in expected)
        for process in (one, two):
            assert "task.set_back" not in process.output()

"""F2: kill -9 at random under load, on one replica and on three; and how long it takes until others have taken over."""

from __future__ import annotations

import asyncio
import random
import signal
from typing import TYPE_CHECKING

from chaos.ground import HURRIED, PRODUCT, ground, traffic
from chaos.scenario import Outcome, Scenario, Size

if TYPE_CHECKING:
    from pathlib import Path

    from kafka.service import Process

ONE = "kill -9 at random under load, one replica"
THREE = "kill -9 at random under load, three replicas"
TAKE_OVER = "three replicas with the product's time-outs: one is killed, one is stopped"

KILLED_S, STOPPED_S = 30.0, 5.0
"""A session of 20 s and ten more; a clean stop."""


async def kills(folder: Path, size: Size, name: str, what: str, replicas: int) -> Outcome:
    """The seed says who dies when; each is replaced at once."""
    rng, count = random.Random(size.seed), 200 if size.is_full else 3
    async with ground(folder) as here:
        place, faults, worst = here.place, 0, 0.0
        alive = [place.begin(HURRIED, proxied=False) for _ in range(replicas)]
        async with traffic(place, 0.5 if size.is_full else 0.2):
            await place.caught_up("start", *alive)
            for number in range(count):
                await asyncio.sleep(rng.uniform(0.2, 2.5))
                victim = rng.randrange(replicas)
                alive[victim].signal(signal.SIGKILL)
                faults += await alive[victim].ended() == -signal.SIGKILL
                alive[victim] = place.begin(HURRIED, proxied=False)
                if number % 10 == 9 or number == count - 1:
                    worst = max(worst, await place.caught_up(f"kill {number}", *alive))
        return await place.verdict(name, what, *alive, runs=count, faults=faults, recovery_s=worst)


async def one(folder: Path, size: Size) -> Outcome:
    """On one replica."""
    return await kills(folder, size, "F2-one", ONE, 1)


async def three(folder: Path, size: Size) -> Outcome:
    """On three."""
    return await kills(folder, size, "F2-three", THREE, 3)


async def take_over(folder: Path, size: Size) -> Outcome:
    """Nobody replaces who is gone: the two that are left take over what it had."""
    rounds = 3 if size.is_full else 1
    harm = PRODUCT if size.is_full else HURRIED
    killed, stopped = (KILLED_S, STOPPED_S) if size.is_full else (KILLED_S - 18.0, STOPPED_S)
    async with ground(folder, partitions=3) as here:
        place, slowest = here.place, {signal.SIGKILL: 0.0, signal.SIGTERM: 0.0}
        alive = [place.begin(harm, proxied=False) for _ in range(3)]
        async with traffic(place, 1.0 if size.is_full else 0.3):
            await place.caught_up("start", *alive)
            for _ in range(rounds):
                for how, limit in ((signal.SIGKILL, killed), (signal.SIGTERM, stopped)):
                    await _shared(alive)
                    gone = alive.pop(0)
                    gone.signal(how)
                    took = await place.caught_up(f"after {how.name}", *alive)
                    slowest[how] = max(slowest[how], took)
                    if took > limit:
                        place.failures.append(f"{took:.1f} s after {how.name}, {limit:.0f} s are promised")
                    await gone.ended()
                    alive.append(place.begin(harm, proxied=False))
        return await place.verdict(
            "F2-recovery", TAKE_OVER, *alive, runs=2 * rounds, faults=2 * rounds, recovery_s=slowest[signal.SIGKILL],
            notes=f"killed {slowest[signal.SIGKILL]:.1f} s, stopped {slowest[signal.SIGTERM]:.1f} s",
        )  # fmt: skip


async def _shared(replicas: list[Process]) -> None:
    """Until each has taken something over, and the group is at rest."""
    while not all("task.restored" in process.output() for process in replicas):  # a file
        await asyncio.sleep(0.1)
    await asyncio.sleep(2.0)


SCENARIOS = (Scenario("F2-one", ONE, one), Scenario("F2-three", THREE, three),
             Scenario("F2-recovery", TAKE_OVER, take_over))  # fmt: skip

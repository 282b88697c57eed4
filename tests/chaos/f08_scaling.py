"""F8: replicas join and leave every few seconds, and the source gets more partitions."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from typing import TYPE_CHECKING

from chaos.ground import HURRIED, ground, traffic
from chaos.scenario import Outcome, Scenario, Size

if TYPE_CHECKING:
    from pathlib import Path

WHAT = "replicas join and leave every few seconds, one to four of them"
GROWS = "partitions are added to the source while two replicas run; nobody is restarted"

FULL_S = 600.0
MOST = 4

TAKEN_OVER_S = 30.0


async def run(folder: Path, size: Size) -> Outcome:
    """Ten minutes of it in the full form."""
    rng = random.Random(size.seed)
    async with ground(folder, partitions=4) as here:
        place, faults, worst = here.place, 0, 0.0
        replicas = [place.begin(HURRIED, proxied=False)]
        async with traffic(place, 0.5 if size.is_full else 0.2):
            await place.caught_up("start", *replicas)
            end = time.monotonic() + (FULL_S if size.is_full else 6.0)
            while time.monotonic() < end:
                await asyncio.sleep(rng.uniform(1.0, 4.0))
                faults += 1
                if len(replicas) == 1 or (len(replicas) < MOST and rng.random() < 0.5):  # a coin
                    replicas.append(place.begin(HURRIED, proxied=False))
                else:
                    leaver = replicas.pop(rng.randrange(len(replicas)))
                    leaver.signal(signal.SIGTERM)
                    await place.gone("a leaver", leaver, 0, limit_s=60.0)
                if faults % 10 == 0:
                    worst = max(worst, await place.caught_up(f"change {faults}", *replicas))
            worst = max(worst, await place.caught_up("the last change", *replicas))
        return await place.verdict("F8", WHAT, *replicas, runs=faults, faults=faults, recovery_s=worst)


async def grows(folder: Path, size: Size) -> Outcome:
    """What a new partition has for windows that are decided is late by right, so it is quiet until it is read."""
    rounds = 3 if size.is_full else 1
    harm = {**HURRIED, "constants": {"evaluator.runtime.log.kafka_consumer:METADATA_MS": 2_000}}
    async with ground(folder) as here:
        place, worst = here.place, 0.0
        replicas = [place.begin(harm, proxied=False) for _ in range(2)]
        for _ in range(rounds):
            async with traffic(place):
                await place.caught_up("before", *replicas)
                await asyncio.sleep(1.0)
            await place.grow()
            began = time.monotonic()
            while place.partitions - 1 not in await place.progress():
                if time.monotonic() > began + TAKEN_OVER_S:
                    place.failures.append(f"nobody took the new partition over within {TAKEN_OVER_S:.0f} s")
                    break
                await asyncio.sleep(0.1)
            worst = max(worst, time.monotonic() - began)
        async with traffic(place):
            await asyncio.sleep(2.0)
            await place.caught_up("after", *replicas)
        return await place.verdict("F8-grows", GROWS, *replicas, runs=rounds, faults=rounds, recovery_s=worst)


SCENARIOS = (Scenario("F8", WHAT, run), Scenario("F8-grows", GROWS, grows))

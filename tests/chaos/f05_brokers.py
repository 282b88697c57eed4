"""F5: the broker is stopped in order, killed, and comes back; producers keep what they have and flush it later."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from chaos.ground import HURRIED, PRODUCT, ground, traffic
from chaos.scenario import Outcome, Scenario, Size

if TYPE_CHECKING:
    from pathlib import Path

WHAT = "the broker is stopped or killed and restarted under two replicas; producers flush up to 20 s later"

BACK_S = 15.0
"""From the broker's return to everything being evaluated again."""


async def run(folder: Path, size: Size) -> Outcome:
    """The traffic of the outage is written at its end, in the order of its times."""
    rng, rounds = random.Random(size.seed), 6 if size.is_full else 1
    async with ground(folder) as here:
        place, broker, worst, faults = here.place, here.broker, 0.0, 0
        replicas = [place.begin(PRODUCT if size.is_full else HURRIED, proxied=False) for _ in range(2)]
        for number in range(rounds):
            async with traffic(place, 0.2):
                await asyncio.sleep(2.0)
                await place.caught_up("before", *replicas)
            for end in (broker.stop, broker.kill) if number or size.is_full else (broker.kill,):
                await asyncio.to_thread(end)
                faults += 1
                away_s = rng.uniform(3, 25) if size.is_full else 1.0
                await asyncio.sleep(away_s)
                await asyncio.to_thread(broker.start)
                took = await place.caught_up(f"{end.__name__} for {away_s:.0f} s", *replicas)
                if size.is_full:
                    await asyncio.sleep(rng.uniform(0, 20))
                worst = max(worst, took)
                async with traffic(place, 0.1):
                    await asyncio.sleep(1.0)
                worst = max(worst, await place.caught_up("the flush", *replicas))
        if worst > BACK_S:
            place.failures.append(f"{worst:.1f} s after the broker's return, {BACK_S:.0f} s are promised")
        return await place.verdict("F5", WHAT, *replicas, runs=rounds, faults=faults, recovery_s=worst)


SCENARIOS = (Scenario("F5", WHAT, run),)

"""F3 and F4: processes that do not know that they were replaced, or that believe to own everything."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from chaos.ground import HURRIED, ground, traffic
from chaos.scenario import Outcome, Scenario, Size

if TYPE_CHECKING:
    from pathlib import Path

FROZEN = "SIGSTOP beyond the session, then SIGCONT: the zombie writes nothing and fences nobody"
BELIEVERS = "two processes that both believe to own everything, for good: no transition twice, no endless fight"


async def frozen(folder: Path, size: Size) -> Outcome:
    """Two replicas in turns; the one that goes on must not be fenced by the one that comes back."""
    rounds = 20 if size.is_full else 2
    async with ground(folder) as here:
        place, worst = here.place, 0.0
        replicas = [place.begin(HURRIED, proxied=False) for _ in range(2)]
        async with traffic(place, 0.4 if size.is_full else 0.2):
            await place.caught_up("start", *replicas)
            await place.at_work(*replicas)
            for number in range(rounds):
                zombie, owner = replicas[number % 2], replicas[1 - number % 2]
                before = await place.metric(owner, "evaluator_fenced_total")
                zombie.signal(signal.SIGSTOP)
                await asyncio.sleep(2.5 * place.session_s)
                worst = max(worst, await place.caught_up("frozen", owner))
                zombie.signal(signal.SIGCONT)
                await asyncio.sleep(1.0)
                worst = max(worst, await place.caught_up("thawed", *replicas))
                fenced = await place.metric(owner, "evaluator_fenced_total") - before
                if fenced:
                    place.failures.append(f"the zombie fenced the owner {fenced:.0f} times")
        return await place.verdict("F3", FROZEN, *replicas, runs=rounds, faults=rounds, recovery_s=worst)


async def believers(folder: Path, size: Size) -> Outcome:
    """Groups of their own tell each of them that everything is theirs, whenever they ask."""
    seconds = 60.0 if size.is_full else 9.0
    async with ground(folder) as here:
        place = here.place
        one = place.begin(HURRIED, proxied=False)
        async with traffic(place, 0.4 if size.is_full else 0.2):
            await place.caught_up("start", one)
            other = place.begin({**HURRIED, "group": "-of-another"}, proxied=False)
            await asyncio.sleep(seconds)
            fenced = sum([await place.metric(process, "evaluator_fenced_total") for process in (one, other)])
            if fenced > 12 * (seconds / 10 + 5):
                place.failures.append(f"they fenced each other {fenced:.0f} times in {seconds:.0f} s")
            other.signal(signal.SIGTERM)
            await place.gone("the other", other, 0, limit_s=60.0)
            recovery = await place.caught_up("after the other left", one)
        return await place.verdict(
            "F4", BELIEVERS, one, faults=int(fenced), recovery_s=recovery,
            notes=f"fenced {fenced:.0f} times in {seconds:.0f} s",
        )  # fmt: skip


SCENARIOS = (Scenario("F3", FROZEN, frozen), Scenario("F4", BELIEVERS, believers))

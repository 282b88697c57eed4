"""F6: the network is cut, swallows, resets, is slow or works one way only; at any time, and inside a commit.

One process has the hurt network, another one a healthy one: partitions move to it where the fault outlasts the
session, and what the first one had sent arrives late when the network is back.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from chaos.ground import HURRIED, PRODUCT, ground, traffic
from chaos.proxy import Act, Api, Proxy, Toxic, Way
from chaos.scenario import Outcome, Scenario, Size

if TYPE_CHECKING:
    from pathlib import Path

LINES = "the network of one of two replicas is cut, reset, a black hole (both ways, each way), slow"
COMMITS = "the network strikes between Produce and EndTxn, of either stage"


class Fault(NamedTuple):
    """`strike` begins it and `count` tells how often it has hit, both on the proxy."""

    name: str
    strike: Callable[[Proxy], object]
    count: Callable[[Proxy], int]


def _cut(proxy: Proxy, *, reset: bool) -> None:
    proxy.refuse()
    proxy.cut(reset=reset)


def _held(proxy: Proxy) -> int:
    return proxy.held.total()


def _slow(proxy: Proxy) -> None:
    proxy.slow(latency_s=0.15, bytes_s=40_000)


FAULTS = (
    Fault("cut", lambda proxy: _cut(proxy, reset=False), lambda proxy: proxy.ended),
    Fault("reset", lambda proxy: _cut(proxy, reset=True), lambda proxy: proxy.ended),
    Fault("black hole", lambda proxy: proxy.hold(), _held),
    Fault("requests lost", lambda proxy: proxy.hold(Way.UP), _held),
    Fault("answers lost", lambda proxy: proxy.hold(Way.DOWN), _held),
    Fault("slow", _slow, lambda proxy: proxy.passed.total()),
)


async def lines(folder: Path, size: Size) -> Outcome:
    """Each fault, beyond the session time-out and, in the full form, shorter than it."""
    harm, session_s = (PRODUCT, 20.0) if size.is_full else (HURRIED, 2.0)
    chosen = FAULTS if size.is_full else random.Random(size.seed).sample(FAULTS, 3)
    lasts = (5.0, 1.5 * session_s) if size.is_full else (1.3 * session_s,)
    async with ground(folder) as here:
        place, proxy = here.place, here.proxy
        hurt, well = place.begin(harm), place.begin(harm, proxied=False)
        worst, faults, notes = 0.0, 0, []
        async with traffic(place, 1.0 if size.is_full else 0.2):
            await place.at_work(hurt, well)
            for seconds in lasts:
                for fault in chosen:
                    before = fault.count(proxy)
                    fault.strike(proxy)
                    await asyncio.sleep(seconds)
                    hits = fault.count(proxy) - before
                    proxy.heal()
                    recovery = await place.caught_up(fault.name, hurt, well)
                    faults += hits
                    worst = max(worst, recovery)
                    notes.append(f"{fault.name}: {hits} in {seconds:.0f} s, {recovery:.1f} s")
                    if not hits:
                        place.failures.append(f"{fault.name} hit nothing")
        return await place.verdict(
            "F6", LINES, hurt, well, runs=len(lasts) * len(chosen), faults=faults, recovery_s=worst,
            notes="; ".join(notes),
        )  # fmt: skip


STRIKES: tuple[tuple[str, Callable[[Proxy], object]], ...] = (
    ("cut", lambda proxy: proxy.cut()),
    ("reset", lambda proxy: proxy.cut(reset=True)),
    ("black hole", lambda proxy: proxy.hold()),
    ("requests lost", lambda proxy: proxy.hold(Way.UP)),
    ("answers lost", lambda proxy: proxy.hold(Way.DOWN)),
)


async def commits(folder: Path, size: Size) -> Outcome:
    """The answer to a Produce passes, and at that moment the network strikes: EndTxn is next."""
    seconds, rounds = (4.0, 4) if size.is_full else (2.0, 1)
    chosen = STRIKES if size.is_full else random.Random(size.seed).sample(STRIKES, 3)
    async with ground(folder) as here:
        place, proxy = here.place, here.proxy
        process = place.begin(HURRIED)
        worst, faults = 0.0, 0
        async with traffic(place, 0.4 if size.is_full else 0.2):
            await place.caught_up("start", process)
            for _ in range(rounds):
                for name, strike in chosen:
                    toxic = proxy.add(
                        Toxic(Way.DOWN, frozenset({Api.PRODUCE}), Act.PASS, times=1, then=lambda s=strike: s(proxy))  # type: ignore[misc]  # binds the strike
                    )
                    await asyncio.sleep(seconds if "hole" in name or "lost" in name else 1.0)
                    if not toxic.hits:
                        place.failures.append(f"{name}: no Produce passed")
                    faults += toxic.hits
                    proxy.heal()
                    worst = max(worst, await place.caught_up(name, process))
        return await place.verdict(
            "F6-commit", COMMITS, process, runs=rounds * len(chosen), faults=faults, recovery_s=worst
        )


SCENARIOS = (Scenario("F6", LINES, lines), Scenario("F6-commit", COMMITS, commits))

"""F7: answers get lost, or come after the client has given up, at every type of request of a running service.

Lost: the broker has done what was asked, the connection ends before it can say so. Late: the answer, or the
request itself, waits for longer than the client does, which tries again meanwhile; a late commit is one of them.
What asks only now and then is asked by a neighbour that joins and leaves.
"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from chaos.ground import HURRIED, ground, traffic
from chaos.proxy import Act, Api, Toxic, Way
from chaos.scenario import Outcome, Scenario, Size

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kafka.service import Process

    from chaos.ground import Ground

LOST = "answers are lost at every type of request"
LATE = "answers, and requests, come later than the client waits, at every type of request"

STEADY = (Api.PRODUCE, Api.FETCH, Api.HEARTBEAT, Api.INIT_PRODUCER_ID, Api.ADD_PARTITIONS_TO_TXN, Api.END_TXN)
"""What a service asks all the time."""

CHANGING = (
    Api.LIST_OFFSETS, Api.METADATA, Api.OFFSET_COMMIT, Api.OFFSET_FETCH, Api.FIND_COORDINATOR, Api.JOIN_GROUP,
    Api.SYNC_GROUP,
)  # fmt: skip
"""What it asks when partitions move, or when it connects anew."""

LATE_S = 2.5
"""Above the time-out of a request (1.5 s)."""

VERY_LATE_S = 8.0
"""Above the limit of a commit (6 s) as well."""


class Round:
    """Some toxics at once, until each has hit."""

    def __init__(self, here: Ground, process: Process) -> None:
        self._here, self._process = here, process
        self.runs = self.faults = 0
        self.worst = 0.0

    async def steady(self, toxics: Sequence[Toxic]) -> None:
        """Of requests that come by themselves."""
        for toxic in toxics:
            self._here.proxy.add(toxic)
        await self._until(toxics, limit_s=20.0)
        await self._recover(toxics)

    async def changing(self, toxics: Sequence[Toxic]) -> None:
        """Of requests that a rebalance asks for."""
        for toxic in toxics:
            self._here.proxy.add(toxic)
        for _ in range(3):
            neighbour = self._here.place.begin(HURRIED, proxied=False)
            await self._here.place.at_work(neighbour)
            await self._until(toxics, limit_s=6.0, least_s=2.5)
            # Who connects anew asks where everything is.
            self._here.proxy.cut()
            neighbour.signal(signal.SIGTERM)
            await self._here.place.gone("a neighbour", neighbour, 0, limit_s=60.0)
            await self._until(toxics, limit_s=4.0)
            if all(toxic.hits for toxic in toxics):
                break
        await self._recover(toxics)

    async def _until(self, toxics: Sequence[Toxic], limit_s: float, least_s: float = 0.0) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while (passed := loop.time() - began) < limit_s:
            if passed >= least_s and all(toxic.hits == toxic.times for toxic in toxics):
                return
            await asyncio.sleep(0.05)

    async def _recover(self, toxics: Sequence[Toxic]) -> None:
        place = self._here.place
        names = ", ".join(_name(toxic) for toxic in toxics)
        place.failures += [f"{_name(toxic)}: none came" for toxic in toxics if not toxic.hits]
        self.runs += len(toxics)
        self.faults += sum(toxic.hits for toxic in toxics)
        self._here.proxy.heal()
        self.worst = max(self.worst, await place.caught_up(names, self._process))


def _name(toxic: Toxic) -> str:
    what = "lost" if toxic.act is Act.CLOSE else f"{toxic.delay_s} s late"
    return f"{toxic.way.value} {' '.join(Api(api).name for api in toxic.apis)} {what}"


def _lost(api: Api, times: int) -> Toxic:
    return Toxic(Way.DOWN, frozenset({api}), Act.CLOSE, times=times)


def _late(api: Api, way: Way = Way.DOWN, seconds: float = LATE_S) -> Toxic:
    return Toxic(way, frozenset({api}), delay_s=seconds, times=1)


async def lost(folder: Path, size: Size) -> Outcome:
    """Each type by itself in the full form, together in the short one."""
    async with ground(folder) as here:
        process = here.place.begin(HURRIED)
        rounds = Round(here, process)
        async with traffic(here.place):
            await here.place.caught_up("start", process)
            if size.is_full:
                for api in STEADY:
                    await rounds.steady([_lost(api, 5)])
                for api in CHANGING:
                    await rounds.changing([_lost(api, 2)])
            else:
                await rounds.steady([_lost(api, 2) for api in STEADY])
                await rounds.changing([_lost(api, 1) for api in CHANGING])
        return await here.place.verdict(
            "F7", LOST, process, runs=rounds.runs, faults=rounds.faults, recovery_s=rounds.worst
        )


async def late(folder: Path, size: Size) -> Outcome:
    """The same with delays; a commit is also delayed beyond the limit after which its producer is given up."""
    async with ground(folder) as here:
        process = here.place.begin(HURRIED)
        rounds = Round(here, process)
        async with traffic(here.place):
            await here.place.caught_up("start", process)
            if size.is_full:
                for way in Way:
                    for api in STEADY:
                        await rounds.steady([_late(api, way)])
                    for api in CHANGING:
                        await rounds.changing([_late(api, way)])
                    await rounds.steady([_late(Api.END_TXN, way, VERY_LATE_S)])
            else:
                await rounds.steady([_late(api) for api in STEADY])
                await rounds.steady([_late(Api.END_TXN, Way.UP), _late(Api.PRODUCE, Way.UP)])
                await rounds.changing([_late(api) for api in CHANGING])
        return await here.place.verdict(
            "F7-late", LATE, process, runs=rounds.runs, faults=rounds.faults, recovery_s=rounds.worst
        )


SCENARIOS = (Scenario("F7", LOST, lost), Scenario("F7-late", LATE, late))

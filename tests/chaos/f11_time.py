"""F11: events come twice, out of order, with the times of a wrong clock, of 1970 and of 2100.

The oracle reads the same records in the same order, so each oddity has to mean live what it means in a replay. Only
what lies in the future is left out of the oracle's input: without a clock nothing is in the future there, and live it
has to be refused.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from kafka.service import MINUTE_US, START_US, event, minutes

from chaos.ground import HURRIED, ground
from chaos.scenario import Outcome, Scenario, Size
from evaluator.runtime.log.port import Outgoing, Partition

if TYPE_CHECKING:
    from pathlib import Path

    from chaos.ground import Place

WHAT = "duplicates, disorder, clock skew, 1970 and 2100"

EPOCH = 0
Y2100_US = 4_102_444_800_000_000


class Oddities:
    """A seeded source of events that are not as they should be, and how many of them there were."""

    def __init__(self, place: Place, seed: int) -> None:
        self._place, self._random = place, random.Random(seed)
        self.count = self.future = 0

    async def minute(self, minute: int) -> None:
        """One minute: twice, shuffled, old or skewed, by chance."""
        events = minutes(minute, minute + 1, bad=minute % 8 in {2, 3, 4}, slow=minute % 12 in {6, 7, 8})
        if self._random.random() < 0.3:
            again = self._random.sample(events, 8)
            events += again
            self.count += len(again)
        if self._random.random() < 0.4:
            self._random.shuffle(events)
            self.count += len(events)
        if self._random.random() < 0.3:
            events.insert(self._random.randrange(len(events)), event(EPOCH + minute, "goma", bad=True))
            self.count += 1
        if self._random.random() < 0.3:
            # A host whose clock is up to half a minute off, either way.
            off_us = self._random.randrange(-30_000_000, 30_000_000)
            events += [event(START_US + minute * MINUTE_US + off_us + n, "kigali", bad=True) for n in range(3)]
            self.count += 3
        await self._place.write(events)
        if self._random.random() < 0.3:
            late = event(Y2100_US + minute, "goma", bad=True)
            await self._place.log.append([Outgoing(self._place.source, None, late, minute % 2)])
            self.count += 1
            self.future += 1


async def run(folder: Path, size: Size) -> Outcome:
    """Through two replicas, in the full form for longer."""
    total = 600 if size.is_full else 60
    async with ground(folder) as here:
        place = here.place
        processes = [place.begin(HURRIED) for _ in range(2)]
        odd = Oddities(place, size.seed)
        for minute in range(total):
            await odd.minute(minute)
        # The end has to be the same for both: nothing odd in the last minutes.
        await place.write(minutes(total, total + 6))
        recovery = await place.caught_up("oddities", *processes)
        letters = await place.log.read(Partition(place.topics.dlq, 0))
        if len(letters) != odd.future:
            place.failures.append(f"{odd.future} events of 2100, {len(letters)} dead letters")
        return await place.verdict(
            "F11", WHAT, *processes, faults=odd.count, recovery_s=recovery,
            notes=f"{odd.count} odd events, {odd.future} of them of 2100",
        )  # fmt: skip


SCENARIOS = (Scenario("F11", WHAT, run),)

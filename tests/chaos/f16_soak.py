"""F16: an hour at half load with kills, joins, broker restarts and cut connections at random; memory stays flat."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.ground import HURRIED, ground, traffic
from chaos.scenario import Outcome, Scenario, Size

if TYPE_CHECKING:
    from kafka.service import Process

    from chaos.ground import Ground

WHAT = "soak: kills, joins, broker restarts and cut connections at random, and one process that lives through it all"

MINUTES = float(os.environ.get("SOAK_MINUTES", "60"))
FLAT = 1.15
"""The last quarter's memory against the second's: the first is still filling caches."""


def used(process: Process) -> tuple[int, int]:
    """Resident bytes and open descriptors."""
    proc = Path(f"/proc/{process.popen.pid}")
    pages = int((proc / "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(list((proc / "fd").iterdir()))


async def run(folder: Path, size: Size) -> Outcome:
    """Something happens every ten seconds; the witness is never hurt itself."""
    rng = random.Random(size.seed)
    seconds, pause = (MINUTES * 60, 10.0) if size.is_full else (8.0, 2.0)
    async with ground(folder) as here:
        place, counts = here.place, dict.fromkeys(("killed", "replaced", "broker", "cut"), 0)
        witness, other = place.begin(HURRIED), place.begin(HURRIED)
        samples: list[tuple[int, int]] = []
        worst = 0.0
        async with traffic(place, 1.0 if size.is_full else 0.3):
            await place.caught_up("start", witness, other)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                await asyncio.sleep(rng.uniform(0.5, 1.5) * pause)
                what = rng.choice(("killed", "replaced", "cut", "broker" if size.is_full else "cut"))
                counts[what] += 1
                other = await _hurt(here, other, what, rng)
                worst = max(worst, await place.caught_up(what, witness, other, limit_s=120.0))
                samples.append(used(witness))
        memory, files = zip(*samples, strict=True)
        quarter = max(1, len(samples) // 4)
        before, after = (
            statistics.median(part) for part in (memory[quarter : 2 * quarter] or memory, memory[-quarter:])
        )
        if size.is_full and after > FLAT * before:
            place.failures.append(f"memory grew from {before / 1e6:.0f} to {after / 1e6:.0f} MB")
        if size.is_full and statistics.median(files[-quarter:]) > 1.5 * statistics.median(files[:quarter]):
            place.failures.append(f"descriptors grew: {files[:quarter]} to {files[-quarter:]}")
        late = await place.metric(witness, "evaluator_late_events_total")
        if late:
            place.failures.append(f"{late:.0f} events were late")
        return await place.verdict(
            "F16", WHAT, witness, other, runs=1, faults=sum(counts.values()), recovery_s=worst,
            notes=f"{seconds / 60:.0f} min; {counts}; memory {before / 1e6:.0f} to {after / 1e6:.0f} MB, "
                  f"{files[0]} to {files[-1]} descriptors",
        )  # fmt: skip


async def _hurt(here: Ground, other: Process, what: str, rng: random.Random) -> Process:
    """Do one thing; the replica that is there afterwards."""
    place = here.place
    if what == "cut":
        here.proxy.cut(reset=rng.random() < 0.5)  # a coin
        return other
    if what == "broker":
        await asyncio.to_thread(rng.choice((here.broker.stop, here.broker.kill)))
        await asyncio.to_thread(here.broker.start)
        return other
    other.signal(signal.SIGKILL if what == "killed" else signal.SIGTERM)
    await other.ended()
    fresh = place.begin(HURRIED)
    # A start that finds no broker ends with 4, and whoever supervises it starts it again: here the next fault waits.
    await place.at_work(fresh)
    return fresh


SCENARIOS = (Scenario("F16", WHAT, run),)

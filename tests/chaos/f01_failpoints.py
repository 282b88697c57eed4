"""F1: kill -9 at every step of a take-over, a commit, a revocation and a restore: enumerated, not left to luck."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from typing import TYPE_CHECKING

from chaos.ground import HURRIED, ground, last_line, traffic
from chaos.scenario import Outcome, Scenario, Size

if TYPE_CHECKING:
    from pathlib import Path

    from kafka.service import Process

WHAT = "kill -9 at every step that a process takes on the log, early (take-over, restore) and late (steady work)"

EFFECTS = ("producer.start", "log.read", "producer.bump", "producer.send", "producer.commit",
           "consumer.commit", "consumer.poll", "consumer.revoke")  # fmt: skip

POINTS = (*(f"{effect}:{side}" for effect in EFFECTS for side in ("before", "after")), "consumer.assign:after")
"""`consumer.commit` is also the question whether a partition is ours."""

LATE = {"producer.start": 4, "log.read": 4, "producer.bump": 11, "producer.send": 23, "producer.commit": 12,
        "consumer.commit": 5, "consumer.poll": 60, "consumer.revoke": 0, "consumer.assign": 1}  # fmt: skip
"""How many times a late victim passes a step first: a start takes six tasks over, so these are beyond most of it."""


async def run(folder: Path, size: Size) -> Outcome:
    """One victim after the other, on the state that the one before left; then one that lives."""
    chosen = [(point, 0) for point in POINTS] + [(point, LATE[point.partition(":")[0]]) for point in POINTS]
    if not size.is_full:
        chosen = [("producer.send:after", LATE["producer.send"]), ("producer.commit:after", 2), ("log.read:after", 3)]
    async with ground(folder) as here:
        place, faults = here.place, 0
        async with traffic(place, 0.3):
            for point, after in chosen:
                hook = {"at": point, "after": after, "kills": True}
                victim = place.begin({**HURRIED, "hooks": [hook]}, proxied=False)
                rival = None
                if point.startswith(("consumer.revoke", "consumer.assign")):
                    await _works(victim)
                    rival = place.begin(HURRIED, proxied=False)
                code = await _end(victim)
                if code != -signal.SIGKILL:
                    place.failures.append(f"{point} after {after}: not reached, exit {code}: {last_line(victim)}")
                faults += code == -signal.SIGKILL
                if rival is not None:
                    rival.signal(signal.SIGTERM)
                    await place.gone("the rival", rival, 0, limit_s=60.0)
            last = place.begin(HURRIED, proxied=False)
            recovery = await place.caught_up("after the last kill", last)
        return await place.verdict("F1", WHAT, last, runs=len(chosen), faults=faults, recovery_s=recovery)


async def _works(victim: Process) -> None:
    """Two that join at once are one rebalance, in which nothing is revoked."""
    while "task.restored" not in victim.output() and victim.popen.poll() is None:  # a file
        await asyncio.sleep(0.1)


async def _end(victim: Process) -> int | None:
    """Its exit code; nothing where it lives on, which is ended here."""
    try:
        return await victim.ended(40.0)
    except subprocess.TimeoutExpired:
        victim.signal(signal.SIGKILL)
        await victim.ended()
        return None


SCENARIOS = (Scenario("F1", WHAT, run),)

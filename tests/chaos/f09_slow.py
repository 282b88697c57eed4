"""F9: taking over takes long. The members stay in their groups meanwhile, and nobody joins again and again."""

from __future__ import annotations

import asyncio
import signal
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

from chaos.ground import HURRIED, ground, traffic
from chaos.proxy import Api, Way
from chaos.scenario import Outcome, Scenario, Size

if TYPE_CHECKING:
    from pathlib import Path

    from kafka.service import Process

WHAT = "every restore takes much longer than the session: heartbeats go on, no member joins twice"

JOINS = 4
"""Of one process: two groups, and a member without an id is sent away once to come back with one (KIP-394)."""


async def ready(process: Process) -> bool:
    """What `/-/ready` says."""

    def ask() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{process.port}/-/ready", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            return False

    return await asyncio.to_thread(ask)


async def run(folder: Path, size: Size) -> Outcome:
    """A process that starts afresh on old state, and that restores slowly: each read of its own topics waits."""
    waits_s = 60.0 if size.is_full else 2.5
    session_s, heartbeat_s = (20.0, 3.0) if size.is_full else (2.0, 0.3)
    slow = {**({} if size.is_full else HURRIED), "hooks": [{"at": "log.read:before", "sleep_s": waits_s}]}
    async with ground(folder) as here:
        place, proxy = here.place, here.proxy
        first = place.begin(HURRIED, proxied=False)
        async with traffic(place, 1.0 if size.is_full else 0.2):
            await place.caught_up("before", first)
            first.signal(signal.SIGTERM)
            await place.gone("stop", first, 0)
            process = place.begin(slow)
            await asyncio.sleep(1.5 * waits_s)
            # A restore reads twice: the own topic, and the record that was consumed last.
            if await ready(process):
                place.failures.append("ready before anything was restored")
            recovery = 1.5 * waits_s + await place.caught_up("slow take-over", process, limit_s=60 + 5 * waits_s)
            if not await ready(process):
                place.failures.append("not ready after everything was restored")
            joins, beats = proxy.passed[Way.UP, Api.JOIN_GROUP], proxy.passed[Way.UP, Api.HEARTBEAT]
            if joins > JOINS:
                place.failures.append(f"{joins} joins, {JOINS} are enough")
            if beats < recovery / heartbeat_s:
                place.failures.append(f"{beats} heartbeats of two groups in {recovery:.0f} s")
        faults = process.output().count("harm.done")
        return await place.verdict(
            "F9", WHAT, process, faults=faults, recovery_s=recovery,
            notes=f"{recovery:.0f} s with a session of {session_s:.0f} s: {joins} joins, {beats} heartbeats",
        )  # fmt: skip


SCENARIOS = (Scenario("F9", WHAT, run),)

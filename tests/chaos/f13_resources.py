"""F13: what a process needs runs out, or a part of it dies: it is noticed within seconds, or it does not matter.

The process writes nothing to a disk but its log, so a full disk is one that takes no log; a full disk of a broker is
a broker that stops (F5). Noticed means: the process ends with a code of docs/contracts.md, 5 and says why, or a
metric, the health check or the log tell, and everything goes on when the cause is gone.
"""

from __future__ import annotations

import asyncio
import resource
import signal
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kafka.service import START_US, event

from chaos.ground import HURRIED, PRODUCT, ground, last_line, traffic
from chaos.scenario import Outcome, Scenario, Size

if TYPE_CHECKING:
    from kafka.service import Process

    from chaos.ground import Ground

TASKS = "a background task of the Kafka client, or of ours, dies"
LIMITS = "no descriptors, no memory, no room for the log, an event loop that is blocked beyond the session"

WITHIN_S = 5.0

WATCHDOG = 70

UNEXPECTED = (1, 5, WATCHDOG)
"""Our own loops end by a bug only: any code that makes a supervisor start another process will do."""

NATIVE = (-signal.SIGSEGV, -signal.SIGABRT)
"""Native code below us (the interpreter, its libraries) that had no memory either. A supervisor starts another."""


class Part(NamedTuple):
    """A background task; the exit codes of which one has to come, none where the process lives on without it."""

    name: str
    codes: tuple[int, ...] = ()


PARTS = (
    Part("fetcher", (WATCHDOG,)),
    Part("coordinator", (WATCHDOG,)),
    Part("heartbeat"),
    Part("metadata", (WATCHDOG,)),
    Part("sender"),
    Part("producer-metadata"),
    Part("tail"),
    Part("loop lag", UNEXPECTED),
    Part("worker", UNEXPECTED),
)


class Toll:
    """Counts what hit, and how long it took to notice."""

    def __init__(self, here: Ground) -> None:
        self.here, self.place = here, here.place
        self.runs = self.faults = 0
        self.worst = 0.0
        self.notes: list[str] = []

    async def part(self, part: Part) -> None:
        """One task dies in a process that works."""
        process = self.place.begin({**HURRIED, "usr1": f"end:{part.name}"})
        await self.place.caught_up(f"{part.name}: start", process)
        began = time.monotonic()
        process.signal(signal.SIGUSR1)
        self.runs += 1
        while time.monotonic() - began < WITHIN_S and process.popen.poll() is None:
            await asyncio.sleep(0.05)
        took = time.monotonic() - began
        if process.popen.poll() is None:
            recovery = await self.place.caught_up(f"{part.name} died", process, limit_s=20.0)
            took += recovery
            self.notes.append(f"{part.name}: lived on, caught up after {took:.1f} s")
            if part.name == "tail" and not await self.shows_news(process):
                self.place.failures.append("the tail died: page, metrics and log show no news, and nothing tells")
            process.signal(signal.SIGTERM)
            await self.place.gone(f"{part.name}: end", process, 0)
            if part.codes:
                self.place.failures.append(f"{part.name} died and nobody noticed")
        else:
            code = process.popen.poll()
            self.notes.append(f"{part.name}: exit {code} after {took:.1f} s")
            if code not in part.codes:
                self.place.failures.append(f"{part.name} died: exit {code}: {last_line(process)}")
        self.worst = max(self.worst, took)
        self.faults += 1 if '"count":0' not in process.output() and "harm.done" in process.output() else 0

    async def shows_news(self, process: Process) -> bool:
        """Whether alerts that are published now reach the page, which is fed by the tail as the log is."""
        before, published = process.output().count("alert.published"), len(await self.place.alerts())
        deadline = time.monotonic() + 15.0
        while process.output().count("alert.published") == before and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
        return process.output().count("alert.published") > before or len(await self.place.alerts()) == published

    # -- limits -----------------------------------------------------------------------------------------------

    async def no_descriptors(self, lasts_s: float) -> None:
        """No new connection can be made, and the present ones are cut."""
        process = await self._working("no descriptors")
        was = resource.prlimit(process.popen.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.popen.pid, resource.RLIMIT_NOFILE, (4, was[1]))
        self.faults += self.here.proxy.cut()
        await self._noticed("no descriptors", process, "Too many open files")
        await asyncio.sleep(lasts_s)
        if process.popen.poll() is None:
            resource.prlimit(process.popen.pid, resource.RLIMIT_NOFILE, was)
        await self._goes_on("no descriptors", process)

    async def no_memory(self) -> None:
        """An allocation fails: a record that does not fit, while everything else does."""
        process = await self._working("no memory")
        pages = int((Path("/proc") / str(process.popen.pid) / "statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + (8 << 20)
        was = resource.prlimit(process.popen.pid, resource.RLIMIT_AS)
        resource.prlimit(process.popen.pid, resource.RLIMIT_AS, (limit, was[1]))
        # The producers and the readers of a few hundred thousand records do not fit into 8 MB.
        await self.place.write([event(START_US, "kigali")] * 60_000)
        self.faults += 1
        await self._noticed("no memory", process, "MemoryError")
        if process.popen.poll() is None:
            resource.prlimit(process.popen.pid, resource.RLIMIT_AS, was)
        await self._goes_on("no memory", process, (*UNEXPECTED, *NATIVE))

    async def no_room_for_the_log(self) -> None:
        """Every line of the log is refused as by a full disk. Whatever it does, nothing may be lost."""
        process = self.place.begin(HURRIED, stderr="/dev/full")
        self.runs += 1
        self.faults += 1
        began = time.monotonic()
        while process.popen.poll() is None and time.monotonic() - began < WITHIN_S:
            await asyncio.sleep(0.1)
        await self._goes_on("no room for the log", process)

    async def blocked(self, seconds: float, harm: dict[str, Any]) -> None:
        """The loop stands still: the health check does not answer, afterwards the metric tells."""
        process = self.place.begin({**harm, "usr1": f"block:{seconds}"})
        self.runs += 1
        other = self.place.begin(harm, proxied=False)
        await self.place.at_work(process, other)
        process.signal(signal.SIGUSR1)
        self.faults += 1
        await asyncio.sleep(0.3)
        began = time.monotonic()
        if await healthy(process):
            self.place.failures.append("a blocked process says that it is healthy")
        await asyncio.sleep(max(0.0, seconds - (time.monotonic() - began)))
        lag = 0.0
        while time.monotonic() - began < seconds + WITHIN_S and lag < seconds / 2:
            with suppress(OSError):
                lag = max(lag, await self.place.metric(process, "evaluator_loop_lag_seconds"))
            await asyncio.sleep(0.05)
        if lag < seconds / 2:
            self.place.failures.append(f"blocked for {seconds:.0f} s, the metric says {lag:.1f} s")
        self.notes.append(f"blocked for {seconds:.0f} s: the metric says {lag:.1f} s")
        await self.place.caught_up("blocked: other", other)
        other.signal(signal.SIGTERM)
        await self.place.gone("blocked: other", other, 0)
        await self._goes_on("blocked", process)

    async def _working(self, what: str) -> Process:
        process = self.place.begin(HURRIED)
        self.runs += 1
        await self.place.caught_up(f"{what}: start", process)
        return process

    async def _noticed(self, what: str, process: Process, words: str) -> None:
        """The log or the end of the process names the cause in time."""
        began = time.monotonic()
        while words not in process.output() and process.popen.poll() is None:
            if time.monotonic() - began > WITHIN_S:
                self.place.failures.append(f"{what}: not noticed within {WITHIN_S:.0f} s: {last_line(process)}")
                return
            await asyncio.sleep(0.05)
        self.notes.append(f"{what}: noticed after {time.monotonic() - began:.1f} s")

    async def _goes_on(self, what: str, process: Process, codes: tuple[int, ...] = UNEXPECTED) -> None:
        """It works again, or it has ended and the next one does."""
        known = len(self.place.failures)
        took = 0.0 if process.popen.poll() is not None else await self.place.caught_up(f"{what}: after it", process)
        if process.popen.poll() is None:
            self.worst = max(self.worst, took)
            process.signal(signal.SIGTERM)
            await self.place.gone(f"{what}: end", process, 0)
            return
        del self.place.failures[known:]  # that it did not catch up: it has ended meanwhile
        self.notes.append(f"{what}: exit {process.popen.poll()}")
        if process.popen.poll() not in codes:
            self.place.failures.append(f"{what}: exit {process.popen.poll()}: {last_line(process)}")


async def healthy(process: Process) -> bool:
    """What `/-/healthy` says to somebody who waits for two seconds."""

    def ask() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{process.port}/-/healthy", timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            return False

    return await asyncio.to_thread(ask)


async def limits(folder: Path, size: Size) -> Outcome:
    """Each after the other, on a service that works on."""
    async with ground(folder) as here:
        toll = Toll(here)
        async with traffic(here.place):
            await toll.no_descriptors(20.0 if size.is_full else 1.0)
            await toll.no_memory()
            await toll.no_room_for_the_log()
            await (toll.blocked(60.0, PRODUCT) if size.is_full else toll.blocked(4.0, HURRIED))
            last = here.place.begin(HURRIED)
            await here.place.caught_up("after all", last)
        return await here.place.verdict(
            "F13-limit", LIMITS, last, runs=toll.runs, faults=toll.faults, recovery_s=toll.worst,
            notes="; ".join(toll.notes),
        )  # fmt: skip


async def tasks(folder: Path, size: Size) -> Outcome:
    """Each of them in the full form, a fatal one and a harmless one in the short form."""
    async with ground(folder) as here:
        toll = Toll(here)
        async with traffic(here.place):
            for part in PARTS if size.is_full else (PARTS[0], PARTS[6]):
                await toll.part(part)
            last = here.place.begin(HURRIED)
            await here.place.caught_up("after all", last)
        return await here.place.verdict(
            "F13", TASKS, last, runs=toll.runs, faults=toll.faults, recovery_s=toll.worst, notes="; ".join(toll.notes)
        )


SCENARIOS = (Scenario("F13", TASKS, tasks), Scenario("F13-limit", LIMITS, limits))

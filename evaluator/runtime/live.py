"""A process that runs until it is told to stop: worker, tail, web server, side by side.

What the page and the metrics show is read back from the log, as any other subscriber would: nothing is shown
that was not published.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, NamedTuple

import structlog
from aiohttp import web

from evaluator.errors import UsageError
from evaluator.runtime.crew import Crew
from evaluator.runtime.log.follow import Follower
from evaluator.runtime.log.port import KafkaUnreachable, OffsetOutOfRange

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping
    from typing import Any

    from evaluator.runtime.clock import Clock
    from evaluator.runtime.log.port import Log
    from evaluator.runtime.topics import Topics
    from evaluator.runtime.view import View
    from evaluator.runtime.worker import Worker

log = structlog.get_logger(__name__)

VIEW_WAITS_S = 60.0
"""A restore that takes longer than this goes on beside the page."""

_LOOK_AGAIN_S = 0.2

AT_ONCE = 200
"""Records that are shown before the loop gets a turn: 20 ms."""

STUCK_AFTER_S = 60.0
"""A turn takes milliseconds, one that gives partitions up ten seconds; a minute without one is not going to end."""


def _never() -> bool:
    return False


async def _at_once() -> None:
    await asyncio.sleep(0)


class Tail:
    """Follows the public topics into the view. `on_alert` is told of each alert record as it appears."""

    def __init__(self, log_port: Log, topics: Topics, view: View, on_alert: Callable[[bytes], None]) -> None:
        self._view, self._on_alert = view, on_alert
        view.is_read = False
        self._status, self._alerts = Follower(log_port, topics.status), Follower(log_port, topics.alerts)

    async def follow(self, clock: Clock, every_s: float, gives_way: Callable[[], bool] = _never) -> None:
        """Look for news every so often, for ever. Without brokers nothing is new.

        While `gives_way`, what is there at the start waits, though not for ever.
        """
        until = clock.monotonic() + VIEW_WAITS_S

        async def breathe() -> None:
            await asyncio.sleep(0)
            while gives_way() and clock.monotonic() < until:
                await clock.sleep(_LOOK_AGAIN_S)

        try:
            while True:
                try:
                    await self.look(breathe)
                except (KafkaUnreachable, OffsetOutOfRange) as error:
                    log.warning("tail.failed", cause=str(error))
                    await self.stop()
                await clock.sleep(every_s)
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Release the connections; the next look begins anew."""
        await self._status.stop()
        await self._alerts.stop()

    async def look(self, breathe: Callable[[], Awaitable[None]] = _at_once) -> None:
        """Take in what was committed since the last look; `breathe` is awaited now and then."""
        newest = {record.key or b"": record.value for record in await self._status.news()}
        for number, (key, value) in enumerate(newest.items()):
            if number % AT_ONCE == 0:
                await breathe()
            self._view.apply(key, value)
        for number, record in enumerate(await self._alerts.news()):
            if number % AT_ONCE == 0:
                await breathe()
            if record.value is not None:
                self._view.alert(record.value)
                self._on_alert(record.value)
        self._view.is_read = True


class WorkerHealth:
    """Whether the loop still turns, and whether every partition that is ours is being worked on."""

    def __init__(self, worker: Worker, clock: Clock) -> None:
        self._worker, self._clock = worker, clock

    def healthy(self) -> tuple[bool, str]:
        """The loop is alive. Being behind is no reason to be restarted."""
        silence = self._clock.monotonic() - self._worker.turned_at
        return silence < STUCK_AFTER_S, f"last turn {silence:.1f} s ago"

    def ready(self) -> tuple[bool, str]:
        """What the groups gave us runs, or has not moved for less than a minute; and nobody asked us to end.

        Being behind is a metric: a rollout must not wait for a backlog. Neither for a task that rests because a
        newer revision of the rules is at work. Brokers that are away are a reason, though none to be restarted.
        """
        if self._worker.is_stopping:
            return False, "stopping"
        crews = (self._worker.aggregate, self._worker.evaluate)
        running, waiting = (sum(len(of(crew)) for crew in crews) for of in (Crew.running, Crew.unsettled))
        trouble = self._worker.watch.trouble()
        counted = f"{running} tasks run, {waiting} partitions wait for theirs"
        return trouble is None, f"{trouble}; {counted}" if trouble else counted


class Address(NamedTuple):
    """Where the web server listens."""

    host: str
    port: int


async def serve(app: web.Application, address: Address) -> web.AppRunner:
    """Listen. Raises `UsageError` where the address is taken or not ours."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, address.host, address.port).start()
    except OSError as error:
        await runner.cleanup()
        message = (
            f"cannot listen on {address.host}:{address.port} ({_reason(error)}); "
            f"stop what uses the port or choose another one with EVALUATOR_WEB__LISTEN"
        )
        raise UsageError(message) from error
    return runner


def _reason(error: OSError) -> str:
    """The system's own words: asyncio's repeat the address. A name that is not found has a negative number."""
    number = error.errno or 0
    return os.strerror(number).lower() if number > 0 else error.strerror or str(error)


async def work_until(worker: Worker, end: Awaitable[object], beside: Mapping[str, Coroutine[Any, Any, None]]) -> None:
    """Let the worker spin beside other loops until `end`, or until one of them fails, whose error is raised.

    The worker is asked to stop and finishes its turn; the loops beside it hold nothing and are cancelled.
    """
    spinning = asyncio.create_task(worker.spin(), name="worker")
    loops = [asyncio.create_task(loop, name=name) for name, loop in beside.items()]
    ending = asyncio.ensure_future(end)
    await asyncio.wait([spinning, ending, *loops], return_when=asyncio.FIRST_COMPLETED)
    worker.stop()
    failed = [task for task in loops if task.done()]
    for task in (*loops, ending):
        task.cancel()
    await spinning
    for task in failed:
        task.result()

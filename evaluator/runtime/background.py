"""Work beside the turns of a worker: commits, take-overs, questions to the group.

Nothing of it may be forgotten: each piece has a name and perhaps an owner, and its failure is raised by `check`
at the next turn. (A `TaskGroup` would tie all of it to one block of code; a worker is also turned by hand.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from evaluator.runtime.clock import Clock

Work: TypeAlias = Callable[[], Coroutine[Any, Any, None]]


class Background:
    """What is under way, by owner."""

    def __init__(self) -> None:
        self._owners: dict[asyncio.Task[None], object] = {}
        self._failures: list[BaseException] = []

    def start(self, name: str, work: Work, owner: object = None) -> asyncio.Task[None]:
        """Begin; `owner` is whose work can be cancelled together."""
        task = asyncio.create_task(_run(work), name=name)
        self._owners[task] = owner
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._owners[task]
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._failures.append(error)

    def check(self) -> None:
        """Raise the first failure since the last call: the cause; later ones mostly follow from it."""
        if self._failures:
            first, self._failures = self._failures[0], []
            raise first

    @property
    def is_busy(self) -> bool:
        """Whether anything is under way."""
        return bool(self._owners)

    async def cancel(self, owner: object) -> None:
        """Cancel what `owner` has under way, and wait until it has ended."""
        await _cancelled([task for task, whose in self._owners.items() if whose is owner])

    async def cancel_all(self) -> None:
        """Cancel everything, and wait until it has ended."""
        await _cancelled(list(self._owners))

    async def finish(self, tasks: Iterable[asyncio.Task[None]]) -> None:
        """Wait for these and raise the first failure."""
        waiting = [task for task in tasks if not task.done()]
        if waiting:
            await asyncio.wait(waiting)
        # The callbacks that note failures run after the wait.
        await asyncio.sleep(0)
        self.check()

    async def finish_all(self) -> None:
        """Wait for everything that is under way and raise the first failure."""
        while self._owners:
            await self.finish(list(self._owners))
        self.check()


async def _run(work: Work) -> None:
    await work()


async def _cancelled(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


async def finished_within(clock: Clock, seconds: float, tasks: Iterable[asyncio.Task[None]]) -> bool:
    """Wait for these tasks for `seconds` of `clock`; whether they ended in time. None of them is cancelled."""
    waiting = {task for task in tasks if not task.done()}
    if not waiting:
        return True
    limit = asyncio.ensure_future(clock.sleep(seconds))
    everything = asyncio.ensure_future(asyncio.wait(waiting))
    await asyncio.wait([limit, everything], return_when=asyncio.FIRST_COMPLETED)
    in_time = all(task.done() for task in waiting)
    limit.cancel()
    everything.cancel()
    return in_time

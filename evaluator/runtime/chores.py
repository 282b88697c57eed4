"""What is done now and then beside the turns: each chore has its interval and never runs twice at once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluator.runtime.background import Background, Work

if TYPE_CHECKING:
    from evaluator.runtime.clock import Clock


@dataclass(slots=True)
class _Chore:
    name: str
    every_s: float
    work: Work
    due_at: float
    under_way: asyncio.Task[None] | None = None


class Chores:
    """Started by `turn` when their time has come; a failure is raised by a later one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._chores: list[_Chore] = []
        self._background = Background()

    def every(self, seconds: float, name: str, work: Work) -> None:
        """Do `work` every so often, the first time after that time."""
        self._chores.append(_Chore(name, seconds, work, self._clock.monotonic() + seconds))

    def turn(self) -> None:
        """Begin what is due."""
        self._background.check()
        now = self._clock.monotonic()
        for chore in self._chores:
            if now >= chore.due_at and (chore.under_way is None or chore.under_way.done()):
                chore.due_at = now + chore.every_s
                chore.under_way = self._background.start(chore.name, chore.work)

    async def stop(self) -> None:
        """Leave what is under way: nothing of it has to be finished."""
        await self._background.cancel_all()

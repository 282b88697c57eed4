"""Where a simulation may look and interfere: before and after each effect of a client.

An effect itself is synchronous, so a crash falls before it or after it (the acknowledgement is lost).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVar

T = TypeVar("T")

Step: TypeAlias = Callable[[str], Awaitable[None]]
"""Awaited with `<name>:before` and `<name>:after`; may wait (a frozen process) or raise (a crash)."""

Journal: TypeAlias = list[tuple[str, str]]
"""What happened, in order: the name of the effect and a summary of its arguments."""


class Adrift(Exception):  # what became of a request
    """Raised by a step before an effect: the request is on its way, nobody waits for its answer any more.

    `later` is given the effect, to have it at some other time; `error` is what the client is told.
    """

    def __init__(self, error: Exception, later: Callable[[Callable[[], object]], None]) -> None:
        super().__init__("adrift")
        self.error, self.later = error, later


class Steps:
    """The hooks of one process."""

    def __init__(self, step: Step | None, journal: Journal | None) -> None:
        self._step, self._journal = step, journal

    async def at(self, moment: str) -> None:
        """Stop at a moment such as `consumer.poll:before`."""
        if self._step is not None:
            await self._step(moment)

    def note(self, name: str, *summary: object) -> None:
        """Write an effect down."""
        if self._journal is not None:
            self._journal.append((name, " ".join(map(str, summary))))

    async def around(self, name: str, effect: Callable[[], T], *summary: object) -> T:
        """Run `effect` between its two moments. The second is not reached when it raises."""
        if self._step is not None:
            try:
                await self._step(f"{name}:before")
            except Adrift as adrift:
                adrift.later(effect)
                raise adrift.error from None
        result = effect()
        self.note(name, *summary)
        if self._step is not None:
            await self._step(f"{name}:after")
        return result

"""Who works in the event loop for long lets the others have it in between: heartbeats, probes, scrapes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from evaluator.runtime.clock import Clock

TURN_S = 0.02
"""Seconds after which work waits for the others. What it does at least in one go comes on top (a slice of a fetch, some
partials and the windows that they ripen): together within the 50 ms of docs/exactly-once.md, 4."""


class Turn:
    """A stretch of work, of at most some seconds of a clock."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock, self._seconds = clock, seconds
        self._until = clock.monotonic() + seconds

    @property
    def is_over(self) -> bool:
        """Whether it should give way before it goes on."""
        return self._clock.monotonic() >= self._until

    async def pause(self, waiting: Awaitable[None]) -> None:
        """Wait for something that takes nothing of it."""
        began = self._clock.monotonic()
        await waiting
        self._until += self._clock.monotonic() - began

    async def give_way(self) -> None:
        """Let everybody have a turn who waits for one; then another begins."""
        await asyncio.sleep(0)
        self._until = self._clock.monotonic() + self._seconds


class Turns:
    """How long a turn of some workers may be.

    `alone` is held by who makes an outbox: many are due at once, and each by itself fills its turns.
    """

    def __init__(self, clock: Clock, seconds: float = TURN_S) -> None:
        self._clock, self._seconds = clock, seconds
        self.alone = asyncio.Lock()

    def begin(self) -> Turn:
        """Somebody's work begins."""
        return Turn(self._clock, self._seconds)

"""The only module that reads a clock. Everything else is given one.

Three worlds, one protocol: the system's clock, a scaled one (the demo runs faster than real time), and a
virtual one whose time moves only when every task waits (simulation and replay), so that a run of hours
takes milliseconds and is repeatable.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from typing import TYPE_CHECKING, Protocol, TypeVar

from evaluator.core.event import EpochUs

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any


T = TypeVar("T")


class Clock(Protocol):
    """What time it is, and how to wait."""

    def now(self) -> EpochUs:
        """The time of day."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds` of this clock."""

    @property
    def is_simulated(self) -> bool:
        """Whether its time of day is made up, and so no other clock's."""


class SystemClock:
    """The machine's clock."""

    is_simulated = False

    def now(self) -> EpochUs:
        """The time of day."""
        return EpochUs(time.time_ns() // 1000)

    def monotonic(self) -> float:
        """Seconds since some fixed moment."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


class ScaledClock:
    """A clock that starts at `start` and runs `speed` times as fast as the machine's."""

    is_simulated = True

    def __init__(self, start: EpochUs, speed: float) -> None:
        self._start, self._speed, self._origin = start, speed, time.monotonic()

    def now(self) -> EpochUs:
        """The simulated time of day."""
        return EpochUs(self._start + round((time.monotonic() - self._origin) * self._speed * 1e6))

    def monotonic(self) -> float:
        """Simulated seconds since this clock was made."""
        return (time.monotonic() - self._origin) * self._speed

    async def sleep(self, seconds: float) -> None:
        """Wait for simulated seconds."""
        await asyncio.sleep(seconds / self._speed)


class HurriedClock(ScaledClock):
    """Only its time of day runs fast; its waits and limits are real, for brokers that do not hurry."""

    def monotonic(self) -> float:
        """Real seconds since some fixed moment."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait for real seconds."""
        await asyncio.sleep(seconds)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer as soon as nothing is left to run.

    Code that waits with `asyncio.sleep` or `asyncio.timeout` runs unchanged, at once, and always in the
    same order. Nothing in it may wait for a socket or a thread: that would never be waited for.
    """

    def __init__(self) -> None:
        self._virtual = 0.0
        super().__init__(_JumpingSelector(self))
        # asyncio calls a timer due that is this close. After 194 days its nanosecond is lost in a sum of floats, and
        # a timer that is due now never is.
        self._clock_resolution = 1e-7

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._virtual

    def advance(self, seconds: float) -> None:
        """Move time forward (called by the selector instead of waiting)."""
        self._virtual += seconds


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout == 0:
            return []  # there is something to run: a signal is seen as soon as there is not
        ready = super().select(0)
        if timeout is None and not ready:
            message = "every task waits for something that nothing will bring about"
            raise RuntimeError(message)
        if timeout and not ready:
            self._loop.advance(timeout)
        return ready


class VirtualClock:
    """The clock of a `VirtualLoop`, starting at `start`: that of everything that runs on it."""

    is_simulated = False

    def __init__(self, loop: asyncio.AbstractEventLoop, start: EpochUs = EpochUs(0)) -> None:
        self._loop, self._start = loop, start

    def now(self) -> EpochUs:
        """The virtual time of day."""
        return EpochUs(self._start + round(self._loop.time() * 1e6))

    def monotonic(self) -> float:
        """Virtual seconds."""
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        """Let virtual time pass."""
        await asyncio.sleep(seconds)


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` on a fresh virtual loop and return its result."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)

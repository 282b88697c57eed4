"""What takes long to write out is not written anew for everybody who asks: two servers that scrape, or a mad loop."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

LONGEST_S = 1.0
"""Seconds that a copy is given out after it was made. Longer, and who looks after a change does not see it."""


class _Copy(Generic[T]):
    """One that is made in a thread, or was."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._loop = asyncio.get_running_loop()
        self._began, self.until = self._loop.time(), math.inf
        self.making = self._loop.run_in_executor(None, make)
        self.making.add_done_callback(self._ended)

    def _ended(self, _making: asyncio.Future[T]) -> None:
        now = self._loop.time()
        self.until = now + min(now - self._began, LONGEST_S)


class Reused(Generic[T]):
    """What was made is given out again for as long as making it took, `LONGEST_S` at the most.

    So what takes no time is always new, and what takes long keeps a thread busy half of the time. One copy of each kind
    is kept: there must be few.
    """

    def __init__(self) -> None:
        self._copies: dict[str, _Copy[T]] = {}

    async def get(self, kind: str, look: Callable[[], Callable[[], T]]) -> T:
        """A copy of this kind. `look` runs at once, in the event loop; what it returns makes one, in a thread."""
        copy = self._copies.get(kind)
        if copy is None or asyncio.get_running_loop().time() >= copy.until:
            copy = self._copies[kind] = _Copy(look())
        # Who asked first may be gone before the others.
        return await asyncio.shield(copy.making)

"""When a partition may be tried again: at once the first time in an assignment, then ever later."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evaluator.runtime.clock import Clock
    from evaluator.runtime.log.port import Partition

FIRST_S = 0.5
LONGEST_S = 10.0
"""Two processes that both believe to own a partition fence each other this often at most; a broker that comes
back is noticed within it."""


class Setbacks:
    """Failures by partition since the last assignment."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts: dict[Partition, int] = {}
        self._not_before: dict[Partition, float] = {}

    def note(self, partition: Partition) -> float:
        """One more; returns the seconds until the next try."""
        count = self._counts[partition] = self._counts.get(partition, 0) + 1
        pause = 0.0 if count == 1 else self.pause_s(count - 1)
        self._not_before[partition] = self._clock.monotonic() + pause
        return pause

    def may_try(self, partition: Partition) -> bool:
        """Whether the pause is over."""
        return self._clock.monotonic() >= self._not_before.get(partition, 0.0)

    def forget(self) -> None:
        """A new assignment: everything is tried at once again."""
        self._counts.clear()
        self._not_before.clear()

    @staticmethod
    def pause_s(times: int) -> float:
        """After the n-th failure, n >= 1."""
        return min(LONGEST_S, FIRST_S * float(1 << min(times - 1, 10)))

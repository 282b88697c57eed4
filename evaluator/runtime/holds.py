"""Partitions that are read no further for now, and why: each reason is released by who had it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from evaluator.runtime.log.port import StaleGeneration

if TYPE_CHECKING:
    from evaluator.runtime.log.port import Consumer, Partition


class Holds:
    """The reasons by partition. A partition that is not assigned any more has none."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._reasons: dict[Partition, set[str]] = {}

    def __contains__(self, partition: object) -> bool:
        """Whether anybody has a reason."""
        return partition in self._reasons

    def add(self, partition: Partition, reason: str) -> None:
        """Read no more of it until every reason is gone."""
        self._reasons.setdefault(partition, set()).add(reason)
        with suppress(StaleGeneration):
            self._consumer.pause(partition)

    def remove(self, partition: Partition, reason: str) -> bool:
        """One reason less; returns whether it was the last."""
        reasons = self._reasons.get(partition, set())
        if reason not in reasons:
            return False
        reasons.discard(reason)
        if not reasons:
            del self._reasons[partition]
        return not reasons

    def forget(self, partition: Partition) -> None:
        """Nobody reads it any more."""
        self._reasons.pop(partition, None)

    def clear(self) -> None:
        """A new assignment: whoever has a reason says so again."""
        self._reasons.clear()

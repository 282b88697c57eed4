"""What the group says is ours, which may be stale, and how to ask it again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from evaluator.runtime.log.port import KafkaUnreachable, StaleGeneration
from evaluator.runtime.setbacks import Setbacks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from evaluator.runtime.clock import Clock
    from evaluator.runtime.log.port import Consumer, Partition

log = structlog.get_logger(__name__)


class Assignment:
    """The partitions of the last assignment, less those that were taken away since."""

    def __init__(self, clock: Clock) -> None:
        self.wanted: set[Partition] = set()
        self._clock = clock
        self._number = 0
        self._is_known = asyncio.Event()

    @property
    def is_known(self) -> bool:
        """Whether the group has told us what is ours, and no rebalance goes on that we know of."""
        return self._is_known.is_set()

    def revoke(self, partitions: Iterable[Partition]) -> None:
        """A rebalance begins: until it ends nobody knows whose these will be."""
        self._is_known.clear()
        self.wanted.difference_update(partitions)

    def assign(self, partitions: Iterable[Partition]) -> None:
        """A rebalance ended."""
        self._number += 1
        self.wanted = set(partitions)
        self._is_known.set()

    async def confirm(self, consumer: Consumer, partition: Partition) -> None:
        """Ask the group until it answers. Raises `StaleGeneration` where the partition is not ours."""
        times = 0
        while True:
            asked_in = self._number
            try:
                await consumer.confirm(partition)
            except KafkaUnreachable as error:
                times += 1
                log.warning("group.unreachable", partition=str(partition), times=times, error=str(error))
                await self._clock.sleep(Setbacks.pause_s(times))
            except StaleGeneration:
                if asked_in == self._number and self.is_known:
                    self.wanted.discard(partition)
                    raise
                # A rebalance is under way: the next assignment tells.
                await self._is_known.wait()
                if partition not in self.wanted:
                    raise
            else:
                return

"""Reading a public topic as it grows, each committed record once: what a subscriber of ours does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evaluator.runtime.log.port import Partition

if TYPE_CHECKING:
    from evaluator.runtime.log.port import Log, Record


class Follower:
    """All partitions of one topic, from their beginnings. `positions` says how far each was read."""

    def __init__(self, log: Log, topic: str) -> None:
        self.positions: dict[Partition, int] = {}
        self._log, self._topic = log, topic

    async def news(self) -> list[Record]:
        """What was committed since the last call, by partition, oldest first."""
        found: list[Record] = []
        for index in range(await self._log.partitions(self._topic)):
            partition = Partition(self._topic, index)
            records = await self._log.read(partition, self.positions.get(partition, 0))
            if records:
                self.positions[partition] = records[-1].offset + 1
            found += records
        return found

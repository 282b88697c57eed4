"""Reading a public topic as it grows, each committed record once: what a subscriber of ours does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evaluator.runtime.log.port import Partition

if TYPE_CHECKING:
    from evaluator.runtime.log.port import Log, Reader
    from evaluator.wire.records import Record

AT_ONCE = 10_000
"""Records of one poll: bounds what is in memory besides what the caller keeps."""


class Follower:
    """All partitions of one topic, from their beginnings. `positions` says how far each was read.

    After `stop`, or an error, it goes on where it stands.
    """

    def __init__(self, log: Log, topic: str) -> None:
        self.positions: dict[Partition, int] = {}
        self._log, self._topic = log, topic
        self._reader: Reader | None = None

    async def news(self, timeout_s: float = 0) -> list[Record]:
        """What was committed since the last call, by partition, oldest first; waits for something at most once."""
        if self._reader is None:
            self._reader = await self._open()
        found: list[Record] = []
        while fetched := await self._reader.poll(0 if found else timeout_s, AT_ONCE):
            for partition in sorted(fetched):
                found += fetched[partition]
        self.positions = {partition: self._reader.position(partition) for partition in self.positions}
        return found

    async def _open(self) -> Reader:
        partitions = [Partition(self._topic, index) for index in range(await self._log.partitions(self._topic))]
        for partition in partitions:
            first, _ = await self._log.bounds(partition)
            self.positions[partition] = max(first, self.positions.get(partition, first))
        return self._log.reader(self.positions)

    async def stop(self) -> None:
        """Release the connections."""
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader.stop()

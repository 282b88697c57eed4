"""Reads partitions in memory outside any group."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from evaluator.runtime.log.port import OffsetOutOfRange, Partition

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evaluator.runtime.log.memory_cluster import Cluster
    from evaluator.wire.records import Record


class MemoryReader:
    """Implements `port.Reader`."""

    def __init__(self, cluster: Cluster, positions: Mapping[Partition, int], *, committed: bool) -> None:
        self._cluster, self._positions, self._committed = cluster, dict(positions), committed

    async def poll(self, timeout_s: float, max_records: int) -> Mapping[Partition, Sequence[Record]]:
        """What came since the last call; waits up to `timeout_s` for something."""
        found = self._take(max_records)
        if not found and timeout_s > 0:
            wake = asyncio.Event()
            with self._cluster.listening(wake, frozenset(p.topic for p in self._positions)):
                async with asyncio.TaskGroup() as tasks:
                    sleep = tasks.create_task(self._cluster.clock.sleep(timeout_s), name="reader.wait")
                    sleep.add_done_callback(lambda _: wake.set())
                    await wake.wait()
                    sleep.cancel()
            found = self._take(max_records)
        return found

    def _take(self, max_records: int) -> dict[Partition, Sequence[Record]]:
        self._cluster.expire()
        found: dict[Partition, Sequence[Record]] = {}
        for partition, position in self._positions.items():
            log = self._cluster.log(partition)
            if not log.first <= position <= log.end:
                raise OffsetOutOfRange(partition, position, log.first, log.end)
            records = log.read(position, committed=self._committed)
            taken = records[: max_records - sum(map(len, found.values()))]
            whole = len(taken) == len(records)
            end = log.last_stable if self._committed else log.end
            self._positions[partition] = end if whole else taken[-1].offset + 1 if taken else position
            if taken:
                found[partition] = taken
        return found

    def position(self, partition: Partition) -> int:
        """The next offset to be read."""
        return self._positions[partition]

    async def stop(self) -> None:
        """Nothing to release."""

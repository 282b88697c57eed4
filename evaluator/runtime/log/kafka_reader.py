"""Reads partitions on aiokafka outside any group: tails, dumps, restores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from aiokafka import AIOKafkaConsumer, TopicPartition, errors

from evaluator.runtime.log.kafka_client import LIMIT_S, closed, limited
from evaluator.runtime.log.port import OffsetOutOfRange, Partition

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from evaluator.runtime.log.port import Record

    Bounds = Callable[[Partition], Awaitable[tuple[int, int]]]

PARTITION_FETCH_BYTES = 4 * 1024 * 1024
"""A restore reads one partition at a time; larger fetches take a quarter off it."""


class KafkaReader:
    """Implements `port.Reader`."""

    def __init__(
        self, connection: dict[str, Any], positions: Mapping[Partition, int], bounds: Bounds, *, committed: bool
    ) -> None:
        self._connection, self._positions, self._bounds = connection, dict(positions), bounds
        self._isolation = "read_committed" if committed else "read_uncommitted"
        self._kafka: AIOKafkaConsumer | None = None

    async def poll(self, timeout_s: float, max_records: int) -> Mapping[Partition, Sequence[Record]]:
        """What came since the last call; waits up to `timeout_s` for something."""
        kafka = self._kafka or await self._open()
        async with limited("read", LIMIT_S + timeout_s):
            try:
                fetched = await kafka.getmany(timeout_ms=round(timeout_s * 1000), max_records=max_records)
            except errors.OffsetOutOfRangeError as error:
                raise await self._out_of_range(error) from error
        found = {}
        for partition, records in fetched.items():
            place = Partition(*partition)
            self._positions[place] = records[-1].offset + 1
            # aiokafka's record has the attributes of ours; a copy of each would cost as much as reading it.
            found[place] = cast("Sequence[Record]", records)
        return found

    async def _open(self) -> AIOKafkaConsumer:
        kafka = AIOKafkaConsumer(
            **self._connection, enable_auto_commit=False, auto_offset_reset="none", isolation_level=self._isolation,
            max_partition_fetch_bytes=PARTITION_FETCH_BYTES, fetch_max_wait_ms=250,
        )  # fmt: skip
        try:
            async with limited("connect"):
                await kafka.start()
        except BaseException:
            await closed(kafka)
            raise
        kafka.assign([TopicPartition(*partition) for partition in self._positions])
        for partition, position in self._positions.items():
            kafka.seek(TopicPartition(*partition), position)
        self._kafka = kafka
        return kafka

    async def _out_of_range(self, error: errors.OffsetOutOfRangeError) -> OffsetOutOfRange:
        ((place, offset),) = error.args[0].items()
        partition = Partition(*place)
        return OffsetOutOfRange(partition, offset, *await self._bounds(partition))

    def position(self, partition: Partition) -> int:
        """The next offset to be read."""
        if self._kafka is None:
            return self._positions[partition]
        assignment = self._kafka._subscription.subscription.assignment
        return int(assignment.state_value(TopicPartition(*partition)).position)

    async def stop(self) -> None:
        """Release the connections."""
        kafka, self._kafka = self._kafka, None
        if kafka is not None:
            await closed(kafka)

"""Reads partitions on aiokafka outside any group: tails, dumps, restores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer, TopicPartition, errors

from evaluator.runtime.log.kafka_client import PATIENT, closed, is_deaf, limited, started
from evaluator.runtime.log.kafka_fetch import hand_out_our_records
from evaluator.runtime.log.port import KafkaUnreachable, OffsetOutOfRange, Partition

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from evaluator.wire.records import Record

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
        if kafka._fetcher._fetch_task.done() or is_deaf(kafka._client):
            # It would return nothing for ever, or from the next leader on. Who reads begins anew after this error.
            message = "cannot read: a background task of the Kafka client died"
            raise KafkaUnreachable(message)
        async with limited("read", PATIENT.limit_s + timeout_s):
            try:
                fetched = await kafka.getmany(timeout_ms=round(timeout_s * 1000), max_records=max_records)
            except errors.OffsetOutOfRangeError as error:
                raise await self._out_of_range(error) from error
        found = {}
        for partition, records in fetched.items():
            place = Partition(*partition)
            self._positions[place] = records[-1].offset + 1
            found[place] = records
        return found

    async def _open(self) -> AIOKafkaConsumer:
        kafka = AIOKafkaConsumer(
            **self._connection, enable_auto_commit=False, auto_offset_reset="none", isolation_level=self._isolation,
            max_partition_fetch_bytes=PARTITION_FETCH_BYTES, fetch_max_wait_ms=250,
        )  # fmt: skip
        await started(kafka)
        hand_out_our_records(kafka)
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

"""What the conformance tests need of a log, and the shorthand they speak.

A test knows the port only. A new implementation joins by another `World` in `conftest.py`.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from evaluator.core.event import EpochUs
from evaluator.runtime.clock import VirtualClock, run_virtual
from evaluator.runtime.log.kafka import KafkaLog
from evaluator.runtime.log.memory import MemoryLog
from evaluator.runtime.log.port import Outgoing, Partition, StaleGeneration, TopicSpec
from evaluator.runtime.settings import KafkaSettings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from support.cluster import Cluster

    from evaluator.runtime.log.kafka_consumer import KafkaConsumer
    from evaluator.runtime.log.kafka_producer import KafkaProducer
    from evaluator.runtime.log.port import Consumer, Fetched, Log, Producer, Rebalance

NOON = EpochUs(1_700_000_000_000_000)
POLL_S = 0.2
PATIENCE = 200


class World(Protocol):
    """Somewhere a log lives."""

    def run(self, scenario: Callable[[Log], Coroutine[Any, Any, None]]) -> None:
        """Run `scenario` on an event loop, with a log."""

    def name(self, base: str) -> str:
        """A topic, group or transactional id that no other test uses."""


class MemoryWorld:
    """A fresh in-memory log for each scenario, in virtual time."""

    def run(self, scenario: Callable[[Log], Coroutine[Any, Any, None]]) -> None:
        """Run on a virtual loop."""

        async def main() -> None:
            await scenario(MemoryLog(clock=VirtualClock(asyncio.get_running_loop(), NOON)))

        run_virtual(main())

    def name(self, base: str) -> str:
        """Nobody else is there."""
        return base


class Member:
    """A group member that reads everything it is given from the beginning, and writes down what it was told."""

    def __init__(self, log: Log, group: str, topics: Sequence[str], *, resume: bool = True, note: str = "") -> None:
        self.journal: list[tuple[str, list[int]]] = []
        self.consumer: Consumer = log.consumer(group, topics, self, note)
        self._log, self._resume = log, resume

    async def revoked(self, partitions: Sequence[Partition]) -> None:
        """Write it down."""
        self.journal.append(("revoked", sorted(partition.index for partition in partitions)))

    async def assigned(self, partitions: Sequence[Partition]) -> None:
        """Begin at the beginning."""
        self.journal.append(("assigned", sorted(partition.index for partition in partitions)))
        for partition in partitions if self._resume else ():
            first, _ = await self._log.bounds(partition)
            # The group may have moved on meanwhile; then it tells us again.
            with suppress(StaleGeneration):
                self.consumer.seek(partition, first)
                self.consumer.resume(partition)

    async def follow(self, partition: Partition) -> tuple[list[int], Fetched]:
        """Poll until the partition is at its (stable) end: the offsets seen, and the last fetch."""
        seen: list[int] = []
        for _ in range(PATIENCE):
            fetched = (await self.consumer.poll(POLL_S, 100)).get(partition)
            if fetched is not None and not fetched.records:
                return seen, fetched
            seen += [record.offset for record in fetched.records] if fetched else []
        message = f"{partition} was never read to its end; seen {seen}"
        raise AssertionError(message)


async def share(members: Sequence[Member], partitions: int) -> list[list[int]]:
    """Poll all members until each has some of the partitions: what each owns."""
    for _ in range(PATIENCE):
        await asyncio.gather(*(member.consumer.poll(POLL_S, 100) for member in members))
        owned = [sorted(partition.index for partition in member.consumer.assignment()) for member in members]
        if all(owned) and sorted(index for indexes in owned for index in indexes) == list(range(partitions)):
            return owned
    message = f"{partitions} partitions were never shared out: {owned}"
    raise AssertionError(message)


async def topic(log: Log, name: str, partitions: int = 1) -> Partition:
    """Create a topic; gives its partition 0."""
    await log.create([TopicSpec(name, partitions)])
    return Partition(name, 0)


async def grown(log: Log, partition: Partition, end: int) -> tuple[int, int]:
    """Wait until the partition ends at `end` or behind: a commit is answered before its markers are written."""
    for _ in range(PATIENCE):
        bounds = await log.bounds(partition)
        if bounds[1] >= end:
            return bounds
        await asyncio.sleep(POLL_S)
    return bounds


async def started(log: Log, transactional_id: str) -> Producer:
    """A producer that owns its id."""
    producer = log.producer(transactional_id)
    await producer.start()
    return producer


async def put(producer: Producer, partition: Partition, value: bytes) -> int:
    """Send one record and wait for its acknowledgement: the append time in milliseconds."""
    answer: Awaitable[int] = await producer.send(Outgoing(partition.topic, b"k", value, partition.index))
    return await answer


async def transact(producer: Producer, partition: Partition, *values: bytes) -> None:
    """One committed transaction."""
    producer.begin()
    for value in values:
        await put(producer, partition, value)
    await producer.commit()


async def values(log: Log, partition: Partition, *, committed: bool = True) -> list[bytes | None]:
    """The values in the log."""
    return [record.value for record in await log.read(partition, committed=committed)]


async def shows(log: Log, partition: Partition, expected: list[bytes]) -> None:
    """The partition comes to show committed readers `expected`: markers may be late."""
    seen = await values(log, partition)
    for _ in range(PATIENCE):
        if seen == expected:
            break
        await asyncio.sleep(POLL_S)
        seen = await values(log, partition)
    assert seen == expected


class _TidyLog(KafkaLog):
    """Stops at its end what a scenario left running, as a process that exits does."""

    def __init__(self, settings: KafkaSettings) -> None:
        super().__init__(settings)
        self._left: list[Consumer | Producer] = []

    def consumer(self, group: str, topics: Sequence[str], rebalance: Rebalance, note: str = "") -> KafkaConsumer:
        """Remember it."""
        made = super().consumer(group, topics, rebalance, note)
        self._left.append(made)
        return made

    def producer(self, transactional_id: str) -> KafkaProducer:
        """Remember it."""
        made = super().producer(transactional_id)
        self._left.append(made)
        return made

    async def close(self) -> None:
        """Stop what is left."""
        for client in self._left:
            await client.stop()
        await super().close()


class KafkaWorld:
    """A real cluster, on a real event loop."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._unique = cluster.name("t")

    def run(self, scenario: Callable[[Log], Coroutine[Any, Any, None]]) -> None:
        """Run on an ordinary loop."""

        async def main() -> None:
            log = _TidyLog(KafkaSettings(bootstrap_servers=self._cluster.bootstrap))
            await log.start()
            try:
                async with asyncio.timeout(60):
                    await scenario(log)
            finally:
                await log.close()

        asyncio.run(main())

    def name(self, base: str) -> str:
        """The cluster is shared."""
        return f"{base}-{self._unique}"

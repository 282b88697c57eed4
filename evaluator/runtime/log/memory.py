"""The log in memory: demo, replay and simulation run on it, with Kafka's semantics where they matter.

    memory.py             the port: one process's connection to a cluster
    memory_producer.py    memory_consumer.py      its clients
    memory_cluster.py     memory_group.py         the brokers: coordinators of transactions and of groups
    memory_partition.py                           the records
    steps.py                               where a simulation interferes

Left out on purpose: replication, retention by time, and everything that happens on a wire. What a lost
answer or a slow broker does to a client is said by the `step` hook.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import count, repeat
from typing import TYPE_CHECKING

from evaluator.runtime.log.memory_cluster import Cluster
from evaluator.runtime.log.memory_consumer import MemoryConsumer
from evaluator.runtime.log.memory_group import Member
from evaluator.runtime.log.memory_producer import MemoryProducer
from evaluator.runtime.log.memory_reader import MemoryReader
from evaluator.runtime.log.port import Outgoing, Partition, RecordTooLarge
from evaluator.runtime.log.steps import Journal, Step, Steps

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evaluator.runtime.clock import Clock
    from evaluator.runtime.log.port import Owner, Rebalance, TopicInfo, TopicSpec
    from evaluator.runtime.log.rights import Right
    from evaluator.wire.records import Headers, Record


class MemoryLog:
    """See `port.Log`. The instance is one process's connection; `connect` gives another one's."""

    def __init__(
        self,
        *,
        clock: Clock,
        transaction_timeout_s: float = 60,
        session_timeout_s: float = 20,
        max_record_bytes: int = 1 << 20,
        compact_every: int = 1000,
        step: Step | None = None,
        journal: Journal | None = None,
        name: str = "evaluator",
    ) -> None:
        """`step` is awaited around each effect, `journal` is appended to; both cost nothing when None.

        Time-outs are in seconds of `clock`. `max_record_bytes` counts key, value and headers, and so does
        a topic's `max.message.bytes` where that is less.
        `compact_every`: appends to a compacted partition before it is compacted by itself.
        """
        self.name = name
        self._steps = Steps(step, journal)
        self._cluster = Cluster(
            clock,
            transaction_timeout_s=transaction_timeout_s,
            session_timeout_s=session_timeout_s,
            max_record_bytes=max_record_bytes,
            compact_every=compact_every,
        )

    def connect(
        self, *, step: Step | None = None, journal: Journal | None = None, name: str = "evaluator"
    ) -> MemoryLog:
        """Another process's connection to the same cluster, with hooks of its own."""
        other = object.__new__(MemoryLog)
        other._steps, other._cluster, other.name = Steps(step, journal), self._cluster, name
        return other

    def consumer(self, group: str, topics: Sequence[str], rebalance: Rebalance, note: str = "") -> MemoryConsumer:
        """A member of `group`."""
        member = Member(frozenset(topics), self.name, note)
        return MemoryConsumer(self._cluster, self._steps, group, member, rebalance)

    def producer(self, transactional_id: str) -> MemoryProducer:
        """A transactional producer."""
        return MemoryProducer(self._cluster, self._steps, transactional_id)

    async def start(self) -> None:
        """It is always there."""

    def reader(self, positions: Mapping[Partition, int], *, committed: bool = True) -> MemoryReader:
        """A reader of these partitions from these offsets on."""
        return MemoryReader(self._cluster, positions, committed=committed)

    async def read(
        self, partition: Partition, start: int | None = None, *, limit: int | None = None, committed: bool = True
    ) -> Sequence[Record]:
        """Every record of a partition from `start`, at most `limit`."""

        def records() -> Sequence[Record]:
            self._cluster.expire()
            return self._cluster.log(partition).read(start or 0, committed=committed)[:limit]

        return await self._steps.around("log.read", records, f"{partition.topic}-{partition.index}", start)

    async def bounds(self, partition: Partition) -> tuple[int, int]:
        """The first offset that is kept, and the high watermark."""

        def bounds() -> tuple[int, int]:
            self._cluster.expire()
            log = self._cluster.log(partition)
            return log.first, log.end

        return await self._steps.around("log.bounds", bounds, f"{partition.topic}-{partition.index}")

    async def offset_at(self, partition: Partition, timestamp_ms: int) -> int:
        """The first offset whose record's time is at or after `timestamp_ms`; the end where there is none."""
        log = self._cluster.log(partition)
        records = log.read(log.first, committed=False)
        return next((r.offset for r in records if (r.timestamp or 0) >= timestamp_ms), log.end)

    async def owners(self, group: str) -> Mapping[Partition, Owner]:
        """Who reads what in a group at the moment."""
        return self._cluster.group(group).owners()

    async def describe(self, topics: Sequence[str]) -> Mapping[str, TopicInfo]:
        """What the topics are like; one that does not exist is absent."""
        return self._cluster.describe(topics)

    async def lacking(self, rights: Sequence[Right]) -> Sequence[Right]:
        """None of them: everybody may do everything here."""
        del rights
        return []

    async def partitions(self, topic: str) -> int:
        """How many partitions the topic has."""
        return len(self._cluster.partitions(topic))

    async def create(self, topics: Sequence[TopicSpec]) -> None:
        """Create the topics that are missing."""
        for spec in topics:
            self._cluster.create(spec)

    async def grow(self, topic: str, partitions: int) -> None:
        """Add partitions to a topic until it has `partitions`."""
        await self._steps.around("log.grow", lambda: self._cluster.grow(topic, partitions), topic, partitions)

    async def append(self, records: Sequence[Outgoing]) -> Sequence[tuple[Partition, int]]:
        """Write records outside any transaction; where each of them is. When one is refused none is written."""
        for record in records:
            refusal = self._cluster.refusal(record)
            if refusal is not None:
                raise refusal
        now = self._cluster.now_ms()
        places = [self._cluster.place(record) for record in records]
        placed: defaultdict[Partition, list[Outgoing]] = defaultdict(list)
        for place, record in zip(places, records, strict=True):
            placed[place].append(record)
        logs = {place: self._cluster.log(place) for place in placed}
        offsets = {place: count(log.end) for place, log in logs.items()}
        for place, log in logs.items():
            rows = placed[place]
            log.extend(
                [now if row.timestamp is None else row.timestamp for row in rows],
                [row.key for row in rows],
                [row.value for row in rows],
                [row.headers for row in rows],
            )
        self._cluster.changed({topic for topic, _ in placed})
        return [(place, next(offsets[place])) for place in places]

    async def append_values(
        self,
        partition: Partition,
        values: Sequence[bytes | None],
        timestamps: Sequence[int | None],
        keys: Sequence[bytes | None] | None = None,
        headers: Sequence[Headers] | None = None,
        offsets: Sequence[int] | None = None,
        end: int | None = None,
    ) -> None:
        """Write many records to one partition, given as columns of equal length: the fast way for a backlog.

        `timestamps` in milliseconds. `offsets` where they are not simply the next ones, `end` where the log stands
        after them. Not for compacted topics unless every key is given.
        """
        if not len(values) == len(timestamps) == len(keys or values):
            message = f"columns of different lengths for {partition.topic} partition {partition.index}"
            raise ValueError(message)
        largest = max(map(len, filter(None, values)), default=0)
        if largest > self._cluster.max_record_bytes:
            raise RecordTooLarge(partition.topic, None, largest)
        log = self._cluster.log(partition)
        log.extend(
            timestamps, repeat(None) if keys is None else keys, values, repeat(()) if headers is None else headers,
            offsets,
        )  # fmt: skip
        if end is not None:
            log.skip(end)
        self._cluster.changed({partition.topic})

    async def trim(self, partition: Partition, before: int) -> None:
        """Delete the records below offset `before`, at most to the last stable offset."""
        self._cluster.log(partition).trim(before)

    async def close(self) -> None:
        """Nothing to release."""

    # What only a cluster in memory offers, for the demo and for tests.

    def outage(self) -> None:
        """The brokers are away for a while: fetches in the background of any client fail."""
        self._cluster.outages += 1

    async def compact(self) -> None:
        """Compact every compacted topic now."""
        self._cluster.compact()

    def generation(self, group: str) -> int:
        """How many times the group has shared out its partitions."""
        return self._cluster.group(group).generation

    def committed(self, group: str) -> Mapping[Partition, int]:
        """The offsets that members of `group` have committed."""
        return dict(self._cluster.group(group).offsets)

"""The broker's side in memory: topics, the transaction coordinator, and who waits for what.

Everything here is synchronous: whatever the clients do between two awaits happens at once or not at all.

Ownership of a transactional id is a pair. `owner` counts the starts and tells who may write; `epoch`
tells which transactions are meant.

| call       | by the owner, same epoch | by the owner, older epoch | by an earlier owner           |
| ---------- | ------------------------ | ------------------------- | ----------------------------- |
| write, end | done                     | Fenced                    | Fenced                        |
| bump       | epoch + 1                | epoch + 1                 | Fenced                        |
| start      | owner + 1, epoch + 1     | owner + 1, epoch + 1      | owner + 1, epoch + 1          |

Bump and start, whoever calls, also abort a transaction that is open, which raises the epoch too, as a
time-out does. So the bump of an earlier owner hurts the rightful one once: its next call is fenced, and
its own bump heals it.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from evaluator.runtime.log.memory_group import Group
from evaluator.runtime.log.memory_partition import PartitionLog
from evaluator.runtime.log.partitioner import partition_of
from evaluator.runtime.log.port import (
    Fenced,
    Outgoing,
    Partition,
    RecordTooLarge,
    SendFailed,
    TopicInfo,
    TopicSpec,
    UnknownTopic,
)

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Collection, Iterator, Sequence

    from evaluator.errors import EvaluatorError
    from evaluator.runtime.clock import Clock


class Ownership(NamedTuple):
    """What a producer knows of itself since its last start or bump."""

    owner: int
    epoch: int


@dataclass(slots=True)
class _Transaction:
    number: int
    deadline: float
    partitions: dict[Partition, PartitionLog] = field(default_factory=dict)


@dataclass(slots=True)
class _Identity:
    """What the coordinator knows of a transactional id."""

    owner: int = 0
    epoch: int = -1
    open: _Transaction | None = None
    committed_last: bool = False


@dataclass(slots=True)
class _Topic:
    spec: TopicSpec
    partitions: list[PartitionLog]
    turn: int = 0


class Cluster:
    """What all clients of one in-memory log share."""

    def __init__(
        self,
        clock: Clock,
        *,
        transaction_timeout_s: float,
        session_timeout_s: float,
        max_record_bytes: int,
        compact_every: int,
    ) -> None:
        self.clock = clock
        self._transaction_timeout_s = transaction_timeout_s
        self._session_timeout_s = session_timeout_s
        self.max_record_bytes = max_record_bytes
        self._compact_every = compact_every
        self.outages = 0
        """How often all brokers were away. A real client fetches in the background, and its attempts fail meanwhile."""
        self._topics: dict[str, _Topic] = {}
        self._compacted: set[str] = set()
        self._groups: dict[str, Group] = {}
        self._identities: dict[str, _Identity] = {}
        # Identities with an open transaction, the oldest first.
        self._open: dict[str, _Identity] = {}
        self._transactions = 0
        self._listeners: dict[asyncio.Event, frozenset[str]] = {}

    # Topics

    def create(self, spec: TopicSpec) -> None:
        """Create the topic if it is missing."""
        if spec.name not in self._topics:
            self._topics[spec.name] = _Topic(spec, [])
            if spec.compact:
                self._compacted.add(spec.name)
            self.grow(spec.name, spec.partitions)

    def describe(self, topics: Sequence[str]) -> dict[str, TopicInfo]:
        """The topics that exist, by name."""
        there = {name: self._topics[name] for name in topics if name in self._topics}
        return {name: TopicInfo(len(topic.partitions), 1, topic.spec.config) for name, topic in there.items()}

    def grow(self, topic: str, partitions: int) -> None:
        """Add partitions until there are `partitions`; the groups that read the topic rebalance."""
        found = self._topic(topic)
        compact_every = self._compact_every if found.spec.compact else None
        added = partitions - len(found.partitions)
        found.partitions.extend(PartitionLog(compact_every) for _ in range(added))
        for group in self._groups.values():
            if added > 0 and topic in group.topics():
                group.rebalance()

    def partitions(self, topic: str) -> list[Partition]:
        """The partitions of a topic. Raises `UnknownTopic`."""
        return [Partition(topic, index) for index in range(len(self._topic(topic).partitions))]

    def log(self, partition: Partition) -> PartitionLog:
        """The records of a partition. Raises `UnknownTopic`."""
        logs = self._topic(partition.topic).partitions
        if not 0 <= partition.index < len(logs):
            missing = f"{partition.topic} with a partition {partition.index}"
            raise UnknownTopic(missing)
        return logs[partition.index]

    def compact(self) -> None:
        """Compact every partition of the topics that were created so."""
        for name in self._compacted:
            for log in self._topics[name].partitions:
                log.compact()

    def place(self, record: Outgoing) -> Partition:
        """The partition that a record goes to: the given one, the key's, or the next in turn."""
        if record.partition is not None:
            return Partition(record.topic, record.partition)
        topic = self._topic(record.topic)
        if record.key is not None:
            return Partition(record.topic, partition_of(record.key, len(topic.partitions)))
        topic.turn += 1
        return Partition(record.topic, (topic.turn - 1) % len(topic.partitions))

    def refusal(self, record: Outgoing) -> EvaluatorError | None:
        """Why a broker would refuse this record, if it would."""
        size = len(record.key or b"") + len(record.value or b"")
        if record.headers:
            size += sum(len(name.encode()) + len(value) for name, value in record.headers)
        if size > self._most(record.topic):
            return RecordTooLarge(record.topic, record.key, size)
        if record.key is None and record.topic in self._compacted:
            return SendFailed(f"a record of the compacted topic {record.topic} needs a key")
        return None

    def _most(self, topic: str) -> int:
        """The bytes that a record of the topic may have: what a client sends at most, or the topic takes."""
        found = self._topics.get(topic)
        setting = None if found is None else found.spec.settings.get("max.message.bytes")
        return self.max_record_bytes if setting is None else min(self.max_record_bytes, int(setting))

    def now_ms(self) -> int:
        """The time of an append."""
        return self.clock.now() // 1000

    def _topic(self, name: str) -> _Topic:
        try:
            return self._topics[name]
        except KeyError:
            raise UnknownTopic(name) from None

    # Transactions

    def start(self, transactional_id: str) -> Ownership:
        """A new owner: everybody else is fenced, what they left open is aborted."""
        self.expire()
        identity = self._identities.setdefault(transactional_id, _Identity())
        self._abort_open(transactional_id, identity)
        identity.owner += 1
        identity.epoch += 1
        return Ownership(identity.owner, identity.epoch)

    def bump(self, transactional_id: str, own: Ownership) -> Ownership:
        """A new epoch for the present owner, or `Fenced`; either way nothing stays open."""
        self.expire()
        identity = self._identities[transactional_id]
        self._abort_open(transactional_id, identity)
        if own.owner != identity.owner:
            raise Fenced(transactional_id)
        identity.epoch += 1
        return Ownership(identity.owner, identity.epoch)

    def write(self, transactional_id: str, own: Ownership, record: Outgoing) -> tuple[Partition, int, int]:
        """Write a record of the owner's transaction, opening it; gives its place, offset and append time."""
        identity = self._fence(transactional_id, own)
        partition = self.place(record)
        log = self.log(partition)
        if identity.open is None:
            self._transactions += 1
            deadline = self.clock.monotonic() + self._transaction_timeout_s
            identity.open = _Transaction(self._transactions, deadline)
            self._open[transactional_id] = identity
        now = self.now_ms()
        timestamp = now if record.timestamp is None else record.timestamp
        offset = log.write(identity.open.number, timestamp, record.key, record.value, record.headers)
        identity.open.partitions[partition] = log
        return partition, offset, now

    def end(self, transactional_id: str, own: Ownership, *, commit: bool, wrote: bool) -> None:
        """Commit or abort. `wrote`: the producer knows of an accepted record, so there was a transaction."""
        identity = self._fence(transactional_id, own)
        if identity.open is not None:
            self._decide(transactional_id, identity, commit=commit)
        elif wrote and identity.committed_last != commit:
            # The same question twice is answered as before (the first answer was lost); the other one is a bug.
            message = f"the transaction of {transactional_id} was already {'aborted' if commit else 'committed'}"
            raise RuntimeError(message)

    def expire(self) -> None:
        """Abort what is open for longer than the time-out; its owner is fenced until it bumps."""
        now = self.clock.monotonic()
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            transactional_id, identity = next(iter(self._open.items()))
            self._abort_open(transactional_id, identity)

    def next_deadline(self) -> float | None:
        """When the oldest open transaction times out, by the clock's `monotonic`."""
        for identity in self._open.values():
            return identity.open.deadline if identity.open else None
        return None

    def _fence(self, transactional_id: str, own: Ownership) -> _Identity:
        self.expire()
        identity = self._identities[transactional_id]
        if own != (identity.owner, identity.epoch):
            raise Fenced(transactional_id)
        return identity

    def _abort_open(self, transactional_id: str, identity: _Identity) -> None:
        if identity.open is not None:
            self._decide(transactional_id, identity, commit=False)
            identity.epoch += 1

    def _decide(self, transactional_id: str, identity: _Identity, *, commit: bool) -> None:
        transaction, identity.open = identity.open, None
        identity.committed_last = commit
        del self._open[transactional_id]
        assert transaction is not None
        for log in transaction.partitions.values():
            log.mark(transaction.number, commit=commit)
        self.changed({partition.topic for partition in transaction.partitions})

    # Groups and waiting

    def group(self, name: str) -> Group:
        """The consumer group of that name."""
        if name not in self._groups:
            self._groups[name] = Group(self, self._session_timeout_s)
        return self._groups[name]

    def changed(self, topics: Collection[str]) -> None:
        """Wake whoever waits for news of one of `topics`."""
        for event, wanted in self._listeners.items():
            if not wanted.isdisjoint(topics):
                event.set()

    @contextmanager
    def listening(self, event: asyncio.Event, topics: frozenset[str]) -> Iterator[None]:
        """While inside, `event` is set by a change of one of `topics`."""
        self._listeners[event] = topics
        try:
            yield
        finally:
            del self._listeners[event]

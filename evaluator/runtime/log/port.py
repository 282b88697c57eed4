"""The log as the tasks see it: a port with Kafka's semantics, and nothing of a client library.

Two implementations: `memory.py` (demo, replay, simulation) and Kafka's. A task cannot tell which it runs on.

Vocabulary. A *transaction* makes sends to several partitions visible at once or never. The *last stable
offset* (LSO) is where the first open transaction begins: a `read_committed` reader stops there. An *epoch*
numbers the owners and transactions of a transactional id; a producer with an older epoch is *fenced*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from evaluator.core.event import EpochUs
from evaluator.errors import EvaluatorError
from evaluator.wire.records import Headers, Record

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from evaluator.runtime.log.rights import Right


class Partition(NamedTuple):
    """One partition of a topic."""

    topic: str
    index: int  # type: ignore[assignment]  # hides tuple.index, which means nothing here


class Fetched(NamedTuple):
    """What one successful fetch of a partition returned.

    `records` may be empty, and are best a `Records`, whose columns need not be made. `next_offset` is the position
    after them (past markers and compacted gaps); `high_watermark` the end of the log, open transactions included; `at`
    the local time of the fetch. `is_continuous` is false where a fetch of the partition failed since the one before.
    """

    records: Sequence[Record]
    next_offset: int
    high_watermark: int
    at: EpochUs
    is_continuous: bool = True


class Outgoing(NamedTuple):
    """A record to be written. `partition` None: chosen by the key. `timestamp` None: the time of the append."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int | None = None
    headers: Headers = ()
    timestamp: int | None = None


class Fenced(EvaluatorError):
    """Another producer started under our transactional id since. Our memory is worthless now."""

    def __init__(self, transactional_id: str) -> None:
        super().__init__(f"transactional id {transactional_id} was taken over by another process")


class SendFailed(EvaluatorError):
    """A record was not accepted; the transaction can be aborted and tried again."""


class RecordTooLarge(EvaluatorError):
    """A record exceeds the topic's limit. Never retried: every outbox is sendable by construction."""

    def __init__(self, topic: str, key: bytes | None, size: int) -> None:
        super().__init__(
            f"a record of {size} bytes is too large for topic {topic} (key {key!r}); raise its max.message.bytes"
        )


class OutcomeUnknown(EvaluatorError):
    """A commit was asked for and no answer came: only the log can tell whether it happened."""


class StaleGeneration(EvaluatorError):
    """The consumer group has moved on: this member may no longer own what it believes to own."""


class OffsetOutOfRange(EvaluatorError):
    """A reader stands where the log has nothing (any more): below its first kept offset or past its end."""

    def __init__(self, partition: Partition, position: int, first: int, end: int) -> None:
        self.partition, self.position, self.first, self.end = partition, position, first, end
        super().__init__(
            f"{partition.topic} partition {partition.index}: offset {position} is not there; "
            f"the log keeps [{first}, {end})"
        )


class KafkaUnreachable(EvaluatorError):
    """No broker answers, or none lets us in. The message says which, and what to do."""

    exit_code = 4


class NotAuthorized(EvaluatorError):
    """The brokers know us, and refuse what was asked for."""

    exit_code = 4


class UnknownTopic(EvaluatorError):
    """The topic does not exist."""

    exit_code = 1

    def __init__(self, topic: str) -> None:
        super().__init__(f"topic {topic} does not exist; create it with `evaluator topics create`")


SAFE_REPLICATION = 3
"""One broker can be restarted while another one is lost."""


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic to be created. `compact` keeps only the newest record of each key.

    `retention_ms` -1 keeps everything, None leaves it to the broker. `settings` are further ones, by Kafka's names.
    `may_have_more` says that nobody counts on the number of partitions, so that one with more of them serves as well.
    """

    name: str
    partitions: int
    compact: bool = False
    retention_ms: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    may_have_more: bool = False

    @property
    def config(self) -> dict[str, str]:
        """Every setting that the topic is created with, by Kafka's names."""
        retention = {} if self.retention_ms is None else {"retention.ms": str(self.retention_ms)}
        return {"cleanup.policy": "compact" if self.compact else "delete", **retention, **self.settings}

    def config_on(self, replication: int) -> dict[str, str]:
        """The same on so many replicas: where that is safe, what was acknowledged is on two of them."""
        safe = {"min.insync.replicas": "2"} if replication >= SAFE_REPLICATION else {}
        return {**safe, **self.config}


class TopicInfo(NamedTuple):
    """A topic as it is. `config` is by Kafka's names; None where we have no right to see it."""

    partitions: int
    replication: int
    config: Mapping[str, str] | None


class Owner(NamedTuple):
    """Who reads a partition as a member of a group: the group's own name for it, its process' name, its address.

    `note`: what it gave as one when it joined.
    """

    member: str
    name: str
    host: str
    note: str = ""


class Producer(Protocol):
    """One transactional producer. Every method may raise `Fenced`."""

    async def start(self) -> None:
        """Take over the transactional id: fence whoever had it and decide its open transaction."""

    async def bump(self) -> None:
        """Raise the own epoch. Raises `Fenced` if another producer started since, takes nothing back."""

    def begin(self) -> None:
        """Begin a transaction. Nothing is sent yet.

        Beginning or ending one at the wrong moment is a bug: `RuntimeError`. After a failed `commit` or
        `abort`, and after `Fenced`, `bump`, `revive` or `start` come first.
        """

    async def send(self, record: Outgoing) -> Awaitable[int]:
        """Hand over a record; the returned awaitable gives its append time in milliseconds or raises."""

    async def commit(self) -> None:
        """Make the transaction visible. Raises `OutcomeUnknown` when no answer came."""

    async def revive(self) -> None:
        """After `OutcomeUnknown`: replace the client underneath, keep id and epoch, and bump.

        The bump decides the transaction in doubt. Raises `Fenced` if another producer started since.
        """

    async def abort(self) -> None:
        """Drop the transaction."""

    async def stop(self) -> None:
        """Release the resources; an open transaction is left to be decided by the next `start`."""


class Rebalance(Protocol):
    """What a group member is told. Called from within `Consumer.poll`."""

    async def revoked(self, partitions: Sequence[Partition]) -> None:
        """These partitions are being taken away; commit what is open. Not called when we had none."""

    async def assigned(self, partitions: Sequence[Partition]) -> None:
        """These partitions are ours now. They are paused until the task has sought and resumed."""


class Consumer(Protocol):
    """A member of a consumer group over one or more topics."""

    async def start(self) -> None:
        """Join the group."""

    async def poll(self, timeout_s: float, max_records: int) -> Mapping[Partition, Fetched]:
        """Successful fetches since the last call. Waits up to `timeout_s` for records.

        An entry without records says that a partition was fetched at its end (or at the last stable offset:
        then `next_offset` is below `high_watermark`). Runs the rebalance callbacks. Raises
        `OffsetOutOfRange`; no position moves then.
        """

    def assignment(self) -> frozenset[Partition]:
        """The partitions that the last rebalance gave us."""

    def seek(self, partition: Partition, offset: int) -> None:
        """Read on from `offset`.

        Like `pause` and `resume`, raises `StaleGeneration` for a partition that is not assigned to us.
        """

    def pause(self, *partitions: Partition) -> None:
        """Stop fetching from these partitions."""

    def resume(self, *partitions: Partition) -> None:
        """Fetch from these partitions again."""

    async def confirm(self, partition: Partition) -> None:
        """Ask the group whether `partition` is still ours. Raises `StaleGeneration`, `KafkaUnreachable`.

        Commits again what the group has for it under our member id and generation: nothing changes for others.
        """

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Commit group offsets under our member id and generation. Raises `StaleGeneration`, `KafkaUnreachable`."""

    async def stop(self) -> None:
        """Leave the group. The rebalance callbacks are not called."""


class Reader(Protocol):
    """Reads partitions that it was given, in no group: a tail, a dump, a restore."""

    async def poll(self, timeout_s: float, max_records: int) -> Mapping[Partition, Sequence[Record]]:
        """What came since the last call; waits up to `timeout_s` for something. Raises `OffsetOutOfRange`."""

    def position(self, partition: Partition) -> int:
        """The next offset to be read: past markers and compacted gaps, so it reaches the end without a record."""

    async def stop(self) -> None:
        """Release the connections."""


class Log(Protocol):
    """A cluster."""

    @property
    def name(self) -> str:
        """What the brokers call this process: the name of an `Owner`."""

    async def start(self) -> None:
        """Connect. Raises `KafkaUnreachable`, which says why."""

    def consumer(self, group: str, topics: Sequence[str], rebalance: Rebalance, note: str = "") -> Consumer:
        """A member of `group` that reads committed records of `topics`. Others see its `note` in `owners`."""

    def producer(self, transactional_id: str) -> Producer:
        """A transactional producer; nothing happens before its `start`."""

    def reader(self, positions: Mapping[Partition, int], *, committed: bool = True) -> Reader:
        """A reader of these partitions from these offsets on. Nothing happens before its first `poll`."""

    async def read(
        self, partition: Partition, start: int | None = None, *, limit: int | None = None, committed: bool = True
    ) -> Sequence[Record]:
        """Every record of a partition from `start` (default: its beginning) to its present end, oldest first.

        The end is the last stable offset, or with `committed=False` the high watermark (then records of
        open and aborted transactions are among them). A `start` below the beginning means the beginning.
        """

    async def bounds(self, partition: Partition) -> tuple[int, int]:
        """The first offset that is kept, and the end (high watermark)."""

    async def offset_at(self, partition: Partition, timestamp_ms: int) -> int:
        """The first offset whose record's time is at or after `timestamp_ms`; the end where there is none."""

    async def describe(self, topics: Sequence[str]) -> Mapping[str, TopicInfo]:
        """What the topics are like, by name; one that does not exist is absent. Raises `NotAuthorized`."""

    async def lacking(self, rights: Sequence[Right]) -> Sequence[Right]:
        """Those of the rights that we do not have, as far as the brokers tell without our using them."""

    async def owners(self, group: str) -> Mapping[Partition, Owner]:
        """Who reads what in a group at the moment; nothing while it shares out anew, or is not there.

        Raises `KafkaUnreachable`, `NotAuthorized`.
        """

    async def partitions(self, topic: str) -> int:
        """How many partitions the topic has. Raises `UnknownTopic`."""

    async def create(self, topics: Sequence[TopicSpec]) -> None:
        """Create the topics that are missing."""

    async def grow(self, topic: str, partitions: int) -> None:
        """Add partitions to a topic until it has `partitions`. Raises `UnknownTopic`, `NotAuthorized`."""

    async def append(self, records: Sequence[Outgoing]) -> Sequence[tuple[Partition, int]]:
        """Write records outside any transaction (simulated input, reports); where each of them is, once all are there.

        They are acknowledged by every replica in sync, and written once.
        """

    async def trim(self, partition: Partition, before: int) -> None:
        """Delete the records below offset `before`."""

    async def close(self) -> None:
        """Release the connections."""

"""The log on a real Kafka, through aiokafka.

The parts are in the modules beside this one: `kafka_client` (connections, errors), `kafka_producer`,
`kafka_consumer`, `kafka_reader`. They use some of aiokafka's private names, each of which a test on a real broker
pins (tests/kafka/), and pyproject.toml keeps aiokafka at that minor version.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition, errors
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from evaluator.runtime.log.kafka_client import (
    PATIENT,
    Patience,
    closed,
    connection,
    is_deaf,
    limited,
    probe,
    process_name,
    started,
    translated,
)
from evaluator.runtime.log.kafka_consumer import KafkaConsumer
from evaluator.runtime.log.kafka_owners import owners
from evaluator.runtime.log.kafka_producer import BATCH_BYTES, KafkaProducer
from evaluator.runtime.log.kafka_reader import KafkaReader
from evaluator.runtime.log.kafka_rights import lacking
from evaluator.runtime.log.port import (
    SAFE_REPLICATION,
    KafkaUnreachable,
    Partition,
    RecordTooLarge,
    TopicInfo,
    UnknownTopic,
)
from evaluator.runtime.log.steps import Steps

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from evaluator.runtime.log.port import Outgoing, Owner, Rebalance, TopicSpec
    from evaluator.runtime.log.rights import Right
    from evaluator.runtime.log.steps import Step
    from evaluator.runtime.settings import KafkaSettings
    from evaluator.wire.records import Record

AT_ONCE = 5_000
"""Records that a whole read takes at a time: one turn of the event loop."""

_VISIBLE_S = 0.05

_UNKNOWN_TOPIC = 3
_EXISTS = 36
_NOT_AUTHORIZED = 29
_TOO_FEW_BROKERS = 38


class KafkaLog:
    """See `port.Log`. `step` is awaited around effects, for tests that interfere; it costs nothing when None."""

    def __init__(
        self, kafka: KafkaSettings, *, name: str | None = None, step: Step | None = None, patience: Patience = PATIENT
    ) -> None:
        self.name = process_name() if name is None else name
        self._settings, self._patience = kafka, patience
        self._steps = Steps(step, None)
        self._connection: dict[str, Any] = {}
        self._admin: AIOKafkaAdminClient | None = None
        self._writer: AIOKafkaProducer | None = None
        self._opening = asyncio.Lock()
        # For questions about offsets only, by what "the end" means to them.
        self._askers: dict[bool, AIOKafkaConsumer] = {}

    async def start(self) -> None:
        """Connect. Raises `KafkaUnreachable`, which says why."""
        self._connection = connection(self._settings, self.name)
        await probe(self._settings, self.name)
        admin = AIOKafkaAdminClient(**self._connection)
        await started(admin)
        self._admin = admin

    async def close(self) -> None:
        """Release the connections."""
        clients = [client for client in (self._admin, self._writer, *self._askers.values()) if client is not None]
        self._admin, self._writer, self._askers = None, None, {}
        await closed(*clients)

    # -- clients ------------------------------------------------------------------------------------------

    def consumer(self, group: str, topics: Sequence[str], rebalance: Rebalance, note: str = "") -> KafkaConsumer:
        """A member of `group` that reads committed records of `topics`."""
        return KafkaConsumer(self._connected(), group, topics, rebalance, self, self._steps, self._patience, note)

    def producer(self, transactional_id: str) -> KafkaProducer:
        """A transactional producer; nothing happens before its `start`."""
        return KafkaProducer(self._connected(), transactional_id, self._steps, self._patience)

    def reader(self, positions: Mapping[Partition, int], *, committed: bool = True) -> KafkaReader:
        """A reader of these partitions from these offsets on."""
        return KafkaReader(self._connected(), positions, self.bounds, committed=committed)

    def _connected(self) -> dict[str, Any]:
        if not self._connection:
            message = "the log was not started"
            raise RuntimeError(message)
        return self._connection

    # -- reading ------------------------------------------------------------------------------------------

    async def read(
        self, partition: Partition, start: int | None = None, *, limit: int | None = None, committed: bool = True
    ) -> Sequence[Record]:
        """Every record of a partition from `start` to its present end, oldest first.

        It ends where the position reaches the end, which passes markers and gaps, not at a last record.
        """
        await self._steps.at("log.read:before")
        first, end = await self._range(partition, committed=committed)
        begin = first if start is None else max(start, first)
        found: list[Record] = []
        if begin < end:
            reader = self.reader({partition: begin}, committed=committed)
            try:
                while reader.position(partition) < end and (limit is None or len(found) < limit):
                    found += (await reader.poll(0.05, AT_ONCE)).get(partition, ())
            finally:
                await reader.stop()
        await self._steps.at("log.read:after")
        return [record for record in found if record.offset < end][:limit]

    async def bounds(self, partition: Partition) -> tuple[int, int]:
        """The first offset that is kept, and the end (high watermark)."""
        return await self._range(partition, committed=False)

    async def _range(self, partition: Partition, *, committed: bool) -> tuple[int, int]:
        await self._check_partition(partition)
        asker, place = await self._asker(committed=committed), TopicPartition(*partition)
        async with limited(f"ask for the offsets of {partition.topic}/{partition.index}"):
            first = await asker.beginning_offsets([place])
            end = await asker.end_offsets([place])
        return first[place], end[place]

    async def offset_at(self, partition: Partition, timestamp_ms: int) -> int:
        """The first offset whose record's time is at or after `timestamp_ms`; the end where there is none."""
        _, end = await self.bounds(partition)
        asker, place = await self._asker(committed=False), TopicPartition(*partition)
        async with limited(f"look for a time in {partition.topic}/{partition.index}"):
            found = (await asker.offsets_for_times({place: timestamp_ms}))[place]
        return end if found is None else int(found.offset)

    async def _asker(self, *, committed: bool) -> AIOKafkaConsumer:
        async with self._opening:
            asker = self._askers.get(committed)
            if asker is not None and is_deaf(asker._client):  # noqa: SLF001  # aiokafka's, as in the modules beside
                del self._askers[committed]
                await closed(asker)
                asker = None
            if asker is None:
                isolation = "read_committed" if committed else "read_uncommitted"
                asker = AIOKafkaConsumer(
                    **self._connected(), enable_auto_commit=False, auto_offset_reset="none", isolation_level=isolation
                )
                await started(asker)
                self._askers[committed] = asker
            return asker

    # -- topics -------------------------------------------------------------------------------------------

    async def partitions(self, topic: str) -> int:
        """How many partitions the topic has. Raises `UnknownTopic`."""
        found = await self._metadata([topic])
        if topic not in found:
            raise UnknownTopic(topic)
        return len(found[topic]["partitions"])

    async def _check_partition(self, partition: Partition) -> None:
        count = await self.partitions(partition.topic)
        if not 0 <= partition.index < count:
            missing = f"{partition.topic} with a partition {partition.index}"
            raise UnknownTopic(missing)

    async def describe(self, topics: Sequence[str]) -> Mapping[str, TopicInfo]:
        """What the topics are like, by name; one that does not exist is absent. Raises `NotAuthorized`."""
        found = await self._metadata(topics)
        configs = await self._configs(list(found))
        return {
            name: TopicInfo(
                len(topic["partitions"]),
                min((len(partition["replicas"]) for partition in topic["partitions"]), default=0),
                configs.get(name),
            )
            for name, topic in found.items()
        }

    async def lacking(self, rights: Sequence[Right]) -> Sequence[Right]:
        """Those of the rights that we do not have, as far as the brokers tell without our using them."""
        found: Sequence[Right] = await self._ask("ask for our rights", lambda admin: lacking(admin, rights))
        return found

    async def owners(self, group: str) -> Mapping[Partition, Owner]:
        """Who reads what in a group at the moment."""
        found: Mapping[Partition, Owner] = await self._ask(f"see the group {group}", lambda admin: owners(admin, group))
        return found

    async def _metadata(self, topics: Sequence[str]) -> dict[str, Any]:
        if not topics:
            return {}
        answers = await self._ask(
            f"ask for topics {', '.join(topics)}", lambda admin: admin.describe_topics(list(topics))
        )
        found = {}
        for topic in answers:
            if topic["error_code"] == _NOT_AUTHORIZED:
                raise translated(errors.TopicAuthorizationFailedError(topic["topic"]), "see the topic")
            if topic["error_code"] != _UNKNOWN_TOPIC:
                found[topic["topic"]] = topic
        return found

    async def _configs(self, topics: Sequence[str]) -> dict[str, dict[str, str]]:
        """The settings of the topics whose settings we may see."""
        if not topics:
            return {}
        wanted = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics]
        answers = await self._ask("ask for the settings of topics", lambda admin: admin.describe_configs(wanted))
        return {
            name: {entry[0]: entry[1] for entry in entries}
            for answer in answers
            for code, _, _, name, entries in answer.resources
            if not code
        }

    async def create(self, topics: Sequence[TopicSpec]) -> None:
        """Create the topics that are missing."""
        there = await self._metadata([spec.name for spec in topics])
        missing = [spec for spec in topics if spec.name not in there]
        if not missing:
            return
        cluster = await self._ask("ask for the brokers", lambda admin: admin.describe_cluster())
        brokers = len(cluster["brokers"])
        replication = self._settings.replication_factor or min(SAFE_REPLICATION, brokers)
        new = [NewTopic(s.name, s.partitions, replication, topic_configs=s.config_on(replication)) for s in missing]
        async with limited("create topics"):
            answer = await self._admin_client().create_topics(new)
        for name, code, *rest in answer.topic_errors:
            if code and code != _EXISTS:
                why = rest[0] if rest and rest[0] else errors.for_code(code).__name__
                if code == _NOT_AUTHORIZED:
                    raise translated(errors.TopicAuthorizationFailedError(name), "create the topic")
                hint = "; see kafka.replication_factor" if code == _TOO_FEW_BROKERS else ""
                message = f"cannot create the topic {name}: {why.rstrip('.')}{hint}"
                raise KafkaUnreachable(message)
        await self._until_visible({spec.name for spec in missing})

    async def grow(self, topic: str, partitions: int) -> None:
        """Add partitions to a topic until it has `partitions`. Raises `UnknownTopic`, `NotAuthorized`."""
        if await self.partitions(topic) >= partitions:
            return
        async with limited(f"add partitions to {topic}"):
            answer = await self._admin_client().create_partitions({topic: NewPartitions(partitions)})
        for name, code, *rest in answer.topic_errors:
            if code == _NOT_AUTHORIZED:
                raise translated(errors.TopicAuthorizationFailedError(name), "add partitions to the topic")
            # Somebody else may have been as quick as we: then there are enough of them.
            if code and await self.partitions(topic) < partitions:
                why = rest[0] if rest and rest[0] else errors.for_code(code).__name__
                message = f"cannot add partitions to the topic {name}: {why}"
                raise KafkaUnreachable(message)
        async with limited(f"see the new partitions of {topic}"):
            while await self.partitions(topic) < partitions:  # noqa: ASYNC110  # the broker tells nobody
                await asyncio.sleep(_VISIBLE_S)
        # A client asks for the partitions of a topic once in minutes, and writes to none that it does not know.
        writer, self._writer = self._writer, None
        if writer is not None:
            await closed(writer)

    async def _until_visible(self, topics: set[str]) -> None:
        """A broker answers before it has heard from the controller of what it just created."""
        async with limited(f"see the new topics {', '.join(sorted(topics))}"):
            while topics - (await self._metadata(sorted(topics))).keys():  # noqa: ASYNC110  # the broker tells nobody
                await asyncio.sleep(_VISIBLE_S)

    async def trim(self, partition: Partition, before: int) -> None:
        """Delete the records below offset `before`."""
        deleted = {TopicPartition(*partition): RecordsToDelete(before)}
        what = f"delete records of {partition.topic}/{partition.index}"
        await self._ask(what, lambda admin: admin.delete_records(deleted))

    async def _ask(self, what: str, question: Callable[[AIOKafkaAdminClient], Awaitable[Any]]) -> Any:  # noqa: ANN401  # aiokafka ships no types
        """The answer to what may be asked twice.

        A connection that was idle may have been closed, or its session have expired, which shows at its next use
        only. That is no trouble with the brokers: who waits between tries would meet it at every one of them.
        """
        async with limited(what):
            try:
                return await question(self._admin_client())
            except errors.KafkaConnectionError:
                return await question(self._admin_client())

    def _admin_client(self) -> AIOKafkaAdminClient:
        self._connected()
        assert self._admin is not None
        return self._admin

    # -- writing outside transactions -----------------------------------------------------------------------

    async def append(self, records: Sequence[Outgoing]) -> Sequence[tuple[Partition, int]]:
        """Write records outside any transaction; where each of them is."""
        writer = self._writer or await self._open_writer()
        answers: list[asyncio.Future[Any]] = []
        async with limited("write"):
            for record in records:
                try:
                    answers.append(
                        await writer.send(
                            record.topic, record.value, record.key, record.partition, record.timestamp,
                            list(record.headers),
                        )
                    )  # fmt: skip
                except errors.MessageSizeTooLargeError as error:
                    raise RecordTooLarge(record.topic, record.key, len(record.value or b"")) from error
            await writer.flush()
            return [(Partition(at.topic, at.partition), at.offset) for at in [await answer for answer in answers]]

    async def _open_writer(self) -> AIOKafkaProducer:
        async with self._opening:
            if self._writer is None:
                writer = AIOKafkaProducer(
                    **self._connected(), enable_idempotence=True, max_batch_size=BATCH_BYTES, linger_ms=5
                )
                await started(writer)
                self._writer = writer
            return self._writer

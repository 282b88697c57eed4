"""What aiokafka does that is not safe for us (docs/exactly-once.md, 4), and that we are safe from it.

The first half of a pair is aiokafka itself: when it fails, a new version has changed, and something may be simpler.
"""

from __future__ import annotations

import asyncio
import io
import ssl
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition, errors
from aiokafka.client import CoordinationType
from aiokafka.protocol.transaction import EndTxnRequest
from support.cluster import own_broker

from evaluator.errors import Watchdog
from evaluator.runtime import logs
from evaluator.runtime.log.kafka import KafkaLog
from evaluator.runtime.log.kafka_assignor import StickyAssignor
from evaluator.runtime.log.kafka_client import Patience
from evaluator.runtime.log.port import (
    Fenced,
    KafkaUnreachable,
    NotAuthorized,
    OffsetOutOfRange,
    OutcomeUnknown,
    Outgoing,
    Partition,
    RecordTooLarge,
    TopicSpec,
)
from evaluator.runtime.settings import KafkaSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from pathlib import Path

    from support.cluster import Cluster

    from evaluator.runtime.log.kafka_producer import KafkaProducer

HURRIED = Patience(limit_s=2.0, session_ms=6_000, heartbeat_ms=500)


@asynccontextmanager
async def opened(bootstrap: str, patience: Patience = HURRIED) -> AsyncIterator[KafkaLog]:
    """Our log on a broker."""
    log = KafkaLog(KafkaSettings(bootstrap_servers=bootstrap), patience=patience)
    await log.start()
    try:
        yield log
    finally:
        await log.close()


@asynccontextmanager
async def raw(bootstrap: str, transactional_id: str | None = None, **options: Any) -> AsyncIterator[AIOKafkaProducer]:
    """aiokafka's own producer."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=transactional_id, **options)
    await producer.start()
    try:
        yield producer
    finally:
        await asyncio.wait_for(producer.stop(), 10)


@asynccontextmanager
async def raw_consumer(bootstrap: str, **options: Any) -> AsyncIterator[AIOKafkaConsumer]:
    """aiokafka's own consumer, in no group."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, **options)
    await consumer.start()
    try:
        yield consumer
    finally:
        await asyncio.wait_for(consumer.stop(), 10)


@asynccontextmanager
async def ours(log: KafkaLog, transactional_id: str) -> AsyncIterator[KafkaProducer]:
    """Our producer, started."""
    producer = log.producer(transactional_id)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def topic(log: KafkaLog, cluster: Cluster, partitions: int = 1, **settings: str) -> Partition:
    """A new topic; its partition 0."""
    name = cluster.name("trap")
    await log.create([TopicSpec(name, partitions, settings={k.replace("_", "."): v for k, v in settings.items()})])
    return Partition(name, 0)


async def values(log: KafkaLog, partition: Partition) -> list[bytes | None]:
    """What a read_committed reader sees."""
    return [record.value for record in await log.read(partition)]


async def written(producer: KafkaProducer, partition: Partition, *records: bytes) -> None:
    """One transaction."""
    await producer.bump()
    producer.begin()
    for answer in [await producer.send(Outgoing(partition.topic, b"k", value, partition.index)) for value in records]:
        await answer
    await producer.commit()
    # The broker answers before it has written the markers without which nobody sees it; a bump waits for them.
    await producer.bump()


# -- producers: traps 1, 5, 6, 7, 9 -----------------------------------------------------------------------


async def test_1_and_7_a_failed_batch_fails_neither_its_commit_nor_the_next_one(kafka: Cluster) -> None:
    async with opened(kafka.bootstrap) as log, raw(kafka.bootstrap, kafka.name("t")) as producer:
        small = await topic(log, kafka, max_message_bytes="1000")
        for value, failure in (
            (b"x" * 5000, errors.MessageSizeTooLargeError), (b"small", errors.OutOfOrderSequenceNumber)
        ):  # fmt: skip
            await producer.begin_transaction()
            answer = await producer.send(small.topic, value, partition=0)
            await producer.commit_transaction()
            with pytest.raises(failure):
                await answer
        assert await values(log, small) == []


async def test_a_failed_batch_is_told_by_our_awaitable_and_healed_by_the_next_bump(kafka: Cluster) -> None:
    async with opened(kafka.bootstrap) as log, ours(log, kafka.name("t")) as producer:
        small = await topic(log, kafka, max_message_bytes="1000")
        await producer.bump()
        producer.begin()
        answer = await producer.send(Outgoing(small.topic, b"k", b"x" * 5000, 0))
        with pytest.raises(RecordTooLarge, match=f"5001 bytes is too large for topic {small.topic}"):
            await answer
        await producer.abort()
        await written(producer, small, b"small")
        assert await values(log, small) == [b"small"]


async def late_commit(producer: AIOKafkaProducer, transactional_id: str, owner: Any) -> int:
    """A commit of an earlier transaction that arrives now: the broker's error code."""
    node = await producer._sender._find_coordinator(CoordinationType.TRANSACTION, transactional_id)  # noqa: SLF001
    request = EndTxnRequest(
        transactional_id=transactional_id, producer_id=owner.pid, producer_epoch=owner.epoch, transaction_result=True
    )
    return int((await producer.client.send(node, request)).error_code)


async def test_5_a_late_commit_ends_the_next_transaction_of_the_same_epoch(kafka: Cluster) -> None:
    name = kafka.name("t")
    async with opened(kafka.bootstrap) as log:
        place = await topic(log, kafka)
        async with raw(kafka.bootstrap, name) as producer:
            owner = producer._txn_manager._pid_and_epoch  # noqa: SLF001  # what is pinned here
            for value in (b"one", b"two, to be aborted"):
                await producer.begin_transaction()
                await producer.send_and_wait(place.topic, value, partition=0)
                if value == b"one":
                    await producer.commit_transaction()
            assert await late_commit(producer, name, owner) == 0
            assert await values(log, place) == [b"one", b"two, to be aborted"]
            with pytest.raises(errors.KafkaError):
                await producer.abort_transaction()


async def test_a_late_commit_is_refused_after_our_bump(kafka: Cluster) -> None:
    name = kafka.name("t")
    async with opened(kafka.bootstrap) as log, ours(log, name) as producer:
        place = await topic(log, kafka)
        await written(producer, place, b"one")
        kafka_producer = producer._kafka  # noqa: SLF001  # to send what nobody else can
        assert kafka_producer is not None
        owner = kafka_producer._txn_manager._pid_and_epoch  # noqa: SLF001
        await producer.bump()
        producer.begin()
        await (await producer.send(Outgoing(place.topic, b"k", b"two, to be aborted", 0)))
        assert await late_commit(kafka_producer, name, owner) == errors.InvalidProducerEpoch.errno
        await producer.abort()
        assert await values(log, place) == [b"one"]


async def test_6_a_fenced_producer_shows_as_an_assertion(kafka: Cluster) -> None:
    name = kafka.name("t")
    async with opened(kafka.bootstrap) as log, raw(kafka.bootstrap, name) as fenced:
        place = await topic(log, kafka)
        async with ours(log, name):
            await fenced.begin_transaction()
            with pytest.raises(errors.ProducerFenced):
                await fenced.send_and_wait(place.topic, b"x", partition=0)
            with pytest.raises(AssertionError):
                await fenced.begin_transaction()


async def test_our_fenced_producer_says_so_at_every_call_that_asks_the_broker(kafka: Cluster) -> None:
    name = kafka.name("t")
    async with opened(kafka.bootstrap) as log, ours(log, name) as zombie, ours(log, name) as owner:
        place = await topic(log, kafka)
        for _ in range(2):
            with pytest.raises(Fenced):
                await zombie.bump()
        await written(owner, place, b"mine")
        assert await values(log, place) == [b"mine"]


async def test_9_a_commit_to_a_frozen_broker_ends_in_doubt_and_a_fresh_client_finds_out() -> None:
    broker = own_broker()
    broker.start()
    try:
        async with opened(broker.bootstrap) as log, ours(log, "t") as producer:
            await log.create([TopicSpec("t", 1)])
            place = Partition("t", 0)
            await written(producer, place, b"one")
            await producer.bump()
            producer.begin()
            await (await producer.send(Outgoing("t", b"k", b"in doubt", 0)))
            broker.freeze()
            began = asyncio.get_running_loop().time()
            with pytest.raises(OutcomeUnknown):
                await producer.commit()
            assert asyncio.get_running_loop().time() - began < 3 * HURRIED.limit_s
            broker.thaw()
            await producer.revive()
            # The commit arrived or it did not; it is decided, and nothing of ours is open.
            decided = await values(log, place)
            assert decided in ([b"one"], [b"one", b"in doubt"])
            await written(producer, place, b"two")
            assert await values(log, place) == [*decided, b"two"]
    finally:
        broker.close()


async def test_a_revived_producer_is_the_same_owner_and_fences_nobody_new(kafka: Cluster) -> None:
    name = kafka.name("t")
    async with opened(kafka.bootstrap) as log, ours(log, name) as zombie, ours(log, name) as owner:
        place = await topic(log, kafka)
        owner.begin()
        await (await owner.send(Outgoing(place.topic, b"k", b"left open", 0)))
        await owner.revive()
        assert await values(log, place) == []
        await written(owner, place, b"mine")
        with pytest.raises(Fenced):
            await zombie.revive()
        await written(owner, place, b"still mine")
        assert await values(log, place) == [b"mine", b"still mine"]


# -- consumers: traps 2, 3, 4, 11 -------------------------------------------------------------------------


class Member:
    """Sought to the beginning as soon as it is assigned; writes down its callbacks."""

    def __init__(self, log: KafkaLog, group: str, topics: Sequence[str]) -> None:
        self.consumer = log.consumer(group, topics, self)
        self.journal: list[str] = []
        self.polling = False

    async def revoked(self, partitions: Sequence[Partition]) -> None:
        self.journal.append(f"revoked in poll: {self.polling}")

    async def assigned(self, partitions: Sequence[Partition]) -> None:
        self.journal.append(f"assigned in poll: {self.polling}")
        for partition in partitions:
            self.consumer.seek(partition, 0)
            self.consumer.resume(partition)

    async def poll(self, seconds: float = 0.3) -> dict[Partition, list[bytes | None]]:
        self.polling = True
        try:
            fetched = await self.consumer.poll(seconds, 100)
        finally:
            self.polling = False
        return {partition: [record.value for record in one.records] for partition, one in fetched.items()}


@asynccontextmanager
async def member(log: KafkaLog, cluster: Cluster, *topics: str) -> AsyncIterator[Member]:
    """A started member of a group of its own."""
    made = Member(log, cluster.name("g"), topics)
    await made.consumer.start()
    try:
        yield made
    finally:
        await made.consumer.stop()


async def test_2_an_exception_of_a_poll_drops_records_of_other_partitions(kafka: Cluster) -> None:
    def poisoned(value: bytes) -> bytes:
        if value == b"poison":
            raise ValueError(value)
        return value

    async with opened(kafka.bootstrap) as log, raw_consumer(kafka.bootstrap, value_deserializer=poisoned) as consumer:
        place = await topic(log, kafka, 8)
        await log.append([Outgoing(place.topic, None, b"poison" if n == 7 else b"good", n) for n in range(8)])
        there = [TopicPartition(place.topic, index) for index in range(8)]
        consumer.assign(there)
        seen = 8
        for _ in range(10):
            # Which partition comes first is a matter of chance; sooner or later the poison is not the first.
            for one in there:
                consumer.seek(one, 0)
            seen = await _until_poison(consumer)
            if seen < 7:
                break
        assert seen < 7


async def _until_poison(consumer: AIOKafkaConsumer) -> int:
    """How many good records are handed out around the exception."""
    seen = 0
    for _ in range(8):
        try:
            seen += sum(map(len, (await consumer.getmany(timeout_ms=300)).values()))
        except ValueError:
            consumer.pause(TopicPartition(next(iter(consumer.assignment())).topic, 7))
    consumer.resume(TopicPartition(next(iter(consumer.assignment())).topic, 7))
    return seen


async def test_our_positions_stand_still_when_a_poll_raises(kafka: Cluster) -> None:
    async with opened(kafka.bootstrap) as log:
        place = await topic(log, kafka, 2)
        other = Partition(place.topic, 1)
        await log.append([Outgoing(place.topic, None, b"%d" % n, n % 2) for n in range(10)])
        await log.trim(place, 3)
        async with member(log, kafka, place.topic) as reader:
            seen: list[bytes | None] = []
            refused = None
            while refused is None:
                try:
                    seen += (await reader.poll()).get(other, [])
                except OffsetOutOfRange as error:
                    refused = error
            assert (refused.partition, refused.position, refused.first) == (place, 0, 3)
            reader.consumer.seek(place, 3)
            for _ in range(10):
                seen += (await reader.poll()).get(other, [])
            assert seen == [b"1", b"3", b"5", b"7", b"9"]


async def test_3_a_dead_fetcher_leaves_a_consumer_that_returns_nothing_for_ever(kafka: Cluster) -> None:
    async with opened(kafka.bootstrap) as log:
        place = await topic(log, kafka)
        await log.append([Outgoing(place.topic, None, b"unseen", 0)])
        async with raw_consumer(kafka.bootstrap) as consumer:
            consumer._fetcher._fetch_task.cancel()  # noqa: SLF001  # as any exception in it would end it
            consumer.assign([TopicPartition(*place)])
            consumer.seek(TopicPartition(*place), 0)
            assert await consumer.getmany(timeout_ms=1000) == {}


DYING: dict[str, Callable[[Any], asyncio.Task[None]]] = {
    "fetcher": lambda kafka: kafka._fetcher._fetch_task,  # noqa: SLF001  # to hurt it
    "coordinator": lambda kafka: kafka._coordinator._coordination_task,  # noqa: SLF001
    "metadata synchroniser": lambda kafka: kafka._client._sync_task,  # noqa: SLF001
}


async def kill(task: asyncio.Task[None]) -> None:
    """As any exception in it would."""
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.parametrize("name", DYING)
async def test_a_dead_background_task_of_ours_is_a_reason_to_restart(name: str, kafka: Cluster) -> None:
    async with opened(kafka.bootstrap) as log:
        place = await topic(log, kafka)
        async with member(log, kafka, place.topic) as reader:
            while "assigned in poll: True" not in reader.journal:
                await reader.poll()
            await kill(DYING[name](reader.consumer._kafka))  # noqa: SLF001  # to hurt it
            with pytest.raises(Watchdog, match=f"{name} of group"):
                await reader.poll()


async def test_a_client_that_waits_for_metadata_which_nobody_fetches_waits_for_ever(kafka: Cluster) -> None:
    async with raw_consumer(kafka.bootstrap) as consumer:
        client = consumer._client  # noqa: SLF001  # to hurt it
        await kill(client._sync_task)  # noqa: SLF001
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.force_metadata_update(), 2)


async def deafen(client: Any) -> None:
    """Let the task that follows the cluster die of an answer that nobody expected."""

    async def unexpected(*_: object) -> bool:
        raise KeyError

    client._metadata_update = unexpected  # noqa: SLF001
    client.force_metadata_update()
    await asyncio.wait([client._sync_task])  # noqa: SLF001


async def test_clients_outside_of_a_group_are_replaced_when_they_follow_the_cluster_no_more(kafka: Cluster) -> None:
    async with opened(kafka.bootstrap) as log:
        place = await topic(log, kafka)
        async with ours(log, f"{place.topic}.id") as producer:
            await written(producer, place, b"before")
            assert await values(log, place) == [b"before"]
            writer, asker = producer._kafka, log._askers[True]  # noqa: SLF001  # to hurt them
            assert writer is not None
            await deafen(writer.client)
            await deafen(asker._client)  # noqa: SLF001
            await producer.bump()
            await written(producer, place, b"after")
            assert producer._kafka is not writer  # noqa: SLF001
        await log.bounds(place)
        assert await values(log, place) == [b"before", b"after"]
        assert log._askers[True] is not asker  # noqa: SLF001
        reader = log.reader({place: 0})
        try:
            while not await reader.poll(1, 10):
                pass
            assert reader._kafka is not None  # noqa: SLF001
            await deafen(reader._kafka._client)  # noqa: SLF001
            with pytest.raises(KafkaUnreachable, match="background task"):
                await reader.poll(1, 10)
        finally:
            await reader.stop()


async def test_4_and_11_callbacks_overlap_polls_and_their_errors_are_only_logged(kafka: Cluster) -> None:
    class Slow(ConsumerRebalanceListener):
        inside = False

        async def on_partitions_revoked(self, revoked: Any) -> None:
            pass

        async def on_partitions_assigned(self, assigned: Any) -> None:
            self.inside = True
            await asyncio.sleep(1.5)
            self.inside = False
            message = "nobody hears of it"
            raise ValueError(message)

    async with opened(kafka.bootstrap) as log:
        place = await topic(log, kafka)
        await log.append([Outgoing(place.topic, None, b"early", 0)])
        listener = Slow()
        consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, group_id=kafka.name("g"),
                                    auto_offset_reset="earliest")  # fmt: skip
        await consumer.start()
        consumer.subscribe([place.topic], listener=listener)
        overlapped = False
        for _ in range(20):
            fetched = await consumer.getmany(timeout_ms=200)
            overlapped = overlapped or (bool(fetched) and listener.inside)
        assert overlapped
        await consumer.stop()


async def test_our_callbacks_run_inside_of_polls_only(kafka: Cluster) -> None:
    async with opened(kafka.bootstrap) as log:
        place = await topic(log, kafka, 2)
        async with member(log, kafka, place.topic) as one:
            while not one.journal:
                await one.poll()
            other = Member(log, one.consumer._group, [place.topic])  # noqa: SLF001  # the same group
            await other.consumer.start()
            while len(one.journal) < 3 or not other.journal:
                await asyncio.gather(one.poll(), other.poll())
                await asyncio.sleep(0.1)
            await other.consumer.stop()
            assert one.journal == ["assigned in poll: True", "revoked in poll: True", "assigned in poll: True"]


async def test_8_and_10_one_assignor_and_requests_that_end_before_the_session(kafka: Cluster) -> None:
    async with opened(kafka.bootstrap, Patience()) as log:
        place = await topic(log, kafka)
        async with member(log, kafka, place.topic) as reader:
            running = reader.consumer._kafka  # noqa: SLF001  # what it was made with
            assert running is not None
            (assignor,) = running._coordinator._assignors  # noqa: SLF001
            assert isinstance(assignor, StickyAssignor)  # an instance: what it remembers is of one group
            # One lock serves all connections: a black-holed broker holds the others up for one request at most.
            assert running._client._request_timeout_ms < running._coordinator._session_timeout_ms  # noqa: SLF001


async def test_14_a_member_with_everything_paused_stays_as_long_as_it_polls(kafka: Cluster) -> None:
    async with opened(kafka.bootstrap) as log:
        place = await topic(log, kafka)
        async with member(log, kafka, place.topic) as reader:
            while not reader.journal:
                await reader.poll()
            reader.consumer.pause(place)
            until = asyncio.get_running_loop().time() + 1.3 * HURRIED.session_ms / 1000
            while asyncio.get_running_loop().time() < until:
                assert await reader.poll() == {}
            await reader.consumer.confirm(place)
            assert reader.journal == ["assigned in poll: True"]


async def test_a_partition_is_seen_at_its_end_only_by_an_answered_fetch() -> None:
    broker = own_broker()
    broker.start()
    try:
        async with opened(broker.bootstrap) as log:
            await log.create([TopicSpec("t", 1)])
            reader = Member(log, "g", ["t"])
            await reader.consumer.start()
            while Partition("t", 0) not in await reader.poll():
                pass
            broker.freeze()
            await reader.poll()  # what was answered before
            assert [await reader.poll() for _ in range(4)] == [{}] * 4
            broker.thaw()
            while Partition("t", 0) not in await reader.poll():
                pass
            await reader.consumer.stop()
    finally:
        broker.close()


async def test_records_are_unpacked_as_aiokafka_unpacks_them(kafka: Cluster) -> None:
    async with opened(kafka.bootstrap) as log, ours(log, kafka.name("t")) as producer:
        place = await topic(log, kafka)
        for number in range(6):
            await producer.bump()
            producer.begin()
            records = [
                Outgoing(place.topic, b"%d" % n, None if n == 2 else b"v" * n, 0, (("h", b"1"),)) for n in range(5)
            ]
            for answer in [await producer.send(record) for record in records]:
                await answer
            await (producer.abort() if number % 3 == 1 else producer.commit())
        for committed in (True, False):
            isolation = "read_committed" if committed else "read_uncommitted"
            theirs: list[Any] = []
            async with raw_consumer(kafka.bootstrap, isolation_level=isolation) as consumer:
                there = TopicPartition(*place)
                consumer.assign([there])
                consumer.seek(there, 0)
                while (fetched := await consumer.getmany(timeout_ms=500)) or not theirs:
                    theirs += fetched.get(there, [])
                position = await consumer.position(there)
            found = await log.read(place, committed=committed)
            assert [tuple(record) for record in found] == [
                (one.offset, one.timestamp, one.key, one.value, one.headers) for one in theirs
            ]
            reader = log.reader({place: 0}, committed=committed)
            while reader.position(place) < position:
                await reader.poll(0.5, 3)
            await reader.stop()


# -- starting, and what is logged: traps 13, 16 --------------------------------------------------------------


SECRET = "s3cret-of-app"


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A broker with TLS, passwords and authorization: its address and the authority's certificate."""
    folder = tmp_path_factory.mktemp("tls")
    certificates(folder)
    users = f'user_admin="admin" user_app="{SECRET}"'
    login = (
        f'org.apache.kafka.common.security.plain.PlainLoginModule required username="admin" password="admin" {users};'
    )
    broker = own_broker(
        listeners="SASL_SSL://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        advertised__listeners="SASL_SSL://127.0.0.1:{port}",
        listener__security__protocol__map="SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT",
        inter__broker__listener__name="SASL_SSL", sasl__enabled__mechanisms="PLAIN",
        sasl__mechanism__inter__broker__protocol="PLAIN",
        listener__name__sasl_ssl__plain__sasl__jaas__config=login,
        ssl__keystore__type="PEM", ssl__keystore__location=str(folder / "server.pem"),
        ssl__truststore__type="PEM", ssl__truststore__location=str(folder / "ca.crt"),
        authorizer__class__name="org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        super__users="User:admin;User:ANONYMOUS", allow__everyone__if__no__acl__found="false",
    )  # fmt: skip
    broker.start()
    yield broker.bootstrap, folder
    broker.close()


def certificates(folder: Path) -> None:
    """An authority, and a server's certificate of it for 127.0.0.1."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *curve, "-days", "30", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.crt")
    openssl("req", *curve, "-subj", "/CN=kafka", "-keyout", "server.key", "-out", "server.csr")
    (folder / "ext").write_text("subjectAltName=IP:127.0.0.1\n")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30",
            "-extfile", "ext", "-out", "server.crt")  # fmt: skip
    openssl("pkcs8", "-topk8", "-nocrypt", "-in", "server.key", "-out", "server.p8")
    parts = [(folder / name).read_text() for name in ("server.p8", "server.crt", "ca.crt")]
    (folder / "server.pem").write_text("".join(parts))


def settings(bootstrap: str, folder: Path, password: str = SECRET, **changes: Any) -> KafkaSettings:
    """How a user of that broker reaches it."""
    file = folder / f"password-{password}"
    file.write_text(f"{password}\n")
    given = {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "username": "app", "password_file": file,
             "ca_file": folder / "ca.crt", **changes}  # fmt: skip
    return KafkaSettings(bootstrap_servers=bootstrap, **given)


async def refusal(kafka: KafkaSettings) -> str:
    """What a start says."""
    log = KafkaLog(kafka)
    with pytest.raises(KafkaUnreachable) as refused:
        await log.start()
    await log.close()
    return str(refused.value)


async def test_16_aiokafka_calls_every_cause_the_same(secure: tuple[str, Path]) -> None:
    bootstrap, folder = secure
    for context in (None, ssl.create_default_context(cafile=str(folder / "ca.crt"))):
        consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, ssl_context=context, sasl_mechanism="PLAIN",
                                    security_protocol="SASL_PLAINTEXT" if context is None else "SASL_SSL",
                                    sasl_plain_username="app", sasl_plain_password="wrong",
                                    request_timeout_ms=3000)  # fmt: skip
        with pytest.raises(errors.KafkaConnectionError, match="Unable to bootstrap"):
            await consumer.start()
        await consumer.stop()


async def test_each_cause_has_a_line_of_its_own(secure: tuple[str, Path]) -> None:
    bootstrap, folder = secure
    assert await refusal(settings(bootstrap, folder, password="wrong")) == (
        f"{bootstrap} refuses the user 'app': wrong user name or password "
        f"(kafka.username, kafka.password_file) for PLAIN"
    )
    assert (await refusal(settings(bootstrap, folder, ca_file=None))).startswith(
        f"{bootstrap} has a certificate that the system's certificates do not confirm ("
    )
    assert "does not take SCRAM-SHA-512; choose another kafka.sasl_mechanism" in (
        await refusal(settings(bootstrap, folder, sasl_mechanism="SCRAM-SHA-512"))
    )
    assert "check kafka.security_protocol" in await refusal(
        settings(bootstrap, folder, security_protocol="SASL_PLAINTEXT")
    )


async def test_without_rights_a_start_says_which_one_is_missing(secure: tuple[str, Path]) -> None:
    bootstrap, folder = secure
    admin = KafkaLog(settings(bootstrap, folder, password="admin", username="admin"))
    await admin.start()
    await admin.create([TopicSpec("secret-events", 1)])
    await admin.close()
    log = KafkaLog(settings(bootstrap, folder))
    await log.start()
    try:
        with pytest.raises(NotAuthorized, match=r"not allowed to see the topic: .*: secret-events"):
            await log.describe(["secret-events"])
        producer = log.producer("app.x")
        with pytest.raises(NotAuthorized, match=r"not allowed to take over the transactional id app\.x"):
            await producer.start()
        await producer.stop()
    finally:
        await log.close()


async def test_13_no_log_level_shows_a_password(secure: tuple[str, Path]) -> None:
    bootstrap, folder = secure
    stream = io.StringIO()
    logs.configure("debug", "json", stream=stream)
    try:
        log = KafkaLog(settings(bootstrap, folder))
        await log.start()
        await log.close()
    finally:
        logs.configure("warning", "console")
    assert "aiokafka" in stream.getvalue()
    assert SECRET not in stream.getvalue()

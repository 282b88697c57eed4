"""The transactional producer on aiokafka, with one epoch per transaction.

aiokafka speaks the first version of every transactional request, with which a delayed EndTxn can end the
next transaction of the same epoch, and a commit succeeds without a batch that failed. Raising the epoch before
each transaction (InitProducerId v4, KIP-360: it carries the present id and epoch) heals all of it, and tells
who owns the id: the broker refuses whoever was replaced since, and gives nothing back to them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NoReturn

import structlog
from aiokafka import AIOKafkaProducer, errors
from aiokafka.client import CoordinationType
from aiokafka.producer.transaction_manager import PidAndEpoch, TransactionState
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import CompactString, Int16, Int32, Int64, Schema, TaggedFields

from evaluator.runtime.log.kafka_client import UNAUTHORIZED, Patience, closed, is_deaf, limited, translated
from evaluator.runtime.log.port import Fenced, OutcomeUnknown, RecordTooLarge, SendFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator

    from evaluator.runtime.log.port import Outgoing
    from evaluator.runtime.log.steps import Steps

log = structlog.get_logger(__name__)

BATCH_BYTES = 512 * 1024
"""Below the usual limit of a topic (1 MiB), and few batches for an outbox of megabytes."""

_ENDING_S = 0.005
"""Between two bumps while the broker still ends the transaction before."""

_AWAY_S, _AWAY_MOST_S = 0.1, 1.0
"""The pause after a coordinator that is not there, doubled each time: its return is noticed that late at the most."""

_COORDINATOR = frozenset({14, 15, 16})
_CONCURRENT = 51
_FENCED = frozenset({47, 90})
_NOT_AUTHORIZED = 53


class _InitProducerIdResponse(Response):
    API_KEY = 22
    API_VERSION = 4
    SCHEMA = Schema(
        ("throttle_time_ms", Int32), ("error_code", Int16), ("producer_id", Int64), ("producer_epoch", Int16),
        ("tags", TaggedFields),
    )  # fmt: skip


class _InitProducerIdRequest(RequestStruct):
    FLEXIBLE_VERSION = True
    API_KEY = 22
    API_VERSION = 4
    RESPONSE_TYPE = _InitProducerIdResponse
    SCHEMA = Schema(
        ("transactional_id", CompactString("utf-8")), ("transaction_timeout_ms", Int32), ("producer_id", Int64),
        ("producer_epoch", Int16), ("tags", TaggedFields),
    )  # fmt: skip


class _Bump(Request[_InitProducerIdRequest]):
    API_KEY = 22

    def __init__(self, transactional_id: str, timeout_ms: int, own: PidAndEpoch) -> None:
        self._fields = (transactional_id, timeout_ms, *own)

    def build(self, request_struct_class: type[_InitProducerIdRequest]) -> _InitProducerIdRequest:
        """The request of the version that was agreed upon, which is always 4."""
        return request_struct_class(*self._fields, {})


class _Acknowledgement:
    """The answer to one send: awaiting it gives the append time in milliseconds, or raises our error."""

    __slots__ = ("_future", "_producer", "_record")

    def __init__(self, future: asyncio.Future[Any], record: Outgoing, producer: KafkaProducer) -> None:
        self._future, self._record, self._producer = future, record, producer
        # The first failure decides; those of the sends after it are nobody's loss.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())

    def __await__(self) -> Generator[Any, None, int]:
        return self._wait().__await__()

    async def _wait(self) -> int:
        try:
            if not self._future.done():
                async with asyncio.timeout(self._producer.limit_s):
                    await asyncio.shield(self._future)
            return int(self._future.result().timestamp)
        except TimeoutError:
            self._producer.doubt(f"{self._record.topic} did not acknowledge a record")
        except (errors.KafkaError, errors.IllegalOperation, AssertionError) as error:
            self._producer.refused(error, self._record)


class KafkaProducer:
    """Implements `port.Producer`."""

    def __init__(self, connection: dict[str, Any], transactional_id: str, steps: Steps, patience: Patience) -> None:
        self._connection, self._id, self._steps, self._patience = connection, transactional_id, steps, patience
        self._own: PidAndEpoch | None = None
        self._kafka: AIOKafkaProducer | None = None
        self._sent: list[asyncio.Future[Any]] = []

    @property
    def limit_s(self) -> float:
        """Seconds that one step of a transaction may take."""
        return self._patience.limit_s

    # -- owning the id ------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take over the transactional id: fence whoever had it and decide its open transaction."""
        await self._steps.at("producer.start:before")
        await self._discard()
        self._own = None
        await self._open(f"take over the transactional id {self._id}")
        await self._steps.at("producer.start:after")

    async def bump(self) -> None:
        """Raise the own epoch. Raises `Fenced` if another producer started since, takes nothing back."""
        kafka = self._started()
        if kafka._txn_manager.state is not TransactionState.READY or _is_dead(kafka):
            await self.revive()
            return
        await self._steps.at("producer.bump:before")
        await self._raise_epoch(kafka)
        await self._steps.at("producer.bump:after")

    async def revive(self) -> None:
        """Replace the client underneath, keep id and epoch, and bump.

        A commit of aiokafka goes on by itself after we stopped waiting for it, with whatever epoch it finds. So
        the object that began it never learns the new one.
        """
        if self._own is None:
            message = f"the producer of {self._id} was not started"
            raise RuntimeError(message)
        await self._steps.at("producer.revive:before")
        await self._discard()
        kafka = await self._open(f"come back under the transactional id {self._id}")
        await self._raise_epoch(kafka)
        await self._steps.at("producer.revive:after")

    async def _open(self, what: str) -> AIOKafkaProducer:
        kafka = AIOKafkaProducer(
            **self._connection,
            transactional_id=self._id,
            transaction_timeout_ms=self._patience.transaction_ms,
            max_batch_size=BATCH_BYTES,
            metadata_max_age_ms=60_000,
        )
        if self._own is not None:
            # Then `start` sends no InitProducerId, which would fence.
            kafka._txn_manager.set_pid_and_epoch(*self._own)
        runs = False
        try:
            async with limited(what, self._patience.limit_s):
                await kafka.start()
            runs = True
        finally:
            if not runs:
                await _abandon(kafka)
        self._kafka = kafka
        self._own = kafka._txn_manager._pid_and_epoch
        return kafka

    async def _raise_epoch(self, kafka: AIOKafkaProducer) -> None:
        """InitProducerId v4. Without an open transaction a lost answer is harmless: the same epoch comes again."""
        try:
            async with asyncio.timeout(self.limit_s):
                answer = await self._ask(kafka)
        except TimeoutError:
            self.doubt(f"no broker answered for the transactional id {self._id}")
        if answer.error_code in _FENCED:
            raise Fenced(self._id)
        if answer.error_code == _NOT_AUTHORIZED:
            raise translated(errors.TransactionalIdAuthorizationFailed(self._id), "write")
        if answer.error_code:
            message = f"the transactional id {self._id} was refused: {errors.for_code(answer.error_code).__name__}"
            raise SendFailed(message)
        self._own = PidAndEpoch(answer.producer_id, answer.producer_epoch)
        kafka._txn_manager._pid_and_epoch = self._own
        # With a new epoch the broker expects every partition to begin at sequence 0.
        kafka._txn_manager._sequence_numbers.clear()

    async def _ask(self, kafka: AIOKafkaProducer) -> Any:  # noqa: ANN401  # aiokafka's responses have generated fields
        sender, away = kafka._sender, _AWAY_S
        while True:
            try:
                node = await sender._find_coordinator(CoordinationType.TRANSACTION, self._id)
                answer = await kafka.client.send(node, _Bump(self._id, self._patience.transaction_ms, self._own))
            except UNAUTHORIZED as error:
                raise translated(error, "write") from error
            except errors.KafkaError:
                answer = None
            if answer is not None and answer.error_code == _CONCURRENT:
                await asyncio.sleep(_ENDING_S)
            elif answer is None or answer.error_code in _COORDINATOR:
                sender._coordinator_dead(CoordinationType.TRANSACTION)
                await asyncio.sleep(away)
                away = min(2 * away, _AWAY_MOST_S)
            else:
                return answer

    # -- a transaction ------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin a transaction. Nothing is sent yet."""
        manager = self._started()._txn_manager
        if manager.state is not TransactionState.READY:
            message = f"{self._id} cannot begin a transaction now ({manager.state.name}); bump or start first"
            raise RuntimeError(message)
        manager.begin_transaction()
        self._sent = []

    async def send(self, record: Outgoing) -> Awaitable[int]:
        """Hand over a record; the returned awaitable gives its append time in milliseconds or raises."""
        kafka = self._started()
        if kafka._txn_manager.state in (TransactionState.UNINITIALIZED, TransactionState.READY):
            message = f"{self._id} has no transaction; begin one first"
            raise RuntimeError(message)
        await self._steps.at("producer.send:before")
        try:
            async with asyncio.timeout(self.limit_s):
                future = await kafka.send(
                    record.topic, record.value, record.key, record.partition, record.timestamp, list(record.headers)
                )
        except TimeoutError:
            self.doubt(f"{record.topic} took no record")
        except (errors.KafkaError, errors.IllegalOperation, AssertionError) as error:
            # As with every other record that is not taken, its own awaitable says so.
            future = asyncio.get_running_loop().create_future()
            future.set_exception(self._first_failure() or error)
        self._sent.append(future)
        await self._steps.at("producer.send:after")
        return _Acknowledgement(future, record, self)

    async def commit(self) -> None:
        """Make the transaction visible. Raises `OutcomeUnknown` when no answer came."""
        await self._steps.at("producer.commit:before")
        await self._end("commit")
        await self._steps.at("producer.commit:after")

    async def abort(self) -> None:
        """Drop the transaction."""
        await self._steps.at("producer.abort:before")
        await self._end("abort")
        await self._steps.at("producer.abort:after")

    async def _end(self, how: str) -> None:
        kafka = self._started()
        if kafka._txn_manager.state is TransactionState.READY:
            message = f"{self._id} has no transaction to {how}; begin one first"
            raise RuntimeError(message)
        try:
            async with asyncio.timeout(self.limit_s):
                await (kafka.commit_transaction() if how == "commit" else kafka.abort_transaction())
        except TimeoutError:
            self.doubt(f"no answer to the {how} of {self._id}")
        except AssertionError as error:
            # How aiokafka says that its object is dead, which the cause is not in.
            self._dead(kafka, error)
        except errors.ProducerFenced as error:
            raise Fenced(self._id) from error
        except errors.KafkaError as error:
            message = f"the {how} of {self._id} was answered with {type(error).__name__}"
            raise OutcomeUnknown(message) from error

    # -- failing ------------------------------------------------------------------------------------------

    def doubt(self, message: str) -> NoReturn:
        """No answer: the object may still be trying, so only `revive` may come next."""
        message = f"{message} within {self.limit_s:.0f} s"
        log.warning("producer.doubt", transactional_id=self._id, cause=message)
        raise OutcomeUnknown(message)

    def refused(self, error: BaseException, record: Outgoing) -> NoReturn:
        """A record was not taken."""
        if isinstance(error, errors.ProducerFenced):
            raise Fenced(self._id) from error
        if isinstance(error, (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError)):
            size = len(record.value or b"") + len(record.key or b"")
            raise RecordTooLarge(record.topic, record.key, size) from error
        refusal = next((one for one in (self._ended_by(), error) if isinstance(one, UNAUTHORIZED)), None)
        if refusal is not None:
            # Its arguments are what it is about, which may be the topic of another record.
            raise translated(refusal, "write") from error
        message = f"{record.topic} did not take a record of {self._id}: {type(error).__name__} {error}".rstrip()
        raise SendFailed(message) from error

    def _ended_by(self) -> BaseException | None:
        """What made aiokafka give up the transaction: the sends under way may only say that there is none."""
        ending = None if self._kafka is None else self._kafka._txn_manager._transaction_waiter
        return ending.exception() if ending is not None and ending.done() and not ending.cancelled() else None

    def _first_failure(self) -> BaseException | None:
        """What went wrong first: a send after it fails only because the transaction is over."""
        done = (future for future in self._sent if future.done() and not future.cancelled())
        return next((error for error in (future.exception() for future in done) if error is not None), None)

    def _dead(self, kafka: AIOKafkaProducer, error: AssertionError) -> NoReturn:
        task = kafka._sender.sender_task
        cause = task.exception() if task is not None and task.done() and not task.cancelled() else None
        cause = cause or self._first_failure()
        if isinstance(cause, errors.ProducerFenced):
            raise Fenced(self._id) from cause
        if isinstance(cause, errors.TransactionalIdAuthorizationFailed):
            raise translated(cause, "write") from cause
        message = f"the producer of {self._id} is dead: {cause or error}"
        raise OutcomeUnknown(message) from error

    # -- ending -------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Release the resources; an open transaction is left to be decided by the next `start`."""
        kafka, self._kafka = self._kafka, None
        if kafka is None:
            return
        if kafka._txn_manager.state is TransactionState.READY and not _is_dead(kafka):
            await closed(kafka)
        else:
            await _abandon(kafka)

    async def _discard(self) -> None:
        kafka, self._kafka = self._kafka, None
        if kafka is not None:
            await _abandon(kafka)

    def _started(self) -> AIOKafkaProducer:
        if self._kafka is None:
            message = f"the producer of {self._id} is not running"
            if self._own is not None:
                raise OutcomeUnknown(message)
            raise RuntimeError(message)
        return self._kafka


def _is_dead(kafka: AIOKafkaProducer) -> bool:
    task = kafka._sender.sender_task
    return task is None or task.done() or is_deaf(kafka.client)


async def _abandon(kafka: AIOKafkaProducer) -> None:
    """Close without flushing: what it still holds must not go out.

    Whatever of it cannot be stopped in time carries the old epoch, which the bump makes worthless.
    """
    kafka._closed = True
    task = kafka._sender.sender_task
    if task is not None:
        task.cancel()
    await closed(kafka.client)
    if task is not None:
        await asyncio.wait([task], timeout=1.0)
        if not task.done():
            task.cancel()  # a second time: it waits for requests of its own, which now end
            await asyncio.wait([task], timeout=1.0)

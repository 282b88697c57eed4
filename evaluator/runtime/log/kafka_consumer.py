"""A group member on aiokafka.

What aiokafka does by itself is not safe for us, so this class keeps three things in its own hands:

- **Callbacks.** aiokafka runs them in a task of its own, and hands out records of a new assignment meanwhile. Here
  they only pause and note; `poll` runs the worker's callbacks, so that the worker is never in two places at once.
- **Positions.** After any exception of `getmany` the position of some partition may be past records that nobody
  was given. Ours is what was handed out, and every partition is sought back to it.
- **Looking at nothing.** That a partition has no news is an observation only if the broker said so: an entry
  without records is made for an answered fetch, never for silence.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition, errors

from evaluator.core.event import EpochUs
from evaluator.errors import Watchdog
from evaluator.runtime.log.kafka_assignor import StickyAssignor
from evaluator.runtime.log.kafka_client import UNAUTHORIZED, Patience, closed, limited, started, translated
from evaluator.runtime.log.kafka_fetch import Unreadable, hand_out_our_records, note_failed_fetches
from evaluator.runtime.log.port import Fetched, OffsetOutOfRange, Partition, StaleGeneration

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from evaluator.runtime.log.port import Rebalance
    from evaluator.runtime.log.steps import Steps
    from evaluator.wire.records import Records

    class Questions(Protocol):
        """What is asked about the cluster."""

        async def bounds(self, partition: Partition) -> tuple[int, int]:
            """The first offset that is kept, and the end."""

        async def partitions(self, topic: str) -> int:
            """How many partitions the topic has."""


log = structlog.get_logger(__name__)

MAX_POLL_MS = 300_000

METADATA_MS = 60_000
"""How long until partitions that were added to a topic are seen."""

CONFIRM_S = 5.0
"""A group commit hangs for as long as its broker is away; longer than this it has told us nothing."""

FETCH_WAIT_MS = 250
"""How long a broker holds a fetch that finds nothing: what a seek or a resume waits for at the worst."""

PARTITION_FETCH_BYTES = 512 << 10
"""How much a broker sends of a partition at once; of larger batches one comes whole with each answer. More costs
memory, and was no faster on loopback."""

SLACK_S = 0.05
_AFTER_ERROR_S = 0.2

UNREADABLE_S = 1.0
"""How long a partition rests after a batch that cannot be read. Every failed poll costs the others what was fetched
for them: without a rest they would stand still as well."""


@dataclass(slots=True)
class _Change:
    """A callback of aiokafka that waits for `poll` to run ours."""

    kind: str
    partitions: list[Partition]
    done: asyncio.Event = field(default_factory=asyncio.Event)


class KafkaConsumer(ConsumerRebalanceListener):
    """Implements `port.Consumer`."""

    def __init__(
        self, connection: dict[str, Any], group: str, topics: Sequence[str], rebalance: Rebalance, questions: Questions,
        steps: Steps, patience: Patience, note: str = "",
    ) -> None:  # fmt: skip
        self._connection, self._group, self._topics = connection, group, list(topics)
        self._rebalance, self._questions, self._steps, self._patience = rebalance, questions, steps, patience
        self._assignor = StickyAssignor(note)
        self._kafka: AIOKafkaConsumer | None = None
        self._assignment: frozenset[Partition] = frozenset()
        # The next offset of every partition that was sought since it was assigned.
        self._next: dict[Partition, int] = {}
        self._seen: dict[Partition, int] = {}
        self._changes: list[_Change] = []
        self._changed = asyncio.Event()
        self._pending: asyncio.Task[dict[TopicPartition, Records]] | None = None
        self._sought_meanwhile: set[Partition] = set()
        self._failed: set[Partition] = set()
        # Until when a partition is left alone that could not be read, by the loop's clock.
        self._resting: dict[Partition, float] = {}

    async def start(self) -> None:
        """Join the group. Raises `UnknownTopic`: aiokafka would wait for it for ever."""
        for topic in self._topics:
            await self._questions.partitions(topic)
        kafka = AIOKafkaConsumer(
            **self._connection, group_id=self._group, enable_auto_commit=False, auto_offset_reset="none",
            isolation_level="read_committed", session_timeout_ms=self._patience.session_ms,
            heartbeat_interval_ms=self._patience.heartbeat_ms, max_poll_interval_ms=MAX_POLL_MS,
            metadata_max_age_ms=METADATA_MS, fetch_max_wait_ms=FETCH_WAIT_MS,
            max_partition_fetch_bytes=PARTITION_FETCH_BYTES, partition_assignment_strategy=(self._assignor,),
        )  # fmt: skip
        await started(kafka, f"join the group {self._group}")
        self._kafka = kafka
        hand_out_our_records(kafka)
        note_failed_fetches(kafka, self._failed)
        # Only now: a start that knows its topics waits until the group has let it in, which needs others to poll.
        kafka.subscribe(self._topics, listener=self)

    # -- what aiokafka calls, in a task of its own ----------------------------------------------------------

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Let the worker commit what is open, for a while: the epochs protect us if it takes longer."""
        if self._kafka is None:
            return  # it is stopping: nobody polls any more
        if self._changes and self._changes[-1].kind == "assigned":
            # Taken away again before the worker heard of it.
            self._changes.pop()
            return
        change = self._note("revoked", revoked)
        if not change.partitions:
            return
        try:
            async with asyncio.timeout(self._patience.revoke_s):
                await change.done.wait()
        except TimeoutError:
            log.warning("consumer.revoke_overran", group=self._group, budget_s=self._patience.revoke_s)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Pause at once, with a placeholder for a position, so that nothing is fetched before the worker seeks."""
        places = list(assigned)
        if self._kafka is None:
            return
        for place in places:
            self._kafka.pause(place)
            self._kafka.seek(place, 0)
        self._note("assigned", places)

    def _note(self, kind: str, places: Iterable[TopicPartition]) -> _Change:
        change = _Change(kind, sorted(Partition(*place) for place in places))
        self._changes.append(change)
        self._changed.set()
        return change

    # -- reading ------------------------------------------------------------------------------------------

    async def poll(self, timeout_s: float, max_records: int) -> Mapping[Partition, Fetched]:
        """Successful fetches since the last call. Waits up to `timeout_s` for records. Runs the callbacks."""
        await self._steps.at("consumer.poll:before")
        kafka = self._running()
        await self._follow_group()
        self._check_alive(kafka)
        self._end_rests(kafka)
        if self._pending is None:
            self._sought_meanwhile.clear()
            self._pending = asyncio.create_task(
                kafka.getmany(timeout_ms=round(timeout_s * 1000), max_records=max_records),
                name=f"{self._group}.getmany",
            )
        fetched: dict[Partition, Fetched] = {}
        if await self._await_pending(timeout_s):
            pending, self._pending = self._pending, None
            try:
                fetched = self._handed_out(kafka, pending.result())
            except errors.OffsetOutOfRangeError as error:
                self._seek_back(kafka)
                raise await self._out_of_range(error) from error
            except errors.KafkaError as error:
                self._seek_back(kafka)
                self._check_alive(kafka)
                if isinstance(error, UNAUTHORIZED):
                    raise translated(error, f"read as group {self._group}") from error
                log.warning("consumer.failed", group=self._group, error=f"{type(error).__name__}: {error}")
                if isinstance(error, Unreadable):
                    self._rest(kafka, Partition(*error.place))
                await asyncio.sleep(_AFTER_ERROR_S)
        await self._steps.at("consumer.poll:after")
        return fetched

    async def _await_pending(self, timeout_s: float) -> bool:
        """Wait for the records that were asked for, running callbacks meanwhile; returns whether they came.

        aiokafka's `getmany` does not end while a rebalance goes on, whatever its time-out.
        """
        assert self._pending is not None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s + SLACK_S
        while not self._pending.done() and (left := deadline - loop.time()) > 0:
            change = asyncio.ensure_future(self._changed.wait())
            await asyncio.wait([self._pending, change], timeout=left, return_when=asyncio.FIRST_COMPLETED)
            change.cancel()
            await self._follow_group()
        return self._pending.done()

    async def _follow_group(self) -> None:
        """Run the worker's callbacks for what aiokafka told us."""
        while self._changes:
            change = self._changes.pop(0)
            if change.kind == "revoked":
                if change.partitions:
                    await self._steps.at("consumer.revoke:before")
                    await self._rebalance.revoked(change.partitions)
                    await self._steps.at("consumer.revoke:after")
                self._assignment = frozenset()
                self._next.clear()
                self._seen.clear()
                self._resting.clear()
                change.done.set()
            else:
                self._assignment = frozenset(change.partitions)
                await self._rebalance.assigned(change.partitions)
                await self._steps.at("consumer.assign:after")
        self._changed.clear()

    def _handed_out(
        self, kafka: AIOKafkaConsumer, fetched: Mapping[TopicPartition, Records]
    ) -> dict[Partition, Fetched]:
        """What the worker is given: records, and partitions that were looked at and had none."""
        answers: dict[Partition, Fetched] = {}
        assignment = kafka._subscription.subscription.assignment
        if assignment is None:
            return answers
        for partition in self._next:
            place = TopicPartition(*partition)
            if place not in assignment.tps:
                continue
            state = assignment.state_value(place)
            records = fetched.get(place, ())
            if partition in self._sought_meanwhile:
                # Fetched before it was sought elsewhere.
                kafka.seek(place, self._next[partition])
                continue
            looked_at = state.timestamp is not None and state.timestamp != self._seen.get(partition)
            at_end = looked_at and not state.paused and state.position >= _stable_end(state)
            if records or at_end:
                self._seen[partition] = state.timestamp
                self._next[partition] = state.position
                answers[partition] = Fetched(
                    records, state.position, max(state.highwater, state.position),
                    EpochUs(state.timestamp * 1000), partition not in self._failed,
                )  # fmt: skip
                self._failed.discard(partition)
        return answers

    def _seek_back(self, kafka: AIOKafkaConsumer) -> None:
        for partition, offset in self._next.items():
            try:
                kafka.seek(TopicPartition(*partition), offset)
            except errors.IllegalStateError:
                continue  # a rebalance took it meanwhile

    def _rest(self, kafka: AIOKafkaConsumer, partition: Partition) -> None:
        """Read the others for a while."""
        place = TopicPartition(*partition)
        if partition in self._next and place in kafka.assignment() and place not in kafka.paused():
            kafka.pause(place)
            self._resting[partition] = asyncio.get_running_loop().time() + UNREADABLE_S

    def _end_rests(self, kafka: AIOKafkaConsumer) -> None:
        now = asyncio.get_running_loop().time()
        for partition in [partition for partition, until in self._resting.items() if until <= now]:
            del self._resting[partition]
            if TopicPartition(*partition) in kafka.assignment():
                kafka.resume(TopicPartition(*partition))

    async def _out_of_range(self, error: errors.OffsetOutOfRangeError) -> OffsetOutOfRange:
        ((place, offset),) = error.args[0].items()
        partition = Partition(*place)
        return OffsetOutOfRange(partition, offset, *await self._questions.bounds(partition))

    def _check_alive(self, kafka: AIOKafkaConsumer) -> None:
        """A dead background task leaves `getmany` returning nothing for ever, while heartbeats go on."""
        tasks = {
            "fetcher": kafka._fetcher._fetch_task, "coordinator": kafka._coordinator._coordination_task,
            "metadata synchroniser": kafka._client._sync_task,
        }  # fmt: skip
        for name, task in tasks.items():
            if task.done():
                cause = None if task.cancelled() else task.exception()
                message = f"the Kafka client's {name} of group {self._group} died ({cause or 'cancelled'}); restart"
                raise Watchdog(message)

    # -- what is ours -------------------------------------------------------------------------------------

    def assignment(self) -> frozenset[Partition]:
        """The partitions that the last rebalance gave us."""
        return self._assignment

    def seek(self, partition: Partition, offset: int) -> None:
        """Read on from `offset`."""
        self._check_assigned([partition])
        try:
            self._running().seek(TopicPartition(*partition), offset)
        except errors.IllegalStateError as error:
            raise self._stale(partition) from error
        self._next[partition] = offset
        if self._pending is not None and self._pending.done():
            self._sought_meanwhile.add(partition)

    def pause(self, *partitions: Partition) -> None:
        """Stop fetching from these partitions."""
        self._check_assigned(partitions)
        for partition in partitions:
            self._resting.pop(partition, None)  # only the worker ends its own pause
            try:
                self._running().pause(TopicPartition(*partition))
            except errors.IllegalStateError as error:
                raise self._stale(partition) from error

    def resume(self, *partitions: Partition) -> None:
        """Fetch from these partitions again; one that was never sought stays silent."""
        self._check_assigned(partitions)
        for partition in partitions:
            if partition in self._next:
                self._resting.pop(partition, None)
                try:
                    self._running().resume(TopicPartition(*partition))
                except errors.IllegalStateError as error:
                    raise self._stale(partition) from error

    async def confirm(self, partition: Partition) -> None:
        """Ask the group whether `partition` is still ours. Raises `StaleGeneration`, `KafkaUnreachable`."""
        async with limited(f"ask the group {self._group} about {partition.topic}/{partition.index}", CONFIRM_S):
            committed = await self._running().committed(TopicPartition(*partition))
            await self._commit({partition: committed or 0})

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Commit group offsets under our member id and generation. Raises `StaleGeneration`, `KafkaUnreachable`."""
        async with limited(f"commit offsets of the group {self._group}", CONFIRM_S):
            await self._commit(offsets)

    async def _commit(self, offsets: Mapping[Partition, int]) -> None:
        self._check_assigned(offsets)
        await self._steps.at("consumer.commit:before")
        try:
            await self._running().commit({TopicPartition(*partition): offset for partition, offset in offsets.items()})
        except (errors.CommitFailedError, errors.IllegalStateError) as error:
            message = f"group {self._group} has moved on: {error}"
            raise StaleGeneration(message) from error
        await self._steps.at("consumer.commit:after")

    def _check_assigned(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            if partition not in self._assignment:
                raise self._stale(partition)

    def _stale(self, partition: Partition) -> StaleGeneration:
        message = f"{partition.topic} partition {partition.index} is not assigned to us in group {self._group}"
        return StaleGeneration(message)

    def _running(self) -> AIOKafkaConsumer:
        if self._kafka is None:
            message = f"the consumer of group {self._group} is not running"
            raise RuntimeError(message)
        return self._kafka

    async def stop(self) -> None:
        """Leave the group. The rebalance callbacks are not called."""
        kafka, self._kafka = self._kafka, None
        for change in self._changes:
            change.done.set()
        if kafka is not None:
            await closed(kafka)
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.cancel()
            await asyncio.wait([pending])


def _stable_end(state: Any) -> int:  # noqa: ANN401  # aiokafka's own, untyped
    """Where a read_committed reader has to stop for now."""
    return int(state.highwater if state.lso is None or state.lso < 0 else min(state.lso, state.highwater))

"""The exactly-once task: one stage on one input partition.

    take over:  start the producer (fences, decides what an earlier owner left open)
                -> read the own compacted partition -> restore -> genesis at the first run -> seek, resume
    steady:     apply what was fetched; when due: freeze -> commit
    commit:     bump the epoch -> begin -> send all -> await every send -> commit

A stage is plain and synchronous; everything that can fail half-way is here. Progress is a record in the same
transaction as the output, so that whatever dies wherever, output and progress agree. Each transaction has
an epoch of its own: a commit that arrives late cannot hit the next one, and an owner that was replaced
learns it before anything of it becomes visible.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

import structlog

from evaluator.errors import StateRefused
from evaluator.runtime.log.port import Fenced, OutcomeUnknown, Outgoing, Partition, SendFailed

if TYPE_CHECKING:
    from evaluator.core.event import EpochUs
    from evaluator.runtime.clock import Clock
    from evaluator.runtime.log.port import Fetched, Log, Producer, Record

log = structlog.get_logger(__name__)

ATTEMPTS = 8
"""Tries of one outbox before the task gives up: enough for a leader move, few enough to be seen in a minute."""

BACKOFF_S = 0.5


class Outbox(NamedTuple):
    """What one transaction must write, progress included. `sequence` is how it is found again."""

    sequence: int
    records: Sequence[Outgoing]


class Stage(Protocol):
    """What a task drives. Pure: no waiting, no clock but the times it is given."""

    @property
    def name(self) -> str:
        """`aggregate` or `evaluate`."""

    @property
    def input(self) -> Partition:
        """The partition that is read."""

    @property
    def own(self) -> Partition:
        """The compacted partition that holds the stage's progress and state; this task is its only writer."""

    @property
    def transactional_id(self) -> str:
        """The id whose producer is the right to write for this partition."""

    @property
    def next_offset(self) -> int:
        """Where to read on."""

    def restore(self, records: Sequence[Record], bounds: tuple[int, int], last: Record | None) -> None:
        """Become what the records of `own` (oldest first) say.

        `bounds` are those of the input, `last` is the input's record that was consumed last, if it is still
        there. Raises `StateRefused`.
        """

    def last_offset(self, records: Sequence[Record]) -> int | None:
        """The offset of the record consumed last, according to the records of `own`."""

    def sequence_of(self, records: Sequence[Record]) -> int | None:
        """The newest committed sequence among records of `own`."""

    def apply(self, fetched: Fetched) -> None:
        """Take in what one fetch of the input returned, also when that is nothing."""

    def due(self, now: EpochUs) -> bool:
        """Whether it is time to commit."""

    def freeze(self, now: EpochUs) -> Outbox | None:
        """What is to be written since the last freeze; None when there is nothing."""

    def committed(self, now: EpochUs) -> None:
        """The last frozen outbox is visible."""


class Observer(Protocol):
    """Told about what took time or went wrong; the metrics implement it."""

    def restored(self, seconds: float) -> None:
        """A task took a partition over."""

    def committed(self, stage: str, seconds: float) -> None:
        """A transaction is visible."""

    def retried(self, stage: str) -> None:
        """A transaction has to be tried again."""

    def fenced(self) -> None:
        """A producer was fenced."""


class Unobserved:
    """Nobody looks: replay and simulation."""

    def restored(self, seconds: float) -> None:
        """Nothing."""

    def committed(self, stage: str, seconds: float) -> None:
        """Nothing."""

    def retried(self, stage: str) -> None:
        """Nothing."""

    def fenced(self) -> None:
        """Nothing."""


class TaskState(StrEnum):
    """Where a task stands."""

    RESTORING = "restoring"
    RUNNING = "running"
    SUSPENDED = "suspended"
    LOST = "lost"


class Task:
    """Drives one stage. Not for concurrent use: the worker calls it from one place at a time."""

    def __init__(self, stage: Stage, log_port: Log, clock: Clock, observer: Observer) -> None:
        self.stage = stage
        self.state = TaskState.RESTORING
        self._log, self._clock, self._observe = log_port, clock, observer
        self._producer: Producer = log_port.producer(stage.transactional_id)
        self._unsent: Outbox | None = None

    async def take_over(self) -> None:
        """Fence the former owner, restore, and write the genesis at the first run. Raises `StateRefused`."""
        began = self._clock.monotonic()
        await self._producer.start()
        records = await self._log.read(self.stage.own)
        bounds = await self._log.bounds(self.stage.input)
        self.stage.restore(records, bounds, await self._last_consumed(records, bounds))
        await self.commit()
        self._observe.restored(self._clock.monotonic() - began)
        self.state = TaskState.RUNNING
        log.info("task.restored", stage=self.stage.name, partition=str(self.stage.input), offset=self.stage.next_offset)

    async def _last_consumed(self, records: Sequence[Record], bounds: tuple[int, int]) -> Record | None:
        offset = self.stage.last_offset(records)
        if offset is None or not bounds[0] <= offset < bounds[1]:
            return None
        found = await self._log.read(self.stage.input, offset, limit=1)
        return next((record for record in found if record.offset == offset), None)

    def apply(self, fetched: Fetched) -> None:
        """Hand what was fetched to the stage."""
        self.stage.apply(fetched)

    async def commit(self) -> None:
        """Write what is new, all of it or nothing. Raises `Fenced` when another process owns the partition."""
        began = self._clock.monotonic()
        if self._unsent is None:
            self._unsent = self.stage.freeze(self._clock.now())
        if self._unsent is None:
            return
        await self._deliver(self._unsent)
        self._unsent = None
        self.stage.committed(self._clock.now())
        self._observe.committed(self.stage.name, self._clock.monotonic() - began)

    async def _deliver(self, outbox: Outbox) -> None:
        """Send the same frozen outbox until it is visible."""
        for attempt in range(ATTEMPTS):
            if attempt:
                self._observe.retried(self.stage.name)
                await self._clock.sleep(BACKOFF_S * 2 ** (attempt - 1))
            try:
                await self._attempt(outbox)
            except SendFailed as error:
                log.warning("commit.send_failed", partition=str(self.stage.input), error=str(error))
                await self._producer.abort()
            except OutcomeUnknown:
                # The client may still be retrying under the old epoch: only a new one may bump past it.
                await self._producer.revive()
                if await self._is_visible(outbox):
                    return
            except Fenced:
                # A stale owner's bump can abort our transaction once. The next bump tells who owns the id:
                # it succeeds for the owner and raises for everybody else.
                self._observe.fenced()
                await self._producer.bump()
                if await self._is_visible(outbox):
                    return
            else:
                return
        message = (
            f"{self.stage.name} of {self.stage.input.topic}/{self.stage.input.index}: a commit failed "
            f"{ATTEMPTS} times; see the log above for the cause"
        )
        raise SendFailed(message)

    async def _attempt(self, outbox: Outbox) -> None:
        await self._producer.bump()
        self._producer.begin()
        sends = [await self._producer.send(record) for record in outbox.records]
        for send in sends:
            # A failed send does not fail the commit: without this the commit would succeed without it.
            await send
        await self._producer.commit()

    async def _is_visible(self, outbox: Outbox) -> bool:
        newest = self.stage.sequence_of(await self._log.read(self.stage.own))
        if newest is not None and newest > outbox.sequence:
            message = f"{self.stage.own}: sequence {newest} was written by another owner, ours is {outbox.sequence}"
            raise StateRefused(message)
        return newest == outbox.sequence

    def suspend(self) -> None:
        """The partition was taken away; memory and producer are kept in case it comes back."""
        self.state = TaskState.SUSPENDED

    def resume(self) -> None:
        """The partition came back. Had another owned it meanwhile, the next commit is fenced."""
        self.state = TaskState.RUNNING

    async def stop(self) -> None:
        """Release the producer."""
        self.state = TaskState.LOST
        await self._producer.stop()

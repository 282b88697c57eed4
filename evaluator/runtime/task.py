"""The exactly-once task: one stage on one input partition.

    take over:  start the producer (fences, decides what an earlier owner left open)
                -> read the own compacted partition -> restore -> genesis at the first run -> seek, resume
    steady:     apply what was fetched; when due: freeze, while nothing is applied -> deliver, while reading goes on

States: restoring, then running and suspended in turns as the group gives and takes, then lost; or paused, where
a newer revision of the rules is at work.

A stage is plain and synchronous; everything that can fail half-way is here and in `delivery`. Progress is a
record in the same transaction as the output, so that whatever dies wherever, output and progress agree. Each
transaction has an epoch of its own: a commit that arrives late cannot hit the next one, and an owner that was
replaced learns it before anything of it becomes visible.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

import structlog

from evaluator.core.event import SECOND
from evaluator.runtime.delivery import Delivery
from evaluator.runtime.log.port import KafkaUnreachable, StaleGeneration
from evaluator.runtime.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluator.core.event import EpochUs
    from evaluator.runtime.clock import Clock
    from evaluator.runtime.delivery import Stamp
    from evaluator.runtime.log.port import Fetched, Log
    from evaluator.runtime.stage import Observer, Outbox, Stage
    from evaluator.wire.records import Record

log = structlog.get_logger(__name__)

DISTRUST_AFTER = 5 * SECOND
"""How far our clock may be off the broker's. Well above what NTP leaves, well below what makes alerts wrong."""

SLOW_RESTORE_S = 1.0
"""A restore that took longer is followed by another question to the group."""

DOUBT_S = 5.0
"""Who did not use the transactional id for this long asks the group before it does. Below the session time-out of
20 s, so whoever was frozen for long enough to be replaced asks; above the usual time between two commits."""

IDLE_S = 86_400.0
"""The brokers forget a transactional id after seven days without a transaction (by default); a day is safe."""

Confirm: TypeAlias = Callable[[], Awaitable[None]]
"""Asks the group whether the partition is ours. Raises `StaleGeneration`."""


async def nobody_asks() -> None:
    """For a task outside any group."""


class TaskState(StrEnum):
    """Where a task stands."""

    RESTORING = "restoring"
    RUNNING = "running"
    SUSPENDED = "suspended"
    PAUSED = "paused"
    LOST = "lost"


class Task:
    """Drives one stage. Commits may overlap `apply`; they wait for each other."""

    def __init__(
        self, stage: Stage, log_port: Log, clock: Clock, observer: Observer, ask: Confirm = nobody_asks,
        turns: Turns | None = None,
    ) -> None:  # fmt: skip
        """`ask` is one question to the group, which may also raise `KafkaUnreachable`."""
        self.stage = stage
        self._ask = ask
        self.state = TaskState.RESTORING
        self.trusts_clock = True
        self.committed_at: EpochUs | None = None
        """When the last transaction of ours became visible."""
        self.restored_in_s: float | None = None
        """What the take-over took."""
        self._log, self._clock, self._observe = log_port, clock, observer
        self._turns = Turns(clock) if turns is None else turns
        self._delivery = Delivery(stage, log_port, clock, observer, self._turns)
        self._committing = asyncio.Lock()
        self._unsent: Outbox | None = None
        self._is_still = asyncio.Event()
        self._is_still.set()
        self._used_at = clock.monotonic()
        self.committing_since: float | None = None
        """When the commit under way began, by the clock's `monotonic`."""

    # -- taking over --------------------------------------------------------------------------------------

    async def take_over(self, confirm: Confirm = nobody_asks) -> None:
        """Fence the former owner, restore, and write the genesis at the first run; then `resume` may come.

        Nobody is fenced before the group has confirmed that the partition is ours: a process that was frozen
        may have lost it. Raises what `confirm` raises, `Fenced`, `StateRefused`, `Superseded`.
        """
        await confirm()
        began = self._clock.monotonic()
        await self._delivery.start()
        # Who is replaced in here may see the progress of before and a log that was trimmed since: so the beginning is
        # looked up before the progress, and the end after it.
        beginning, _ = await self._log.bounds(self.stage.input)
        records = await self._log.read(self.stage.own)
        _, end = await self._log.bounds(self.stage.input)
        bounds = (beginning, end)
        self.stage.restore(records, bounds, await self._last_consumed(records, bounds))
        if self._clock.monotonic() - began > SLOW_RESTORE_S:
            await confirm()
        await self.commit()
        self._used_at = self._clock.monotonic()
        self.restored_in_s = self._used_at - began
        self._observe.restored(self.restored_in_s)
        self.state = TaskState.SUSPENDED
        log.info("task.restored", stage=self.stage.name, partition=self.where, offset=self.stage.next_offset)

    async def _last_consumed(self, records: Sequence[Record], bounds: tuple[int, int]) -> Record | None:
        offset = self.stage.last_offset(records)
        if offset is None or not bounds[0] <= offset < bounds[1]:
            return None
        found = await self._log.read(self.stage.input, offset, limit=1)
        return next((record for record in found if record.offset == offset), None)

    # -- steady -------------------------------------------------------------------------------------------

    def apply(self, fetched: Fetched) -> Fetched | None:
        """Hand what was fetched to the stage; returns what it left. Raises `Superseded` and `SchemasMissing`.

        Not while it freezes: see `stillness`.
        """
        if self.is_freezing:
            message = f"{self.where} was applied to while its outbox was made: wait for `stillness`"
            raise RuntimeError(message)
        return self.stage.apply(fetched)

    @property
    def is_freezing(self) -> bool:
        """Whether an outbox is being made of what the stage holds."""
        return not self._is_still.is_set()

    async def stillness(self) -> None:
        """Wait until it does not freeze."""
        while self.is_freezing:
            await self._is_still.wait()

    @property
    def is_due(self) -> bool:
        """Whether a commit should begin now: at most one is under way."""
        return not self.is_committing and self.stage.due(self._clock.now())

    @property
    def is_committing(self) -> bool:
        """Whether a commit is under way."""
        return self._committing.locked()

    async def commit(self) -> None:
        """Write what is new, all of it or nothing, after the commit under way. Raises as `Delivery.deliver`.

        Nothing is written, and everything stays due, where the partition may be another's by now.
        """
        async with self._committing:
            if await self._may_be_anothers():
                return
            began = self._clock.monotonic() if self._unsent is not None else await self._freeze()
            if self._unsent is None:
                return
            self.committing_since = began
            try:
                stamp = await self._delivery.deliver(self._unsent)
            finally:
                self.committing_since = None
            self._unsent = None
            self._used_at = self._clock.monotonic()
            if stamp is not None:
                self._compare_clocks(stamp)
            self.committed_at = self._clock.now()
            self.stage.committed(self.committed_at)
            self._observe.committed(self.stage.name, self._used_at - began)

    async def _freeze(self) -> float:
        """Make an outbox of what is new; returns when that began, by the clock's `monotonic`.

        Others have their turns meanwhile, but nothing is applied.
        """
        async with self._turns.alone:
            began, turn = self._clock.monotonic(), self._turns.begin()
            self._unsent = outbox = self.stage.freeze(self._clock.now())
            if outbox is None:
                return began
            self._is_still.clear()
            try:
                for _ in outbox.in_steps():
                    if turn.is_over:
                        await turn.give_way()
            except asyncio.CancelledError:
                _ = outbox.records  # what is frozen is never made of what is applied later
                raise
            finally:
                self._is_still.set()
            # The next one has a turn of its own.
            await turn.give_way()
        return began

    async def _may_be_anothers(self) -> bool:
        """After a pause, whether the group says so. To find it out by a bump would abort what the other has open.

        Who is asked in vain does not decide it; the transactional id does.
        """
        if self.state is TaskState.RESTORING or self._clock.monotonic() - self._used_at < DOUBT_S:
            return False
        try:
            await self._ask()
        except StaleGeneration:
            return True
        except KafkaUnreachable as error:
            log.info("group.not_asked", partition=self.where, reason=str(error))
        return False

    def _compare_clocks(self, stamp: Stamp) -> None:
        """Our clock is off where the broker appended before we sent or after we knew, by more than a tolerance."""
        if stamp.appended_ms < 0 or self._clock.is_simulated:
            return
        appended = stamp.appended_ms * 1000
        early, late = stamp.sent - DISTRUST_AFTER - appended, appended - stamp.acknowledged - DISTRUST_AFTER
        trusted = early <= 0 and late <= 0
        if trusted == self.trusts_clock:
            return
        off_s = round(max(stamp.sent - appended, appended - stamp.acknowledged) / SECOND, 3)
        if trusted:
            log.info("clock.trusted", partition=self.where)
        else:
            hint = "until they agree no clock decides anything; check NTP here and on the brokers"
            log.warning("clock.distrusted", partition=self.where, off_the_brokers_s=off_s, hint=hint)
        self.trusts_clock = trusted
        self.stage.trust_clock(trusted=trusted)

    @property
    def is_idle(self) -> bool:
        """Whether the transactional id was not used for so long that it is to be kept alive."""
        return not self.is_committing and self._clock.monotonic() - self._used_at > IDLE_S

    async def keep_alive(self) -> None:
        """Use the transactional id without writing anything. Raises `Fenced`."""
        async with self._committing:
            if await self._may_be_anothers():
                return
            self._used_at = self._clock.monotonic()
            await self._delivery.keep_alive()

    # -- leaving ------------------------------------------------------------------------------------------

    def suspend(self) -> None:
        """The partition was taken away; memory and producer are kept in case it comes back."""
        self.state = TaskState.SUSPENDED

    def resume(self) -> None:
        """The partition came back. Had another owned it meanwhile, the next commit is fenced."""
        self.state = TaskState.RUNNING

    def pause(self) -> None:
        """A newer revision of the rules ran here: its owners go on, we keep off."""
        self.state = TaskState.PAUSED

    async def stop(self) -> None:
        """Release the producer."""
        if self.state is not TaskState.PAUSED:
            self.state = TaskState.LOST
        await self._delivery.stop()

    @property
    def where(self) -> str:
        """The input partition, for people."""
        return f"{self.stage.input.topic}/{self.stage.input.index}"

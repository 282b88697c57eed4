"""The tasks of one stage in this process, and the consumer that says which partitions they are for.

The group only suggests who should work on a partition; the transactional id decides. So every answer of the group
is taken as a hint that may be stale:

    assigned     -> ask the group again -> take over (fences) -> run
    revoked      -> commit what is open, within a budget -> suspend: producer and memory stay
    came back    -> seek, resume; had another owned it meanwhile, the next commit is fenced
    went away    -> stop, free
    no schema    -> hold the partition, learn what its records name, read on from the same offset
    fenced       -> free; ask the group: if it is ours after all, take over afresh, at once the first time

Nothing here waits for a broker within a turn but the poll, and the callback that gives partitions up: take-overs,
commits and ends go on in the background, so that the group hears from us whatever they wait for.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import structlog

from evaluator.errors import EvaluatorError, SchemasMissing, SchemasUnavailable, Superseded
from evaluator.runtime.assignment import Assignment
from evaluator.runtime.background import Background, finished_within
from evaluator.runtime.holds import Holds
from evaluator.runtime.log.port import (
    Fenced,
    KafkaUnreachable,
    OffsetOutOfRange,
    OutcomeUnknown,
    SendFailed,
    StaleGeneration,
)
from evaluator.runtime.setbacks import Setbacks
from evaluator.runtime.slices import SLICE_BYTES, slices
from evaluator.runtime.task import Task, TaskState
from evaluator.runtime.turns import Turn, Turns

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from evaluator.runtime.clock import Clock
    from evaluator.runtime.log.port import Consumer, Fetched, Log, Partition
    from evaluator.runtime.stage import Observer, Stage
    from evaluator.wire.records import Record

log = structlog.get_logger(__name__)

TAKE_OVERS = 8
"""Side by side: a restore is mostly waiting, but each holds a partition's records in memory."""

REVOKE_S = 10.0
"""For the last commits when partitions are taken away. All members wait for it; the epochs protect what is late."""


class NoPlace(EvaluatorError):
    """A partition has no place for its progress yet. Others go on; who can make one is told what to do."""

    exit_code = 4


_RESTORED = (TaskState.RUNNING, TaskState.SUSPENDED)


_SCHEMAS = "schemas"
"""Why a partition is held whose records name schemas that are not known yet."""

LONGEST_TAKE_S = 5.0
"""Seconds for what one poll returned. An ordinary one takes a tenth of one; but 5,000 records of a hundred bytes, each
of which unpacks to 20,000 events, take minutes, in which no commit would begin and no rebalance be answered."""


class Crew:
    """See above. `build` makes the stage of a partition, after `prepare` has made sure that it has its place.

    `lesson` gives what makes schemas known that records of a partition name, some of them each time it is called.
    """

    def __init__(
        self, name: str, topics: Sequence[str], build: Callable[[Partition], Stage], log_port: Log, clock: Clock,
        observer: Observer, prepare: Callable[[Partition], Awaitable[None]] | None = None, note: str = "",
        lesson: Callable[[Partition, Sequence[int], Sequence[Record]], Callable[[], Awaitable[None]]] | None = None,
        turns: Turns | None = None,
    ) -> None:  # fmt: skip
        self.name = name
        self.tasks: dict[Partition, Task] = {}
        self.seen_at: dict[Partition, float] = {}
        """When each partition was last heard of, by the clock's `monotonic`; also that it has no news."""
        self._prepare, self._lesson = prepare, lesson
        self._learning: set[Task] = set()
        self._build, self._log, self._clock, self._observe = build, log_port, clock, observer
        self._turns = Turns(clock) if turns is None else turns
        self._assignment = Assignment(clock)
        self._background = Background()
        self._room = asyncio.Semaphore(TAKE_OVERS)
        self._setbacks = Setbacks(clock)
        self._told: set[str] = set()
        self.consumer: Consumer = log_port.consumer(name, topics, self, note)
        self._holds = Holds(self.consumer)

    # -- rebalance callbacks ------------------------------------------------------------------------------

    async def revoked(self, partitions: Sequence[Partition]) -> None:
        """Commit what is open and suspend; memory and producer are kept in case the partition comes back."""
        self._assignment.revoke(partitions)
        running = [task for p in partitions if (task := self.tasks.get(p)) and task.state is TaskState.RUNNING]
        commits = [self._begin_commit(task) for task in running]
        if not await finished_within(self._clock, REVOKE_S, commits):
            # What is under way ends by itself: visible, or fenced by the next owner.
            log.warning("crew.revoke_overran", group=self.name, budget_s=REVOKE_S)
        for task in running:
            if task.state is TaskState.RUNNING:
                task.suspend()

    async def assigned(self, partitions: Sequence[Partition]) -> None:
        """Note what is ours, which is all of it; `settle` does the rest outside the callback.

        Positions are gone with every assignment: should one come without `revoked` before it, whatever still
        runs has to seek again, or stop. What rests under a newer revision is tried again.
        """
        self._assignment.assign(partitions)
        self._setbacks.forget()
        self._holds.clear()
        self.seen_at.clear()
        for task in list(self.tasks.values()):
            if task.state is TaskState.RUNNING:
                task.suspend()
            elif task.state is TaskState.PAUSED:
                self._free(task)

    # -- steps of a turn ----------------------------------------------------------------------------------

    def settle(self) -> None:
        """Resume what came back, begin to take over what is new, free what went elsewhere.

        Raises what failed in the background since the last time.
        """
        self._background.check()
        if not self._assignment.is_known:
            return
        for partition in sorted(self.tasks.keys() - self._assignment.wanted):
            self._free(self.tasks[partition])
        for partition in sorted(self._assignment.wanted):
            task = self.tasks.get(partition)
            if task is None:
                self._begin_take_over(partition)
            elif task.state is TaskState.SUSPENDED:
                self._continue(task)

    def _begin_take_over(self, partition: Partition) -> None:
        if not self._setbacks.may_try(partition):
            return
        ask = partial(self.consumer.confirm, partition)
        task = Task(self._build(partition), self._log, self._clock, self._observe, ask, self._turns)
        self.tasks[partition] = task
        self._background.start(f"take over {task.where}", partial(self._take_over, partition, task), task)

    async def _take_over(self, partition: Partition, task: Task) -> None:
        async with self._room:
            try:
                if self._prepare is not None:
                    await self._prepare(partition)
                await task.take_over(partial(self._assignment.confirm, self.consumer, partition))
            except StaleGeneration as error:
                self._free(task)
                log.info("task.not_ours", stage=self.name, partition=task.where, reason=str(error))
            except Superseded as error:
                self._rest(task, error)
            except (Fenced, KafkaUnreachable, OutcomeUnknown, SendFailed, OffsetOutOfRange, NoPlace) as error:
                self._set_back(task, error)
            else:
                # Else there is a rebalance, or it went elsewhere: `settle` knows in time.
                if partition in self._assignment.wanted:
                    self._continue(task)

    def _continue(self, task: Task) -> None:
        partition = task.stage.input
        task.stage.interrupted()
        try:
            self.consumer.seek(partition, task.stage.next_offset)
            if partition not in self._holds:
                self.consumer.resume(partition)
        except StaleGeneration:
            # The group has moved on before we were told: `assigned` comes.
            task.suspend()
            return
        task.resume()
        self.seen_at[partition] = self._clock.monotonic()

    # -- leaving a partition ------------------------------------------------------------------------------

    def _free(self, task: Task) -> None:
        """Forget the task; whatever it has under way is cancelled, which is as safe as a crash."""
        partition = task.stage.input
        if self.tasks.get(partition) is task:
            del self.tasks[partition]
            self._holds.forget(partition)
            with suppress(StaleGeneration):
                self.consumer.pause(partition)
        self._background.start(f"stop {task.where}", partial(self._stop, task))

    async def _stop(self, task: Task) -> None:
        await self._background.cancel(task)
        await task.stop()

    def _rest(self, task: Task, reason: Superseded) -> None:
        """Leave the partition alone until the next assignment: who runs the newer rules will get it."""
        task.pause()
        with suppress(StaleGeneration):
            self.consumer.pause(task.stage.input)
        self._background.start(f"stop {task.where}", partial(self._stop, task))
        if str(reason) not in self._told:
            self._told.add(str(reason))
            log.warning("task.paused", stage=self.name, partition=task.where, reason=str(reason))

    def _set_back(self, task: Task, reason: Exception) -> None:
        """Drop the task; what its memory was worth the next take-over finds out, if the group says it is ours."""
        pause_s = self._setbacks.note(task.stage.input)
        log.warning("task.set_back", stage=self.name, partition=task.where, pause_s=pause_s, reason=str(reason))
        self._free(task)

    # -- reading ------------------------------------------------------------------------------------------

    async def poll(self, timeout_s: float, max_records: int) -> int:
        """Fetch and apply once; returns how many records there were."""
        try:
            fetches = await self.consumer.poll(timeout_s, max_records)
        except OffsetOutOfRange as error:
            # Deleted below us, or another topic under the name: the restore's checks say which.
            task = self.tasks.get(error.partition)
            if task is None:
                raise
            self._set_back(task, error)
            return 0
        return await self._take_in(fetches)

    async def _take_in(self, fetches: Mapping[Partition, Fetched]) -> int:
        """Slice by slice; between them heartbeats have their turn, and tasks may end.

        What is not taken in within `LONGEST_TAKE_S` is fetched again: commits and rebalances wait for the poll's end.
        """
        count = taken = 0
        whole, turn = Turn(self._clock, LONGEST_TAKE_S), self._turns.begin()
        for partition, fetched in fetches.items():
            task = self.tasks.get(partition)
            if task is None or task.state is not TaskState.RUNNING:
                continue
            self.seen_at[partition] = self._clock.monotonic()
            count += len(fetched.records)
            for part, size in slices(fetched):
                if taken and (taken + size > SLICE_BYTES or turn.is_over):
                    taken = 0
                    await turn.give_way()
                if whole.is_over:
                    self._read_again(task)
                    break
                if not await self._apply_all(task, part, whole):
                    break
                taken += size
        return count

    def _read_again(self, task: Task) -> None:
        """Fetch once more what the task has not taken in."""
        with suppress(StaleGeneration):
            self.consumer.seek(task.stage.input, task.stage.next_offset)

    async def _apply_all(self, task: Task, fetched: Fetched, whole: Turn) -> bool:
        """Hand it to the task, which may want a turn for the others in between; returns whether more may follow."""
        while True:
            if task.is_freezing:
                await whole.pause(task.stillness())
            if self.tasks.get(task.stage.input) is not task or task.state is not TaskState.RUNNING:
                return False
            try:
                rest = task.apply(fetched)
            except Superseded as error:
                self._rest(task, error)
                return False
            except SchemasMissing as missing:
                self._wait_for_schemas(task, missing, fetched.records)
                return False
            if rest is None:
                return True
            if whole.is_over:
                self._read_again(task)
                return False
            fetched = rest
            await asyncio.sleep(0)

    def _wait_for_schemas(self, task: Task, missing: SchemasMissing, records: Sequence[Record]) -> None:
        """Read no further until they are known, then again what was fetched. The other partitions go on."""
        if self._lesson is None:
            raise missing
        partition = task.stage.input
        task.stage.interrupted()
        self.hold(partition, _SCHEMAS)
        self._read_again(task)
        if task not in self._learning:  # else it was away meanwhile, and came back
            self._learning.add(task)
            learn = self._lesson(partition, missing.ids, records)
            self._background.start(f"learn schemas {task.where}", partial(self._learn_at_last, task, learn), task)

    async def _learn_at_last(self, task: Task, learn: Callable[[], Awaitable[None]]) -> None:
        """Try until it is done, or until the task is freed."""
        failures = 0
        try:
            while True:
                try:
                    await learn()
                    break
                except SchemasUnavailable as error:
                    failures += 1
                    if failures == 1:
                        log.warning(
                            "task.waits_for_schemas", stage=self.name, partition=task.where, offset=error.offset,
                            schema=error.schema, reason=str(error),
                        )  # fmt: skip
                    await self._clock.sleep(self._setbacks.pause_s(failures))
        finally:
            self._learning.discard(task)
        if failures:
            log.info("task.has_schemas", stage=self.name, partition=task.where, failures=failures)
        self.release(task.stage.input, _SCHEMAS)

    def hold(self, partition: Partition, reason: str) -> None:
        """Read no more of a partition until every reason for it is released."""
        self._holds.add(partition, reason)

    def release(self, partition: Partition, reason: str) -> None:
        """One reason less."""
        if not self._holds.remove(partition, reason):
            return
        task = self.tasks.get(partition)
        if task is not None and task.state is TaskState.RUNNING:
            task.stage.interrupted()
            self.seen_at[partition] = self._clock.monotonic()
            with suppress(StaleGeneration):
                self.consumer.resume(partition)

    def is_held(self, partition: Partition) -> bool:
        """Whether somebody holds the partition back."""
        return partition in self._holds

    def _hold_the_full(self) -> None:
        """While a commit is under way the next outbox fills; when it is full, reading waits."""
        for partition, task in self.tasks.items():
            if task.is_committing and task.stage.is_full:
                self.hold(partition, "full")
            else:
                self.release(partition, "full")

    # -- committing ---------------------------------------------------------------------------------------

    def commit_due(self) -> bool:
        """Begin to commit every task whose time has come; returns whether there was one."""
        due = [task for task in self.running() if task.is_due]
        for task in due:
            self._begin_commit(task)
        self._hold_the_full()
        return bool(due)

    async def commit_all(self) -> None:
        """Commit everything that is new, due or not, after what is under way."""
        await self._background.finish([self._begin_commit(task) for task in self.running()])

    async def finish(self) -> None:
        """Wait for everything that is under way beside the turns."""
        await self._background.finish_all()

    def _begin_commit(self, task: Task) -> asyncio.Task[None]:
        return self._background.start(f"commit {task.where}", partial(self._guarded, task, task.commit), task)

    async def _guarded(self, task: Task, write: Callable[[], Awaitable[None]]) -> None:
        try:
            await write()
        except Fenced as error:
            # Somebody else took over since: our memory is worthless. If the group says that the partition
            # is ours after all, `settle` takes it over afresh.
            if self.tasks.get(task.stage.input) is task:
                self._set_back(task, error)

    def keep_alive(self) -> None:
        """Use the transactional ids that were not used for long."""
        for task in self.running():
            if task.is_idle:
                self._background.start(f"keep alive {task.where}", partial(self._guarded, task, task.keep_alive), task)

    async def commit_offsets(self) -> None:
        """Tell the group where we are, for lag tools; never read back."""
        offsets = {task.stage.input: task.stage.next_offset for task in self.running()}
        if offsets:
            try:
                await self.consumer.commit(offsets)
            except (StaleGeneration, KafkaUnreachable) as error:
                log.info("group.offsets_not_committed", group=self.name, reason=str(error))

    async def stop(self) -> None:
        """Commit, release the producers side by side, leave the group."""
        await self.commit_all()
        for task in list(self.tasks.values()):
            self._free(task)
        await self._background.finish_all()
        await self.consumer.stop()

    # -- what others look at ------------------------------------------------------------------------------

    def running(self) -> list[Task]:
        """The tasks that read and write."""
        return [task for task in self.tasks.values() if task.state is TaskState.RUNNING]

    @property
    def is_restoring(self) -> bool:
        """Whether a take-over is under way."""
        return any(task.state is TaskState.RESTORING for task in self.tasks.values())

    def stages(self) -> list[Stage]:
        """The stages that know where they stand."""
        return [task.stage for task in self.tasks.values() if task.state in _RESTORED]

    @property
    def is_busy(self) -> bool:
        """Whether something is under way beside the turns."""
        return self._background.is_busy

    @property
    def is_settled(self) -> bool:
        """Whether every partition that is ours has a task that runs, or rests on purpose."""
        return self._assignment.is_known and not self.unsettled()

    def unsettled(self) -> list[Partition]:
        """The partitions that are ours and that nobody works on yet."""
        done = (TaskState.RUNNING, TaskState.PAUSED)
        wanted = sorted(self._assignment.wanted)
        return [p for p in wanted if (task := self.tasks.get(p)) is None or task.state not in done]

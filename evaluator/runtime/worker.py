"""The worker: one process's share of both stages.

Two consumers in two groups say which partitions are ours; a task drives each. Stage 2 is looked at first, so
that what was decided is out before more is read. The worker owns every wait: polling, committing when a
task is due, giving partitions up. A rebalance callback only notes what changed; taking over, which can be
slow, happens after it, so that the group never waits for us.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

import structlog

from evaluator.core.watermark import BEGINNING
from evaluator.runtime.aggregate_stage import AggregateStage
from evaluator.runtime.evaluate_stage import EvaluateStage
from evaluator.runtime.log.port import Fenced, Partition, StaleGeneration
from evaluator.runtime.task import Task, TaskState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from evaluator.core.event import EpochUs
    from evaluator.core.rule import RuleSet
    from evaluator.runtime.clock import Clock
    from evaluator.runtime.log.port import Consumer, Fetched, Log
    from evaluator.runtime.task import Observer, Stage

log = structlog.get_logger(__name__)


OFFSETS_EVERY_S = 10.0
"""Group offsets are for lag tools only: often enough for a graph, seldom enough to cost nothing."""


QUIET_TURNS = 2
"""Turns without news after which nothing is under way: what one stage wrote, the other read in the next."""


class Pace(NamedTuple):
    """How much is read at once, and how long an empty poll waits (seconds of the clock).

    `aligns` says whether partitions that run far ahead are held back. A replay feeds the one that is furthest
    behind anyway, and a file that ended early, whose time stands still, must not hold the others for ever.
    """

    max_records: int = 5_000
    poll_s: float = 0.2
    aligns: bool = True


class Crew:
    """The tasks of one stage, and the consumer that says which partitions they are for."""

    def __init__(
        self, name: str, topics: Sequence[str], build: Callable[[Partition], Stage], log_port: Log, clock: Clock,
        observer: Observer,
    ) -> None:  # fmt: skip
        self.name = name
        self.tasks: dict[Partition, Task] = {}
        self._build, self._log, self._clock, self._observe = build, log_port, clock, observer
        self._wanted: set[Partition] = set()
        self.consumer: Consumer = log_port.consumer(name, topics, self)

    # -- rebalance callbacks ------------------------------------------------------------------------------

    async def revoked(self, partitions: Sequence[Partition]) -> None:
        """Commit what is open and suspend; memory and producer are kept in case the partition comes back."""
        for partition in partitions:
            self._wanted.discard(partition)
            task = self.tasks.get(partition)
            if task is not None and task.state is TaskState.RUNNING:
                await self._commit(task)
                task.suspend()

    async def assigned(self, partitions: Sequence[Partition]) -> None:
        """Note what is ours, which is all of it; `settle` does the rest outside the callback.

        Positions are gone with every assignment: should one come without `revoked` before it, whatever still
        runs has to seek again, or stop.
        """
        self._wanted = set(partitions)
        for task in self.tasks.values():
            if task.state is TaskState.RUNNING:
                task.suspend()

    # -- steps of a turn ----------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Resume what came back, take over what is new, free what went elsewhere."""
        for partition in sorted(self.tasks.keys() - self._wanted):
            await self.tasks.pop(partition).stop()
        for partition in sorted(self._wanted):
            task = self.tasks.get(partition)
            if task is None:
                await self._take_over(partition)
            elif task.state is TaskState.SUSPENDED:
                task.resume()
                self._continue(partition, task)

    async def _take_over(self, partition: Partition) -> None:
        if not await self._is_ours(partition):
            return
        task = Task(self._build(partition), self._log, self._clock, self._observe)
        try:
            await task.take_over()
        except Fenced:
            await task.stop()
            return
        self.tasks[partition] = task
        self._continue(partition, task)

    async def _is_ours(self, partition: Partition) -> bool:
        """Ask the group before fencing anybody: a process that was frozen may have lost the partition."""
        bounds = await self._log.bounds(partition)
        try:
            await self.consumer.commit({partition: bounds[0]})
        except StaleGeneration:
            self._wanted.discard(partition)
            return False
        return True

    def _continue(self, partition: Partition, task: Task) -> None:
        if isinstance(task.stage, AggregateStage):
            task.stage.interrupted()
        self.consumer.seek(partition, task.stage.next_offset)
        self.consumer.resume(partition)

    async def poll(self, timeout_s: float, max_records: int) -> int:
        """Fetch and apply once; returns how many records there were."""
        fetches: Mapping[Partition, Fetched] = await self.consumer.poll(timeout_s, max_records)
        count = 0
        for partition, fetched in fetches.items():
            task = self.tasks.get(partition)
            if task is not None and task.state is TaskState.RUNNING:
                task.apply(fetched)
                count += len(fetched.records)
        return count

    async def commit_due(self) -> bool:
        """Commit every task whose time has come, side by side; returns whether there was one."""
        now = self._clock.now()
        due = [task for task in self.tasks.values() if task.state is TaskState.RUNNING and task.stage.due(now)]
        await self._commit_all(due)
        return bool(due)

    async def commit_all(self) -> None:
        """Commit everything that is new, due or not."""
        await self._commit_all([task for task in self.tasks.values() if task.state is TaskState.RUNNING])

    async def _commit_all(self, tasks: Sequence[Task]) -> None:
        if len(tasks) == 1:
            await self._commit(tasks[0])
        elif tasks:
            try:
                async with asyncio.TaskGroup() as group:
                    for task in tasks:
                        group.create_task(self._commit(task), name=f"commit {task.stage.input}")
            except BaseExceptionGroup as failures:
                # The first one is the cause; the others were cancelled or failed for the same reason.
                raise _first(failures) from failures

    async def _commit(self, task: Task) -> None:
        try:
            await task.commit()
        except Fenced:
            # Somebody else took over since: our memory is worthless. If the group says that the partition
            # is ours after all, `settle` takes it over afresh.
            log.warning("task.fenced", stage=self.name, partition=str(task.stage.input))
            self.tasks.pop(task.stage.input, None)
            await task.stop()

    async def commit_offsets(self) -> None:
        """Tell the group where we are, for lag tools; never read back."""
        offsets = {p: task.stage.next_offset for p, task in self.tasks.items() if task.state is TaskState.RUNNING}
        if offsets:
            try:
                await self.consumer.commit(offsets)
            except StaleGeneration:
                log.info("group.moved_on", stage=self.name)

    async def stop(self) -> None:
        """Commit, release the producers, leave the group."""
        await self.commit_all()
        for task in self.tasks.values():
            await task.stop()
        await self.consumer.stop()

    @property
    def is_settled(self) -> bool:
        """Whether every partition that is ours has a running task."""
        return all(
            (task := self.tasks.get(partition)) is not None and task.state is TaskState.RUNNING
            for partition in self._wanted
        )


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


class Worker:
    """Both crews, turn by turn."""

    def __init__(self, aggregate: Crew, evaluate: Crew, rules: RuleSet, clock: Clock, pace: Pace) -> None:
        self.aggregate, self.evaluate = aggregate, evaluate
        self._rules, self._clock, self._pace = rules, clock, pace
        self._stopping = asyncio.Event()
        self.turned_at = clock.monotonic()
        self._offsets_at = 0.0
        self._held_back: set[Partition] = set()
        longest = max((rule.window for rule in rules.rules.values()), default=0)
        self._max_skew = rules.max_skew if rules.max_skew is not None else max(3_600_000_000, 2 * longest)

    def stop(self) -> None:
        """Ask the loop to end after the present turn."""
        self._stopping.set()

    async def start(self) -> None:
        """Join both groups."""
        await self.evaluate.consumer.start()
        await self.aggregate.consumer.start()

    async def run(self) -> None:
        """Turn until asked to stop, then commit everything and leave."""
        await self.start()
        await self.spin()
        await self.shut_down()

    async def spin(self) -> None:
        """Turn until asked to stop. A turn is never cut short: a commit under way is finished."""
        while not self._stopping.is_set():
            await self.turn()

    async def turn(self) -> bool:
        """One round of both stages; returns whether anything was read or written."""
        self.turned_at = self._clock.monotonic()
        merged = await self.evaluate.poll(0, self._pace.max_records)
        await self.evaluate.settle()
        wrote = await self.evaluate.commit_due()
        read = await self.aggregate.poll(self._pace.poll_s, self._pace.max_records)
        await self.aggregate.settle()
        wrote = await self.aggregate.commit_due() or wrote
        if self._pace.aligns:
            self._align()
        if self._clock.monotonic() - self._offsets_at > OFFSETS_EVERY_S:
            self._offsets_at = self._clock.monotonic()
            await self.aggregate.commit_offsets()
            await self.evaluate.commit_offsets()
        return bool(merged or read or wrote)

    async def drain(self) -> None:
        """Turn until nothing is left to read or write, committing everything on the way."""
        quiet = 0
        while quiet < QUIET_TURNS:
            busy = await self.turn()
            await self.aggregate.commit_all()
            busy = bool(await self.evaluate.poll(0, self._pace.max_records)) or busy
            await self.evaluate.commit_all()
            quiet = 0 if busy else quiet + 1

    async def shut_down(self) -> None:
        """Commit, stop producers, leave the groups: stage 1 first, so that nothing waits in a buffer."""
        await self.aggregate.stop()
        await self.evaluate.stop()

    # -- alignment ----------------------------------------------------------------------------------------

    def _align(self) -> None:
        """Hold back partitions that run far ahead of their source, so that stage 2 need not keep all between.

        It changes no verdict: a partition's watermark is its own.
        """
        judged = {self._rules.surfaces[rule.surface].source for rule in self._rules.rules.values()}
        for name in sorted(judged):
            # Without rules nothing is held between partitions, and no shard hears of the watermark.
            stages = [stage for stage in self.source_stages() if stage.source.name == name]
            known = self.source_watermark(name)
            slowest = min((stage.watermark for stage in stages), default=BEGINNING)
            limit = (known if known > BEGINNING else slowest) + self._max_skew
            for stage in stages:
                ahead = slowest > BEGINNING and stage.watermark > limit
                if ahead:
                    # Again each turn: a partition that was away and came back was resumed.
                    self._held_back.add(stage.input)
                    self.aggregate.consumer.pause(stage.input)
                elif not ahead and stage.input in self._held_back:
                    self._held_back.discard(stage.input)
                    stage.interrupted()
                    self.aggregate.consumer.resume(stage.input)

    # -- what others look at ------------------------------------------------------------------------------

    def source_stages(self) -> list[AggregateStage]:
        """Stage 1 of the partitions that are ours."""
        return [t.stage for t in self.aggregate.tasks.values() if isinstance(t.stage, AggregateStage)]

    def shard_stages(self) -> list[EvaluateStage]:
        """Stage 2 of the shards that are ours."""
        return [t.stage for t in self.evaluate.tasks.values() if isinstance(t.stage, EvaluateStage)]

    def source_watermark(self, source: str) -> EpochUs:
        """The watermark of a source as the most advanced of our shards knows it."""
        stages = (stage.sources.get(source) for stage in self.shard_stages())
        return max((state.time.watermark for state in stages if state is not None), default=BEGINNING)

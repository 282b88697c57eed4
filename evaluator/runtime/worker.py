"""The worker: one process's share of both stages, turn by turn.

Two consumers in two groups say which partitions are ours; a task drives each. Stage 2 is looked at first, so
that what was decided is out before more is read. A turn waits for news and for nothing else: commits, take-overs
and chores go on beside the turns, and what fails there is raised by a later turn.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from evaluator.core.watermark import BEGINNING
from evaluator.runtime.aggregate_stage import AggregateStage
from evaluator.runtime.alignment import Alignment
from evaluator.runtime.chores import Chores
from evaluator.runtime.evaluate_stage import DECIDED_AT_ONCE, EvaluateStage
from evaluator.runtime.retention import TRIM_EVERY_S, trim_merged
from evaluator.runtime.turns import TURN_S
from evaluator.runtime.watchdog import LOOK_EVERY_S, Watch

if TYPE_CHECKING:
    from evaluator.core.event import EpochUs
    from evaluator.core.rule import RuleSet
    from evaluator.runtime.clock import Clock
    from evaluator.runtime.crew import Crew
    from evaluator.runtime.log.port import Log

OFFSETS_EVERY_S = 10.0
"""Group offsets are for lag tools only: often enough for a graph, seldom enough to cost nothing."""

KEEP_ALIVE_EVERY_S = 3_600.0
"""How often to look for tasks that are idle: an hour more or less of a week."""

QUIET_TURNS = 2
"""Turns without news after which nothing is under way: what one stage wrote, the other read in the next."""


class Pace(NamedTuple):
    """How much is read at once, and how long an empty poll waits (seconds of the clock).

    While something is under way it waits only for `busy_poll_s`: what one stage wrote is news for the other. After
    `turn_s` of work, or the windows of `decided_at_once` series, others have a turn.
    `aligns` says whether partitions that run far ahead are held back. A replay feeds the one that is furthest
    behind anyway, and a file that ended early, whose time stands still, must not hold the others for ever.
    """

    max_records: int = 5_000
    poll_s: float = 0.2
    aligns: bool = True
    busy_poll_s: float = 0.05
    turn_s: float = TURN_S
    decided_at_once: int = DECIDED_AT_ONCE


class Worker:
    """Both crews, turn by turn."""

    def __init__(
        self, log_port: Log, aggregate: Crew, evaluate: Crew, rules: RuleSet, clock: Clock, pace: Pace
    ) -> None:
        self.aggregate, self.evaluate = aggregate, evaluate
        self._log, self._clock, self._pace = log_port, clock, pace
        self._stopping = asyncio.Event()
        self.turned_at = clock.monotonic()
        self.watch = Watch((aggregate, evaluate), log_port, clock)
        self._alignment = Alignment(aggregate, rules, self.source_watermark)
        self._chores = Chores(clock)
        self._chores.every(OFFSETS_EVERY_S, "offsets of stage 1", aggregate.commit_offsets)
        self._chores.every(OFFSETS_EVERY_S, "offsets of stage 2", evaluate.commit_offsets)
        self._chores.every(LOOK_EVERY_S, "watchdog", self.watch.look)
        self._chores.every(KEEP_ALIVE_EVERY_S, "keep alive", self._keep_alive)
        self._chores.every(TRIM_EVERY_S, "trim partials", self._trim)

    def stop(self) -> None:
        """Ask the loop to end after the present turn."""
        self._stopping.set()

    @property
    def is_stopping(self) -> bool:
        """Whether the loop was asked to end."""
        return self._stopping.is_set()

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
        """Turn until asked to stop."""
        while not self._stopping.is_set():
            await self.turn()

    async def turn(self) -> bool:
        """One round of both stages; returns whether anything was read, or began to be written.

        Raises whatever failed beside the turns, and `Watchdog`.
        """
        self.turned_at = self._clock.monotonic()
        merged = await self.evaluate.poll(0, self._pace.max_records)
        self.evaluate.settle()
        wrote = self.evaluate.commit_due()
        read = await self.aggregate.poll(self._wait_s(), self._pace.max_records)
        self.aggregate.settle()
        wrote = self.aggregate.commit_due() or wrote
        if self._pace.aligns:
            self._alignment.align(self.source_stages())
        self.watch.turn()
        self._chores.turn()
        return bool(merged or read or wrote)

    def _wait_s(self) -> float:
        busy = self.aggregate.is_busy or self.evaluate.is_busy
        return min(self._pace.poll_s, self._pace.busy_poll_s) if busy else self._pace.poll_s

    async def drain(self) -> None:
        """Turn until nothing is left to read or write, committing everything on the way."""
        quiet = 0
        while quiet < QUIET_TURNS:
            busy = await self.turn()
            await self.aggregate.commit_all()
            busy = bool(await self.evaluate.poll(0, self._pace.max_records)) or busy
            await self.evaluate.commit_all()
            is_settled = self.aggregate.is_settled and self.evaluate.is_settled
            quiet = quiet + 1 if is_settled and not busy else 0

    async def shut_down(self) -> None:
        """Commit, stop producers, leave the groups: stage 1 first, so that nothing waits in a buffer."""
        self._stopping.set()
        await self._chores.stop()
        await self.aggregate.stop()
        await self.evaluate.stop()

    # -- chores -------------------------------------------------------------------------------------------

    async def _keep_alive(self) -> None:
        self.aggregate.keep_alive()
        self.evaluate.keep_alive()

    async def _trim(self) -> None:
        await trim_merged(self._log, self.shard_stages(), self._clock.now())

    # -- what others look at ------------------------------------------------------------------------------

    def source_stages(self) -> list[AggregateStage]:
        """Stage 1 of the partitions that are ours."""
        return [stage for stage in self.aggregate.stages() if isinstance(stage, AggregateStage)]

    def shard_stages(self) -> list[EvaluateStage]:
        """Stage 2 of the shards that are ours."""
        return [stage for stage in self.evaluate.stages() if isinstance(stage, EvaluateStage)]

    def source_watermark(self, source: str) -> EpochUs:
        """The watermark of a source as the most advanced of our shards knows it."""
        stages = (stage.sources.get(source) for stage in self.shard_stages())
        return max((state.time.watermark for state in stages if state is not None), default=BEGINNING)

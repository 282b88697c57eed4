"""One seed: a service of several processes lives through what the scheduler decides, and is judged afterwards.

Judged by one undisturbed pass over the same log, given the clock decisions that the service recorded:

    every transition once, in the same words        the state is the same
    punctual events are never late                  nobody starts a producer without asking the group
    everything is decided within a bound after the last fault, and every partition has exactly one worker
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import orjson
from simulation.oracle import START, TOPICS, Oracle, difference, name_of, order, outcome
from simulation.scheduler import Life, Odds, Over, Scheduler
from simulation.traffic import BROKEN, Due, tick, traffic

from evaluator.core import blind
from evaluator.core.event import SECOND, DurationUs, EpochUs
from evaluator.core.partial import ClockDecision, FutureRejection, IdleAdvance
from evaluator.errors import EvaluatorError, StateRefused
from evaluator.runtime.clock import VirtualClock, run_virtual
from evaluator.runtime.delivery import ATTEMPTS
from evaluator.runtime.log.memory import MemoryLog
from evaluator.runtime.log.port import Outgoing, Partition, RecordTooLarge, SendFailed, TopicSpec
from evaluator.runtime.service import World, build, prepare
from evaluator.runtime.stage import Unobserved
from evaluator.runtime.turns import TURN_S
from evaluator.runtime.worker import Pace
from evaluator.wire import partial as partial_wire
from evaluator.wire import progress as progress_wire
from evaluator.wire.instant import instant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluator.runtime.worker import Worker
    from evaluator.wire.config.load import Config

SOURCE = "events"
SESSION_S, TRANSACTION_S = 6.0, 10.0

TELLING = blind.Telling(observed=DurationUs(5 * SECOND))
"""Sooner than in life: a seed is a minute."""

BOUND_S = 90.0
"""After the last fault: a session, a transaction's time-out, the longest back-off, a revocation, a source's silence."""

LONGEST_S = 900.0
"""Of virtual time: a seed that lives longer waits for what will never come."""

APART_S = 20.0
"""Between two outages: short ones do not interrupt an observation of silence, so they must not add up to one."""

COMMIT_EVERY, STATE_EVERY = 2 * SECOND, 5 * SECOND

ATTEMPTS_S = 60.0
"""Eight attempts take 36 s and what they wait for."""

RESTARTED = {4, 70, 75}
"""Exit codes after which whoever runs the process starts it again; any other end is a finding."""


class Shape(NamedTuple):
    """What a seed chose before anything ran."""

    partitions: int
    shards: int
    replicas: int
    is_punctual: bool
    backlog_s: float
    pace: Pace
    odds: Odds
    crashes: frozenset[int]
    compact_every: int
    faults_s: float


@dataclass
class Report:
    """What became of a seed. `failure` is the first broken promise, None when all were kept."""

    seed: int
    failure: str | None = None
    digest: str = ""
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def counts_as_hard(self) -> bool:
        """A crash inside an open transaction, and a transition decided after it."""
        return self.counts["transition after a crash in a transaction"] > 0


class Broken(Exception):  # a promise
    """A promise was broken."""


def shape_of(rng: random.Random) -> Shape:
    """Swarm testing: each seed has some kinds of faults, and others not at all."""

    def maybe(chance: float, odds: float) -> float:
        return odds * (0.3 + rng.random()) if rng.random() < chance else 0.0

    first = rng.randrange(1, 20)
    crashes = {first, *(rng.randrange(1, 90) for _ in range(rng.randrange(3)))} if rng.random() < 0.96 else set()
    shape = Shape(
        partitions=rng.randrange(1, 4), shards=rng.randrange(1, 3), replicas=rng.randrange(1, 4),
        is_punctual=rng.random() < 0.6,
        backlog_s=rng.choice((0.0, 0.0, 12.0, 25.0)),
        pace=Pace(rng.choice((3, 7, 50)), rng.choice((0.5, 2.0)), busy_poll_s=rng.choice((0.1, 0.5))),
        odds=Odds(
            crash=maybe(0.4, 0.001), crash_open=maybe(0.5, 0.02), lost_request=maybe(0.5, 0.01),
            lost_answer=maybe(0.6, 0.02), late_end=maybe(0.5, 0.06), refused=maybe(0.5, 0.03), slow=maybe(0.5, 0.003),
        ),
        crashes=frozenset(crashes), compact_every=rng.choice((5, 40, 1000)), faults_s=rng.uniform(25, 45),
    )  # fmt: skip
    # Turns of no length: whatever gives way does so after each step. No time passes within a turn here.
    turn_s, decided_at_once = rng.choice((0.0, TURN_S)), rng.choice((1, 2, 9))
    return shape._replace(pace=shape.pace._replace(turn_s=turn_s, decided_at_once=decided_at_once))


class Process:
    """One process of the service."""

    def __init__(self, trial: Trial, name: str) -> None:
        self.trial, self.life = trial, Life(name)
        self.worker: Worker | None = None
        self.is_leaving = False
        self.task = asyncio.create_task(self._live(), name=name)
        self.task.add_done_callback(self._fell)

    async def _step(self, moment: str) -> None:
        if moment == "consumer.revoke:before" and self.worker is not None:
            tasks = [*self.worker.aggregate.running(), *self.worker.evaluate.running()]
            self.trial.counts["rebalance during a commit"] += any(task.is_committing for task in tasks)
        await self.trial.scheduler.at(self.life, moment)

    async def _live(self) -> None:
        trial, error = self.trial, None
        try:
            log = trial.log.connect(step=self._step)
            partitions = await prepare(log, trial.config, TOPICS, trial.shape.shards)
            world = World(trial.shape.shards, COMMIT_EVERY, STATE_EVERY, trial.shape.pace, telling=TELLING)
            self.worker = build(log, trial.config, TOPICS, trial.clock, world, partitions, observer=trial.watch).worker
            await self.worker.start()
            while not self.is_leaving:
                await self.worker.turn()
            await self.worker.shut_down()
        except Over:
            return
        except EvaluatorError as failed:
            error = failed
        if not self.life.is_dead:
            self.life.end()
            trial.ended(self, error)

    def _fell(self, task: asyncio.Task[None]) -> None:
        """An end that no error of ours explains."""
        if not task.cancelled() and task.exception() is not None:
            self.life.end()
            self.trial.failures.append(f"{self.life.name} fell over: {task.exception()!r}")

    @property
    def is_alive(self) -> bool:
        """Neither dead nor frozen nor on its way out."""
        return not self.life.is_dead and self.life.thawed.is_set() and not self.is_leaving


class Watching(Unobserved):
    """Counts what the tasks say of themselves."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts

    def retried(self, stage: str) -> None:
        self._counts["retried"] += 1

    def fenced(self) -> None:
        self._counts["fenced"] += 1

    def restored(self, seconds: float) -> None:
        self._counts["restored"] += 1


class Trial:
    """The life of a seed."""

    def __init__(self, seed: int, config: Config) -> None:
        self.config, self.rng = config, random.Random(seed)
        self.shape = shape_of(self.rng)
        self.clock = VirtualClock(asyncio.get_running_loop(), START)
        self.log = MemoryLog(
            clock=self.clock, transaction_timeout_s=TRANSACTION_S, session_timeout_s=SESSION_S,
            compact_every=self.shape.compact_every,
        )  # fmt: skip
        self.scheduler = Scheduler(self.rng, self.clock, self.shape.odds, set(self.shape.crashes))
        self.counts = self.scheduler.counts
        self.watch = Watching(self.counts)
        self.failures: list[str] = []
        self.processes: list[Process] = []
        self.accepted: list[Outgoing] = []
        self._names = 0
        self._generations: dict[str, int] = {}
        self.has_lost = False
        self.partitions = self.shape.partitions
        self.grow_at = 1e9
        self.is_finished = False
        self._growing: asyncio.Task[None] | None = None
        self._published_last = 0.0

    # -- what happens -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live through it, then check. Raises `Broken`."""
        dues = traffic(self.rng, START, self.shape.partitions, is_punctual=self.shape.is_punctual)
        await self.log.create([TopicSpec("t", self.shape.partitions)])
        backlog = [due for due in dues if due.at_s < self.shape.backlog_s]
        if backlog:
            await self.clock.sleep(self.shape.backlog_s)
        await self._append(backlog)
        producing = asyncio.create_task(self._produce(dues[len(backlog) :]), name="producers")
        slots = [asyncio.create_task(self._slot(), name=f"slot {n}") for n in range(self.shape.replicas)]
        await self._trouble()
        self.scheduler.is_quiet = True
        for process in self.processes:
            process.life.thawed.set()
        if not self._has_refused():
            await producing
            self.is_finished = True
            if self.partitions > self.shape.partitions:
                # As far as the others': a source's watermark never goes back to that of a partition that came late.
                closing = tick(EpochUs(START + int((dues[-1].at_s + 24) * SECOND)), "new-end")
                await self._append([Due(0.0, self.partitions - 1, closing)])
            await self._settle()
        for slot in slots:
            slot.cancel()
        if self._has_refused():
            producing.cancel()
            self.counts["refused to go on"] += 1
        else:
            await self._check()

    def _has_refused(self) -> bool:
        """Whether the service found that records were deleted unread, which is right where they were."""
        return self.has_lost and any("deleted before they were read" in failure for failure in self.failures)

    async def _append(self, dues: Sequence[Due]) -> None:
        now = self.clock.now() // 1000
        written = [Outgoing("t", None, due.value, due.partition, timestamp=now) for due in dues]
        await self.log.append(written)
        self.accepted += written
        self.counts["events"] += len(dues)

    async def _produce(self, dues: Sequence[Due]) -> None:
        """As time goes on; what falls into an outage is flushed within seconds after it."""
        for due in dues:
            await self.clock.sleep(max(0.0, due.at_s - self.clock.monotonic()))
            while self.clock.monotonic() < self.scheduler.outage_until:
                await self.clock.sleep(self.scheduler.outage_until - self.clock.monotonic() + self.rng.random() * 2)
            await self._append([due])

    async def _slot(self) -> None:
        """A place for one process: it is started again when it ended, after a while."""
        while True:
            self._names += 1
            process = Process(self, f"p{self._names}")
            self.processes.append(process)
            await process.life.ended.wait()
            await self.clock.sleep(self.rng.choice((0.2, 1.0, 4.0, 9.0)))

    def ended(self, process: Process, error: EvaluatorError | None) -> None:
        """A process ended by itself."""
        if error is None or (isinstance(error, RecordTooLarge) and process.life.too_large):
            return
        lately = [at for at in process.life.refused_at if at > self.clock.monotonic() - ATTEMPTS_S]
        if isinstance(error, SendFailed) and len(lately) >= ATTEMPTS:
            self.counts["gave up"] += 1
            return
        self.counts["ended with an error"] += 1
        if error.exit_code not in RESTARTED:
            self.failures.append(f"{process.life.name} ended with {error.exit_code}: {error}")

    async def _trouble(self) -> None:
        """What happens at times instead of at steps."""
        rng, end = self.rng, self.shape.faults_s
        if rng.random() < 0.3:
            self.grow_at = rng.uniform(10, end)
        kinds = [self._leave, self._freeze, self._outage, self._crash, self._too_large, self._compact, self._trim]
        if rng.random() < 0.04:
            await self._lose()
        chosen = [kind for kind in kinds if rng.random() < 0.5]
        while self.clock.monotonic() < end:
            await self.clock.sleep(rng.uniform(1, 8))
            self._see_rebalances()
            if self.clock.monotonic() > self.grow_at:
                self.grow_at = 1e9
                await self._grow()
            if self.has_lost and self.failures:
                return
            if chosen and rng.random() < 0.6:
                await rng.choice(chosen)()

    def _alive(self) -> list[Process]:
        return [process for process in self.processes if process.is_alive]

    async def _leave(self) -> None:
        if alive := self._alive():
            self.counts["left"] += 1
            self.rng.choice(alive).is_leaving = True

    async def _crash(self) -> None:
        if alive := self._alive():
            self.scheduler.crash(self.rng.choice(alive).life, "")

    async def _freeze(self) -> None:
        """Stop a process for a while; or start another in its place while it is still to come back."""
        if alive := self._alive():
            process = self.rng.choice(alive)
            self.counts["frozen"] += 1
            process.life.thawed.clear()
            if self.rng.random() < 0.3:
                process.life.ended.set()
            asyncio.get_running_loop().call_later(self.rng.uniform(0.5, 25), process.life.thawed.set)

    async def _outage(self) -> None:
        """No broker answers anybody. Two at once would be one that lasts longer than a source may be silent."""
        if self.clock.monotonic() < self.scheduler.outage_until + APART_S:
            return
        self.counts["outage"] += 1
        self.log.outage()
        self.scheduler.outage_until = self.clock.monotonic() + self.rng.choice((1.0, 5.0, 9.0, 14.0, 20.0))

    async def _too_large(self) -> None:
        if self.rng.random() < 0.1:
            self.scheduler.too_large_at = 0

    async def _compact(self) -> None:
        await self.log.compact()

    async def _grow(self) -> None:
        """The source gets one more partition, which has its share of the events from then on."""
        place, number = Partition("t", self.partitions), 0
        # Not before the others began: a process that is away for now would take it for the source's beginning.
        begun = self._begun()
        self.partitions += 1
        self.counts["grown"] += 1
        await self.log.grow("t", self.partitions)

        async def produce() -> None:
            """Nothing that a verdict depends on: what a new partition has for decided windows is late by right."""
            nonlocal number
            while not self.is_finished:
                time = EpochUs(max(begun, self.clock.now() - SECOND))
                await self._append([Due(0.0, place.index, tick(time, f"new-{number}"))])
                number += 1
                await self.clock.sleep(4.0)

        self._growing = asyncio.create_task(produce(), name="producer of a new partition")

    def _begun(self) -> EpochUs:
        """The latest of the partitions' first events."""
        firsts: dict[int | None, EpochUs] = {}
        for each in self.accepted:
            if each.partition not in firsts and each.value is not None and each.value != BROKEN:
                firsts[each.partition] = EpochUs(instant(orjson.loads(each.value)["t"], "s"))
        return max(firsts.values(), default=EpochUs(0))

    async def _trim(self) -> None:
        """The source's retention deletes what was read; deduplication looks back a little."""
        for index in range(self.shape.partitions):  # those that every process knows from the start
            stored = await self.log.read(Partition(TOPICS.progress(SOURCE), index))
            if stored:
                read = progress_wire.decode(stored[-1].value or b"").next_offset
                before = read - self.config.rules.sources[SOURCE].dedup
                await self.log.trim(Partition("t", index), max(0, self.rng.randrange(before + 1) if before > 0 else 0))
                self.counts["trimmed"] += 1

    async def _lose(self) -> None:
        """Retention deletes what nobody has read, as soon as somebody has begun; then everybody dies."""
        place = Partition("t", 0)
        while not any(task.stage.input == place for process in self._alive() if process.worker is not None
                      for task in process.worker.aggregate.running()):  # fmt: skip
            await self.clock.sleep(0.05)
        _, end = await self.log.bounds(place)
        if end:
            await self.log.trim(place, end)
            self.has_lost = True
            for process in self._alive():
                self.scheduler.crash(process.life, "")

    def _see_rebalances(self) -> None:
        for group in ("sim.aggregate", "sim.evaluate"):
            generation = self.log.generation(group)
            if self._generations.get(group, generation) != generation:
                self.counts["rebalance"] += 1
            self._generations[group] = generation

    # -- how it ends --------------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """Everything is read, decided and committed within the bound. Raises `Broken`."""
        began = self.clock.monotonic()
        reason = "nothing was looked at"
        while self.clock.monotonic() < began + BOUND_S:
            await self.clock.sleep(2)
            if self._has_refused():
                return
            if self.failures:
                raise Broken(self.failures[0])
            reason = await self._unfinished()
            if not reason:
                self.counts["settled in s"] += round(self.clock.monotonic() - began)
                return
        message = f"after {BOUND_S:.0f} s without faults: {reason}"
        raise Broken(message)

    async def _unfinished(self) -> str:
        """What is not done yet; empty when all is."""
        alive = self._alive()
        owners: Counter[Partition] = Counter()
        for process in alive:
            worker = process.worker
            if worker is None:
                return f"{process.life.name} has not started"
            for crew in (worker.aggregate, worker.evaluate):
                if not crew.is_settled:
                    return f"{process.life.name}: {crew.name} waits for {crew.unsettled()}"
                running = {task.stage.input for task in crew.running()}
                if kept := crew.tasks.keys() - running:
                    return f"{process.life.name}: {crew.name} keeps {sorted(kept)}, which it does not work on"
                owners.update(running)
        wanted = [Partition("t", n) for n in range(self.partitions)]
        wanted += [Partition(TOPICS.partials, n) for n in range(self.shape.shards)]
        if owners != Counter(wanted):
            return f"the partitions have these workers: {owners}"
        return await self._uncommitted(alive)

    async def _uncommitted(self, alive: Sequence[Process]) -> str:
        """What was not read or not written yet."""
        for process in alive:
            assert process.worker is not None
            for crew in (process.worker.aggregate, process.worker.evaluate):
                for task in crew.running():
                    _, end = await self.log.bounds(task.stage.input)
                    if task.stage.next_offset < end or task.is_committing or task.stage.due(self.clock.now()):
                        return f"{task.where} of {process.life.name} is at {task.stage.next_offset} of {end}"
        return ""

    async def _check(self) -> None:
        for process in self.processes:
            if process.life.starts > process.life.confirms:
                message = f"{process.life.name} started a producer without asking the group"
                raise Broken(message)
        if self.failures:
            raise Broken(self.failures[0])
        alive = self._alive()
        for process in alive:
            process.is_leaving = True
        for process in alive:
            await process.life.ended.wait()
        if self.failures:
            raise Broken(self.failures[0])
        await self._close()
        await self._compare()

    async def _close(self) -> None:
        """A last process without a clock takes in what the others wrote on their way out, and decides nothing new."""
        partitions = await prepare(self.log, self.config, TOPICS, self.shape.shards)
        world = World(self.shape.shards, 0, SECOND, Pace(10_000, 0.5), is_replay=True)
        worker = build(self.log, self.config, TOPICS, self.clock, world, partitions).worker
        await worker.start()
        await worker.drain()

    async def _compare(self) -> None:
        decisions = await self._decisions()
        seen, state = await outcome(self.log, self.shape.shards)
        stamps = [record.timestamp or 0 for record in await self.log.read(Partition(TOPICS.alerts, 0))]
        self._published_last = (max(stamps, default=0) * 1000 - START) / SECOND
        self.scheduler.over()
        oracle = await Oracle(self.config, self.partitions, self.shape.shards, self.accepted, decisions).run()
        seen = self._without_blindness(seen)
        names = Counter(name_of(alert) for alert in seen)
        if twice := [name for name, count in names.items() if count > 1]:
            message = f"published twice: {twice[0]}"
            raise Broken(message)
        wanted = {name_of(alert): alert for alert in oracle.alerts}
        if lost := sorted(wanted.keys() - names.keys()):
            message = f"lost: {lost[0]}"
            raise Broken(message)
        if invented := sorted(names.keys() - wanted.keys()):
            message = f"invented: {invented[0]}"
            raise Broken(message)
        for alert in seen:
            if alert != wanted[name_of(alert)]:
                message = f"published in other words: {difference(alert, wanted[name_of(alert)])}"
                raise Broken(message)
        if state != oracle.state:
            keys = sorted(key for key in state.keys() | oracle.state.keys() if state.get(key) != oracle.state.get(key))
            message = f"another state: {keys[0]!r}"
            raise Broken(message)
        if self.shape.is_punctual and oracle.late:
            message = f"{oracle.late} punctual events were late"
            raise Broken(message)
        self._tally(seen, decisions)

    def _without_blindness(self, seen: list[dict[str, object]]) -> list[dict[str, object]]:
        """What the log decides. What a clock told of blindness has no second opinion, but an order. Raises `Broken`."""
        told = [alert for alert in seen if alert["alertname"] == blind.ALERT]
        before = None
        for alert in told:
            is_next = alert["status"] == "resolved" and alert["episode"] == before
            if not is_next and (alert["status"], before) != ("firing", None):
                message = f"blindness was told in this order: {[(one['status'], one['startsAt']) for one in told]}"
                raise Broken(message)
            before = alert["episode"] if alert["status"] == "firing" else None
        self.counts["blindness told"] += len(told)
        return [alert for alert in seen if alert["alertname"] != blind.ALERT]

    async def _decisions(self) -> dict[tuple[str, int], list[ClockDecision]]:
        found: dict[tuple[str, int], set[ClockDecision]] = {}
        for shard in range(self.shape.shards):
            for record in await self.log.read(Partition(TOPICS.partials, shard)):
                partial = partial_wire.decode(record.value or b"")
                of_partition = found.setdefault((partial.source, partial.partition), set())
                of_partition.update(partial.idle_advances, partial.future_rejections)
        return {place: sorted(decided, key=order) for place, decided in found.items()}

    def _tally(self, seen: list[dict[str, object]], decisions: dict[tuple[str, int], list[ClockDecision]]) -> None:
        for alert in seen:
            self.counts[str(alert["status"])] += 1
        crashed = self.scheduler.first_open_crash
        if crashed is not None and self._published_last > crashed:
            self.counts["transition after a crash in a transaction"] += 1
        every = [decision for decided in decisions.values() for decision in decided]
        self.counts["idle advance"] += sum(isinstance(decision, IdleAdvance) for decision in every)
        self.counts["future rejection"] += sum(isinstance(decision, FutureRejection) for decision in every)


def try_seed(seed: int, config: Config) -> Report:
    """Run a seed on a loop of its own."""
    report = Report(seed)

    async def main() -> None:
        trial = Trial(seed, config)
        try:
            async with asyncio.timeout(LONGEST_S):
                await trial.run()
        except Broken as broken:
            report.failure = str(broken)
        except TimeoutError:
            report.failure = f"not at its end after {LONGEST_S:.0f} s"
        except StateRefused as refused:
            report.failure = f"refused: {refused}"
        finally:
            trial.scheduler.over()
            report.counts, report.digest = trial.counts, trial.scheduler.digest

    run_virtual(main())
    return report

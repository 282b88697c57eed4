"""The exactly-once task: the same outbox until it is visible, and never a second time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from evaluator.core.event import SECOND, EpochUs
from evaluator.core.watermark import BEGINNING
from evaluator.errors import StateRefused
from evaluator.runtime.clock import VirtualClock, run_virtual
from evaluator.runtime.delivery import ATTEMPTS
from evaluator.runtime.log.memory import MemoryLog
from evaluator.runtime.log.port import (
    Fenced,
    Fetched,
    KafkaUnreachable,
    NotAuthorized,
    OutcomeUnknown,
    Outgoing,
    Partition,
    RecordTooLarge,
    SendFailed,
    StaleGeneration,
    TopicSpec,
)
from evaluator.runtime.stage import Outbox, Unobserved
from evaluator.runtime.task import DOUBT_S, IDLE_S, SLOW_RESTORE_S, Task
from evaluator.runtime.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from evaluator.runtime.clock import Clock
    from evaluator.wire.records import Record

OUT, OWN, IN = Partition("out", 0), Partition("own", 0), Partition("in", 0)


class Numbers:
    """A stage that writes the next number and its sequence."""

    name = "numbers"
    input, own = IN, OWN
    transactional_id = "app.numbers.0"
    next_offset = 0
    lag = 0
    watermark = BEGINNING
    is_full = False

    def __init__(self, size: int = 1) -> None:
        self.sequence = -1
        self.size = size
        self.journal: list[str] = []

    def restore(self, records: Sequence[Record], bounds: tuple[int, int], last: Record | None) -> None:
        self.journal.append("restore")
        newest = self.sequence_of(records)
        self.sequence = -1 if newest is None else newest

    def last_offset(self, records: Sequence[Record]) -> int | None:
        return None

    def sequence_of(self, records: Sequence[Record]) -> int | None:
        return int(records[-1].value or b"") if records else None

    def apply(self, fetched: Fetched) -> None:
        raise NotImplementedError

    def interrupted(self) -> None:
        self.journal.append("interrupted")

    def trust_clock(self, *, trusted: bool) -> None:
        self.journal.append("trusts" if trusted else "distrusts")

    def due(self, now: EpochUs) -> bool:
        return True

    def freeze(self, now: EpochUs) -> Outbox | None:
        self.journal.append("freeze")
        self.sequence += 1
        number = str(self.sequence).encode()
        return Outbox(self.sequence, [
            Outgoing(OUT.topic, number, number * self.size, 0), Outgoing(OWN.topic, b"p", number, 0),
        ])  # fmt: skip

    def committed(self, now: EpochUs) -> None:
        self.journal.append("committed")


class Faults:
    """Raises the given error at the n-th time of a step; every step takes `seconds`."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.planned: dict[tuple[str, int], Exception] = {}
        self.seen: dict[str, int] = {}

    def at(self, step: str, time: int, error: Exception) -> None:
        self.planned[step, time] = error

    async def step(self, name: str) -> None:
        self.seen[name] = self.seen.get(name, 0) + 1
        if self.seconds:
            await asyncio.sleep(self.seconds)
        error = self.planned.pop((name, self.seen[name]), None)
        if error is not None:
            raise error


async def log_of(faults: Faults, clock: VirtualClock) -> MemoryLog:
    log = MemoryLog(clock=clock, step=faults.step, max_record_bytes=1000)
    await log.create([TopicSpec("out", 1), TopicSpec("own", 1, compact=True), TopicSpec("in", 1)])
    return log


async def running(faults: Faults, stage: Numbers | None = None) -> tuple[Task, MemoryLog]:
    """A task that has taken over and written its genesis."""
    clock = VirtualClock(asyncio.get_running_loop())
    log = await log_of(faults, clock)
    task = Task(stage or Numbers(), log, clock, Unobserved())
    await task.take_over()
    faults.seen.clear()
    return task, log


async def committed(log: MemoryLog) -> list[bytes | None]:
    """What a read_committed reader of the output sees."""
    return [record.value for record in await log.connect().read(OUT)]


@pytest.mark.parametrize(
    ("step", "error"),
    [
        pytest.param("producer.commit:before", OutcomeUnknown("no answer"), id="the_commit_never_arrived"),
        pytest.param("producer.commit:after", OutcomeUnknown("no answer"), id="only_its_answer_was_lost"),
        pytest.param("producer.send:before", SendFailed("refused"), id="a_send_failed"),
    ],
)
def test_a_commit_that_went_wrong_is_visible_exactly_once(step: str, error: Exception) -> None:
    async def main() -> list[bytes | None]:
        faults = Faults()
        task, log = await running(faults)
        faults.at(step, 1, error)
        await task.commit()
        await task.commit()
        return await committed(log)

    assert run_virtual(main()) == [b"0", b"1", b"2"]


def test_a_stale_owners_bump_costs_the_owner_one_attempt_and_nothing_else() -> None:
    async def main() -> list[bytes | None]:
        faults = Faults()
        stale, log = await running(faults)
        owner = Task(Numbers(), log.connect(), VirtualClock(asyncio.get_running_loop()), Unobserved())
        await owner.take_over()
        with pytest.raises(Fenced):
            await stale.commit()
        await owner.commit()
        return await committed(log)

    assert run_virtual(main()) == [b"0", b"1", b"2"]


def test_a_failed_outbox_is_sent_again_not_made_again() -> None:
    async def main() -> list[str]:
        faults, stage = Faults(), Numbers()
        task, _ = await running(faults, stage)
        stage.journal.clear()
        faults.at("producer.send:before", 2, SendFailed("refused"))
        await task.commit()
        return stage.journal

    assert run_virtual(main()) == ["freeze", "committed"]


def test_a_commit_that_is_cancelled_while_its_outbox_is_made_leaves_a_whole_one() -> None:
    class InSteps(Numbers):
        def freeze(self, now: EpochUs) -> Outbox | None:
            outbox = super().freeze(now)
            return None if outbox is None else Outbox(outbox.sequence, self._made(outbox.records))

        def _made(self, records: Sequence[Outgoing]) -> Iterator[Outgoing]:
            yield from records
            self.journal.append("made")

    async def main() -> tuple[list[bytes | None], list[str]]:
        faults, stage = Faults(), InSteps()
        clock = VirtualClock(asyncio.get_running_loop())
        log = await log_of(faults, clock)
        task = Task(stage, log, clock, Unobserved(), turns=Turns(clock, 0))
        await task.take_over()
        stage.journal.clear()
        commit = asyncio.create_task(task.commit())
        while not task.is_freezing:
            await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="in/0 was applied to while its outbox was made"):
            task.apply(Fetched([], 1, 1, EpochUs(0)))
        assert stage.journal == ["freeze"]
        commit.cancel()
        await asyncio.wait([commit])
        assert (task.is_freezing, stage.journal) == (False, ["freeze", "made"])
        await task.commit()
        return await committed(log), stage.journal

    assert run_virtual(main()) == ([b"0", b"1"], ["freeze", "made", "committed"])


def test_of_an_outbox_that_cannot_be_made_nothing_is_sent() -> None:
    class Broken(Numbers):
        def freeze(self, now: EpochUs) -> Outbox | None:
            outbox = super().freeze(now)
            return outbox if outbox is None or outbox.sequence < 2 else Outbox(outbox.sequence, self._made())

        def _made(self) -> Iterator[Outgoing]:
            yield Outgoing(OUT.topic, b"k", b"half of it", 0)
            message = "a bug"
            raise ValueError(message)

    async def main() -> list[bytes | None]:
        task, log = await running(Faults(), Broken())
        await task.commit()
        with pytest.raises(ValueError, match="a bug"):
            await task.commit()
        with pytest.raises(RuntimeError, match="sequence 2 could not be made"):
            await task.commit()
        return await committed(log)

    assert run_virtual(main()) == [b"0", b"1"]


def test_a_task_gives_up_after_its_attempts_and_says_where() -> None:
    async def main() -> None:
        faults = Faults()
        task, _ = await running(faults)
        for attempt in range(1, ATTEMPTS + 1):
            # An outbox has two records, and both are handed over before an answer is looked at.
            faults.at("producer.send:before", 2 * attempt - 1, SendFailed("refused"))
        with pytest.raises(SendFailed, match="numbers of in/0: a commit failed 8 times"):
            await task.commit()

    run_virtual(main())


def test_a_missing_right_is_told_at_once_and_leaves_no_transaction_open() -> None:
    async def main() -> list[bytes | None]:
        faults = Faults()
        task, log = await running(faults)
        faults.at("producer.send:before", 2, NotAuthorized("not allowed to write: own"))
        with pytest.raises(NotAuthorized, match="own"):
            await task.commit()
        await log.append([Outgoing(OUT.topic, b"k", b"after it", 0)])
        return await committed(log)

    assert run_virtual(main()) == [b"0", b"after it"]


def test_a_sequence_of_another_owner_is_never_overwritten() -> None:
    async def main() -> None:
        faults = Faults()
        task, log = await running(faults)
        await log.append([Outgoing(OWN.topic, b"p", b"9", 0)])
        faults.at("producer.commit:before", 1, OutcomeUnknown("no answer"))
        with pytest.raises(StateRefused, match="another owner"):
            await task.commit()

    run_virtual(main())


def test_a_producer_that_cannot_be_revived_for_minutes_is_revived_when_it_can() -> None:
    async def main() -> tuple[list[bytes | None], float]:
        faults = Faults()
        task, log = await running(faults)
        faults.at("producer.commit:after", 1, OutcomeUnknown("no answer"))
        for time in range(2, 32):
            faults.at("producer.bump:before", time, KafkaUnreachable("no broker") if time % 2 else OutcomeUnknown("?"))
        began = asyncio.get_running_loop().time()
        await task.commit()
        return await committed(log), asyncio.get_running_loop().time() - began

    seen, took = run_virtual(main())
    assert seen == [b"0", b"1"]
    assert 240 < took < 310


def test_an_abort_without_an_answer_is_followed_by_a_new_client_and_the_same_outbox() -> None:
    async def main() -> tuple[list[bytes | None], list[str]]:
        faults, stage = Faults(), Numbers()
        task, log = await running(faults, stage)
        stage.journal.clear()
        faults.at("producer.send:before", 2, SendFailed("refused"))
        faults.at("producer.abort:before", 1, OutcomeUnknown("no answer"))
        await task.commit()
        return await committed(log), stage.journal

    assert run_virtual(main()) == ([b"0", b"1"], ["freeze", "committed"])


def test_a_record_that_is_too_large_is_not_tried_again() -> None:
    async def main() -> int:
        faults = Faults()
        stage = Numbers()
        task, _ = await running(faults, stage)
        stage.size = 2000
        with pytest.raises(RecordTooLarge, match="2001 bytes is too large for topic out"):
            await task.commit()
        return faults.seen["producer.bump:before"]

    assert run_virtual(main()) == 1


def test_what_is_applied_during_a_commit_belongs_to_the_next_one() -> None:
    async def main() -> tuple[list[str], list[bytes | None]]:
        faults, stage = Faults(), Numbers()
        task, log = await running(faults, stage)
        stage.journal.clear()
        faults.seconds = 0.1
        first, second = asyncio.create_task(task.commit()), asyncio.create_task(task.commit())
        await asyncio.sleep(0)
        assert task.is_committing
        assert not task.is_due
        await asyncio.gather(first, second)
        return stage.journal, await committed(log)

    journal, seen = run_virtual(main())
    assert journal == ["freeze", "committed", "freeze", "committed"]
    assert seen == [b"0", b"1", b"2"]


class Bounded(Numbers):
    """Notes the bounds that it is restored within."""

    def restore(self, records: Sequence[Record], bounds: tuple[int, int], last: Record | None) -> None:
        super().restore(records, bounds, last)
        self.journal.append(str(bounds))


def test_what_is_trimmed_or_appended_while_the_progress_is_read_is_no_reason_to_refuse() -> None:
    """The progress may be older or newer than any one look at the log."""

    async def main() -> list[str]:
        others = MemoryLog(clock=VirtualClock(asyncio.get_running_loop()))

        async def step(name: str) -> None:
            if name == "log.read:before":
                await others.append([Outgoing(IN.topic, None, b"x", 0)] * 3)
            if name == "log.read:after":
                await others.trim(IN, 7)

        await others.create([TopicSpec("out", 1), TopicSpec("own", 1, compact=True), TopicSpec("in", 1)])
        await others.append([Outgoing(IN.topic, None, b"x", 0)] * 10)
        stage = Bounded()
        await Task(stage, others.connect(step=step), VirtualClock(asyncio.get_running_loop()), Unobserved()).take_over()
        return stage.journal[:2]

    assert run_virtual(main()) == ["restore", "(0, 13)"]


def test_nobody_is_fenced_before_the_group_has_confirmed() -> None:
    async def main() -> list[str]:
        faults = Faults()
        log = MemoryLog(clock=VirtualClock(asyncio.get_running_loop()), step=faults.step)
        task = Task(Numbers(), log, VirtualClock(asyncio.get_running_loop()), Unobserved())

        async def refuse() -> None:
            message = "the group has moved on"
            raise StaleGeneration(message)

        with pytest.raises(StaleGeneration):
            await task.take_over(refuse)
        return list(faults.seen)

    assert run_virtual(main()) == []


@pytest.mark.parametrize(("seconds", "questions"), [(0.0, 1), (2 * SLOW_RESTORE_S, 2)])
def test_the_group_is_asked_again_after_a_slow_restore(seconds: float, questions: int) -> None:
    async def main() -> int:
        clock = VirtualClock(asyncio.get_running_loop())
        asked = 0

        async def confirm() -> None:
            nonlocal asked
            asked += 1

        async def step(name: str) -> None:
            if name == "log.read:before":
                await clock.sleep(seconds)

        log = MemoryLog(clock=clock, step=step)
        await log.create([TopicSpec("out", 1), TopicSpec("own", 1, compact=True), TopicSpec("in", 1)])
        await Task(Numbers(), log, clock, Unobserved()).take_over(confirm)
        return asked

    assert run_virtual(main()) == questions


class Shifted:
    """Another clock, whose time of day is off by `seconds`."""

    is_simulated = False

    def __init__(self, clock: Clock) -> None:
        self.seconds = 0
        self._clock = clock

    def now(self) -> EpochUs:
        return EpochUs(self._clock.now() + self.seconds * SECOND)

    def monotonic(self) -> float:
        return self._clock.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)


@pytest.mark.parametrize(("off", "trusted"), [(0, True), (4, True), (-4, True), (6, False), (-6, False)])
def test_a_clock_more_than_five_seconds_off_the_brokers_is_not_trusted(off: int, trusted: bool) -> None:  # noqa: FBT001  # a parameter of the test
    async def main() -> tuple[bool, list[str]]:
        clock = VirtualClock(asyncio.get_running_loop(), EpochUs(10**15))
        log, stage, ours = MemoryLog(clock=clock), Numbers(), Shifted(clock)
        await log.create([TopicSpec("out", 1), TopicSpec("own", 1, compact=True), TopicSpec("in", 1)])
        task = Task(stage, log, ours, Unobserved())
        await task.take_over()
        ours.seconds = off
        await task.commit()
        await task.commit()
        was = task.trusts_clock
        ours.seconds = 0
        await task.commit()
        return was, [entry for entry in stage.journal if "trusts" in entry]

    assert run_virtual(main()) == (trusted, [] if trusted else ["distrusts", "trusts"])


def test_a_commit_that_took_long_is_no_reason_to_distrust_the_clock() -> None:
    async def main() -> bool:
        clock = VirtualClock(asyncio.get_running_loop())

        async def step(name: str) -> None:
            if name.startswith("producer.send"):
                await clock.sleep(30)

        log = MemoryLog(clock=clock, step=step, transaction_timeout_s=600)
        await log.create([TopicSpec("out", 1), TopicSpec("own", 1, compact=True), TopicSpec("in", 1)])
        task = Task(Numbers(), log, clock, Unobserved())
        await task.take_over()
        return task.trusts_clock

    assert run_virtual(main())


def test_an_idle_task_uses_its_transactional_id_once_a_day() -> None:
    async def main() -> list[tuple[bool, int]]:
        faults = Faults()
        task, _ = await running(faults)
        seen = []
        for hours in (23, 2, 23):
            await asyncio.sleep(hours * IDLE_S / 24)
            seen.append((task.is_idle, faults.seen.get("producer.bump:before", 0)))
            if task.is_idle:
                await task.keep_alive()
        return seen

    assert run_virtual(main()) == [(False, 0), (True, 0), (False, 1)]


@pytest.mark.parametrize(
    ("slept", "answer", "bumps"),
    [
        pytest.param(DOUBT_S - 1, StaleGeneration("of another"), 1, id="a_short_time_is_no_reason_to_ask"),
        pytest.param(DOUBT_S, None, 1, id="it_is_still_ours"),
        pytest.param(DOUBT_S, KafkaUnreachable("nobody there"), 1, id="nobody_answers"),
        pytest.param(DOUBT_S, StaleGeneration("of another"), 0, id="it_is_another_s"),
    ],
)
def test_who_slept_asks_the_group_before_it_raises_an_epoch(slept: float, answer: Exception | None, bumps: int) -> None:
    async def main() -> tuple[int, int]:
        clock = VirtualClock(asyncio.get_running_loop())
        faults = Faults()
        log = MemoryLog(clock=clock, step=faults.step)
        await log.create([TopicSpec("out", 1), TopicSpec("own", 1, compact=True), TopicSpec("in", 1)])

        async def ask() -> None:
            if answer is not None:
                raise answer

        task = Task(Numbers(), log, clock, Unobserved(), ask)
        await task.take_over()
        faults.seen.clear()
        before = len(await committed(log))
        await asyncio.sleep(slept)
        await task.commit()
        return faults.seen.get("producer.bump:before", 0), len(await committed(log)) - before

    assert run_virtual(main()) == (bumps, bumps)

"""The exactly-once task: the same outbox until it is visible, and never a second time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from evaluator.errors import StateRefused
from evaluator.runtime.clock import VirtualClock, run_virtual
from evaluator.runtime.log.memory import MemoryLog
from evaluator.runtime.log.port import Fenced, OutcomeUnknown, Outgoing, Partition, SendFailed, TopicSpec
from evaluator.runtime.task import ATTEMPTS, Outbox, Task, Unobserved

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluator.core.event import EpochUs
    from evaluator.runtime.log.port import Fetched, Record

OUT, OWN, IN = Partition("out", 0), Partition("own", 0), Partition("in", 0)


class Numbers:
    """A stage that writes the next number and its sequence."""

    name = "numbers"
    input, own = IN, OWN
    transactional_id = "app.numbers.0"
    next_offset = 0

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
    """Raises the given error at the n-th time of a step."""

    def __init__(self) -> None:
        self.planned: dict[tuple[str, int], Exception] = {}
        self.seen: dict[str, int] = {}

    def at(self, step: str, time: int, error: Exception) -> None:
        self.planned[step, time] = error

    async def step(self, name: str) -> None:
        self.seen[name] = self.seen.get(name, 0) + 1
        error = self.planned.pop((name, self.seen[name]), None)
        if error is not None:
            raise error


async def running(faults: Faults, stage: Numbers | None = None) -> tuple[Task, MemoryLog]:
    """A task that has taken over and written its genesis."""
    clock = VirtualClock(asyncio.get_running_loop())
    log = MemoryLog(clock=clock, step=faults.step, max_record_bytes=1000)
    await log.create([TopicSpec("out", 1), TopicSpec("own", 1, compact=True), TopicSpec("in", 1)])
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


def test_a_task_gives_up_after_its_attempts_and_says_where() -> None:
    async def main() -> None:
        faults = Faults()
        task, _ = await running(faults)
        for attempt in range(1, ATTEMPTS + 1):
            faults.at("producer.send:before", attempt, SendFailed("refused"))
        with pytest.raises(SendFailed, match="numbers of in/0: a commit failed 8 times"):
            await task.commit()

    run_virtual(main())


def test_a_sequence_of_another_owner_is_never_overwritten() -> None:
    async def main() -> None:
        faults = Faults()
        task, log = await running(faults)
        await log.append([Outgoing(OWN.topic, b"p", b"9", 0)])
        faults.at("producer.commit:before", 1, OutcomeUnknown("no answer"))
        with pytest.raises(StateRefused, match="another owner"):
            await task.commit()

    run_virtual(main())

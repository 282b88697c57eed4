"""What a crew does with one partition while its commit is slow."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs
from unit.test_task import IN, Numbers

from evaluator.errors import SchemasMissing, SchemasUnavailable
from evaluator.runtime.clock import VirtualClock, run_virtual
from evaluator.runtime.crew import Crew
from evaluator.runtime.log.memory import MemoryLog
from evaluator.runtime.log.port import Outgoing, Partition, TopicSpec
from evaluator.runtime.stage import Outbox, Unobserved
from evaluator.runtime.turns import TURN_S, Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from evaluator.core.event import EpochUs
    from evaluator.runtime.clock import Clock
    from evaluator.runtime.log.port import Fetched
    from evaluator.runtime.registries import Learn
    from evaluator.wire.records import Record


class Filling(Numbers):
    """Numbers that are full after five records, until they are frozen."""

    pending = 0

    def apply(self, fetched: Fetched) -> None:
        self.pending += len(fetched.records)
        self.next_offset = fetched.next_offset
        self.is_full = self.pending >= 5

    def due(self, now: EpochUs) -> bool:
        return self.pending > 0

    def freeze(self, now: EpochUs) -> Outbox | None:
        self.pending, self.is_full = 0, False
        return super().freeze(now)


async def crew_of(
    stage: Filling, delays: list[float], registry: Callable[[Clock], Registry] | None = None, turn_s: float = TURN_S
) -> tuple[Crew, MemoryLog]:
    """A crew that reads one partition; each commit takes the next of `delays`."""
    clock = VirtualClock(asyncio.get_running_loop())

    async def step(name: str) -> None:
        if name == "producer.commit:before" and delays:
            await clock.sleep(delays.pop(0))

    log = MemoryLog(clock=clock, step=step)
    await log.create([TopicSpec("in", 1), TopicSpec("out", 1), TopicSpec("own", 1, compact=True)])
    lesson = None if registry is None else registry(clock).lesson
    turns = Turns(clock, turn_s)
    crew = Crew("numbers", ["in"], lambda _partition: stage, log, clock, Unobserved(), lesson=lesson, turns=turns)
    await crew.consumer.start()
    return crew, log


async def turn(crew: Crew, seconds: float) -> None:
    await crew.poll(seconds, 1)
    crew.settle()
    crew.commit_due()


def test_reading_waits_for_the_commit_under_way_when_the_next_outbox_is_full() -> None:
    async def main() -> list[int]:
        stage = Filling()
        crew, log = await crew_of(stage, [0, 30])
        while not crew.is_settled:
            await turn(crew, 0.1)
        await log.append([Outgoing("in", None, b"%d" % number, 0) for number in range(20)])
        offsets = []
        for _ in range(12):
            await turn(crew, 1)
            offsets.append(stage.next_offset)
        assert crew.is_held(IN)
        await asyncio.sleep(30)
        for _ in range(30):
            await turn(crew, 1)
        assert not crew.is_held(IN)
        return [*offsets, stage.next_offset]

    # The first record is in the slow commit, five more fill the next outbox, and the rest comes after it.
    offsets = run_virtual(main())
    assert offsets[:7] == [1, 2, 3, 4, 5, 6, 6]
    assert offsets[-2:] == [6, 20]


class InSteps(Filling):
    """Makes an outbox in five steps before its records."""

    def apply(self, fetched: Fetched) -> None:
        self.journal.append("apply" if fetched.records else "look")
        super().apply(fetched)

    def freeze(self, now: EpochUs) -> Outbox | None:
        outbox = super().freeze(now)
        return None if outbox is None else Outbox(outbox.sequence, self._made(outbox.records))

    def _made(self, records: Sequence[Outgoing]) -> Iterator[Outgoing | None]:
        for _ in range(5):
            self.journal.append("step")
            asyncio.get_running_loop().call_soon(self.journal.append, "others")
            yield None
        yield from records
        self.journal.append("made")


def test_while_an_outbox_is_made_others_have_turns_and_nothing_is_applied() -> None:
    async def main() -> list[str]:
        stage = InSteps()
        crew, log = await crew_of(stage, [], turn_s=0)
        while not crew.is_settled:
            await turn(crew, 0.1)
        await log.append([Outgoing("in", None, b"%d" % number, 0) for number in range(20)])

        stage.journal.clear()
        while stage.next_offset < 20 or crew.is_busy:
            await turn(crew, 0.1)
        return stage.journal

    journal = run_virtual(main())
    assert journal.count("apply") == 20
    freezes = [place for place, what in enumerate(journal) if what == "freeze"]
    assert len(freezes) > 1
    for begin in freezes:
        assert journal[begin : journal.index("made", begin)] == ["freeze", *["step", "others"] * 5]


class Many(Filling):
    """Takes one record in a turn, for some seconds of a clock that nobody else moves."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.spent = seconds, 0.0
        self.taken: list[int] = []
        self.at_the_end: Callable[[], object] = lambda: None

    def apply(self, fetched: Fetched) -> Fetched | None:
        if not fetched.records:
            return None
        self.spent += self.seconds
        self.taken.append(fetched.records[0].offset)
        self.next_offset = self.taken[-1] + 1
        self.at_the_end()
        return fetched._replace(records=fetched.records[1:]) if len(fetched.records) > 1 else None


class Late(VirtualClock):
    """A clock that is ahead by what a stage spends."""

    def __init__(self, stage: Many) -> None:
        super().__init__(asyncio.get_running_loop())
        self._stage = stage

    def monotonic(self) -> float:
        return super().monotonic() + self._stage.spent


async def crew_with(stage: Many) -> Crew:
    """A crew with twelve records to read."""
    log = MemoryLog(clock=VirtualClock(asyncio.get_running_loop()))
    await log.create([TopicSpec("in", 1), TopicSpec("out", 1), TopicSpec("own", 1, compact=True)])
    crew = Crew("numbers", ["in"], lambda _partition: stage, log, Late(stage), Unobserved())
    await crew.consumer.start()
    while not crew.is_settled:
        await crew.poll(0.1, 1)
        crew.settle()
    await log.append([Outgoing("in", None, b"%d" % number, 0) for number in range(12)])
    return crew


def test_what_a_stage_hands_back_is_taken_in_by_the_same_poll_with_turns_for_others_between() -> None:
    async def main() -> tuple[list[int], int]:
        stage, beats = Many(0.0), 0
        crew = await crew_with(stage)

        async def heart() -> None:
            nonlocal beats
            while True:
                beats += 1
                await asyncio.sleep(0)

        beating = asyncio.create_task(heart())
        await crew.poll(1, 100)
        beating.cancel()
        return stage.taken, beats

    taken, beats = run_virtual(main())
    assert taken == list(range(12))
    assert beats >= 11


def test_a_poll_ends_after_some_seconds_and_what_is_left_is_read_again() -> None:
    async def main() -> tuple[list[int], list[int]]:
        stage = Many(2.0)
        crew = await crew_with(stage)
        await crew.poll(1, 100)
        first = list(stage.taken)
        for _ in range(8):
            await crew.poll(1, 100)
        return first, stage.taken

    first, taken = run_virtual(main())
    assert first == [0, 1, 2]
    assert taken == list(range(12))


def test_a_task_that_is_away_between_two_turns_takes_in_no_more() -> None:
    async def main() -> list[int]:
        stage = Many(0.0)
        crew = await crew_with(stage)

        def away() -> None:
            if stage.next_offset == 5:
                crew.tasks.clear()

        stage.at_the_end = away
        await crew.poll(1, 100)
        return stage.taken

    assert run_virtual(main()) == [0, 1, 2, 3, 4]


class Unreadable(Filling):
    """Numbers whose schema has to be learned first."""

    def __init__(self) -> None:
        super().__init__()
        self.is_known = False

    def apply(self, fetched: Fetched) -> None:
        if fetched.records and not self.is_known:
            raise SchemasMissing([7])
        super().apply(fetched)


class Registry:
    """A registry that is away at the first tries, and takes a second for each."""

    def __init__(
        self, stage: Unreadable, clock: Clock, failures: int, journal: list[tuple[Partition, list[int]]] | None = None
    ) -> None:
        self.stage, self.clock, self.failures = stage, clock, failures
        self.journal = [] if journal is None else journal

    def lesson(self, partition: Partition, ids: Sequence[int], records: Sequence[Record]) -> Learn:
        async def learn() -> None:
            self.journal.append((partition, list(ids)))
            await self.clock.sleep(1)
            if len(self.journal) <= self.failures:
                url = "http://registry:8081/schemas/ids/7"
                raise SchemasUnavailable(url, "refused", ids[0], records[0].offset)
            self.stage.is_known = True

        return learn


def test_a_partition_is_held_until_the_schemas_of_its_records_are_known_and_nothing_is_taken_over_again() -> None:
    async def main() -> None:
        stage = Unreadable()
        crew, log = await crew_of(stage, [], lambda clock: Registry(stage, clock, failures=2))
        await log.append([Outgoing("in", None, b"%d" % number, 0) for number in range(3)])
        while not crew.is_held(IN):
            await turn(crew, 0.1)
        assert (stage.next_offset, crew.running()[0].stage) == (0, stage)
        for _ in range(40):
            await turn(crew, 1)
        assert not crew.is_held(IN)
        assert stage.next_offset == 3
        assert stage.journal.count("restore") == 1

    with capture_logs() as logs:
        run_virtual(main())
    told = [each for each in logs if "schemas" in each["event"]]
    assert told == [
        {"event": "task.waits_for_schemas", "log_level": "warning", "stage": "numbers", "partition": "in/0",
         "offset": 0, "schema": 7, "reason": str(SchemasUnavailable("http://registry:8081/schemas/ids/7", "refused"))},
        {"event": "task.has_schemas", "log_level": "info", "stage": "numbers", "partition": "in/0", "failures": 2},
    ]  # fmt: skip


def test_a_partition_that_comes_back_while_its_schemas_are_asked_for_does_not_ask_again() -> None:
    async def main() -> list[tuple[Partition, list[int]]]:
        stage, journal = Unreadable(), list[tuple[Partition, list[int]]]()
        crew, log = await crew_of(stage, [], lambda clock: Registry(stage, clock, failures=0, journal=journal))
        await log.append([Outgoing("in", None, b"%d" % number, 0) for number in range(3)])
        while not crew.is_held(IN):
            await turn(crew, 0.1)
        await crew.assigned([IN])
        crew.settle()
        for _ in range(10):
            await turn(crew, 0.2)
        assert stage.next_offset == 3
        return journal

    assert run_virtual(main()) == [(IN, [7])]


def test_who_has_nobody_to_ask_is_told_what_is_missing() -> None:
    async def main() -> None:
        stage = Unreadable()
        crew, log = await crew_of(stage, [])
        await log.append([Outgoing("in", None, b"1", 0)])
        for _ in range(10):
            await turn(crew, 1)

    with pytest.raises(SchemasMissing, match="nobody has asked for yet: 7"):
        run_virtual(main())

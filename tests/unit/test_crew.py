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
from evaluator.runtime.stage import Unobserved

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from evaluator.core.event import EpochUs
    from evaluator.runtime.clock import Clock
    from evaluator.runtime.log.port import Fetched
    from evaluator.runtime.registries import Learn
    from evaluator.runtime.stage import Outbox
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
    stage: Filling, delays: list[float], registry: Callable[[Clock], Registry] | None = None
) -> tuple[Crew, MemoryLog]:
    """A crew that reads one partition; each commit takes the next of `delays`."""
    clock = VirtualClock(asyncio.get_running_loop())

    async def step(name: str) -> None:
        if name == "producer.commit:before" and delays:
            await clock.sleep(delays.pop(0))

    log = MemoryLog(clock=clock, step=step)
    await log.create([TopicSpec("in", 1), TopicSpec("out", 1), TopicSpec("own", 1, compact=True)])
    lesson = None if registry is None else registry(clock).lesson
    crew = Crew("numbers", ["in"], lambda _partition: stage, log, clock, Unobserved(), lesson=lesson)
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

"""What a crew does with one partition while its commit is slow."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from structlog.testing import capture_logs
from unit.test_task import IN, Numbers

from evaluator.errors import SchemasUnavailable
from evaluator.runtime.clock import VirtualClock, run_virtual
from evaluator.runtime.crew import Crew
from evaluator.runtime.log.memory import MemoryLog
from evaluator.runtime.log.port import Outgoing, TopicSpec
from evaluator.runtime.stage import Unobserved

if TYPE_CHECKING:
    from evaluator.core.event import EpochUs
    from evaluator.runtime.log.port import Fetched
    from evaluator.runtime.stage import Outbox


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


async def crew_of(stage: Filling, delays: list[float]) -> tuple[Crew, MemoryLog]:
    """A crew that reads one partition; each commit takes the next of `delays`."""
    clock = VirtualClock(asyncio.get_running_loop())

    async def step(name: str) -> None:
        if name == "producer.commit:before" and delays:
            await clock.sleep(delays.pop(0))

    log = MemoryLog(clock=clock, step=step)
    await log.create([TopicSpec("in", 1), TopicSpec("out", 1), TopicSpec("own", 1, compact=True)])
    crew = Crew("numbers", ["in"], lambda _partition: stage, log, clock, Unobserved())
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


UNAVAILABLE = ("http://registry:8081/schemas/ids/1", "refused")


class Unreadable(Filling):
    """Numbers whose schema cannot be had at the first two tries."""

    tries = 0

    def apply(self, fetched: Fetched) -> None:
        if fetched.records:
            self.tries += 1
        if 0 < self.tries <= 2:
            raise SchemasUnavailable(*UNAVAILABLE)
        super().apply(fetched)


def test_records_whose_schema_cannot_be_had_are_read_again_until_it_can() -> None:
    async def main() -> tuple[int, int]:
        stage = Unreadable()
        crew, log = await crew_of(stage, [])
        await log.append([Outgoing("in", None, b"%d" % number, 0) for number in range(3)])
        for _ in range(40):
            await turn(crew, 1)
        return stage.tries, stage.next_offset

    with capture_logs() as logs:
        tries, offset = run_virtual(main())
    assert tries > 2
    assert offset == 3
    reasons = [each["reason"] for each in logs if each["event"] == "task.set_back"]
    assert len(reasons) == 2
    assert reasons[0].startswith("cannot read http://registry:8081/schemas/ids/1: refused")

"""Partitions that are added to a source: the place for their progress is made, or somebody is told how."""

from __future__ import annotations

import asyncio

import pytest

from evaluator.runtime.clock import VirtualClock, run_virtual
from evaluator.runtime.crew import NoPlace
from evaluator.runtime.growing import Growing
from evaluator.runtime.log.memory import MemoryLog
from evaluator.runtime.log.port import NotAuthorized, Partition, TopicSpec
from evaluator.runtime.topics import Topics

TOPICS = Topics("app")
PROGRESS = TOPICS.progress("calls")


async def log_with(partitions: int, places: int) -> MemoryLog:
    log = MemoryLog(clock=VirtualClock(asyncio.get_running_loop()))
    await log.create([TopicSpec("t", partitions), TopicSpec(PROGRESS, places, compact=True)])
    return log


class Forbidding:
    """A log on which nobody may change topics."""

    def __init__(self, log: MemoryLog) -> None:
        self.partitions = log.partitions

    async def grow(self, topic: str, partitions: int) -> None:
        message = f"no right to alter {topic} to {partitions}"
        raise NotAuthorized(message)


def test_a_new_partition_gets_a_place_for_its_progress() -> None:
    async def main() -> tuple[int, int]:
        log = await log_with(3, 2)
        growing = Growing(log, TOPICS, {"t": "calls"}, {"calls": 2})
        await growing.prepare(Partition("t", 2))
        return await log.partitions(PROGRESS), growing.count_with(Partition("t", 0))

    assert run_virtual(main()) == (3, 3)


def test_a_process_that_started_after_the_growth_makes_the_place_too() -> None:
    async def main() -> int:
        log = await log_with(3, 2)
        await Growing(log, TOPICS, {"t": "calls"}, {"calls": 3}).prepare(Partition("t", 2))
        return await log.partitions(PROGRESS)

    assert run_virtual(main()) == 3


def test_without_the_right_the_message_says_what_to_do() -> None:
    async def main() -> None:
        log = Forbidding(await log_with(3, 2))
        growing = Growing(log, TOPICS, {"t": "calls"}, {"calls": 2})  # type: ignore[arg-type]  # what is needed of it
        await growing.prepare(Partition("t", 1))
        with pytest.raises(NoPlace, match=rf"kafka-topics --alter --topic {PROGRESS} --partitions 3"):
            await growing.prepare(Partition("t", 2))

    run_virtual(main())

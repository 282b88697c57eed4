"""Members of a group on the in-memory log: silence, freezing, growth, and how things are shared out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from evaluator.runtime.clock import VirtualClock, run_virtual
from evaluator.runtime.log.memory import MemoryLog
from evaluator.runtime.log.memory_consumer import shares
from evaluator.runtime.log.port import Outgoing, Partition, StaleGeneration, TopicSpec

if TYPE_CHECKING:
    from collections.abc import Sequence


class Worker:
    """A member that writes down what happens to it, in a journal that several may share."""

    def __init__(self, log: MemoryLog, name: str, journal: list[str], *, dawdle: float = 0) -> None:
        self.consumer = log.consumer("g", ["t"], self)
        self._name, self._journal, self._dawdle = name, journal, dawdle

    async def revoked(self, partitions: Sequence[Partition]) -> None:
        """Commit what is ours, which must still be allowed."""
        await asyncio.sleep(self._dawdle)
        await self.consumer.commit(dict.fromkeys(partitions, 0))
        self._journal.append(f"{self._name}-{_indexes(partitions)}")

    async def assigned(self, partitions: Sequence[Partition]) -> None:
        """Begin at the beginning."""
        self._journal.append(f"{self._name}+{_indexes(partitions)}")
        for partition in partitions:
            self.consumer.seek(partition, 0)
        self.consumer.resume(*partitions)

    async def owned(self) -> str:
        """Poll once; what is owned then."""
        await self.consumer.poll(0.1, 10)
        return _indexes(sorted(self.consumer.assignment()))


def _indexes(partitions: Sequence[Partition]) -> str:
    return "".join(str(partition.index) for partition in partitions)


async def group_log(partitions: int) -> MemoryLog:
    """A log with a topic `t`."""
    log = MemoryLog(clock=VirtualClock(asyncio.get_running_loop()), session_timeout_s=20)
    await log.create([TopicSpec("t", partitions)])
    return log


async def settle(*workers: Worker) -> None:
    """Let all of them poll until a rebalance must be over."""
    for _ in range(4):
        await asyncio.gather(*(worker.consumer.poll(0.1, 10) for worker in workers))


def test_nobody_gets_a_partition_before_its_owner_gave_it_up() -> None:
    async def main() -> None:
        log, journal = await group_log(4), list[str]()
        one, two = Worker(log, "a", journal, dawdle=3), Worker(log, "b", journal)
        await one.consumer.start()
        await settle(one)
        await two.consumer.start()
        # Two polls alone for 10 s: the owner is alive, so it gets nothing.
        for _ in range(100):
            assert await two.owned() == ""
        assert await one.owned() == "01"
        assert await two.owned() == "23"
        assert journal == ["a+0123", "a-0123", "a+01", "b+23"]

    run_virtual(main())


def test_a_waiting_poll_takes_part_in_a_rebalance() -> None:
    async def main() -> None:
        log, journal = await group_log(2), list[str]()
        one, two = Worker(log, "a", journal), Worker(log, "b", journal)
        await one.consumer.start()
        async with asyncio.TaskGroup() as tasks:
            poll = tasks.create_task(one.consumer.poll(60, 10))
            await asyncio.sleep(1)
            await two.consumer.start()
            await two.consumer.poll(1, 10)
            assert not poll.done()
            assert journal[:2] == ["a+01", "a-01"]
            assert sorted(journal[2:]) == ["a+0", "b+1"]

    run_virtual(main())


def test_a_silent_member_is_removed_and_rejoins_when_it_wakes() -> None:
    async def main() -> None:
        log, journal = await group_log(2), list[str]()
        one, two = Worker(log, "a", journal), Worker(log, "b", journal)
        await one.consumer.start()
        await two.consumer.start()
        await settle(one, two)
        for _ in range(198):
            assert await two.owned() == "1"
        await asyncio.sleep(1)
        # "a" has been silent for 20 s.
        assert await two.owned() == "01"
        assert _indexes(sorted(one.consumer.assignment())) == "0"
        with pytest.raises(StaleGeneration):
            await one.consumer.commit({Partition("t", 0): 5})
        with pytest.raises(StaleGeneration):
            await settle(one)  # its revoked() commits: refused, for it owns nothing any more

    run_virtual(main())


def test_a_removed_member_is_refused_while_the_others_still_rebalance() -> None:
    async def main() -> None:
        log, journal = await group_log(3), list[str]()
        workers = [Worker(log, name, journal) for name in "abc"]
        for worker in workers:
            await worker.consumer.start()
        await settle(*workers)
        silent, polling, late = workers
        await asyncio.sleep(11)
        await late.consumer.poll(0, 10)
        await asyncio.sleep(10)
        (own,) = silent.consumer.assignment()
        await silent.consumer.commit({own: 1})  # nobody has noticed yet
        async with asyncio.TaskGroup() as tasks:
            poll = tasks.create_task(polling.consumer.poll(1, 10))
            await asyncio.sleep(0.5)
            with pytest.raises(StaleGeneration):
                await silent.consumer.commit({own: 2})
        assert poll.result() is not None
        assert log.committed("g") == {Partition("t", 0): 1, Partition("t", 1): 0}

    run_virtual(main())


def test_a_member_confirms_nothing_before_it_has_heard_of_the_new_generation() -> None:
    async def main() -> None:
        log, journal = await group_log(1), list[str]()
        one, two = Worker(log, "a", journal), Worker(log, "b", journal)
        await one.consumer.start()
        await settle(one)
        await two.consumer.start()
        await one.consumer.poll(0, 10)
        await two.consumer.poll(0, 10)
        with pytest.raises(StaleGeneration):
            await one.consumer.commit({})
        await one.consumer.poll(0, 10)
        await one.consumer.commit({})

    run_virtual(main())


def test_a_slow_member_that_nobody_misses_keeps_its_place() -> None:
    async def main() -> None:
        log, journal = await group_log(1), list[str]()
        one = Worker(log, "a", journal, dawdle=60)
        await one.consumer.start()
        await settle(one)
        await log.grow("t", 2)
        await settle(one)
        assert journal == ["a+0", "a-0", "a+01"]

    run_virtual(main())


def test_a_member_in_a_long_poll_is_not_silent() -> None:
    async def main() -> None:
        log, journal = await group_log(2), list[str]()
        one, two = Worker(log, "a", journal), Worker(log, "b", journal)
        await one.consumer.start()
        await two.consumer.start()
        await settle(one, two)
        async with asyncio.TaskGroup() as tasks:
            poll = tasks.create_task(one.consumer.poll(60, 10))
            while not poll.done():
                assert await two.owned() == "1"
        assert await two.owned() == "1"

    run_virtual(main())


def test_a_member_that_crashed_inside_its_poll_is_silent() -> None:
    async def main() -> None:
        log, journal = await group_log(1), list[str]()
        one, two = Worker(log, "a", journal), Worker(log, "b", journal)
        await one.consumer.start()
        poll = asyncio.create_task(one.consumer.poll(60, 10))
        await asyncio.sleep(30)
        poll.cancel()
        await two.consumer.start()
        loop = asyncio.get_running_loop()
        while await two.owned() != "0":
            assert loop.time() < 60
        assert 50 < loop.time() < 52
        assert journal == ["a+0", "b+0"]

    run_virtual(main())


def test_a_callback_longer_than_the_session_costs_the_membership() -> None:
    async def main() -> None:
        log, journal = await group_log(1), list[str]()
        one, two = Worker(log, "a", journal, dawdle=30), Worker(log, "b", journal)
        await one.consumer.start()
        await settle(one)
        await two.consumer.start()
        async with asyncio.TaskGroup() as tasks:
            slow = tasks.create_task(_stale(one))
            while not slow.done():
                await two.owned()
        assert slow.result()
        assert journal == ["a+0", "b+0"]

    run_virtual(main())


async def _stale(worker: Worker) -> bool:
    try:
        await worker.consumer.poll(1, 10)
    except StaleGeneration:
        return True
    return False


def test_new_partitions_are_shared_out_too() -> None:
    async def main() -> None:
        log, journal = await group_log(1), list[str]()
        one = Worker(log, "a", journal)
        await one.consumer.start()
        await settle(one)
        await log.grow("t", 3)
        await log.append([Outgoing("t", None, b"x", 2)])
        fetched = await one.consumer.poll(1, 10)
        assert len(fetched[Partition("t", 2)].records) == 1
        assert journal == ["a+0", "a-0", "a+012"]

    run_virtual(main())


def test_more_members_than_partitions_leaves_some_idle() -> None:
    async def main() -> None:
        log, journal = await group_log(1), list[str]()
        one, two = Worker(log, "a", journal), Worker(log, "b", journal)
        await one.consumer.start()
        await two.consumer.start()
        await settle(one, two)
        assert sorted(journal) == ["a+0", "b+"]
        assert await two.consumer.poll(1, 10) == {}
        await one.consumer.stop()
        await settle(two)
        assert journal[2:] == ["b+0"]
        with pytest.raises(RuntimeError, match="not running"):
            await one.consumer.poll(1, 10)

    run_virtual(main())


@pytest.mark.parametrize(
    ("available", "limit", "given"),
    [
        ([10, 10], 10, [5, 5]),
        ([10, 2, 10], 12, [5, 2, 5]),
        ([0, 3], 10, [0, 3]),
        ([5, 5, 5], 4, [2, 1, 1]),
        ([5, 5], 1, [1, 0]),
        ([5, 9], 1, [1, 0]),
        ([9, 1, 9], 6, [3, 1, 2]),
        ([], 5, []),
    ],
)
def test_a_poll_is_shared_evenly(available: list[int], limit: int, given: list[int]) -> None:
    assert shares(available, limit) == given


def test_no_partition_starves_behind_a_small_limit() -> None:
    async def main() -> None:
        log, journal = await group_log(3), list[str]()
        worker = Worker(log, "a", journal)
        await worker.consumer.start()
        await log.append([Outgoing("t", None, b"x", index) for _ in range(9) for index in range(3)])
        turns = [partition.index for _ in range(9) for partition in await worker.consumer.poll(0, 1)]
        assert sorted(turns) == [0, 0, 0, 1, 1, 1, 2, 2, 2]

    run_virtual(main())

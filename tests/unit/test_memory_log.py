"""What the in-memory log offers beyond the port: time-outs, hooks, a journal, several processes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from evaluator.core.event import EpochUs
from evaluator.runtime.clock import ScaledClock, VirtualClock, run_virtual
from evaluator.runtime.log.memory import MemoryLog
from evaluator.runtime.log.port import (
    Fenced,
    OutcomeUnknown,
    Outgoing,
    Partition,
    RecordTooLarge,
    SendFailed,
    TopicSpec,
    UnknownTopic,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluator.runtime.log.memory_consumer import MemoryConsumer
    from evaluator.runtime.log.memory_producer import MemoryProducer
    from evaluator.runtime.log.steps import Journal, Step

NOON = EpochUs(1_700_000_000_000_000)
ONLY = Partition("t", 0)


class Reader:
    """Reads everything of topic `t` from the beginning."""

    def __init__(self, log: MemoryLog) -> None:
        self.consumer: MemoryConsumer = log.consumer("g", ["t"], self)

    async def revoked(self, partitions: Sequence[Partition]) -> None:
        """Nothing to hand over."""

    async def assigned(self, partitions: Sequence[Partition]) -> None:
        """Begin at the beginning."""
        for partition in partitions:
            self.consumer.seek(partition, 0)
        self.consumer.resume(*partitions)


async def log_of_one(
    partitions: int = 1, *, compact: bool = False, step: Step | None = None, journal: Journal | None = None
) -> MemoryLog:
    """A log in virtual time with a topic `t`."""
    clock = VirtualClock(asyncio.get_running_loop(), NOON)
    log = MemoryLog(clock=clock, step=step, journal=journal)
    await log.create([TopicSpec("t", partitions, compact)])
    return log


async def put(producer: MemoryProducer, value: bytes) -> int:
    """Send to the only partition; the append time."""
    return await (await producer.send(Outgoing("t", b"k", value, 0)))


async def opened(log: MemoryLog, value: bytes) -> MemoryProducer:
    """A producer with an open transaction of one record."""
    producer = log.producer("id")
    await producer.start()
    producer.begin()
    await put(producer, value)
    return producer


def test_a_transaction_that_nobody_ends_stalls_readers_until_it_times_out() -> None:
    #  seconds   0         59        60
    #            open      stalled   aborted: the record behind it is seen
    async def main() -> None:
        log = await log_of_one()
        owner = await opened(log, b"open")
        await log.append([Outgoing("t", None, b"behind")])
        await asyncio.sleep(59)
        assert await log.read(ONLY) == []
        await asyncio.sleep(1)
        assert [record.value for record in await log.read(ONLY)] == [b"behind"]
        with pytest.raises(Fenced):
            await owner.commit()
        # Nobody else has started, so it is still the owner.
        await owner.bump()
        owner.begin()
        await put(owner, b"again")
        await owner.commit()
        assert [record.value for record in await log.read(ONLY)] == [b"behind", b"again"]

    run_virtual(main())


def test_a_waiting_poll_wakes_when_a_transaction_times_out() -> None:
    async def main() -> None:
        log, loop = await log_of_one(), asyncio.get_running_loop()
        await opened(log, b"open")
        await log.append([Outgoing("t", None, b"behind")])
        reader = Reader(log)
        await reader.consumer.start()
        fetched = await reader.consumer.poll(300, 10)
        assert [record.value for record in fetched[ONLY].records] == [b"behind"]
        assert 60 <= loop.time() < 61

    run_virtual(main())


def test_an_owner_that_comes_too_late_is_fenced_even_if_nobody_looked() -> None:
    async def main() -> None:
        log = await log_of_one()
        owner = await opened(log, b"open")
        await asyncio.sleep(61)
        with pytest.raises(Fenced):
            await owner.commit()
        assert await log.read(ONLY) == []

    run_virtual(main())


def test_an_append_time_is_the_clocks_and_a_given_timestamp_is_kept() -> None:
    async def main() -> None:
        log = await log_of_one()
        await asyncio.sleep(1.5)
        owner = await opened(log, b"1")
        assert await (await owner.send(Outgoing("t", b"k", b"2", 0, timestamp=7))) == NOON // 1000 + 1500
        await owner.commit()
        assert [record.timestamp for record in await log.read(ONLY)] == [NOON // 1000 + 1500, 7]

    run_virtual(main())


def test_records_without_a_key_go_round_and_a_key_stays_where_it_is() -> None:
    async def main() -> None:
        log = await log_of_one(3)
        await log.append([Outgoing("t", None, b"%d" % n) for n in range(6)])
        await log.append([Outgoing("t", b"21", b"k"), Outgoing("t", b"21", b"k")])
        held = [[record.value for record in await log.read(Partition("t", index))] for index in range(3)]
        home = (-973932308 & 0x7FFFFFFF) % 3
        assert [values[:2] for values in held] == [[b"0", b"3"], [b"1", b"4"], [b"2", b"5"]]
        assert [values[2:] for values in held] == [[b"k", b"k"] if index == home else [] for index in range(3)]

    run_virtual(main())


def test_columns_are_appended_like_records() -> None:
    async def main() -> None:
        log = await log_of_one()
        await log.append([Outgoing("t", None, b"1", 0, (), 5)])
        await log.append_values(ONLY, [b"2", None], [6, 7], [b"k", b"k"])
        await log.append_values(ONLY, [b"3"], [8])
        assert [tuple(record) for record in await log.read(ONLY)] == [
            (0, 5, None, b"1", ()),
            (1, 6, b"k", b"2", ()),
            (2, 7, b"k", None, ()),
            (3, 8, None, b"3", ()),
        ]
        with pytest.raises(ValueError, match="different lengths"):
            await log.append_values(ONLY, [b"4"], [])

    run_virtual(main())


def test_a_refused_record_refuses_the_whole_append() -> None:
    async def main() -> None:
        log = await log_of_one(compact=True)
        large = b"x" * (1 << 20)
        with pytest.raises(RecordTooLarge):
            await log.append([Outgoing("t", b"k", b"small"), Outgoing("t", b"k", large)])
        with pytest.raises(RecordTooLarge):
            await log.append_values(ONLY, [large + b"x"], [0])
        with pytest.raises(SendFailed, match="needs a key"):
            await log.append([Outgoing("t", None, b"v")])
        for nowhere in (Partition("t", 1), Partition("nowhere", 0)):
            with pytest.raises(UnknownTopic):
                await log.append([Outgoing("t", b"k", b"v", 0), Outgoing(nowhere.topic, b"k", b"v", nowhere.index)])
        assert await log.bounds(ONLY) == (0, 0)

    run_virtual(main())


def test_a_commit_goes_through_without_a_record_that_was_refused() -> None:
    # As with a real client: it is the caller who must await every send.
    async def main() -> None:
        log = await log_of_one()
        owner = await opened(log, b"small")
        answer = await owner.send(Outgoing("t", b"k", b"x" * (1 << 20), 0))
        await owner.commit()
        assert [record.value for record in await log.read(ONLY)] == [b"small"]
        with pytest.raises(RecordTooLarge):
            await answer

    run_virtual(main())


def test_compact_leaves_topics_alone_that_were_not_created_so() -> None:
    async def main() -> None:
        log = await log_of_one(compact=True)
        await log.create([TopicSpec("plain", 1), TopicSpec("t", 5)])
        for topic in ("t", "plain"):
            await log.append([Outgoing(topic, b"k", b"1", 0), Outgoing(topic, b"k", b"2", 0)])
        await log.compact()
        assert [record.offset for record in await log.read(ONLY)] == [1]
        assert [record.offset for record in await log.read(Partition("plain", 0))] == [0, 1]
        assert await log.partitions("t") == 1

    run_virtual(main())


def test_every_effect_can_be_stopped_before_and_after() -> None:
    async def main() -> None:
        moments: list[str] = []
        journal: Journal = []

        async def step(moment: str) -> None:
            moments.append(moment)

        log = await log_of_one(step=step, journal=journal)
        owner, reader = log.producer("id"), Reader(log)
        await reader.consumer.start()
        await owner.start()
        await owner.bump()
        owner.begin()
        await put(owner, b"1")
        await owner.commit()
        owner.begin()
        await put(owner, b"2")
        await owner.abort()
        await reader.consumer.poll(0, 10)
        await reader.consumer.commit({ONLY: 1})
        await log.read(ONLY)
        names = [
            "producer.start", "producer.bump", "producer.send", "producer.commit", "producer.send",
            "producer.abort", "consumer.poll", "consumer.commit", "log.read",
        ]  # fmt: skip
        assert moments == [f"{name}:{when}" for name in names for when in ("before", "after")]
        assert [name for name, _ in journal] == names
        assert journal[2] == ("producer.send", "id t-0@0")
        assert log.committed("g") == {ONLY: 1}

    run_virtual(main())


@pytest.mark.parametrize(("moment", "visible"), [("producer.commit:before", []), ("producer.commit:after", [b"1"])])
def test_a_lost_answer_leaves_the_commit_undone_or_done_and_a_revival_heals(moment: str, visible: list[bytes]) -> None:
    async def main() -> None:
        lost: list[str] = [moment]

        async def step(reached: str) -> None:
            if reached in lost:
                lost.remove(reached)
                raise OutcomeUnknown(reached)

        log = await log_of_one(step=step)
        owner = await opened(log, b"1")
        with pytest.raises(OutcomeUnknown):
            await owner.commit()
        with pytest.raises(RuntimeError):
            owner.begin()
        await owner.revive()
        # That decided the transaction: what is not visible now never will be.
        assert [record.value for record in await log.read(ONLY)] == visible
        owner.begin()
        await put(owner, b"2")
        await owner.commit()
        assert [record.value for record in await log.read(ONLY)] == [*visible, b"2"]

    run_virtual(main())


def test_a_commit_that_is_asked_again_is_answered_again_but_cannot_be_aborted() -> None:
    async def main() -> None:
        answers = ["producer.commit:after"]

        async def step(reached: str) -> None:
            if reached in answers:
                answers.remove(reached)
                raise OutcomeUnknown(reached)

        log = await log_of_one(step=step)
        owner = await opened(log, b"1")
        with pytest.raises(OutcomeUnknown):
            await owner.commit()
        with pytest.raises(RuntimeError, match="already committed"):
            await owner.abort()
        await owner.commit()
        assert await log.bounds(ONLY) == (0, 2)

    run_virtual(main())


def test_a_producer_that_lost_the_answer_to_its_bump_is_fenced_until_the_next() -> None:
    async def main() -> None:
        lost = ["producer.bump:after"]

        async def step(reached: str) -> None:
            if reached in lost:
                lost.remove(reached)
                raise OutcomeUnknown(reached)

        log = await log_of_one(step=step)
        owner = log.producer("id")
        await owner.start()
        with pytest.raises(OutcomeUnknown):
            await owner.bump()
        owner.begin()
        with pytest.raises(Fenced):
            await put(owner, b"1")
        await owner.bump()
        owner.begin()
        await put(owner, b"1")
        await owner.commit()

    run_virtual(main())


def test_a_frozen_process_thaws_into_a_fence() -> None:
    #  one       send   commit ... frozen before its effect ............ Fenced
    #  another                       start   send   commit
    async def main() -> None:
        frozen, thaw = asyncio.Event(), asyncio.Event()

        async def step(reached: str) -> None:
            if reached == "producer.commit:before":
                frozen.set()
                await thaw.wait()

        log = await log_of_one()
        zombie = await opened(log.connect(step=step), b"zombie")
        async with asyncio.TaskGroup() as tasks:
            commit = tasks.create_task(_outcome(zombie))
            await frozen.wait()
            owner = await opened(log, b"owner")
            thaw.set()
            await commit
            await owner.commit()
        assert isinstance(commit.result(), Fenced)
        assert [record.value for record in await log.read(ONLY)] == [b"owner"]

    run_virtual(main())


async def _outcome(producer: MemoryProducer) -> Fenced | None:
    try:
        await producer.commit()
    except Fenced as fenced:
        return fenced
    return None


def test_a_stopped_producer_leaves_its_transaction_to_the_next_start() -> None:
    async def main() -> None:
        log = await log_of_one()
        owner = await opened(log, b"open")
        await owner.stop()
        with pytest.raises(RuntimeError, match="stopped"):
            await owner.commit()
        assert await log.bounds(ONLY) == (0, 1)
        await log.producer("id").start()
        assert await log.bounds(ONLY) == (0, 2)

    run_virtual(main())


def test_a_poll_leaves_no_task_behind_however_it_ends() -> None:
    async def main() -> None:
        log = await log_of_one()
        reader = Reader(log)
        await reader.consumer.start()
        assert (await reader.consumer.poll(1, 10))[ONLY].records == []
        poll = asyncio.create_task(reader.consumer.poll(60, 10))
        await asyncio.sleep(1)
        poll.cancel()
        with pytest.raises(asyncio.CancelledError):
            await poll
        assert asyncio.all_tasks() == {asyncio.current_task()}
        # A cancelled poll has lost nothing.
        await log.append([Outgoing("t", None, b"1")])
        assert len((await reader.consumer.poll(1, 10))[ONLY].records) == 1

    run_virtual(main())


def test_a_poll_that_has_records_at_hand_lets_others_run() -> None:
    async def main() -> None:
        log = await log_of_one()
        reader, other = Reader(log), asyncio.Event()
        await reader.consumer.start()
        await log.append([Outgoing("t", None, b"1")])
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_set(other))
            assert (await reader.consumer.poll(1, 10))[ONLY].records
            assert other.is_set()

    run_virtual(main())


async def _set(event: asyncio.Event) -> None:
    event.set()


def test_a_poll_waits_in_the_time_of_the_clock() -> None:
    async def main() -> None:
        clock = ScaledClock(NOON, 10_000)
        log = MemoryLog(clock=clock)
        await log.create([TopicSpec("t", 1)])
        reader = Reader(log)
        await reader.consumer.start()
        before = clock.monotonic()
        fetched = await reader.consumer.poll(100, 10)
        assert fetched[ONLY].records == []
        assert clock.monotonic() - before >= 99
        assert fetched[ONLY].at >= NOON + 99_000_000

    asyncio.run(main())

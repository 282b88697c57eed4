"""Who may write under a transactional id, and what the others are told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from worlds import World, put, shows, started, topic, transact, values

from evaluator.runtime.log.port import Fenced, Outgoing, Partition, RecordTooLarge, TopicSpec, UnknownTopic

if TYPE_CHECKING:
    from evaluator.runtime.log.port import Log


def test_a_start_aborts_what_the_earlier_owner_left_open(world: World) -> None:
    async def scenario(log: Log) -> None:
        partition = await topic(log, world.name("t"))
        old = await started(log, world.name("id"))
        old.begin()
        await put(old, partition, b"left open")
        new = await started(log, world.name("id"))
        # Decided by the time the start returns: a restore that follows reads to the very end.
        assert await values(log, partition) == []
        assert await log.bounds(partition) == (0, 2)
        await transact(new, partition, b"new")
        await shows(log, partition, [b"new"])

    world.run(scenario)


@pytest.mark.parametrize("call", ["send", "commit", "abort"])
def test_a_producer_whose_id_was_taken_over_is_fenced_at_every_call(world: World, call: str) -> None:
    async def scenario(log: Log) -> None:
        partition = await topic(log, world.name("t"))
        old = await started(log, world.name("id"))
        old.begin()
        await put(old, partition, b"old")
        await started(log, world.name("id"))
        with pytest.raises(Fenced):
            await (put(old, partition, b"zombie") if call == "send" else getattr(old, call)())
        for heal in (old.bump, old.revive):
            with pytest.raises(Fenced):
                await heal()
        assert await values(log, partition) == []

    world.run(scenario)


def test_a_fenced_idle_producer_learns_it_with_its_next_transaction(world: World) -> None:
    async def scenario(log: Log) -> None:
        partition = await topic(log, world.name("t"))
        old = await started(log, world.name("id"))
        await transact(old, partition, b"1")
        await started(log, world.name("id"))
        old.begin()
        with pytest.raises(Fenced):
            await put(old, partition, b"2")
        await shows(log, partition, [b"1"])

    world.run(scenario)


def test_an_owner_may_raise_its_epoch_as_often_as_it_likes(world: World) -> None:
    async def scenario(log: Log) -> None:
        partition = await topic(log, world.name("t"))
        owner = await started(log, world.name("id"))
        for value in (b"1", b"2", b"3"):
            await owner.bump()
            await transact(owner, partition, value)
        await owner.bump()
        await shows(log, partition, [b"1", b"2", b"3"])

    world.run(scenario)


def test_a_bump_aborts_the_own_open_transaction(world: World) -> None:
    async def scenario(log: Log) -> None:
        partition = await topic(log, world.name("t"))
        owner = await started(log, world.name("id"))
        owner.begin()
        await put(owner, partition, b"dropped")
        await owner.bump()
        await transact(owner, partition, b"kept")
        await shows(log, partition, [b"kept"])

    world.run(scenario)


def test_a_bump_of_a_loser_never_takes_the_id_back(world: World) -> None:
    async def scenario(log: Log) -> None:
        partition = await topic(log, world.name("t"))
        loser = await started(log, world.name("id"))
        owner = await started(log, world.name("id"))
        for value in (b"1", b"2"):
            with pytest.raises(Fenced):
                await loser.bump()
            await transact(owner, partition, value)
        await shows(log, partition, [b"1", b"2"])

    world.run(scenario)


def test_a_losers_bump_costs_the_owner_its_open_transaction_once_and_nothing_else(world: World) -> None:
    #  owner   start  begin  send       commit: Fenced   bump: ok   the same outbox again: ok
    #  loser                       bump: Fenced                                       bump: Fenced
    async def scenario(log: Log) -> None:
        partition = await topic(log, world.name("t"))
        loser = await started(log, world.name("id"))
        owner = await started(log, world.name("id"))
        owner.begin()
        await put(owner, partition, b"outbox")
        with pytest.raises(Fenced):
            await loser.bump()
        with pytest.raises(Fenced):
            await owner.commit()
        assert await values(log, partition) == []
        await owner.bump()
        await transact(owner, partition, b"outbox")
        with pytest.raises(Fenced):
            await loser.bump()
        await owner.bump()
        await shows(log, partition, [b"outbox"])

    world.run(scenario)


def test_two_ids_do_not_disturb_each_other(world: World) -> None:
    async def scenario(log: Log) -> None:
        partition = await topic(log, world.name("t"))
        one, other = await started(log, world.name("one")), await started(log, world.name("other"))
        one.begin()
        await put(one, partition, b"1")
        await other.bump()
        await transact(other, partition, b"2")
        await started(log, world.name("other"))
        await one.commit()
        await shows(log, partition, [b"1", b"2"])

    world.run(scenario)


def test_a_call_at_the_wrong_moment_is_a_bug(world: World) -> None:
    async def scenario(log: Log) -> None:
        partition = await topic(log, world.name("t"))
        producer = log.producer(world.name("id"))
        with pytest.raises(RuntimeError):
            producer.begin()
        await producer.start()
        for call in (producer.commit, producer.abort, lambda: put(producer, partition, b"1")):
            with pytest.raises(RuntimeError):
                await call()
        producer.begin()
        with pytest.raises(RuntimeError):
            producer.begin()
        assert await log.bounds(partition) == (0, 0)

    world.run(scenario)


def test_a_record_that_is_too_large_fails_its_own_awaitable(world: World) -> None:
    async def scenario(log: Log) -> None:
        partition = await topic(log, world.name("t"))
        producer = await started(log, world.name("id"))
        producer.begin()
        await put(producer, partition, b"small")
        answer = await producer.send(Outgoing(partition.topic, b"key", b"x" * (1 << 20), 0))
        with pytest.raises(RecordTooLarge, match="key"):
            await answer
        await producer.abort()
        await producer.bump()
        await transact(producer, partition, b"next")
        await shows(log, partition, [b"next"])

    world.run(scenario)


def test_a_topic_takes_no_record_above_its_own_limit_and_the_id_serves_for_the_next(world: World) -> None:
    async def scenario(log: Log) -> None:
        name = world.name("tight")
        await log.create([TopicSpec(name, 1, settings={"max.message.bytes": "5000"})])
        other, partition = await topic(log, world.name("t")), Partition(name, 0)
        producer = await started(log, world.name("id"))
        producer.begin()
        await put(producer, other, b"with it")
        with pytest.raises(RecordTooLarge, match="6001 bytes"):
            await put(producer, partition, b"x" * 6000)
        await producer.abort()
        await producer.bump()
        await transact(producer, partition, b"x" * 4000)
        await shows(log, partition, [b"x" * 4000])
        assert await values(log, other) == []

    world.run(scenario)


def test_a_missing_topic_has_a_name(world: World) -> None:
    async def scenario(log: Log) -> None:
        with pytest.raises(UnknownTopic, match="nowhere"):
            await log.partitions(world.name("nowhere"))

    world.run(scenario)

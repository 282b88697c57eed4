"""Reading as a member of a group: what a poll returns, and who owns what."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from worlds import POLL_S, Member, World, put, share, started, topic

from evaluator.runtime.log.port import OffsetOutOfRange, Outgoing, Partition, StaleGeneration, UnknownTopic

if TYPE_CHECKING:
    from evaluator.runtime.log.port import Log


async def fill(log: Log, topic_name: str, partitions: int, each: int) -> None:
    """`each` records in every partition."""
    await log.append([Outgoing(topic_name, None, b"x", index) for _ in range(each) for index in range(partitions)])


def test_an_assigned_partition_is_silent_until_it_is_sought_and_resumed(world: World) -> None:
    async def scenario(log: Log) -> None:
        partition = await topic(log, world.name("t"))
        await fill(log, partition.topic, 1, 3)
        member = Member(log, world.name("g"), [partition.topic], resume=False)
        await member.consumer.start()
        await share([member], 1)
        assert await member.consumer.poll(POLL_S, 10) == {}
        member.consumer.resume(partition)
        assert await member.consumer.poll(POLL_S, 10) == {}
        member.consumer.pause(partition)
        member.consumer.seek(partition, 1)
        assert await member.consumer.poll(POLL_S, 10) == {}
        member.consumer.resume(partition)
        assert (await member.follow(partition))[0] == [1, 2]
        member.consumer.pause(partition)
        await fill(log, partition.topic, 1, 1)
        assert await member.consumer.poll(POLL_S, 10) == {}

    world.run(scenario)


def test_a_partition_at_its_end_gives_an_entry_without_records(world: World) -> None:
    async def scenario(log: Log) -> None:
        partition = await topic(log, world.name("t"))
        member = Member(log, world.name("g"), [partition.topic])
        await member.consumer.start()
        seen, last = await member.follow(partition)
        assert (seen, last.next_offset, last.high_watermark) == ([], 0, 0)
        assert last.at > 0

    world.run(scenario)


def test_a_poll_gives_no_more_than_it_was_asked_for_and_loses_nothing(world: World) -> None:
    async def scenario(log: Log) -> None:
        partition = await topic(log, world.name("t"), 3)
        await fill(log, partition.topic, 3, 10)
        member = Member(log, world.name("g"), [partition.topic])
        await member.consumer.start()
        seen: list[tuple[int, int]] = []
        while len(seen) < 30:
            batch = [
                (where.index, record.offset)
                for where, fetched in (await member.consumer.poll(POLL_S, 4)).items()
                for record in fetched.records
            ]
            assert len(batch) <= 4
            seen += batch
        for index in range(3):
            assert [offset for where, offset in seen if where == index] == list(range(10))

    world.run(scenario)


@pytest.mark.parametrize("how", ["appended", "committed", "resumed", "sought"])
def test_a_waiting_poll_returns_as_soon_as_there_is_something(world: World, how: str) -> None:
    async def scenario(log: Log) -> None:
        partition = await topic(log, world.name("t"))
        member, loop = Member(log, world.name("g"), [partition.topic]), asyncio.get_running_loop()
        await member.consumer.start()
        await member.follow(partition)
        producer = await started(log, world.name("id"))
        if how == "committed":
            producer.begin()
            await put(producer, partition, b"x")
        if how == "resumed":
            member.consumer.pause(partition)
        if how in {"resumed", "sought"}:
            await fill(log, partition.topic, 1, 1)
        if how == "sought":
            await member.follow(partition)
        before = loop.time()
        async with asyncio.TaskGroup() as tasks:
            poll = tasks.create_task(member.consumer.poll(60, 10))
            await asyncio.sleep(POLL_S)
            assert not poll.done()
            if how == "appended":
                await fill(log, partition.topic, 1, 1)
            elif how == "committed":
                await producer.commit()
            elif how == "resumed":
                member.consumer.resume(partition)
            else:
                member.consumer.seek(partition, 0)
        assert [record.offset for record in poll.result()[partition].records] == [0]
        assert loop.time() - before < 30

    world.run(scenario)


def test_a_position_below_what_is_kept_is_an_error_and_not_a_jump(world: World) -> None:
    async def scenario(log: Log) -> None:
        partition = await topic(log, world.name("t"))
        await fill(log, partition.topic, 1, 5)
        await log.trim(partition, 3)
        assert await log.bounds(partition) == (3, 5)
        member = Member(log, world.name("g"), [partition.topic])
        await member.consumer.start()
        assert (await member.follow(partition))[0] == [3, 4]
        member.consumer.seek(partition, 2)
        with pytest.raises(OffsetOutOfRange):
            await member.follow(partition)
        member.consumer.seek(partition, 4)
        assert (await member.follow(partition))[0] == [4]

    world.run(scenario)


def test_two_members_share_the_partitions_and_one_inherits_all(world: World) -> None:
    async def scenario(log: Log) -> None:
        partition = await topic(log, world.name("t"), 4)
        one, other = (Member(log, world.name("g"), [partition.topic]) for _ in range(2))
        await one.consumer.start()
        assert await share([one], 4) == [[0, 1, 2, 3]]
        await other.consumer.start()
        both = await share([one, other], 4)
        assert [len(owned) for owned in both] == [2, 2]
        # Eager: everything is given up before anything is given out.
        assert one.journal == [("assigned", [0, 1, 2, 3]), ("revoked", [0, 1, 2, 3]), ("assigned", both[0])]
        await other.consumer.stop()
        assert await share([one], 4) == [[0, 1, 2, 3]]
        assert one.journal[3:] == [("revoked", both[0]), ("assigned", [0, 1, 2, 3])]
        assert [what for what, _ in other.journal] == ["assigned"]

    world.run(scenario)


def test_a_member_commits_offsets_of_what_it_owns_and_of_nothing_else(world: World) -> None:
    async def scenario(log: Log) -> None:
        partition = await topic(log, world.name("t"), 2)
        one, other = (Member(log, world.name("g"), [partition.topic]) for _ in range(2))
        await one.consumer.start()
        await other.consumer.start()
        (own,), (foreign,) = await share([one, other], 2)
        ours, theirs = Partition(partition.topic, own), Partition(partition.topic, foreign)
        await one.consumer.commit({ours: 1})
        with pytest.raises(StaleGeneration):
            await one.consumer.commit({ours: 2, theirs: 1})
        with pytest.raises(StaleGeneration):
            one.consumer.seek(theirs, 0)

    world.run(scenario)


def test_the_group_tells_who_reads_what(world: World) -> None:
    async def scenario(log: Log) -> None:
        partition = await topic(log, world.name("t"), 2)
        group = world.name("g")
        one, other = (Member(log, group, [partition.topic], note=note) for note in ("one", "other"))
        await one.consumer.start()
        await other.consumer.start()
        await share([one, other], 2)
        assert await log.owners(world.name("nobody")) == {}
        owners = await log.owners(group)
        assert sorted(owners) == [partition, Partition(partition.topic, 1)]
        assert len({owner.member for owner in owners.values()}) == 2
        assert {owner.name for owner in owners.values()} == {log.name}
        assert all(owner.host for owner in owners.values())
        assert {owner.note for owner in owners.values()} == {"one", "other"}
        await other.consumer.stop()
        await share([one], 2)
        assert len({owner.member for owner in (await log.owners(group)).values()}) == 1

    world.run(scenario)


def test_a_group_of_an_unknown_topic_is_refused_by_name(world: World) -> None:
    async def scenario(log: Log) -> None:
        with pytest.raises(UnknownTopic, match="nowhere"):
            await Member(log, world.name("g"), [world.name("nowhere")]).consumer.start()

    world.run(scenario)

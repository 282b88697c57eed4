"""Reading outside groups, and what is asked about the cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from worlds import Member, World, put, share, started, topic, transact

from evaluator.runtime.log.port import (
    OffsetOutOfRange,
    Outgoing,
    Partition,
    StaleGeneration,
    TopicSpec,
)

if TYPE_CHECKING:
    from evaluator.runtime.log.port import Log

POLLS = 50


async def read_on(log: Log, place: Partition, start: int, end: int, *, committed: bool = True) -> list[bytes | None]:
    """The values that a reader hands out before its position reaches `end`."""
    reader = log.reader({place: start}, committed=committed)
    found: list[bytes | None] = []
    for _ in range(POLLS):
        if reader.position(place) >= end:
            break
        found += [record.value for record in (await reader.poll(0.2, 2)).get(place, ())]
    assert reader.position(place) >= end
    await reader.stop()
    return found


def test_the_position_of_a_reader_reaches_the_end_without_a_last_record(world: World) -> None:
    async def scenario(log: Log) -> None:
        place = await topic(log, world.name("t"))
        producer = await started(log, world.name("id"))
        await transact(producer, place, b"a", b"b", b"c")
        await producer.bump()
        producer.begin()
        await put(producer, place, b"dropped")
        await producer.abort()
        _, end = await log.bounds(place)
        assert end == 6
        assert await read_on(log, place, 0, end) == [b"a", b"b", b"c"]
        assert await read_on(log, place, 2, end) == [b"c"]
        assert await read_on(log, place, 0, end, committed=False) == [b"a", b"b", b"c", b"dropped"]

    world.run(scenario)


def test_a_reader_below_what_is_kept_is_told_so(world: World) -> None:
    async def scenario(log: Log) -> None:
        place = await topic(log, world.name("t"))
        await log.append([Outgoing(place.topic, None, b"%d" % n, 0) for n in range(5)])
        await log.trim(place, 3)
        reader = log.reader({place: 1})
        with pytest.raises(OffsetOutOfRange) as refused:  # noqa: PT012  # some poll says so, not always the first
            for _ in range(POLLS):
                await reader.poll(0.2, 10)
        assert (refused.value.position, refused.value.first, refused.value.end) == (1, 3, 5)
        await reader.stop()

    world.run(scenario)


def test_a_time_is_found_as_the_first_record_at_or_after_it(world: World) -> None:
    async def scenario(log: Log) -> None:
        name = world.name("t")
        await log.create([TopicSpec(name, 1, retention_ms=-1)])
        place = Partition(name, 0)
        stamps = [1_700_000_000_000 + 1000 * n for n in range(4)]
        await log.append([Outgoing(name, None, b"x", 0, timestamp=stamp) for stamp in stamps])
        assert [await log.offset_at(place, stamp) for stamp in (0, stamps[2], stamps[2] + 1, stamps[3] + 1)] == [
            0,
            2,
            3,
            4,
        ]

    world.run(scenario)


def test_topics_are_described_as_they_were_created(world: World) -> None:
    async def scenario(log: Log) -> None:
        plain, compacted = world.name("plain"), world.name("compacted")
        await log.create([
            TopicSpec(plain, 2, retention_ms=-1),
            TopicSpec(compacted, 3, compact=True, settings={"segment.ms": "600000"}),
        ])  # fmt: skip
        found = await log.describe([plain, compacted, world.name("missing")])
        assert set(found) == {plain, compacted}
        assert (found[plain].partitions, found[compacted].partitions) == (2, 3)
        one, other = found[plain].config, found[compacted].config
        assert one is not None
        assert other is not None
        assert (one["cleanup.policy"], one["retention.ms"]) == ("delete", "-1")
        assert (other["cleanup.policy"], other["segment.ms"]) == ("compact", "600000")

    world.run(scenario)


def test_the_group_confirms_its_members_and_changes_nothing_by_it(world: World) -> None:
    async def scenario(log: Log) -> None:
        place = await topic(log, world.name("t"), 2)
        one, other = (Member(log, world.name("g"), [place.topic]) for _ in range(2))
        await one.consumer.start()
        await other.consumer.start()
        (own,), (foreign,) = await share([one, other], 2)
        await one.consumer.commit({Partition(place.topic, own): 7})
        await one.consumer.confirm(Partition(place.topic, own))
        with pytest.raises(StaleGeneration):
            await one.consumer.confirm(Partition(place.topic, foreign))
        for member in (one, other):
            await member.consumer.stop()

    world.run(scenario)

"""What a read_committed reader sees of one partition, drawn.

a b   a record of that producer's transaction       A B   its commit marker
.     a record outside any transaction              0 1   the abort marker of a, of b
^     a read_committed reader sees this offset
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from worlds import Member, World, grown, put, shows, started, topic, transact, values

from evaluator.runtime.log.port import Outgoing, Partition, TopicSpec

if TYPE_CHECKING:
    from evaluator.runtime.log.port import Log, Producer


async def draw(log: Log, partition: Partition, producers: dict[str, Producer], history: str) -> None:
    """Make the partition look like `history`."""
    open_now: set[str] = set()
    for offset, symbol in enumerate(history):
        if symbol == ".":
            await log.append([Outgoing(partition.topic, b"k", b".", partition.index)])
        elif symbol in "ab":
            if symbol not in open_now:
                producers[symbol].begin()
                open_now.add(symbol)
            await put(producers[symbol], partition, symbol.encode())
        else:
            who = {"A": "a", "0": "a", "B": "b", "1": "b"}[symbol]
            await (producers[who].commit() if symbol.isalpha() else producers[who].abort())
            open_now.remove(who)
            # Two markers come in the order of the drawing.
            await grown(log, partition, offset + 1)


@pytest.mark.parametrize(
    ("history", "visible", "stable"),
    [
        pytest.param(
            "..",
            "^^", 2, id="records_outside_transactions_are_seen_at_once",
        ),
        pytest.param(
            "a",
            " ", 0, id="an_open_transaction_is_not_seen",
        ),
        pytest.param(
            "aaA",
            "^^ ", 3, id="a_commit_shows_all_of_it_and_its_marker_takes_an_offset",
        ),
        pytest.param(
            "aa0",
            "   ", 3, id="an_abort_shows_nothing_and_the_position_passes_it",
        ),
        pytest.param(
            ".a.",
            "^  ", 1, id="nothing_behind_an_open_transaction_is_seen",
        ),
        pytest.param(
            "abB",
            "   ", 0, id="not_even_what_was_committed_behind_it",
        ),
        pytest.param(
            "abBA",
            "^^  ", 4, id="both_are_seen_in_the_order_of_their_offsets_when_the_first_commits",
        ),
        pytest.param(
            "abB0",
            " ^  ", 4, id="only_the_committed_one_is_seen_when_the_first_aborts",
        ),
        pytest.param(
            "abA",
            "^  ", 1, id="the_end_is_where_the_oldest_open_transaction_begins",
        ),
        pytest.param(
            "aba1A",
            "^ ^  ", 5, id="an_aborted_record_between_committed_ones_is_skipped",
        ),
        pytest.param(
            "a0aAa0.aA",
            "  ^   ^^ ", 9, id="each_transaction_of_a_producer_is_decided_by_itself",
        ),
        pytest.param(
            "b1a0a0a0",
            "        ", 8, id="a_tail_of_aborted_transactions_is_passed_to_the_end",
        ),
    ],
)  # fmt: skip
def test_a_committed_reader_sees_what_the_drawing_says(world: World, history: str, visible: str, stable: int) -> None:
    async def scenario(log: Log) -> None:
        partition = await topic(log, world.name("t"))
        producers = {name: await started(log, world.name(name)) for name in "ab"}
        await draw(log, partition, producers, history)
        expected = [offset for offset, mark in enumerate(visible) if mark == "^"]
        everything = [symbol.encode() for symbol in history if symbol in ".ab"]

        reader = Member(log, world.name("g"), [partition.topic])
        await reader.consumer.start()
        seen, last = await reader.follow(partition)

        assert seen == expected
        assert (last.next_offset, last.high_watermark) == (stable, len(history))
        assert [record.offset for record in await log.read(partition)] == expected
        assert await values(log, partition, committed=False) == everything
        assert await log.bounds(partition) == (0, len(history))

    world.run(scenario)


def test_a_transaction_over_two_topics_is_seen_in_both_or_in_none(world: World) -> None:
    async def scenario(log: Log) -> None:
        alerts, state = await topic(log, world.name("alerts")), await topic(log, world.name("state"))
        producer = await started(log, world.name("a"))
        for value, end in ((b"1", producer.commit), (b"2", producer.abort), (b"3", producer.commit)):
            producer.begin()
            await put(producer, alerts, value)
            await put(producer, state, value)
            assert value not in await values(log, alerts) + await values(log, state)
            await end()
        # A marker stands in each: 3 records and 3 markers.
        assert await grown(log, alerts, 6) == await grown(log, state, 6) == (0, 6)
        for partition in (alerts, state):
            await shows(log, partition, [b"1", b"3"])

    world.run(scenario)


def test_an_empty_commit_leaves_no_trace(world: World) -> None:
    async def scenario(log: Log) -> None:
        partition = await topic(log, world.name("t"))
        producer = await started(log, world.name("a"))
        producer.begin()
        await producer.commit()
        assert await log.bounds(partition) == (0, 0)
        await transact(producer, partition, b"1")
        assert await grown(log, partition, 2) == (0, 2)

    world.run(scenario)


def test_an_append_says_where_each_record_is(world: World) -> None:
    async def scenario(log: Log) -> None:
        name = world.name("t")
        await log.create([TopicSpec(name, 2)])
        sent = [Outgoing(name, None, b"%d" % n, index) for n, index in enumerate([1, 0, 1, 1, 0])]
        places = await log.append(sent)
        assert [(place.index, offset) for place, offset in places] == [(1, 0), (0, 0), (1, 1), (1, 2), (0, 1)]
        (keyed,) = await log.append([Outgoing(name, b"k", b"keyed")])
        (found,) = await log.read(keyed[0], keyed[1])
        assert (found.key, found.value) == (b"k", b"keyed")

    world.run(scenario)


def test_a_read_can_begin_in_the_middle(world: World) -> None:
    async def scenario(log: Log) -> None:
        partition = await topic(log, world.name("t"))
        await log.append([Outgoing(partition.topic, None, b"%d" % n, 0, (("h", b"v"),), 1000 + n) for n in range(5)])
        tail = await log.read(partition, 3)
        assert [(one.offset, one.timestamp, one.key, one.value, one.headers) for one in tail] == [
            (3, 1003, None, b"3", (("h", b"v"),)),
            (4, 1004, None, b"4", (("h", b"v"),)),
        ]
        assert await log.read(partition, 5) == []

    world.run(scenario)

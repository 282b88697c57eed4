"""Dead letters read back and re-published: each record once, as it was, and nothing that would count twice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from evaluator.core.event import EpochUs
from evaluator.runtime.clock import VirtualClock, run_virtual
from evaluator.runtime.dead_letters import Listing, NoLetter, Position, Wanted, newest, one
from evaluator.runtime.dump import Held, records
from evaluator.runtime.log.memory import MemoryLog
from evaluator.runtime.log.port import (
    Fenced,
    KafkaUnreachable,
    NotAuthorized,
    Outgoing,
    Partition,
    SendFailed,
    TopicSpec,
)
from evaluator.runtime.republish import Fate, Insist, Outcome, Republisher, transactional_id
from evaluator.wire.dead_letter import HEADERS_LIMIT, LIMIT, Letter, dead_letter, letter_of
from evaluator.wire.records import Record

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from evaluator.runtime.dead_letters import History
    from evaluator.runtime.log.port import TopicInfo
    from evaluator.runtime.log.steps import Journal, Step

NOON = EpochUs(1_769_601_600_000_000)
DLQ, SOURCE = "slo.dlq", "calls"
ALL = Wanted()


def letter(offset: int = 0, **changes: Any) -> Outgoing:
    """The dead letter of a record of the source's partition 1."""
    about: dict[str, Any] = {
        "key": b"k", "value": b"v%d" % offset, "topic": SOURCE, "partition": 1, "offset": offset, "index": 0,
        "reason": "not_json", "detail": "no", "timestamp": 1000 + offset, "headers": [("h", b"1"), ("null", None)],
        **changes,
    }  # fmt: skip
    made = dead_letter(**about)
    return Outgoing(DLQ, made.key, made.value, 0, made.headers)


class Place:
    """A log with dead letters and the topic that they are of."""

    def __init__(self) -> None:
        self.clock = VirtualClock(asyncio.get_running_loop(), NOON)
        self.log = MemoryLog(clock=self.clock)
        self.told: list[str] = []
        self.held = Held(self.clock, self.told.append)

    async def filled(self, *letters: Outgoing) -> Place:
        await self.log.create([TopicSpec(DLQ, 2), TopicSpec(SOURCE, 3)])
        await self.log.append(letters)
        return self

    async def publish(
        self, wanted: Wanted = ALL, *, by: MemoryLog | None = None, dry: bool = False, **insist: bool
    ) -> list[Outcome]:
        """What became of the letters that are wanted; `by` is another process's connection."""
        log = by or self.log
        producer = None if dry else log.producer(transactional_id(DLQ))
        republisher = Republisher(log, DLQ, producer, self.clock, self.held)
        try:
            return [outcome async for outcome in republisher.run(wanted, Insist(**insist))]
        finally:
            if producer is not None:
                await producer.stop()

    async def newest(self, wanted: Wanted, limit: int) -> Listing:
        return await newest(self.log, DLQ, wanted, limit, self.held)

    async def one(self, position: Position) -> tuple[Record, History]:
        return await one(self.log, DLQ, position, self.held)

    async def fates(self, wanted: Wanted = ALL, **options: Any) -> list[tuple[str, str]]:
        return [(str(each.found.position), each.fate.name) for each in await self.publish(wanted, **options)]

    async def copies(self) -> list[Record]:
        return list(await self.log.read(Partition(SOURCE, 1)))


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await scenario()

    run_virtual(main())


def as_record(made: Outgoing) -> Record:
    return Record(0, 0, made.key, made.value, made.headers)


def known(made: Outgoing) -> Letter:
    """What it says."""
    found = letter_of(as_record(made))
    assert found is not None
    return found


def test_a_letter_says_what_was_written_into_it() -> None:
    found = letter_of(as_record(letter(7, index=2, events=3, accepted=4)))
    assert found is not None
    assert (found.reason, found.detail, found.source) == ("not_json", "no", "calls/1/7")
    assert (found.index, found.events, found.accepted, found.size) == (2, 3, 4, 2)
    assert (found.key, found.value, found.headers, found.timestamp) == (b"k", b"v7", (("h", b"1"),), 1007)
    assert (found.is_cut, found.copy_of) == (False, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"value": b"x" * (LIMIT + 1)},
        {"key": b"x" * LIMIT},
        {"headers": [("h", b"x" * HEADERS_LIMIT)]},
    ],
    ids=["value", "key", "headers"],
)
def test_a_letter_that_lacks_something_says_so(changes: dict[str, Any]) -> None:
    found = letter_of(as_record(letter(**changes)))
    assert found is not None
    assert found.is_cut


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("reason", b"x"), ("topic", b"t"), ("partition", b"0")),
        (("reason", b"x"), ("topic", b"t"), ("partition", b"-1"), ("offset", b"0")),
        (("reason", b"x"), ("topic", b"a b\x1b"), ("partition", b"0"), ("offset", b"0")),
        (("reason", b"\xff"), ("topic", b"t"), ("partition", b"0"), ("offset", b"0")),
        (("reason", b"x"), ("topic", b"t"), ("partition", b"0"), ("offset", b"9" * 5000)),
        (("reason", b"x"), ("topic", b"t"), ("partition", b"0"), ("offset", b"9223372036854775808")),
    ],
)
def test_whatever_else_is_there_is_no_letter(headers: tuple[tuple[str, bytes], ...]) -> None:
    assert letter_of(Record(0, 0, None, b"v", headers)) is None


def test_the_newest_that_are_wanted_are_listed() -> None:
    async def scenario() -> None:
        place = await Place().filled(*(letter(n, reason="future" if n % 2 else "not_json") for n in range(6)))
        await place.log.append([Outgoing(DLQ, None, b"?", 1)])
        listing = await place.newest(Wanted(reasons=frozenset({"future"})), 2)
        assert [(str(found.position), found.letter.offset) for found in listing.newest] == [("0:5", 5), ("0:3", 3)]
        assert (listing.total, listing.history.others) == (3, 1)
        other = Wanted(topics=frozenset({"other"}))
        assert (await place.newest(other, 2)).total == 0
        assert (await place.newest(Wanted(since=NOON // 1000 + 1), 2)).total == 0
        assert (await place.newest(Wanted(since=NOON // 1000), 9)).total == 6

    run(scenario)


def test_a_record_goes_back_as_it_was_and_names_its_letter() -> None:
    async def scenario() -> None:
        place = await Place().filled(letter(7))
        assert await place.fates() == [("0:0", "SENT")]
        (copy,) = await place.copies()
        assert (copy.key, copy.value, copy.timestamp) == (b"k", b"v7", 1007)
        assert copy.headers == (("h", b"1"), ("evaluator-dlq", b"slo.dlq/0/0"))
        note, history = await place.one(Position(0, 1))
        assert (note.value, note.headers) == (b"", (("republished", b"slo.dlq/0/0"), ("source", b"calls/1/7")))
        assert history.of(Position(0, 0), known(letter(7))) == "re-published"

    run(scenario)


def test_nothing_is_sent_twice_unless_somebody_insists() -> None:
    async def scenario() -> None:
        place = await Place().filled(letter(1), letter(2))
        await place.publish(Wanted(positions=frozenset({Position(0, 1)})))
        assert await place.fates() == [("0:1", "SKIPPED"), ("0:0", "SENT")]
        assert await place.fates() == [("0:0", "SKIPPED"), ("0:1", "SKIPPED")]
        assert [copy.value for copy in await place.copies()] == [b"v2", b"v1"]
        assert await place.fates(again=True) == [("0:0", "SENT"), ("0:1", "SENT")]

    run(scenario)


def test_of_a_record_that_was_rejected_again_the_newest_letter_goes() -> None:
    async def scenario() -> None:
        place = await Place().filled(letter(1))
        await place.publish()
        (copy,) = await place.copies()
        await place.log.append([letter(copy.offset, headers=copy.headers)])
        found = await place.newest(Wanted(), 9)
        states = [(str(each.position), found.history.of(each.position, each.letter)) for each in found.newest]
        assert ("0:0", f"rejected again, {found.newest[0].position}") in states
        later = str(found.newest[0].position)
        assert await place.fates(dry=True, again=True) == [("0:0", "SKIPPED"), (later, "SENT")]
        assert await place.fates() == [("0:0", "SKIPPED"), (later, "SENT")]
        named = Wanted(positions=frozenset({Position(0, 0)}))
        assert await place.fates(named) == [("0:0", "SKIPPED")]
        assert await place.fates(named, again=True) == [("0:0", "SENT")]
        *_, newest_copy, _ = await place.copies()
        assert dict(newest_copy.headers)["evaluator-dlq"] == f"slo.dlq/0/{later[2:]}".encode()

    run(scenario)


def test_a_dry_run_sends_nothing() -> None:
    async def scenario() -> None:
        place = await Place().filled(letter(1))
        assert await place.fates(dry=True) == [("0:0", "SENT")]
        assert await place.copies() == []
        assert await place.log.bounds(Partition(DLQ, 0)) == (0, 1)

    run(scenario)


def test_what_cannot_go_is_named_with_its_reason() -> None:
    async def scenario() -> None:
        place = await Place().filled(
            letter(1, value=b"x" * (LIMIT + 1)), letter(2, topic="gone"), letter(3, partition=3), letter(4, accepted=2),
            letter(5, topic="tight", partition=0, value=b"x" * 5000),
        )  # fmt: skip
        await place.log.create([TopicSpec("tight", 1, settings={"max.message.bytes": "5000"})])
        outcomes = await place.publish()
        assert [(each.fate, each.why) for each in outcomes] == [
            (Fate.IMPOSSIBLE, "it was cut, 524289 bytes are at calls/1/1 only"),
            (Fate.IMPOSSIBLE, "there is no topic gone any more"),
            (Fate.IMPOSSIBLE, "there is no calls/3 any more"),
            (Fate.SKIPPED, "2 other events of it were judged and would count twice; --whole sends it"),
            (Fate.IMPOSSIBLE, "it has 5151 bytes without compression, tight takes 5000"),
        ]
        assert await place.copies() == []
        assert [each.fate for each in await place.publish(whole=True) if each.fate is Fate.SENT] == [Fate.SENT]

    run(scenario)


def test_a_position_without_a_letter_sends_nothing_at_all() -> None:
    async def scenario() -> None:
        place = await Place().filled(letter(1))
        wanted = Wanted(positions=frozenset({Position(0, 0), Position(1, 5)}))
        with pytest.raises(NoLetter, match=r"slo\.dlq has no dead letter at 1:5"):
            await place.publish(wanted)
        assert await place.copies() == []
        with pytest.raises(NoLetter):
            await place.one(Position(2, 0))

    run(scenario)


def failing(number: int, error: Exception) -> Step:
    """What lets the send of this number fail, from 1."""
    left = number

    async def step(name: str) -> None:
        nonlocal left
        if name == "producer.send:before":
            left -= 1
            if not left:
                raise error

    return step


def test_a_run_that_dies_before_its_commit_has_sent_nothing_and_can_be_repeated() -> None:
    async def scenario() -> None:
        place = await Place().filled(letter(1), letter(2))
        with pytest.raises(KafkaUnreachable):
            await place.publish(by=place.log.connect(step=failing(3, KafkaUnreachable("gone"))))
        await place.log.append([Outgoing(SOURCE, None, b"fresh", 1)])
        assert [record.value for record in await place.copies()] == [b"fresh"]
        assert await place.fates() == [("0:0", "SENT"), ("0:1", "SENT")]

    run(scenario)


@pytest.mark.parametrize(
    ("moment", "fates"),
    [
        pytest.param("producer.send:before", ["SENT", "SENT"], id="before_anything_is_sent"),
        pytest.param("producer.send:after", ["SENT", "SENT"], id="within"),
        pytest.param("producer.commit:before", ["SENT", "SENT"], id="at_the_commit"),
        pytest.param("producer.commit:after", ["SKIPPED", "SKIPPED"], id="when_it_was_committed"),
    ],
)
def test_who_is_cancelled_leaves_nothing_open_that_holds_readers_back(moment: str, fates: list[str]) -> None:
    async def scenario() -> None:
        place = await Place().filled(letter(1), letter(2))
        reached = asyncio.Event()

        async def step(name: str) -> None:
            if name == moment and not reached.is_set():
                reached.set()
                await asyncio.Event().wait()

        began = place.clock.monotonic()
        publishing = asyncio.ensure_future(place.publish(by=place.log.connect(step=step)))
        await reached.wait()
        publishing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await publishing
        await place.log.append([Outgoing(SOURCE, None, b"fresh", 1)])
        assert (await place.copies())[-1].value == b"fresh"
        assert place.clock.monotonic() == began
        assert [fate for _, fate in await place.fates()] == fates
        assert sorted(record.value or b"" for record in await place.copies()) == [b"fresh", b"v1", b"v2"]

    run(scenario)


def test_brokers_that_do_not_answer_hold_up_a_cancelled_one_for_a_moment_only() -> None:
    async def scenario() -> None:
        place = await Place().filled(letter(1))
        reached = asyncio.Event()

        async def step(name: str) -> None:
            if name in {"producer.send:after", "producer.abort:before"}:
                reached.set()
                await asyncio.Event().wait()

        publishing = asyncio.ensure_future(place.publish(by=place.log.connect(step=step)))
        await reached.wait()
        began = place.clock.monotonic()
        publishing.cancel()
        # It waits for something else than time, which a virtual clock needs.
        await asyncio.wait([publishing], timeout=60)
        assert publishing.cancelled()
        assert place.clock.monotonic() - began == 10

    run(scenario)


def test_of_a_record_with_two_letters_goes_one_copy() -> None:
    async def scenario() -> None:
        place = await Place().filled(letter(1), letter(1, reason="future"), letter(2))
        expected = [("0:1", "SKIPPED"), ("0:0", "SENT"), ("0:2", "SENT")]
        assert await place.fates(dry=True) == expected
        outcomes = await place.publish()
        assert [(str(each.found.position), each.fate.name) for each in outcomes] == expected
        assert outcomes[0].why == "the letter 0:0 is of the same record"
        assert [copy.value for copy in await place.copies()] == [b"v1", b"v2"]
        other = Wanted(positions=frozenset({Position(0, 1)}))
        assert [(each.fate, each.why) for each in await place.publish(other)] == [
            (Fate.SKIPPED, "re-published before for the letter 0:0; --again sends it once more")
        ]
        assert await place.fates(other, again=True) == [("0:1", "SENT")]
        assert [copy.value for copy in await place.copies()] == [b"v1", b"v2", b"v1"]

    run(scenario)


def test_a_record_that_was_sent_is_known_also_where_only_later_letters_are_wanted() -> None:
    async def scenario() -> None:
        place = await Place().filled(letter(1))
        await place.publish()
        await place.clock.sleep(60)
        await place.log.append([letter(1)])
        assert await place.fates(Wanted(since=NOON // 1000 + 30_000)) == [("0:3", "SKIPPED")]

    run(scenario)


def test_a_topic_that_is_read_again_has_no_record_sent_twice() -> None:
    async def scenario() -> None:
        place = await Place().filled(letter(1))
        await place.publish()
        (copy,) = await place.copies()
        # An app that begins anew rejects the record, of which the copy went, and the copy, of which none did.
        await place.log.append([letter(1, reason="future"), letter(copy.offset, headers=copy.headers)])
        outcomes = await place.publish()
        assert [(str(each.found.position), each.fate.name, each.why) for each in outcomes] == [
            ("0:0", "SKIPPED", "its copy was rejected again and is the letter 0:4 now"),
            ("0:3", "SKIPPED", "its copy was rejected again and is the letter 0:4 now"),
            ("0:4", "SENT", ""),
        ]
        first, second = await place.copies()
        assert (first.headers[-1], second.headers[-1]) == (
            ("evaluator-dlq", b"slo.dlq/0/0"), ("evaluator-dlq", b"slo.dlq/0/4"),
        )  # fmt: skip
        # The same once more: now both copies have gone, and the last of them is what is left.
        await place.log.append([letter(1), letter(copy.offset, headers=copy.headers)])
        assert {fate for _, fate in await place.fates()} == {"SKIPPED"}
        assert len(await place.copies()) == 2

    run(scenario)


@pytest.mark.parametrize(
    "forged",
    [
        pytest.param(letter(2, headers=[("evaluator-dlq", b"slo.dlq/0/0")]), id="of_a_letter_that_was_never_sent"),
        pytest.param(letter(2, headers=[("evaluator-dlq", b"slo.dlq/0/" + b"9" * 5000)]), id="of_no_offset"),
        pytest.param(
            letter(2, headers=[("evaluator-dlq", "slo.dlq/0/\N{DEVANAGARI DIGIT ONE}".encode())]), id="digits"
        ),
    ],
)
def test_a_record_cannot_claim_to_be_the_copy_of_a_letter_that_was_not_sent(forged: Outgoing) -> None:
    async def scenario() -> None:
        place = await Place().filled(letter(1), forged)
        listing = await place.newest(Wanted(), 9)
        assert [listing.history.of(found.position, found.letter) for found in listing.newest] == ["new", "new"]
        assert await place.fates() == [("0:0", "SENT"), ("0:1", "SENT")]

    run(scenario)


def test_a_copy_that_was_rejected_again_stood_in_the_partition_of_its_record() -> None:
    async def scenario() -> None:
        place = await Place().filled(letter(1))
        await place.publish()
        claim = [("evaluator-dlq", b"slo.dlq/0/0")]
        await place.log.append([letter(9, partition=2, headers=claim), letter(9, topic="other", headers=claim)])
        _, history = await place.one(Position(0, 0))
        assert (history.returned(Position(0, 0)), history.of(Position(0, 0), known(letter(1)))) == (
            None,
            "re-published",
        )
        await place.log.append([letter(9, headers=claim)])
        _, history = await place.one(Position(0, 0))
        assert history.of(Position(0, 0), known(letter(1))) == "rejected again, 0:5"

    run(scenario)


def test_a_letter_that_the_broker_refuses_does_not_stand_before_those_behind_it() -> None:
    class Unseen(MemoryLog):
        """One whose topics' settings we may not see."""

        async def describe(self, topics: Sequence[str]) -> Mapping[str, TopicInfo]:
            return {name: info._replace(config=None) for name, info in (await super().describe(topics)).items()}

    async def scenario() -> None:
        place = Place()
        place.log = Unseen(clock=place.clock)
        tight = TopicSpec("tight", 1, settings={"max.message.bytes": "5000"})
        await place.log.create([tight, TopicSpec("compacted", 1, compact=True)])
        await place.filled(
            letter(1), letter(2, topic="tight", partition=0, value=b"x" * 6000),
            letter(3, topic="compacted", partition=0, key=None), letter(4),
        )  # fmt: skip
        assert [(each.fate.name, each.why) for each in await place.publish()] == [
            ("SENT", ""),
            (
                "IMPOSSIBLE",
                "a record of 6027 bytes is too large for topic tight (key b'k'); raise its max.message.bytes",
            ),
            ("IMPOSSIBLE", "a record of the compacted topic compacted needs a key"),
            ("SENT", ""),
        ]
        assert [copy.value for copy in await place.copies()] == [b"v1", b"v4"]
        assert [fate for _, fate in await place.fates()] == ["SKIPPED", "SKIPPED", "IMPOSSIBLE", "IMPOSSIBLE"]

    run(scenario)


def test_a_topic_that_we_have_no_right_to_is_told_and_the_others_get_theirs() -> None:
    class Guarded(MemoryLog):
        """One with a topic that is none of our business."""

        async def describe(self, topics: Sequence[str]) -> Mapping[str, TopicInfo]:
            if "secret" in topics:
                message = "not allowed to see the topic: secret"
                raise NotAuthorized(message)
            return await super().describe(topics)

    async def scenario() -> None:
        place = Place()
        place.log = Guarded(clock=place.clock)
        await place.filled(letter(1, topic="secret"), letter(2))
        assert [(each.fate.name, each.why) for each in await place.publish()] == [
            ("IMPOSSIBLE", "not allowed to see the topic: secret"), ("SENT", ""),
        ]  # fmt: skip

    run(scenario)


def test_a_note_that_is_refused_ends_the_run_and_takes_its_copy_with_it() -> None:
    async def scenario() -> None:
        place = await Place().filled(letter(1), letter(2))
        with pytest.raises(SendFailed, match="no note"):
            await place.publish(by=place.log.connect(step=failing(2, SendFailed("no note"))))
        await place.log.append([Outgoing(SOURCE, None, b"fresh", 1)])
        assert [copy.value for copy in await place.copies()] == [b"fresh"]

    run(scenario)


def test_a_transaction_ends_long_before_its_time_out_however_slow_the_brokers_are() -> None:
    async def scenario() -> None:
        place = await Place().filled(*map(letter, range(7)))
        journal: Journal = []

        async def step(name: str) -> None:
            if name == "producer.send:before":
                await place.clock.sleep(2)

        outcomes = await place.publish(by=place.log.connect(step=step, journal=journal))
        assert [each.fate for each in outcomes] == [Fate.SENT] * 7
        # A copy and its note take 4 s: three of them are begun within 10 s.
        names = [name.removeprefix("producer.") for name, _ in journal if name.startswith("producer.")]
        pair = ["send", "send"]
        assert names == ["start", "bump", *pair * 3, "commit", "bump", *pair * 3, "commit", "bump", *pair, "commit"]
        assert [copy.value for copy in await place.copies()] == [b"v%d" % n for n in range(7)]

    run(scenario)


def test_operators_with_other_settings_fence_each_other() -> None:
    async def scenario() -> None:
        place = await Place().filled(letter(1), letter(2))
        assert transactional_id(DLQ) == "slo.dlq.publish"
        first = True

        async def step(name: str) -> None:
            nonlocal first
            if name == "producer.commit:before" and first:
                first = False
                assert await place.fates() == [("0:0", "SENT"), ("0:1", "SENT")]

        with pytest.raises(Fenced, match=r"slo\.dlq\.publish was taken over by another process"):
            await place.publish(by=place.log.connect(step=step))
        assert [copy.value for copy in await place.copies()] == [b"v1", b"v2"]

    run(scenario)


def test_who_was_fenced_leaves_the_transaction_of_the_other_one_alone() -> None:
    async def scenario() -> None:
        place = await Place().filled(letter(1), letter(2))
        other, sends = place.log.producer(transactional_id(DLQ)), [0]

        async def step(name: str) -> None:
            if name == "producer.send:before":
                sends[0] += 1
                if sends[0] == 2:
                    await other.start()
                    other.begin()
                    await (await other.send(Outgoing(SOURCE, None, b"the other", 1)))

        with pytest.raises(Fenced):
            await place.publish(by=place.log.connect(step=step))
        await other.commit()
        assert [copy.value for copy in await place.copies()] == [b"the other"]

    run(scenario)


@pytest.mark.parametrize("what", ["list", "show", "publish"])
def test_a_read_that_waits_behind_a_transaction_says_so_once(what: str) -> None:
    async def scenario() -> None:
        place = await Place().filled(letter(1))
        other = place.log.producer("somebody")
        await other.start()
        other.begin()
        await (await other.send(Outgoing(DLQ, None, b"open", 0)))
        await place.log.append([letter(2)])
        reads = {
            "list": lambda: place.newest(ALL, 9),
            "show": lambda: place.one(Position(0, 2)),
            "publish": place.publish,
        }
        reading = asyncio.ensure_future(reads[what]())
        await place.clock.sleep(4.5)
        assert place.told == []
        await place.clock.sleep(1)
        said = (
            "waiting at slo.dlq/0 offset 1: a transaction is open there; it goes on when that ends, at the latest at "
            "its time-out (60 s if it is an evaluator's)\n"
        )
        assert place.told == [said]
        await place.clock.sleep(20)
        assert not reading.done()
        await other.abort()
        await reading
        assert place.told == [said]

    run(scenario)


def test_only_standing_still_counts_as_waiting_not_what_is_done_with_the_records() -> None:
    async def scenario() -> None:
        place = await Place().filled(letter(1), letter(2))
        other = place.log.producer("somebody")
        await other.start()
        other.begin()
        await (await other.send(Outgoing(DLQ, None, b"open", 0)))

        async def read() -> None:
            async for _ in records(place.log, Partition(DLQ, 0), 0, 3, place.held):
                await place.clock.sleep(10)

        reading = asyncio.ensure_future(read())
        await place.clock.sleep(24)  # for 4 s it waits
        await other.abort()
        await reading
        assert place.told == []

    run(scenario)

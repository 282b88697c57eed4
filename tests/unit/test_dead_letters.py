"""Dead letters read back and re-published: each record once, as it was, and nothing that would count twice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from evaluator.core.event import EpochUs
from evaluator.runtime.clock import VirtualClock, run_virtual
from evaluator.runtime.dead_letters import (
    Fate,
    Insist,
    NoLetter,
    Outcome,
    Position,
    Republisher,
    Wanted,
    newest,
    one,
)
from evaluator.runtime.log.memory import MemoryLog
from evaluator.runtime.log.port import Outgoing, Partition, SendFailed, TopicSpec
from evaluator.wire.dead_letter import HEADERS_LIMIT, LIMIT, dead_letter, letter_of
from evaluator.wire.records import Record

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

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
        self.log = MemoryLog(clock=VirtualClock(asyncio.get_running_loop(), NOON))

    async def filled(self, *letters: Outgoing) -> Place:
        await self.log.create([TopicSpec(DLQ, 2), TopicSpec(SOURCE, 3)])
        await self.log.append(letters)
        return self

    async def publish(self, wanted: Wanted = ALL, *, dry: bool = False, **insist: bool) -> list[Outcome]:
        republisher = Republisher(self.log, DLQ, None if dry else self.log.producer("app.dlq"))
        return [outcome async for outcome in republisher.run(wanted, Insist(**insist))]

    async def fates(self, wanted: Wanted = ALL, **options: bool) -> list[tuple[str, str]]:
        return [(str(each.found.position), each.fate.name) for each in await self.publish(wanted, **options)]

    async def copies(self) -> list[Record]:
        return list(await self.log.read(Partition(SOURCE, 1)))


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await scenario()

    run_virtual(main())


def as_record(made: Outgoing) -> Record:
    return Record(0, 0, made.key, made.value, made.headers)


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
    ],
)
def test_whatever_else_is_there_is_no_letter(headers: tuple[tuple[str, bytes], ...]) -> None:
    assert letter_of(Record(0, 0, None, b"v", headers)) is None


def test_the_newest_that_are_wanted_are_listed() -> None:
    async def scenario() -> None:
        place = await Place().filled(*(letter(n, reason="future" if n % 2 else "not_json") for n in range(6)))
        await place.log.append([Outgoing(DLQ, None, b"?", 1)])
        listing = await newest(place.log, DLQ, Wanted(reasons=frozenset({"future"})), 2)
        assert [(str(found.position), found.letter.offset) for found in listing.newest] == [("0:5", 5), ("0:3", 3)]
        assert (listing.total, listing.history.others) == (3, 1)
        other = Wanted(topics=frozenset({"other"}))
        assert (await newest(place.log, DLQ, other, 2)).total == 0
        assert (await newest(place.log, DLQ, Wanted(since=NOON // 1000 + 1), 2)).total == 0
        assert (await newest(place.log, DLQ, Wanted(since=NOON // 1000), 9)).total == 6

    run(scenario)


def test_a_record_goes_back_as_it_was_and_names_its_letter() -> None:
    async def scenario() -> None:
        place = await Place().filled(letter(7))
        assert await place.fates() == [("0:0", "SENT")]
        (copy,) = await place.copies()
        assert (copy.key, copy.value, copy.timestamp) == (b"k", b"v7", 1007)
        assert copy.headers == (("h", b"1"), ("evaluator-dlq", b"slo.dlq/0/0"))
        note, history = await one(place.log, DLQ, Position(0, 1))
        assert (note.value, note.headers) == (b"", (("republished", b"slo.dlq/0/0"),))
        assert history.of(Position(0, 0)) == "re-published"

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
        found = await newest(place.log, DLQ, Wanted(), 9)
        states = [(str(each.position), found.history.of(each.position)) for each in found.newest]
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
            (Fate.IMPOSSIBLE, "there is no gone/1 any more"),
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
            await one(place.log, DLQ, Position(2, 0))

    run(scenario)


def test_a_run_that_dies_before_its_commit_has_sent_nothing_and_can_be_repeated() -> None:
    async def scenario() -> None:
        place = await Place().filled(letter(1), letter(2))
        left = [3]

        async def step(name: str) -> None:
            if name == "producer.send:before":
                left[0] -= 1
                if not left[0]:
                    message = "refused"
                    raise SendFailed(message)

        broken = place.log.connect(step=step)
        with pytest.raises(SendFailed):
            async for _ in Republisher(broken, DLQ, broken.producer("app.dlq")).run(Wanted(), Insist()):
                pass
        assert await place.copies() == []
        assert await place.fates() == [("0:0", "SENT"), ("0:1", "SENT")]

    run(scenario)

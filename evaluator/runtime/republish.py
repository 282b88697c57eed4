"""Records of dead letters, sent once more to where they stood.

A re-published record is a copy at the end of its partition. In the same transaction a note goes beside its letter,
which says where the record stood. So no record is sent twice, however a run ends, and whichever of its letters is
meant; a copy that was rejected is a record of its own. Whoever takes the transactional id over, which is one for each
topic of dead letters, reads only then what is noted: two who do it at once do it once.

| what went wrong                     | what is done                                                        |
| ----------------------------------- | ------------------------------------------------------------------- |
| the broker does not take a record   | abort; the letters of that batch one by one, those refused are told |
| cancelled, or any other error       | abort, so that no reader waits for the time-out, and out            |
| cancelled in a commit, or no answer | only the next epoch decides it: raise it, and out                   |
| fenced                              | nothing: what was open is aborted, and all is another's now         |
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

from evaluator.errors import EvaluatorError
from evaluator.runtime.dead_letters import Found, History, NoLetter, entries_of, spans_of
from evaluator.runtime.log.port import (
    Fenced,
    KafkaUnreachable,
    NotAuthorized,
    OutcomeUnknown,
    Outgoing,
    RecordTooLarge,
    SendFailed,
    UnknownTopic,
)
from evaluator.wire.dead_letter import Note, letter_of, place

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from evaluator.runtime.clock import Clock
    from evaluator.runtime.dead_letters import Position, Wanted
    from evaluator.runtime.dump import Held
    from evaluator.runtime.log.port import Log, Producer, TopicInfo

AT_ONCE = 200
"""Copies of one transaction: with more of them more is sent again where one is refused."""

AT_ONCE_BYTES = 8 << 20
"""What is in memory at once."""

AT_ONCE_S = 10.0
"""Of one transaction: far below its time-out (60 s), as the copies are acknowledged one by one, and readers wait."""

UNDO_S = 10.0
"""For an abort: a broker that is there answers in less; who has said Ctrl-C does not wait for longer."""

RECORD_BYTES = 1_048_576
"""Of a request of the client, and of a batch on brokers that do not say otherwise."""

_FRAME, _FRAME_OF_HEADER = 100, 12
"""Bytes that a batch and its record take besides what they hold, and each header."""


def transactional_id(topic: str) -> str:
    """Of everybody who sends dead letters of this topic once more, whatever their settings are."""
    return f"{topic}.publish"


class Fate(Enum):
    """What becomes of a letter that was to be re-published."""

    SENT = auto()
    SKIPPED = auto()
    IMPOSSIBLE = auto()


class Outcome(NamedTuple):
    """A letter, what became of it, and why if it was not sent."""

    found: Found
    fate: Fate
    why: str = ""


@dataclass(frozen=True, slots=True)
class Insist:
    """What is sent although it counts twice: `again`, what was sent before; `whole`, what was judged in part."""

    again: bool = False
    whole: bool = False


class _Refused(EvaluatorError):
    """The broker did not take the record of a letter."""


class Republisher:
    """Sends the records of letters to their topics, by `producer`; without one it only says what it would do."""

    def __init__(self, log: Log, topic: str, producer: Producer | None, clock: Clock, held: Held) -> None:
        self._log, self._topic, self._producer, self._clock, self._held = log, topic, producer, clock, held
        self._destinations: dict[str, TopicInfo | str] = {}
        self._sent: dict[str, Position] = {}

    async def run(self, wanted: Wanted, insist: Insist) -> AsyncGenerator[Outcome, None]:
        """What became of each letter that is wanted, those that are sent once they are committed.

        Raises `NoLetter`, before anything is sent, and whatever the log raises.
        """
        if self._producer is not None:
            await self._producer.start()
        history = await self._history(wanted)
        batch: list[Outcome] = []
        size = 0
        async with aclosing(self._judgements(wanted, insist, history)) as judgements:
            async for outcome in judgements:
                if outcome.fate is not Fate.SENT:
                    yield outcome
                    continue
                batch.append(outcome)
                size += _size(self._copy(outcome.found))
                if len(batch) >= AT_ONCE or size >= AT_ONCE_BYTES:
                    async with aclosing(self._delivered(batch)) as delivered:
                        async for done in delivered:
                            yield done
                    batch, size = [], 0
        async with aclosing(self._delivered(batch)) as delivered:
            async for done in delivered:
                yield done

    async def _history(self, wanted: Wanted) -> History:
        # From the very beginning: a record that is wanted may have been sent by another letter, long ago.
        history = History(await spans_of(self._log, self._topic, None))
        missing = set(wanted.positions)
        async with aclosing(entries_of(self._log, history.spans, self._held)) as entries:
            async for position, record in entries:
                if history.learn(self._topic, position, record) is not None:
                    missing.discard(position)
        if missing:
            raise NoLetter(self._topic, min(missing))
        return history

    async def _judgements(self, wanted: Wanted, insist: Insist, history: History) -> AsyncGenerator[Outcome, None]:
        async with aclosing(entries_of(self._log, history.spans, self._held)) as entries:
            async for position, record in entries:
                letter = letter_of(record)
                found = None if letter is None else Found(position, record.timestamp or 0, letter)
                if found is not None and wanted.holds(found):
                    outcome = await self._judged(found, history, insist, is_named=position in wanted.positions)
                    if outcome.fate is Fate.SENT:
                        self._sent[found.letter.source] = position
                    yield outcome

    async def _judged(self, found: Found, history: History, insist: Insist, *, is_named: bool) -> Outcome:
        why = await self._obstacle(found)
        if why:
            return Outcome(found, Fate.IMPOSSIBLE, why)
        why = self._objection(found, history, insist, is_named=is_named)
        return Outcome(found, Fate.SKIPPED, why) if why else Outcome(found, Fate.SENT)

    def _objection(self, found: Found, history: History, insist: Insist, *, is_named: bool) -> str:
        """Why it need not or should not be sent; "" where nothing speaks against it."""
        letter, by = found.letter, history.went_by(found.position, found.letter)
        if letter.source in self._sent:
            return f"the letter {self._sent[letter.source]} is of the same record"
        after = history.returned(by)
        if after is not None and not (insist.again and is_named):
            # Of a record that comes back again and again only the newest letter counts, else it is sent many times.
            return f"its copy was rejected again and is the letter {after} now"
        if by is not None and not insist.again:
            which = "" if by == found.position else f" for the letter {by}"
            return f"re-published before{which}; --again sends it once more"
        if letter.accepted and not insist.whole:
            return f"{letter.accepted} other events of it were judged and would count twice; --whole sends it"
        return ""

    async def _obstacle(self, found: Found) -> str:
        """Why it cannot be sent at all; "" where nobody knows of anything."""
        letter = found.letter
        if letter.is_cut:
            return f"it was cut, {letter.size} bytes are at {letter.source} only"
        if letter.topic not in self._destinations:
            self._destinations[letter.topic] = await self._destination(letter.topic)
        there = self._destinations[letter.topic]
        if isinstance(there, str):
            return there
        if letter.partition >= there.partitions:
            return f"there is no {letter.topic}/{letter.partition} any more"
        # Without the right to see the topic's settings it may take less: then the broker says so.
        most = min(RECORD_BYTES, int((there.config or {}).get("max.message.bytes", RECORD_BYTES)))
        size = _size(self._copy(found))
        return f"it has {size} bytes without compression, {letter.topic} takes {most}" if size > most else ""

    async def _destination(self, topic: str) -> TopicInfo | str:
        """The topic, or why nothing can be sent to it."""
        try:
            return (await self._log.describe([topic])).get(topic) or f"there is no topic {topic} any more"
        except NotAuthorized as error:
            return str(error)

    def _copy(self, found: Found) -> Outgoing:
        """The record as it was, where it was: lateness and repeated ids are told by partition."""
        letter = found.letter
        headers = letter.copy(self._place(found.position))
        return Outgoing(letter.topic, letter.key, letter.value, letter.partition, headers, letter.timestamp)

    def _place(self, position: Position) -> str:
        return place(self._topic, position.partition, position.offset)

    async def _delivered(self, batch: Sequence[Outcome]) -> AsyncGenerator[Outcome, None]:
        """The same, once they are committed with their notes; what a broker refuses is impossible."""
        rest, most = list(batch), len(batch)
        while rest:
            part, count = rest[:most], len(rest)
            if self._producer is not None:
                try:
                    count = await self._transact(self._producer, part)
                except _Refused as refused:
                    if len(part) > 1:
                        most = 1  # so that one that is never taken does not stand before all others for ever
                        continue
                    part, count = [part[0]._replace(fate=Fate.IMPOSSIBLE, why=str(refused))], 1
            for done in part[:count]:
                yield done
            del rest[:count]

    async def _transact(self, producer: Producer, batch: Sequence[Outcome]) -> int:
        """Commit the first of them, as many as one transaction may take; how many these are. Raises `_Refused`."""
        await producer.bump()
        producer.begin()
        began, count = self._clock.monotonic(), 0
        undo: Callable[[], Awaitable[None]] | None = producer.abort
        try:
            while count < len(batch) and self._clock.monotonic() - began < AT_ONCE_S:
                await self._send(producer, batch[count].found)
                count += 1
            undo = producer.bump
            await producer.commit()
            undo = None
        except Fenced:
            undo = None  # a bump of ours would abort what the other one has open
            raise
        except OutcomeUnknown as error:
            undo = producer.bump
            message = f"{error}; say it again: what was re-published is noted, and is not sent twice"
            raise KafkaUnreachable(message) from error
        finally:
            if undo is not None:
                await asyncio.shield(_undone(undo))
        return count

    async def _send(self, producer: Producer, found: Found) -> None:
        """A copy and its note, one by one: a batch of several could be larger than the topic takes."""
        try:
            await (await producer.send(self._copy(found)))
        except (RecordTooLarge, NotAuthorized, UnknownTopic, SendFailed) as error:
            raise _Refused(str(error)) from error
        position = found.position
        note = Note(self._place(position), found.letter.source)
        await (await producer.send(Outgoing(self._topic, None, b"", position.partition, note.headers)))


async def _undone(undo: Callable[[], Awaitable[None]]) -> None:
    """Left open, a transaction holds back the readers of its topics, the evaluator too, until it times out."""
    with suppress(EvaluatorError, TimeoutError):
        async with asyncio.timeout(UNDO_S):
            await undo()


def _size(record: Outgoing) -> int:
    """The most bytes that a batch with nothing but this record takes."""
    headers = sum(len(name.encode()) + len(data) + _FRAME_OF_HEADER for name, data in record.headers)
    return len(record.key or b"") + len(record.value or b"") + headers + _FRAME

"""Dead letters read back, and their records sent once more to where they stood.

A re-published record is a copy at the end of its partition. In the same transaction a note goes beside its letter. So
no letter is sent twice, however a run ends; and whoever takes the transactional id over reads only then what is noted,
so two who do it at once do it once. A record with two letters, as of two apps that share the topic, is sent for each.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

from evaluator.errors import EvaluatorError
from evaluator.runtime.dump import records
from evaluator.runtime.log.port import KafkaUnreachable, OutcomeUnknown, Outgoing, Partition
from evaluator.wire.dead_letter import Letter, letter_of, note_of, noted, place

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from evaluator.runtime.log.port import Log, Producer, TopicInfo
    from evaluator.wire.records import Record

AT_ONCE = 200
"""Copies of one transaction: they are acknowledged one by one, and it must end within its time-out."""

AT_ONCE_BYTES = 8 << 20
"""What is in memory at once."""

RECORD_BYTES = 1_048_576
"""Of a request of the client, and of a batch on brokers that do not say otherwise."""

_FRAME, _FRAME_OF_HEADER = 100, 12
"""Bytes that a batch and its record take besides what they hold, and each header."""


class Position(NamedTuple):
    """Where a letter is, in the topic of dead letters."""

    partition: int
    offset: int

    def __str__(self) -> str:
        """As the command line has it."""
        return f"{self.partition}:{self.offset}"


class NoLetter(EvaluatorError):
    """There is no dead letter at that position."""

    exit_code = 1

    def __init__(self, topic: str, position: Position) -> None:
        super().__init__(f"{topic} has no dead letter at {position}; `evaluator dlq list` shows what there is")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters are meant: all that fulfil everything that is said here. `since` is in milliseconds."""

    reasons: frozenset[str] = frozenset()
    topics: frozenset[str] = frozenset()
    since: int | None = None
    positions: frozenset[Position] = frozenset()

    def holds(self, found: Found) -> bool:
        """Whether this one is meant."""
        return (
            (not self.reasons or found.letter.reason in self.reasons)
            and (not self.topics or found.letter.topic in self.topics)
            and (self.since is None or found.at >= self.since)
            and (not self.positions or found.position in self.positions)
        )


class Found(NamedTuple):
    """A letter where it is; `at` is when it was written, in milliseconds."""

    position: Position
    at: int
    letter: Letter


@dataclass(slots=True)
class History:
    """What became of letters: which were re-published, and of which the copy was rejected again, as which letter.

    `spans` are the offsets that were looked at: what comes later is another affair.
    """

    spans: Mapping[Partition, tuple[int, int]]
    republished: set[Position] = field(default_factory=set)
    returned: dict[Position, Position] = field(default_factory=dict)
    others: int = 0
    """Records that are neither letters nor notes."""

    def learn(self, topic: str, position: Position, record: Record) -> Found | None:
        """Take the next record; the letter, if it is one."""
        letter = letter_of(record)
        if letter is not None:
            before = _position(topic, letter.copy_of)
            if before is not None:
                self.returned[before] = position
            return Found(position, record.timestamp or 0, letter)
        note = _position(topic, noted(record))
        if note is None:
            self.others += 1
        else:
            self.republished.add(note)
        return None

    def of(self, position: Position) -> str:
        """The state of a letter, for a person."""
        if position in self.returned:
            return f"rejected again, {self.returned[position]}"
        return "re-published" if position in self.republished else "new"


def _position(topic: str, named: str | None) -> Position | None:
    """The position in this topic that a header names."""
    where, _, rest = (named or "").partition("/")
    partition, _, offset = rest.partition("/")
    is_ours = where == topic and partition.isdecimal() and offset.isdecimal()
    return Position(int(partition), int(offset)) if is_ours else None


async def _spans(log: Log, topic: str, since: int | None) -> dict[Partition, tuple[int, int]]:
    """What of each partition has to be read. Raises `UnknownTopic`."""
    spans = {}
    for index in range(await log.partitions(topic)):
        partition = Partition(topic, index)
        first, end = await log.bounds(partition)
        spans[partition] = (first if since is None else await log.offset_at(partition, since), end)
    return spans


async def _records(
    log: Log, spans: Mapping[Partition, tuple[int, int]]
) -> AsyncGenerator[tuple[Position, Record], None]:
    for partition, (start, end) in spans.items():
        async with aclosing(records(log, partition, start, end)) as found:
            async for record in found:
                yield Position(partition.index, record.offset), record


class Listing(NamedTuple):
    """The newest letters that were wanted, the newest first and without their values; how many were; their history."""

    newest: Sequence[Found]
    total: int
    history: History


async def newest(log: Log, topic: str, wanted: Wanted, limit: int) -> Listing:
    """The newest `limit` letters. Raises `UnknownTopic`."""
    history = History(await _spans(log, topic, wanted.since))
    kept: dict[int, deque[Found]] = {}
    count = 0
    async with aclosing(_records(log, history.spans)) as entries:
        async for position, record in entries:
            found = history.learn(topic, position, record)
            if found is not None and wanted.holds(found):
                count += 1
                light = found._replace(letter=replace(found.letter, key=None, value=None, headers=()))
                kept.setdefault(position.partition, deque(maxlen=limit)).append(light)
    everything = (found for of_partition in kept.values() for found in of_partition)
    return Listing(sorted(everything, key=lambda it: (it.at, it.position), reverse=True)[:limit], count, history)


async def one(log: Log, topic: str, position: Position) -> tuple[Record, History]:
    """The record at a position, a letter or not, and what became of it. Raises `NoLetter`, `UnknownTopic`."""
    history = History(await _spans(log, topic, None))
    start, end = history.spans.get(Partition(topic, position.partition), (0, 0))
    wanted = None
    if start <= position.offset < end:
        async with aclosing(_records(log, history.spans)) as entries:
            async for where, record in entries:
                history.learn(topic, where, record)
                wanted = record if where == position else wanted
    if wanted is None:
        raise NoLetter(topic, position)
    return wanted, history


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


class Republisher:
    """Sends the records of letters to their topics, by `producer`; without one it only says what it would do."""

    def __init__(self, log: Log, topic: str, producer: Producer | None) -> None:
        self._log, self._topic, self._producer = log, topic, producer
        self._destinations: dict[str, TopicInfo | None] = {}

    async def run(self, wanted: Wanted, insist: Insist) -> AsyncGenerator[Outcome, None]:
        """What became of each letter that is wanted, those that are sent once they are committed.

        Raises `NoLetter`, before anything is sent, and whatever the log raises.
        """
        if self._producer is not None:
            await self._producer.start()
        history = await self._history(wanted)
        batch: list[Outcome] = []
        size = 0
        async with aclosing(_records(self._log, history.spans)) as entries:
            async for position, record in entries:
                letter = letter_of(record)
                found = None if letter is None else Found(position, record.timestamp or 0, letter)
                if found is None or not wanted.holds(found):
                    continue
                outcome = await self._judged(found, history, insist, is_named=position in wanted.positions)
                if outcome.fate is not Fate.SENT:
                    yield outcome
                    continue
                batch.append(outcome)
                size += _size(self._copy(found))
                if len(batch) >= AT_ONCE or size >= AT_ONCE_BYTES:
                    for done in await self._sent(batch):
                        yield done
                    batch, size = [], 0
        for done in await self._sent(batch):
            yield done

    async def _history(self, wanted: Wanted) -> History:
        history = History(await _spans(self._log, self._topic, wanted.since))
        missing = set(wanted.positions)
        async with aclosing(_records(self._log, history.spans)) as entries:
            async for position, record in entries:
                if history.learn(self._topic, position, record) is not None:
                    missing.discard(position)
        if missing:
            raise NoLetter(self._topic, min(missing))
        return history

    async def _judged(self, found: Found, history: History, insist: Insist, *, is_named: bool) -> Outcome:
        why = await self._obstacle(found)
        if why:
            return Outcome(found, Fate.IMPOSSIBLE, why)
        after = history.returned.get(found.position)
        if after is not None and not (insist.again and is_named):
            # Of a record that comes back again and again only the newest letter counts, else it is sent many times.
            return Outcome(found, Fate.SKIPPED, f"its copy was rejected again and is the letter {after} now")
        if found.position in history.republished and not insist.again:
            return Outcome(found, Fate.SKIPPED, "re-published before; --again sends it once more")
        if found.letter.accepted and not insist.whole:
            why = f"{found.letter.accepted} other events of it were judged and would count twice; --whole sends it"
            return Outcome(found, Fate.SKIPPED, why)
        return Outcome(found, Fate.SENT)

    async def _obstacle(self, found: Found) -> str:
        """Why it cannot be sent at all; "" where it can."""
        letter = found.letter
        if letter.is_cut:
            return f"it was cut, {letter.size} bytes are at {letter.source} only"
        if letter.topic not in self._destinations:
            self._destinations[letter.topic] = (await self._log.describe([letter.topic])).get(letter.topic)
        there = self._destinations[letter.topic]
        if there is None or letter.partition >= there.partitions:
            return f"there is no {letter.topic}/{letter.partition} any more"
        most = min(RECORD_BYTES, int((there.config or {}).get("max.message.bytes", RECORD_BYTES)))
        size = _size(self._copy(found))
        return f"it has {size} bytes without compression, {letter.topic} takes {most}" if size > most else ""

    def _copy(self, found: Found) -> Outgoing:
        """The record as it was, where it was: lateness and repeated ids are told by partition."""
        letter = found.letter
        headers = letter.copy(self._place(found.position))
        return Outgoing(letter.topic, letter.key, letter.value, letter.partition, headers, letter.timestamp)

    def _place(self, position: Position) -> str:
        return place(self._topic, position.partition, position.offset)

    async def _sent(self, batch: Sequence[Outcome]) -> Sequence[Outcome]:
        """The same, once they are committed with their notes."""
        producer = self._producer
        if producer is None or not batch:
            return batch
        await producer.bump()
        producer.begin()
        try:
            for outcome in batch:
                # One by one: a batch of several could be larger than the topic takes.
                await (await producer.send(self._copy(outcome.found)))
                position = outcome.found.position
                note = Outgoing(self._topic, None, b"", position.partition, note_of(self._place(position)))
                await (await producer.send(note))
            await producer.commit()
        except OutcomeUnknown as error:
            message = f"{error}; say it again: what was re-published is noted, and is not sent twice"
            raise KafkaUnreachable(message) from error
        except EvaluatorError:
            # Left open, the transaction would hold back the readers of these topics until it times out.
            with suppress(EvaluatorError):
                await producer.abort()
            raise
        return batch


def _size(record: Outgoing) -> int:
    """The most bytes that a batch with nothing but this record takes."""
    headers = sum(len(name.encode()) + len(data) + _FRAME_OF_HEADER for name, data in record.headers)
    return len(record.key or b"") + len(record.value or b"") + headers + _FRAME

"""Dead letters read back: which there are, and what became of their records.

A note beside a letter says that its record was re-published (republish.py). Where the copy was rejected again, its
letter names the one before, by a header of the copy: anybody can write that, so it is believed only where a note says
that a copy was sent to that partition.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from evaluator.errors import EvaluatorError
from evaluator.runtime.dump import records
from evaluator.runtime.log.port import Partition
from evaluator.wire.dead_letter import Letter, letter_of, noted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from evaluator.runtime.dump import Held
    from evaluator.runtime.log.port import Log
    from evaluator.wire.records import Record

_PLACE = re.compile(r"([^/]*)/([0-9]{1,10})/([0-9]{1,19})")


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
    """What became of letters. Two can be of one record: of two apps that share the topic, or of one that read it twice.

    `spans` are the offsets that were looked at: what comes later is another affair.
    """

    spans: Mapping[Partition, tuple[int, int]]
    notes: dict[Position, str] = field(default_factory=dict)
    """Where the record of each letter stood that was re-published."""
    sent: dict[str, Position] = field(default_factory=dict)
    """The other way round: by which letter the record that stood there was re-published."""
    others: int = 0
    """Records that are neither letters nor notes."""
    _claims: dict[tuple[Position, str], Position] = field(default_factory=dict)
    """By the letter that a record claims to be a copy for, and the partition that it stood in: its own letter."""

    def learn(self, topic: str, position: Position, record: Record) -> Found | None:
        """Take the next record; the letter, if it is one."""
        letter = letter_of(record)
        if letter is not None:
            before = _position(topic, letter.copy_of)
            if before is not None:
                self._claims[before, _partition(letter.source)] = position
            return Found(position, record.timestamp or 0, letter)
        note = noted(record)
        before = None if note is None else _position(topic, note.letter)
        if note is None or before is None:
            self.others += 1
        else:
            self.notes[before] = note.source
            self.sent[note.source] = before
        return None

    def returned(self, position: Position | None) -> Position | None:
        """The letter of the copy, where one went by that letter and was rejected again."""
        return None if position is None else self._claims.get((position, _partition(self.notes.get(position, ""))))

    def went_by(self, position: Position, letter: Letter) -> Position | None:
        """The letter by which its record was re-published: this one, or another of the same record."""
        return position if position in self.notes else self.sent.get(letter.source)

    def of(self, position: Position, letter: Letter) -> str:
        """The state of a letter, for a person."""
        by = self.went_by(position, letter)
        after = self.returned(by)
        if after is not None:
            return f"rejected again, {after}"
        return "new" if by is None else "re-published"


def _position(topic: str, named: str | None) -> Position | None:
    """The position in this topic that a header names."""
    found = _PLACE.fullmatch(named or "")
    return Position(int(found[2]), int(found[3])) if found and found[1] == topic else None


def _partition(source: str) -> str:
    """The topic and the partition of a place."""
    return source.rpartition("/")[0]


async def spans_of(log: Log, topic: str, since: int | None) -> dict[Partition, tuple[int, int]]:
    """What of each partition has to be read. Raises `UnknownTopic`."""
    spans = {}
    for index in range(await log.partitions(topic)):
        partition = Partition(topic, index)
        first, end = await log.bounds(partition)
        spans[partition] = (first if since is None else await log.offset_at(partition, since), end)
    return spans


async def entries_of(
    log: Log, spans: Mapping[Partition, tuple[int, int]], held: Held
) -> AsyncGenerator[tuple[Position, Record], None]:
    """What stands there, letters and others."""
    for partition, (start, end) in spans.items():
        async with aclosing(records(log, partition, start, end, held)) as found:
            async for record in found:
                yield Position(partition.index, record.offset), record


class Listing(NamedTuple):
    """The newest letters that were wanted, the newest first and without their values; how many were; their history."""

    newest: Sequence[Found]
    total: int
    history: History


async def newest(log: Log, topic: str, wanted: Wanted, limit: int, held: Held) -> Listing:
    """The newest `limit` letters. Raises `UnknownTopic`."""
    history = History(await spans_of(log, topic, wanted.since))
    kept: dict[int, deque[Found]] = {}
    count = 0
    async with aclosing(entries_of(log, history.spans, held)) as entries:
        async for position, record in entries:
            found = history.learn(topic, position, record)
            if found is not None and wanted.holds(found):
                count += 1
                light = found._replace(letter=replace(found.letter, key=None, value=None, headers=()))
                kept.setdefault(position.partition, deque(maxlen=limit)).append(light)
    everything = (found for of_partition in kept.values() for found in of_partition)
    return Listing(sorted(everything, key=lambda it: (it.at, it.position), reverse=True)[:limit], count, history)


async def one(log: Log, topic: str, position: Position, held: Held) -> tuple[Record, History]:
    """The record at a position, a letter or not, and what became of it. Raises `NoLetter`, `UnknownTopic`."""
    history = History(await spans_of(log, topic, None))
    start, end = history.spans.get(Partition(topic, position.partition), (0, 0))
    wanted = None
    if start <= position.offset < end:
        async with aclosing(entries_of(log, history.spans, held)) as entries:
            async for where, record in entries:
                history.learn(topic, where, record)
                wanted = record if where == position else wanted
    if wanted is None:
        raise NoLetter(topic, position)
    return wanted, history

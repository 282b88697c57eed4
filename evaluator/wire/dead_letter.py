"""Dead letters: what could not be judged, with where it stood and why; and what they say when they are read back.

The headers of a dead letter are ours; those of the record stand among them under `header.NAME`. A record that was
re-published carries `evaluator-dlq`, the place of its dead letter. Beside that one stands a note from then on: a record
with the headers `republished`, that place, and `source`, where the record stood, and without a reason. Anybody who
writes records can claim that one is a copy; a note only who may write dead letters.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from evaluator.wire.records import Headers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluator.wire.records import Record

LIMIT = 512 * 1024
"""Longer values are cut, so that a dead letter can always be sent; the position finds the original."""

HEADERS_LIMIT = 64 * 1024
"""Of the record's own headers. They are left out if they are longer: half of them may mean something else."""

COPY_OF = "evaluator-dlq"
"""The header of a re-published record: of which dead letter it is a copy."""

_THEIRS = "header."
_REPUBLISHED, _SOURCE = "republished", "source"
_MOST = (1 << 63) - 1
"""Of any number in a header: offsets, times and sizes have 64 bits, and so has JSON."""

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record, or one event of it, that was rejected: raw bytes and headers as they go to the topic."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


def dead_letter(
    *, key: bytes | None, value: bytes | None, topic: str, partition: int, offset: int, index: int, reason: str,
    detail: str, events: int = 1, accepted: int = 0, timestamp: int | None = None,
    headers: Sequence[tuple[str, bytes | None]] = (),
) -> DeadLetter:  # fmt: skip
    """The dead letter of a record at a position: `index` is its first bad event, of `events` bad ones.

    `accepted` of its events were judged. `timestamp` (milliseconds) and `headers` are the record's own.
    """
    raw = value or b""
    ours = [
        ("reason", reason.encode()),
        ("detail", detail.encode("utf-8", "replace")[:1024]),
        ("topic", topic.encode()),
        ("partition", str(partition).encode()),
        ("offset", str(offset).encode()),
        ("index", str(index).encode()),
        ("events", str(events).encode()),
        ("accepted", str(accepted).encode()),
    ]
    if timestamp is not None and timestamp > 0:
        ours.append(("timestamp", str(timestamp).encode()))
    theirs = [(_THEIRS + name, data) for name, data in headers if data is not None]  # a null one is as good as none
    kept = key if key is None else key[: LIMIT // 2]
    is_long = sum(len(name.encode()) + len(data) for name, data in theirs) > HEADERS_LIMIT
    if len(raw) > LIMIT or kept != key or is_long:
        ours += [
            ("size", str(len(raw)).encode()),
            ("sha256", hashlib.sha256(raw).hexdigest().encode()),
            ("truncated", b"true"),
        ]
    return DeadLetter(kept, value and value[:LIMIT], (*ours, *([] if is_long else theirs)))


@dataclass(frozen=True, slots=True)
class Letter:
    """What a dead letter says. `key`, `value`, `headers` and `timestamp` (milliseconds) are the record's own.

    `size` is that of the whole value. `is_cut`: something of the record is missing here. `copy_of` is the place of
    the dead letter that the record was re-published from.
    """

    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    index: int
    events: int
    accepted: int
    size: int
    is_cut: bool
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp: int | None = None
    copy_of: str | None = None

    @property
    def source(self) -> str:
        """Where the record stood."""
        return place(self.topic, self.partition, self.offset)

    def copy(self, of: str) -> Headers:
        """The headers of its record, once more; `of` is the place of this letter."""
        return (*((name, data) for name, data in self.headers if name != COPY_OF), (COPY_OF, of.encode()))


def place(topic: str, partition: int, offset: int) -> str:
    """A position of a log, as headers name it. No topic has a slash in its name."""
    return f"{topic}/{partition}/{offset}"


def letter_of(record: Record) -> Letter | None:
    """What a record of the topic of dead letters says; None where it is no dead letter."""
    said = {name: data for name, data in record.headers if data is not None and not name.startswith(_THEIRS)}
    theirs = tuple(
        (name.removeprefix(_THEIRS), data)
        for name, data in record.headers
        if data is not None and name.startswith(_THEIRS)
    )
    copied = dict(theirs).get(COPY_OF)
    try:
        letter = Letter(
            reason=said["reason"].decode(),
            detail=said.get("detail", b"").decode("utf-8", "replace"),
            topic=said["topic"].decode(),
            partition=_count(said["partition"]),
            offset=_count(said["offset"]),
            index=_count(said.get("index", b"0")),
            events=_count(said.get("events", b"1")),
            accepted=_count(said.get("accepted", b"0")),
            size=_count(said["size"]) if "size" in said else len(record.value or b""),
            is_cut="truncated" in said,
            key=record.key,
            value=record.value,
            headers=theirs,
            timestamp=_count(said["timestamp"]) if "timestamp" in said else None,
            copy_of=None if copied is None else copied.decode(),
        )
    except (KeyError, ValueError):
        return None
    return letter if _TOPIC.fullmatch(letter.topic) else None


def _count(written: bytes) -> int:
    number = int(written) if written.isdigit() else -1
    if not 0 <= number <= _MOST:
        message = "no number"
        raise ValueError(message)
    return number


class Note(NamedTuple):
    """That the letter at a place was re-published; `source` is where its record stood."""

    letter: str
    source: str

    @property
    def headers(self) -> Headers:
        """Those of its record."""
        return ((_REPUBLISHED, self.letter.encode()), (_SOURCE, self.source.encode()))


def noted(record: Record) -> Note | None:
    """What a record notes; None where it is no note."""
    said = {name: (data or b"").decode("utf-8", "replace") for name, data in record.headers}
    if _REPUBLISHED not in said or "reason" in said:
        return None
    return Note(said[_REPUBLISHED], said.get(_SOURCE, ""))

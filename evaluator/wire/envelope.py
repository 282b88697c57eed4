"""Records in files: a line a record, bare or in an envelope (docs/semantics.md, 13).

A bare line is a record's value; it has no timestamp, key or headers. An envelope says them:
`{"offset": n, "timestamp": ms, "key": .., "headers": {..}, "value": ..}`. A string value is the raw record
(`"encoding": "base64"` for binary), null a tombstone, any other JSON the record's own text. Offsets are given
by `dump`: recorded decisions name them, and a log has gaps (markers, compaction) and may begin anywhere. Without
them records are counted from 0. An envelope without a value is no record: it says that the log goes on to its offset.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import msgspec

from evaluator.core.event import EpochUs
from evaluator.core.partial import FutureRejection, IdleAdvance
from evaluator.errors import UsageError
from evaluator.wire.instant import NOT_A_TIME, instant
from evaluator.wire.text import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from evaluator.core.partial import ClockDecision


class Line(NamedTuple):
    """A record of a file. `timestamp` is in milliseconds, -1 where absent."""

    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    offset: int | None = None
    is_record: bool = True


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    offset: Annotated[int, msgspec.Meta(ge=0)] | None = None
    timestamp: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    key: str | None = None
    headers: dict[str, str] = {}
    encoding: Literal["base64"] | None = None


class _Decision(msgspec.Struct, forbid_unknown_fields=True):
    source: str
    partition: int
    offset: int
    idle: str | int | None = None
    future: int | None = None


_ENVELOPE = msgspec.json.Decoder(_Envelope)
_DECISION = msgspec.json.Decoder(_Decision)
_NULL = b"null"


class Columns(NamedTuple):
    """A run of records as columns of equal length; without keys and headers where the lines are bare.

    `offsets` only where they are not simply the next ones; `end` is where the log stands after them, if it says so.
    """

    values: Sequence[bytes | None]
    timestamps: Sequence[int | None]
    keys: Sequence[bytes | None] | None = None
    headers: Sequence[tuple[tuple[str, bytes], ...]] | None = None
    offsets: Sequence[int] | None = None
    end: int | None = None


CHUNK_BYTES = 16 << 20
"""No more is read at once, however long the lines are: 40,000 lines of 1 MB would not fit into memory."""

_PIECE = 16
"""Lines between two looks at the size: more would let a few long ones through, fewer would cost time."""


def _chunks(lines: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    """`size` lines at a time, fewer where they are long."""
    lines = iter(lines)
    while chunk := list(islice(lines, min(size, _PIECE))):
        held = sum(map(len, chunk))
        while held < CHUNK_BYTES and (piece := list(islice(lines, min(size - len(chunk), _PIECE)))):
            chunk += piece
            held += sum(map(len, piece))
        yield chunk


def bare_columns(lines: Iterable[bytes], size: int) -> Iterator[Columns]:
    """One record a line, `size` at a time; a blank one keeps its offset and carries nothing."""
    for chunk in _chunks(lines, size):
        # Joined and split again, all in C: a third of the time of stripping line by line.
        joined = b"".join(chunk)
        values: list[bytes | None] = [*joined.split(b"\n")]
        del values[len(chunk) :]
        if b"\r" in joined or any(map(bytes.isspace, chunk)):
            values = [_unless_blank(value or b"") for value in values]
        yield Columns(values, [None] * len(chunk))


def _unless_blank(line: bytes) -> bytes | None:
    return None if not line or line.isspace() else line.rstrip(b"\r")


def enveloped_columns(lines: Iterable[bytes], size: int, name: str) -> Iterator[Columns]:
    """One envelope a line, `size` at a time. Raises `UsageError` that names the file and line."""
    first, position = 1, 0
    for chunk in _chunks(lines, size):
        opened = [
            _opened(line, name, number) if line.strip() else Line(-1, None, None)
            for number, line in enumerate(chunk, first)
        ]
        offsets = []
        for number, line in enumerate(opened, first):
            at = position if line.offset is None else line.offset
            if at < position:
                message = f"{name}:{number}: offset {at} does not follow {position - 1}; offsets must rise"
                raise UsageError(message)
            position = at + line.is_record
            if line.is_record:
                offsets.append(at)
        first += len(chunk)
        records = [line for line in opened if line.is_record]
        yield Columns(
            [line.value for line in records], [line.timestamp for line in records], [line.key for line in records],
            [line.headers for line in records], offsets, position,
        )  # fmt: skip


def _opened(line: bytes, name: str, number: int) -> Line:
    try:
        envelope = _ENVELOPE.decode(line)
        value, is_record = _value_of(envelope)
    except (msgspec.DecodeError, binascii.Error, UnicodeDecodeError) as error:
        message = (
            f"{name}:{number}: not an envelope ({error}); expected "
            f'{{"timestamp": ms, "key": .., "headers": {{..}}, "value": ..}}, or leave out --envelope'
        )
        raise UsageError(message) from error
    headers = tuple((key, text.encode()) for key, text in envelope.headers.items())
    key = None if envelope.key is None else envelope.key.encode()
    timestamp = -1 if envelope.timestamp is None else envelope.timestamp
    return Line(timestamp, key, value, headers, envelope.offset, is_record)


def _value_of(envelope: _Envelope) -> tuple[bytes | None, bool]:
    """The value, and whether there is a record at all. Raises as decoding does."""
    if not isinstance(envelope.value, msgspec.UnsetType):
        return _value(bytes(envelope.value), envelope.encoding), True
    if envelope.offset is None:
        missing = "neither a value nor an offset"
        raise msgspec.DecodeError(missing)
    return None, False


def _value(raw: bytes, encoding: str | None) -> bytes | None:
    if raw == _NULL:
        return None
    if not raw.startswith(b'"'):
        return raw
    text: str = msgspec.json.decode(raw, type=str)
    return text.encode() if encoding is None else base64.b64decode(text, validate=True)


def envelope(
    timestamp: int, key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes | None]],
    offset: int | None = None,
) -> bytes:  # fmt: skip
    """The envelope line of a record, newline included."""
    fields: dict[str, Any] = {"timestamp": timestamp} if offset is None else {"offset": offset, "timestamp": timestamp}
    if key is not None:
        fields["key"] = key.decode("utf-8", "replace")
    # The last one of a name counts, and a null one is as good as none.
    named = {name: data.decode("utf-8", "replace") for name, data in dict(headers).items() if data is not None}
    if named:
        fields["headers"] = named
    try:
        fields["value"] = None if value is None else value.decode()
    except UnicodeDecodeError:
        fields |= {"encoding": "base64", "value": base64.b64encode(value or b"").decode()}
    return msgspec.json.encode(fields) + b"\n"


def position_line(offset: int) -> bytes:
    """The envelope line that says how far a log goes on without a record, newline included."""
    return msgspec.json.encode({"offset": offset}) + b"\n"


def decision_line(source: str, partition: int, decision: ClockDecision) -> bytes:
    """A recorded clock decision as a line of a decisions file, newline included."""
    fields: dict[str, Any] = {"source": source, "partition": partition, "offset": decision.offset}
    match decision:
        case IdleAdvance():
            fields["idle"] = rfc3339(decision.until)
        case FutureRejection():
            fields["future"] = decision.index
    return msgspec.json.encode(fields) + b"\n"


def read_decisions(lines: Iterable[bytes], name: str) -> dict[tuple[str, int], list[ClockDecision]]:
    """The decisions of a file by (source, partition), in order. Raises `UsageError`."""
    found: dict[tuple[str, int], list[ClockDecision]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            stored = _DECISION.decode(line)
        except msgspec.DecodeError as error:
            message = f"{name}:{number}: not a decision ({error}); `evaluator dump --decisions` writes these files"
            raise UsageError(message) from error
        found.setdefault((stored.source, stored.partition), []).append(_decision(stored, name, number))
    return found


def _decision(stored: _Decision, name: str, number: int) -> ClockDecision:
    if stored.future is not None and stored.idle is None:
        return FutureRejection(stored.offset, stored.future)
    until = NOT_A_TIME if stored.idle is None else instant(stored.idle, "us")
    if until == NOT_A_TIME or stored.future is not None:
        message = f'{name}:{number}: a decision has either "idle" (a time) or "future" (an event number)'
        raise UsageError(message)
    return IdleAdvance(stored.offset, EpochUs(until))

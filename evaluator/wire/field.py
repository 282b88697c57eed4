"""Where the fields of an event are found, and what text their values become.

A field is a dotted path into the payload, or a name for something about the record itself: `key`,
`header:NAME`, `record.timestamp`, `record.topic` (docs/config.md, "Field").
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from evaluator.wire.records import NO_ENVELOPE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from evaluator.wire.records import Record, Records

RECORD_TIMESTAMP = "record.timestamp"
_RECORD_TOPIC = "record.topic"
_KEY = "key"
_HEADER = "header:"

_WORD = 64
"""Bits of the longest integer that somebody would use as an id."""


def record_column(path: str, topic: str) -> Callable[[Records], Sequence[object]] | None:
    """What reads the field `path` of records; None where the path leads into the payload."""
    if path == RECORD_TIMESTAMP:
        return _timestamps
    if path == _RECORD_TOPIC:
        return lambda records: [topic if there else None for there in _enveloped(records)]
    if path == _KEY:
        return lambda records: [None if record.timestamp is None else _decoded(record.key) for record in records]
    if path.startswith(_HEADER):
        name = path.removeprefix(_HEADER)
        return lambda records: [_header(record, name) for record in records]
    return None


def _enveloped(records: Records) -> list[bool]:
    there: list[bool] = (records.timestamps != NO_ENVELOPE).tolist()
    return there


def _timestamps(records: Records) -> Sequence[object]:
    """Their timestamps, None where they have none."""
    stamps: list[int] = records.timestamps.tolist()
    if not stamps or min(stamps) > 0:
        return stamps
    return [stamp if stamp > 0 else None for stamp in stamps]


def _header(record: Record, name: str) -> str | None:
    """The last header of that name, as Kafka's own `lastHeader` picks."""
    if record.timestamp is None:
        return None
    return next((_decoded(value) for key, value in reversed(record.headers) if key == name), None)


def _decoded(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode("utf-8", "replace")


def lookup(payload: object, parts: Sequence[str]) -> object:
    """The value at a dotted path, split at its dots; None where it is missing or null.

    Nested keys first, then literal keys with dots, at every level; a list of length 1 is looked through.
    """
    while isinstance(payload, list) and len(payload) == 1:
        payload = payload[0]
    if not parts:
        return _clean(payload)
    if not isinstance(payload, dict):
        return None
    for cut in range(1, len(parts) + 1):
        child = payload.get(".".join(parts[:cut]))
        if child is not None and (found := lookup(child, parts[cut:])) is not None:
            return found
    return None


def _clean(value: object) -> object:
    """Half of a surrogate pair, which a producer that cuts text may leave, is no text: U+FFFD takes its place."""
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return value


def text_of(value: object) -> str:
    """The text of an id: a string as it is, an integer with all its digits, anything else as a label's."""
    if type(value) is int and value.bit_length() <= _WORD:
        return str(value)
    return label_of(value)


def label_of(value: object) -> str:
    """The text of a `group_by` value (docs/semantics.md 8); "" for None.

    A number becomes the shortest text of its double; an integral double its plain digits, so 1.0 is "1"
    and 1e21 is "1000000000000000000000"; beyond the doubles it is "Infinity".
    """
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return _number_text(value)
    return _compact(value)


def _number_text(value: float) -> str:
    try:
        double = float(value)
    except OverflowError:
        double = math.inf if value > 0 else -math.inf
    if math.isinf(double):
        return "Infinity" if double > 0 else "-Infinity"
    return str(int(double)) if double.is_integer() else repr(double)


def _compact(value: object) -> str:
    """Compact JSON in the payload's key order. Not orjson's: that knows no half surrogates and no huge integers."""
    return str(_clean(json.dumps(value, ensure_ascii=False, separators=(",", ":"))))


def cut(text: str, limit: int) -> str:
    """`text`, at most `limit` bytes of UTF-8 of it, cut between two characters."""
    if len(text) * 4 <= limit:
        return text
    return text.encode()[:limit].decode("utf-8", "ignore") if len(text.encode()) > limit else text


def longer_than(text: str, limit: int) -> bool:
    """Whether `text` has more than `limit` bytes of UTF-8."""
    return len(text) * 4 > limit and len(text.encode()) > limit

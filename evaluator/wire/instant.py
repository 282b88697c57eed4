"""Times of payloads: epoch numbers with a unit, and ISO 8601 with an offset (docs/config.md, "Time fields")."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from evaluator.wire.number import micros, micros_column, number_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from collections.abc import Set as AbstractSet

    from evaluator.core.event import Int64s

LAST = 253_402_300_799_999_999
"""The last microsecond of the year 9999. The first one is 0."""

NOT_A_TIME = -1

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECONDS_END = len("2026-01-28T12:00:00")
_MINUTES_END = len("2026-01-28T12:00")
_LOCAL = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}")
_TAIL = re.compile(r"(?:\.([0-9]+))?(?:Z|([+-])([01][0-9]|2[0-3])(?::?([0-5][0-9]))?)")

_NEVER = -(10**18)
"""Part of a time that is none: so far back that no other part makes up for it."""


def instant(value: object, unit: str) -> int:
    """`value` as epoch microseconds; NOT_A_TIME where it is no time in the years 1970 to 9999.

    A number, or a string in JSON's number grammar, counts in `unit`; any other string is ISO 8601.
    """
    number = number_of(value)
    text = value if isinstance(value, str) else ""
    time = _iso(text) if number is None else micros(number, unit)
    return time if time is not None and 0 <= time <= LAST else NOT_A_TIME


def instant_column(values: Sequence[object], unit: str, kinds: AbstractSet[type]) -> Int64s:
    """`instant` of every value; `kinds` are their types."""
    if kinds == {str}:
        return _texts(values, unit)  # type: ignore[arg-type]  # the line above tells
    if kinds and kinds <= {int, float}:
        column = micros_column(values, kinds, unit, LAST)  # type: ignore[arg-type]  # the line above tells
        if column is not None:
            return column
    return np.array([instant(value, unit) for value in values], dtype=np.int64)


def _texts(values: Sequence[str], unit: str) -> Int64s:
    """Times as text. Events of a batch share their seconds, and mostly their milliseconds: each is parsed once."""
    seconds, tails = _Parsed(_local), _Parsed(_tail)
    times = [seconds[text[:_SECONDS_END]] + tails[text[_SECONDS_END:]] for text in values]
    return np.array(
        [time if 0 <= time <= LAST else instant(text, unit) for time, text in zip(times, values, strict=True)],
        dtype=np.int64,
    )


class _Parsed(dict[str, int]):
    """What `parse` says of each text."""

    def __init__(self, parse: Callable[[str], int]) -> None:
        super().__init__()
        self._parse = parse

    def __missing__(self, text: str) -> int:
        parsed = self[text] = self._parse(text)
        return parsed


def _iso(text: str) -> int:
    """Epoch microseconds, of any year; far in the past where `text` is no time."""
    if text[_MINUTES_END : _MINUTES_END + 1] in {"Z", "+", "-"}:
        return _local(text[:_MINUTES_END] + ":00") + _tail(text[_MINUTES_END:])
    return _local(text[:_SECONDS_END]) + _tail(text[_SECONDS_END:])


def _local(text: str) -> int:
    """Microseconds of a date and time of day, as if it were UTC."""
    if _LOCAL.fullmatch(text) is None:
        return _NEVER
    try:
        since = datetime.fromisoformat(text).replace(tzinfo=UTC) - _EPOCH
    except ValueError:
        return _NEVER
    return (since.days * 86_400 + since.seconds) * 1_000_000


def _tail(text: str) -> int:
    """Microseconds that a fraction of a second adds and an offset to the east takes away."""
    match = _TAIL.fullmatch(text)
    if match is None:
        return _NEVER
    fraction, sign, hours, minutes = match.groups()
    offset = (int(hours or 0) * 60 + int(minutes or 0)) * 60_000_000
    return (_fraction(fraction) if fraction else 0) + (offset if sign == "-" else -offset)


def _fraction(digits: str) -> int:
    """Microseconds of a decimal fraction of a second, to the nearest, ties to even; may be a whole second."""
    kept, rest = int(digits[:6].ljust(6, "0")), digits[6:].rstrip("0")
    return kept + (rest > "5" or (rest == "5" and kept & 1))

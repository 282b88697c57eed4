"""Times of payloads: epoch numbers with a unit, and ISO 8601 with an offset (docs/config.md, "Time fields")."""

from __future__ import annotations

import re
from datetime import date
from datetime import time as clock_time
from typing import TYPE_CHECKING

import numpy as np

from evaluator.wire.number import micros, micros_column, number_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluator.core.event import Int64s

LAST = 253_402_300_799_999_999
"""The last microsecond of the year 9999. The first one is 0."""

NOT_A_TIME = -1

_EPOCH = date(1970, 1, 1).toordinal()
_ISO = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]+))?)?"
    r"(?:Z|([+-])([0-9]{2})(?::?([0-9]{2}))?)"
)


def instant(value: object, unit: str) -> int:
    """`value` as epoch microseconds; NOT_A_TIME where it is no time in the years 1970 to 9999.

    A number, or a string in JSON's number grammar, counts in `unit`; any other string is ISO 8601.
    """
    number = number_of(value)
    time = _iso(value) if number is None else micros(number, unit)
    return time if time is not None and 0 <= time <= LAST else NOT_A_TIME


def instant_column(values: Sequence[object], unit: str) -> Int64s:
    """`instant` of every value."""
    if values and set(map(type, values)) <= {int, float}:
        column = micros_column(values, unit, LAST)  # type: ignore[arg-type]  # the line above tells
        if column is not None:
            return column
    return np.array([instant(value, unit) for value in values], dtype=np.int64)


def _iso(text: object) -> int | None:
    match = _ISO.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, sign, hours, minutes = match.groups()
    try:
        days = date(int(year), int(month), int(day)).toordinal() - _EPOCH
        local = _seconds(hour, minute, second)
        east = _seconds(hours, minutes, None)
    except ValueError:
        return None
    seconds = days * 86_400 + local - (-east if sign == "-" else east)
    return seconds * 1_000_000 + (_fraction(fraction) if fraction else 0)


def _seconds(hours: str | None, minutes: str | None, seconds: str | None) -> int:
    """Seconds of a time of day, absent parts being 0. Raises ValueError where there is no such time."""
    of_day = clock_time(int(hours or 0), int(minutes or 0), int(seconds or 0))
    return of_day.hour * 3600 + of_day.minute * 60 + of_day.second


def _fraction(digits: str) -> int:
    """Microseconds of a decimal fraction of a second, to the nearest, ties to even; may be a whole second."""
    kept, rest = int(digits[:6].ljust(6, "0")), digits[6:].rstrip("0")
    return kept + (rest > "5" or (rest == "5" and kept & 1))

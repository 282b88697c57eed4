"""Columns of an event batch from the values of fields: times, latencies, weights and texts.

A value of None is absent. Values that are wrong come back as negative codes; what that means for the event
is decided in `decode.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from evaluator.core.event import MAX_LATENCY, MAX_TEXT, NO_LATENCY, SCORE_UNIT
from evaluator.wire.field import cut, text_of
from evaluator.wire.instant import instant_column
from evaluator.wire.number import micros, micros_column, number_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from evaluator.core.event import Int64s

ABSENT, BAD = -1, -2

MAX_WEIGHT = 2**31 - 1
"""One event can stand for two thousand million; sums over the events of a window stay exact in 64 bits."""

Column = Sequence[object]
"""The values of one field of many events."""

Kinds = frozenset[type]
"""Types of which the values of a column are."""


def times(column: Column, unit: str, kinds: Kinds | None = None) -> Int64s:
    """Epoch microseconds, ABSENT or BAD."""
    return _where_present(column, kinds, lambda values, kinds: _coded(instant_column(values, unit, kinds)))


def latencies(column: Column, unit: str, kinds: Kinds | None = None) -> Int64s:
    """Durations in microseconds, NO_LATENCY (which is ABSENT) or BAD."""
    return _where_present(column, kinds, lambda values, kinds: _coded(_durations(values, unit, kinds)))


def spans(start: Int64s, end: Int64s) -> Int64s:
    """`end - start` of two columns of `times`, as `latencies`; absent where either is."""
    length = end - start
    wrong = (start == BAD) | (end == BAD) | (length < 0) | (length > MAX_LATENCY)
    return np.where((start == ABSENT) | (end == ABSENT), NO_LATENCY, np.where(wrong, BAD, length))


def weights(column: Column) -> Int64s:
    """Integers from 1 to MAX_WEIGHT, 1 where absent, or BAD."""
    return np.array([1 if value is None else _weight(value) for value in column], dtype=np.int64)


def scores(column: Column) -> Int64s:
    """Scores in [0, 1] as integers of 10^-6, NO_SCORE (which is ABSENT) or BAD."""
    return np.array([ABSENT if value is None else _score(value) for value in column], dtype=np.int64)


def texts(column: Column) -> list[str]:
    """Text of at most MAX_TEXT bytes, "" where absent."""
    if set(map(type, column)) == {str} and max(map(len, column)) <= MAX_TEXT // 4:  # type: ignore[arg-type]  # strings
        return list(column)  # type: ignore[arg-type]  # strings
    return [cut(text_of(value), MAX_TEXT) for value in column]


def _where_present(column: Column, kinds: Kinds | None, convert: Callable[[Column, Kinds], Int64s]) -> Int64s:
    kinds = frozenset(map(type, column)) if kinds is None else kinds
    if _NONE not in kinds:
        return convert(column, kinds) if column else np.empty(0, dtype=np.int64)
    out = np.full(len(column), ABSENT, dtype=np.int64)
    present = [position for position, value in enumerate(column) if value is not None]
    if present:
        out[present] = convert([column[position] for position in present], kinds - {_NONE})
    return out


_NONE = type(None)


def _coded(converted: Int64s) -> Int64s:
    return np.where(converted < 0, BAD, converted)


def _durations(values: Column, unit: str, kinds: Kinds) -> Int64s:
    if kinds <= {int, float}:
        column = micros_column(values, kinds, unit, MAX_LATENCY)  # type: ignore[arg-type]  # the line above tells
        if column is not None:
            return column
    return np.array([_duration(value, unit) for value in values], dtype=np.int64)


def _duration(value: object, unit: str) -> int:
    number = number_of(value)
    duration = None if number is None else micros(number, unit)
    return duration if duration is not None and 0 <= duration <= MAX_LATENCY else BAD


def _score(value: object) -> int:
    number = number_of(value)
    # A second has as many microseconds as 1 has parts: scores are rounded as times are.
    score = None if number is None else micros(number, "s")
    return score if score is not None and 0 <= score <= SCORE_UNIT else BAD


def _weight(value: object) -> int:
    number = number_of(value)
    fits = number is not None and 1 <= number <= MAX_WEIGHT and number == int(number)
    return int(number) if fits and number is not None else BAD

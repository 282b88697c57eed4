"""Numbers of payloads, and their exact conversion to microseconds (docs/semantics.md 1).

Each rule is written once for one value (`micros`) and once for a column (`micros_column`). The column form
is an optimisation only: whatever numpy could not convert exactly goes through the scalar form.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from collections.abc import Set as AbstractSet

    import numpy.typing as npt

    from evaluator.core.event import Int64s

AUTO = "auto"
"""A unit that is told by the magnitude of the number. For times only."""

_PER_UNIT = {"s": 1_000_000, "ms": 1_000, "us": 1}
_AS_DOUBLE = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 0.001}
_AUTO_BELOW = ((10**11, "s"), (10**14, "ms"), (10**17, "us"))
_EXACT_BELOW = 2.0**53
"""Up to here a double holds every integer, so integers may be converted among doubles."""

_OUT_OF_RANGE = 2.0**62
_HALF = 500
"""Of a thousand nanoseconds: the tie."""

MAX_DIGITS = 4300
"""Python and msgspec both refuse longer integers; here they are infinite, which no check lets pass."""

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")

Number = int | float


def number_of(value: object) -> Number | None:
    """`value` as a number: a JSON number, or a string in JSON's number grammar; None for anything else."""
    if type(value) is int or type(value) is float:
        return value
    if type(value) is str and (match := _NUMBER.fullmatch(value)):
        whole = match.group(1) is None and match.group(2) is None
        return integer(value) if whole else float(value)
    return None


def integer(digits: str) -> Number:
    """The integer that `digits` writes; infinite where it has more than 4300 of them."""
    if len(digits.lstrip("-")) <= MAX_DIGITS:
        return int(digits)
    return -math.inf if digits.startswith("-") else math.inf


def unit_of(number: Number, unit: str) -> str:
    """`unit`, or for "auto" the one that the magnitude of `number` tells."""
    if unit != AUTO:
        return unit
    return next((name for bound, name in _AUTO_BELOW if number < bound), "ns")


def micros(number: Number, unit: str) -> int | None:
    """`number` in microseconds, to the nearest, ties to even. None where it is infinite."""
    unit = unit_of(number, unit)
    if isinstance(number, int):
        return _thousandth(number) if unit == "ns" else number * _PER_UNIT[unit]
    product = number * _AS_DOUBLE[unit]
    return round(product) if math.isfinite(product) else None


def _thousandth(number: int) -> int:
    quotient, rest = divmod(number, 1000)
    return quotient + (rest > _HALF or (rest == _HALF and quotient & 1))


def micros_column(values: Sequence[Number], kinds: AbstractSet[type], unit: str, highest: int) -> Int64s | None:
    """Every value in microseconds, -1 where that is not in [0, `highest`]; None where numpy cannot do it exactly.

    The values are JSON numbers, not booleans, and at least one, each of one of the `kinds`; `highest` is below 2^62.
    """
    try:
        if kinds == {int}:
            return _integers(np.array(values, dtype=np.int64), unit, highest)
        raw = np.array(values, dtype=np.float64)
        return _doubles(raw, unit, highest, whole_too=lambda: int in kinds and int in set(map(type, values)))
    except OverflowError:
        return None


def _common_unit(lowest: Number, highest: Number, unit: str) -> str:
    """The unit that "auto" means for everything in between; still "auto" where there are several."""
    lower = unit_of(lowest, unit)
    return lower if lower == unit_of(highest, unit) else AUTO


def _integers(raw: Int64s, unit: str, highest: int) -> Int64s | None:
    unit = _common_unit(int(raw.min()), int(raw.max()), unit)
    if unit == AUTO:
        return None
    return _thousandths(raw, highest) if unit == "ns" else _multiples(raw, _PER_UNIT[unit], highest)


def _multiples(raw: Int64s, per: int, highest: int) -> Int64s:
    fits = (raw >= 0) & (raw <= highest // per)
    return np.where(fits, np.where(fits, raw, 0) * per, -1)


def _thousandths(raw: Int64s, highest: int) -> Int64s:
    quotient, rest = np.divmod(raw, 1000)
    rounded = quotient + ((rest > _HALF) | ((rest == _HALF) & (quotient & 1 == 1)))
    return np.where((rounded >= 0) & (rounded <= highest), rounded, -1)


def _doubles(raw: npt.NDArray[np.float64], unit: str, highest: int, *, whole_too: Callable[[], bool]) -> Int64s | None:
    unit = _common_unit(float(raw.min()), float(raw.max()), unit)
    if unit == AUTO or (not _products_are_exact(raw, unit) and whole_too()):
        return None
    with np.errstate(over="ignore"):
        rounded = np.rint(raw * _AS_DOUBLE[unit])
    # `highest` need not be a double: the comparison that counts is one of integers.
    whole: Int64s = np.where((rounded >= 0) & (rounded < _OUT_OF_RANGE), rounded, -1).astype(np.int64)
    return np.where(whole <= highest, whole, -1)


def _products_are_exact(raw: npt.NDArray[np.float64], unit: str) -> bool:
    """Whether integers among doubles may be converted as doubles: their product has to be an exact one."""
    if unit == "ns":
        return False
    with np.errstate(over="ignore"):
        return bool((np.abs(raw * _AS_DOUBLE[unit]) < _EXACT_BELOW).all())

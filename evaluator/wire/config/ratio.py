"""Ratios as exact decimals: `0.5%` and `0.005` are both the rational 5/1000, never a binary float."""

from __future__ import annotations

import re
from fractions import Fraction

from evaluator.wire.config.finding import Code, Refused, shown

RATIO_PATTERN = r"^[0-9]{1,9}(\.[0-9]{1,18})?%?$"
_DECIMAL = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,18})?)(%?)")

_WHOLE = 100
"""Per cent."""


def parse_ratio(written: object) -> Fraction:
    """A ratio of the config, in [0, 1]. Raises `Refused`."""
    text = written if isinstance(written, str) else getattr(written, "text", str(written))
    match = None if isinstance(written, bool) else _DECIMAL.fullmatch(text)
    if match is None:
        raise Refused(Code.BAD_RATIO, f"expected a ratio such as 0.5% or 0.005, found {shown(written)}")
    digits, percent = match.groups()
    ratio = Fraction(digits) / (_WHOLE if percent else 1)
    if ratio > 1:
        hint = f"; write {digits}%" if not percent and ratio <= _WHOLE else ""
        raise Refused(Code.BAD_RATIO, f"{text} is more than the whole; a ratio lies between 0% and 100%{hint}")
    return ratio


def parse_objective(written: object) -> Fraction:
    """An objective, strictly between 0 and 1. Raises `Refused`."""
    ratio = parse_ratio(written)
    if ratio in {0, 1}:
        why = "leaves no error budget" if ratio else "asks for nothing"
        text = written if isinstance(written, str) else getattr(written, "text", str(written))
        raise Refused(Code.BAD_RATIO, f"an objective of {text} {why}; write one strictly between 0% and 100%")
    return ratio

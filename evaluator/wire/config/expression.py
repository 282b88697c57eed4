"""Conditions: `<indicator> <op> <value>`, as in `error_ratio > 0.5%`, `p99.9 > 1s`, `score < 0.75`.

Spaces are free. Values are exact: ratios and scores are fractions, latencies microseconds, counts integers.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING

from evaluator.core.condition import COUNTS, RATIOS, SCORES, Condition, Kind, Op
from evaluator.wire.config.duration import parse_latency
from evaluator.wire.config.finding import Code, Refused, did_you_mean, guidance, listed, shown
from evaluator.wire.config.ratio import parse_ratio

if TYPE_CHECKING:
    from evaluator.core.event import DurationUs

_SIMPLE = {
    kind.value: kind
    for kind in (
        Kind.ERROR_RATIO, Kind.ERROR_COUNT, Kind.REQUEST_COUNT, Kind.MEAN, Kind.MAX, Kind.SCORE, Kind.SCORE_DROP,
    )
}  # fmt: skip
_NOT_YET = ("burn_rate",)
_KNOWN = (*_SIMPLE, "median", "p50", "p95", "p99", "p99.9", "slow_ratio")

CONDITION_PATTERN = r"^ *[a-z][a-z_0-9.]*( *\( *[0-9a-z]+ *\))? *(>=|<=|>|<) *[0-9][0-9a-z.]*%? *$"

_CONDITION = re.compile(r" *([^<>=!]*?) *(>=|<=|>|<) *([^<>=! ](?:[^<>=!]*[^<>=! ])?) *")
_INDICATOR = re.compile(r"([A-Za-z_][A-Za-z_0-9.]*)(?: *\( *([^()]*?) *\))?")
_QUANTILE = re.compile(r"p([0-9]{1,3}(?:\.[0-9]{1,9})?)")
_COUNT = re.compile(r"[0-9]{1,18}")
_ODD_OPERATOR = re.compile(r"==|!=|=>|=<|=|≥|≤|!")
_SLI_LATENCY = re.compile(r" *latency *(<=|[<>=!]+) *(\S+) *")


def parse_condition(text: object) -> Condition:
    """The condition that `text` writes. Raises `Refused`."""
    if not isinstance(text, str):
        raise Refused(Code.BAD_CONDITION, f"expected a condition such as error_ratio > 0.5%, found {shown(text)}")
    match = _CONDITION.fullmatch(text) if text.isascii() else None
    if match is None:
        raise Refused(Code.BAD_CONDITION, _why_not(text))
    indicator, op, value = match.groups()
    name, kind, argument = _indicator(indicator)
    return Condition(
        text=f"{name} {op} {value}",
        name=name,
        kind=kind,
        op=Op(op),
        threshold=_threshold(name, kind, value),
        q=_quantile(name) if kind is Kind.QUANTILE else None,
        slower_than=argument,
    )


def _why_not(text: str) -> str:
    example = "a condition such as error_ratio > 0.5% or p95 > 500ms"
    if not text.isascii():
        odd = next(character for character in text if not character.isascii())
        return f"{shown(text)} holds the character {odd!r} (U+{ord(odd):04X}); expected {example}"
    operator = _ODD_OPERATOR.search(text)
    if operator is not None and re.search(r">=|<=", text) is None:
        return f"{operator.group()} is not an operator of conditions; write one of >, >=, <, <="
    if len(re.findall(r"[<>]=?", text)) > 1:
        return f"{shown(text)} holds more than one comparison; write a list, of which any one suffices"
    if re.search(r"\b(or|and|OR|AND)\b|\|\||&&", text):
        return f"{shown(text)} joins conditions; write a list, of which any one suffices"
    return f"{shown(text)} is not a condition; expected <indicator> <op> <value>, {example}"


def _indicator(written: str) -> tuple[str, Kind, DurationUs | None]:
    """The indicator's name without spaces, its kind, and the argument of slow_ratio."""
    match = _INDICATOR.fullmatch(written)
    if match is None:
        raise Refused(Code.BAD_CONDITION, f"{shown(written)} is not an indicator; known indicators: {listed(_KNOWN)}")
    name, argument = match.groups()
    if name in _NOT_YET:
        raise Refused(Code.NOT_SUPPORTED, f"the indicator {name} is not supported yet")
    if name == Kind.SLOW_RATIO.value:
        return _slow_ratio(argument)
    if argument is not None:
        raise Refused(Code.BAD_CONDITION, f"{name} takes no argument; only slow_ratio does, as in slow_ratio(500ms)")
    if name in _SIMPLE:
        return name, _SIMPLE[name], None
    if name == "median" or _QUANTILE.fullmatch(name):
        return name, Kind.QUANTILE, None
    raise Refused(Code.BAD_CONDITION, f"unknown indicator {shown(name)}{guidance(name, _KNOWN, 'indicators')}")


def _slow_ratio(argument: str | None) -> tuple[str, Kind, DurationUs]:
    if not argument:
        raise Refused(Code.BAD_CONDITION, "slow_ratio needs the latency that counts as slow, as in slow_ratio(500ms)")
    return f"slow_ratio({argument})", Kind.SLOW_RATIO, parse_latency(argument)


def _quantile(name: str) -> Fraction:
    if name == "median":
        return Fraction(1, 2)
    match = _QUANTILE.fullmatch(name)
    q = Fraction(match.group(1)) / 100 if match is not None else Fraction(0)
    if not 0 < q < 1:
        raise Refused(
            Code.BAD_CONDITION,
            f"{name} is not a quantile; p lies strictly between 0 and 100 (max is the largest latency)",
        )
    return q


def _threshold(name: str, kind: Kind, value: str) -> Fraction:
    if kind in RATIOS or kind in SCORES:
        return parse_ratio(value)
    if kind not in COUNTS:
        return Fraction(parse_latency(value))
    if _COUNT.fullmatch(value) is None:
        raise Refused(Code.BAD_CONDITION, f"{name} is compared with a whole number, found {shown(value)}")
    return Fraction(value)


def parse_sli(written: object) -> DurationUs | None:
    """An SLO's indicator: None for `availability`, the bound for `latency <= 500ms`. Raises `Refused`."""
    if written == "availability":
        return None
    match = _SLI_LATENCY.fullmatch(written) if isinstance(written, str) else None
    if match is None:
        near = did_you_mean(written, ["availability", "latency"]) if isinstance(written, str) else ""
        message = f"expected availability or latency <= DURATION, found {shown(written)}{near}"
        raise Refused(Code.BAD_VALUE, message)
    if match.group(1) != "<=":
        raise Refused(Code.BAD_VALUE, f"an SLO's latency is compared with <=, found {match.group(1)}")
    return parse_latency(match.group(2))

"""Durations in Prometheus' grammar: ordered integer units without spaces, `1h30m`, `7d`, `100ms`.

A unit is always written: a bare number, and `1M`, which is a month to some and a minute to others, are errors.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from evaluator.core.event import DurationUs
from evaluator.wire.config.finding import Code, Refused, shown


class Unit(NamedTuple):
    """A suffix and how many microseconds it stands for."""

    suffix: str
    micros: int


_MS = 1_000
_S = 1_000_000
_D = 86_400 * _S

UNITS = (
    Unit("y", 365 * _D),
    Unit("w", 7 * _D),
    Unit("d", _D),
    Unit("h", 3600 * _S),
    Unit("m", 60 * _S),
    Unit("s", _S),
    Unit("ms", _MS),
    Unit("us", 1),
)
"""Largest first, the order in which they are written."""

LONGEST = DurationUs(100 * 365 * _D)
"""100 years: any sum of a time and a few durations stays within 64 bits."""

_DIGITS = "[0-9]{1,18}"
_WRITTEN = {
    micros: "".join(f"(?:({_DIGITS}){unit.suffix})?" for unit in UNITS[: 8 if micros else 7])
    for micros in (False, True)
}
_GRAMMAR = {micros: re.compile(pattern) for micros, pattern in _WRITTEN.items()}

DURATION_PATTERN = f"^(?=.){_WRITTEN[False]}$"
LATENCY_PATTERN = f"^(?=.){_WRITTEN[True]}$"
"""The same for JSON Schema, which knows no captures but ignores them."""

_BARE = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_FRACTION = re.compile(r"[0-9]*\.[0-9]+[a-z]+")


def parse_duration(text: object) -> DurationUs:
    """Microseconds of a duration of the config, at most 100 years. Raises `Refused`."""
    return _parse(text, micros=False)


def parse_latency(text: object) -> DurationUs:
    """As `parse_duration`, and microseconds may be written too: `250us`. Raises `Refused`."""
    return _parse(text, micros=True)


def _parse(text: object, *, micros: bool) -> DurationUs:
    if isinstance(text, int | float) and not isinstance(text, bool):
        raise Refused(Code.BAD_DURATION, f"a duration needs a unit, found {shown(text)}; {_suggestion(text)}")
    if not isinstance(text, str):
        raise Refused(Code.BAD_DURATION, f"expected a duration such as 5m or 1h30m, found {shown(text)}")
    match = _GRAMMAR[micros].fullmatch(text)
    if not text or match is None:
        raise Refused(Code.BAD_DURATION, _why_not(text, micros=micros))
    total = sum(int(number) * unit.micros for number, unit in zip(match.groups(), UNITS, strict=False) if number)
    if total > LONGEST:
        raise Refused(Code.BAD_DURATION, f"{shown(text)} is longer than 100 years")
    return DurationUs(total)


def _suggestion(number: object) -> str:
    digits = getattr(number, "text", str(number))
    return f"write {digits}s or {digits}m" if isinstance(number, int) else "write 90s or 1500ms"


def _why_not(text: str, *, micros: bool) -> str:
    if _BARE.fullmatch(text):
        whole = text.partition(".")[0]
        advice = f"{whole}ms or {whole}s" if micros else f"{whole}s or {whole}m"
        return f"a duration needs a unit, found {shown(text)}; write {advice}"
    if _FRACTION.fullmatch(text):
        return f"a duration has whole numbers only, found {shown(text)}; write 1h30m instead of 1.5h"
    if text.endswith("M"):
        return f"{shown(text)} is not a duration: there is no unit M; write m for minutes or 30d for a month"
    if text.endswith("us") and not micros:
        return f"{shown(text)} is not a duration: us is for latencies only; the smallest unit here is ms"
    if any(character.isspace() for character in text):
        return f"{shown(text)} is not a duration: write it without spaces, as in 1h30m"
    units = ", ".join(unit.suffix for unit in UNITS[: 8 if micros else 7])
    return f"{shown(text)} is not a duration; expected whole numbers with units in the order {units}, as in 1h30m"


_SHOWN_UNITS = tuple(unit for unit in UNITS if unit.suffix != "w")


def format_duration(micros: int) -> str:
    """The usual text of a duration >= 0: `5m`, `1h30m`, `30d`, "0s" for nothing.

    Days are not gathered into weeks: an SLO's `7d` should read as it was written. Years only when exact.
    """
    if micros == 0:
        return "0s"
    if micros % UNITS[0].micros == 0:
        return f"{micros // UNITS[0].micros}y"
    text = ""
    for suffix, size in _SHOWN_UNITS[1:]:
        count, micros = divmod(micros, size)
        text += f"{count}{suffix}" if count else ""
    return text

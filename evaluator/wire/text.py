"""Times, durations and numbers as others read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fractions import Fraction

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def rfc3339(moment: int) -> str:
    """Microseconds since 1970 as RFC 3339 UTC: whole seconds, else 3 or 6 digits of fraction."""
    seconds, micros = divmod(moment, 1_000_000)
    # A third of what strftime takes, and years below 1000 are padded on every platform.
    text = (_EPOCH + timedelta(seconds=seconds)).isoformat()[: len("1970-01-01T00:00:00")]
    if not micros:
        return f"{text}Z"
    return f"{text}.{micros // 1000:03d}Z" if micros % 1000 == 0 else f"{text}.{micros:06d}Z"


def decimal(value: Fraction) -> str:
    """A rational rounded half to even at 6 decimals, without exponent or trailing zeros."""
    return quotient(value.numerator, value.denominator)


def quotient(numerator: int, denominator: int) -> str:
    """`decimal` of two integers, the lower one positive: making a fraction of them takes longer than the text."""
    scaled, rest = divmod(numerator * 1_000_000, denominator)
    scaled += 2 * rest > denominator or (2 * rest == denominator and scaled % 2 == 1)
    sign, scaled = ("-" if scaled < 0 else ""), abs(scaled)
    whole, fraction = divmod(scaled, 1_000_000)
    return f"{sign}{whole}.{fraction:06d}".rstrip("0").rstrip(".")


def percent(value: Fraction) -> str:
    """A ratio as a percentage with at most 2 decimals, for people."""
    return f"{float(value) * 100:.2f}".rstrip("0").rstrip(".") + "%"


_SPANS = ((1_000_000, "s"), (1_000, "ms"), (1, "us"))


def span(micros: float) -> str:
    """A latency for people: `612us`, `312ms`, `5.2s`."""
    size, unit = next((step for step in _SPANS if micros >= step[0]), _SPANS[-1])
    return f"{micros / size:.4g}{unit}"

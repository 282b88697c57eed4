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
    text = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    if len(text) < len("1970-01-01T00:00:00"):  # strftime does not pad years below 1000 on every platform
        text = text.rjust(len("1970-01-01T00:00:00"), "0")
    if not micros:
        return f"{text}Z"
    return f"{text}.{micros // 1000:03d}Z" if micros % 1000 == 0 else f"{text}.{micros:06d}Z"


def decimal(value: Fraction) -> str:
    """A rational rounded half to even at 6 decimals, without exponent or trailing zeros."""
    scaled = round(value * 1_000_000)
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

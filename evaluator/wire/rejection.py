"""Why a record, or one event in it, cannot be judged. Bad input is one of these values, never an exception."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

MAX_DETAIL = 200
"""Characters of a detail that are kept: it travels in a header and in logs."""


class Reason(StrEnum):
    """The closed set of reasons (docs/semantics.md 2)."""

    NOT_JSON = "not_json"
    WRONG_SHAPE = "wrong_shape"
    BAD_VALUE = "bad_value"
    MISSING_TIME = "missing_time"
    FUTURE = "future"
    TOO_LARGE = "too_large"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one event, before anybody knows which record it came from."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Rejection:
    """Event `index` (from 0) of the record at `offset` is not judged.

    `by_clock` is set where only our own clock told that the event is from the future: such a decision has
    to be recorded, because no re-reading of the log would repeat it.
    """

    offset: int
    index: int
    reason: Reason
    detail: str
    by_clock: bool = False


def shown(value: object) -> str:
    """`value` for a detail: as Python writes it, and short."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > MAX_DETAIL:
        return "an integer of more than 60 digits"
    text = repr(value[:MAX_DETAIL] if isinstance(value, str) else value)
    return text if len(text) <= MAX_DETAIL else text[:MAX_DETAIL] + "..."

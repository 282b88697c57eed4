"""Why a record, or one event in it, cannot be judged. Bad input is one of these values, never an exception."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

MAX_DETAIL = 200
"""Characters of a detail that are kept: it travels in a header and in logs."""

KEPT = 100
"""Of one record, so many faults are kept one by one. Fewer, and who looks at a batch would miss some; without an end,
the four megabytes of `[0,0,0,...]` would be two million of them."""


class Reason(StrEnum):
    """The closed set of reasons (docs/semantics.md 2)."""

    NOT_JSON = "not_json"
    WRONG_SHAPE = "wrong_shape"
    BAD_VALUE = "bad_value"
    MISSING_TIME = "missing_time"
    FUTURE = "future"
    TOO_LARGE = "too_large"
    UNSUPPORTED = "unsupported"
    DECODER_BUG = "decoder_bug"
    """The fault is ours: decoders never say so, only what runs them does (`evaluator/runtime/last_net.py`)."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one event, before anybody knows which record it came from; or with `events` of them alike."""

    reason: Reason
    detail: str
    events: int = 1


class Faults:
    """What is wrong with events, in the order of records and of the events in them; `where` names a record.

    Behind the first `KEPT` of a record, the first fault of each reason stands for all of that reason.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[int, int, Fault]] = []
        self._stands_for: dict[int, int] = {}
        self._where, self._count = -1, 0
        self._first: dict[Reason, int] = {}

    def add(self, where: int, index: int, fault: Fault) -> None:
        """One more."""
        if where != self._where:
            self._where, self._count, self._first = where, 0, {}
        self._count += 1
        if self._count > KEPT:
            place = self._first.setdefault(fault.reason, len(self._kept))
            self._stands_for[place] = self._stands_for.get(place, 0) + fault.events
            if place < len(self._kept):
                return
        self._kept.append((where, index, fault))

    def kept(self) -> list[tuple[int, int, Fault]]:
        """Records, indexes and faults."""
        for place, events in self._stands_for.items():
            where, index, fault = self._kept[place]
            self._kept[place] = where, index, replace(fault, events=events)
        return self._kept


@dataclass(frozen=True, slots=True)
class Rejection:
    """Event `index` (from 0) of the record at `offset` is not judged, nor are others of it: `events` in all.

    `by_clock` is set where only our own clock told that the event is from the future: such a decision has
    to be recorded, because no re-reading of the log would repeat it.
    """

    offset: int
    index: int
    reason: Reason
    detail: str
    by_clock: bool = False
    events: int = 1


def shown(value: object) -> str:
    """`value` for a detail: as Python writes it, and short."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > MAX_DETAIL:
        return "an integer of more than 60 digits"
    text = repr(value[:MAX_DETAIL] if isinstance(value, str) else value)
    return text if len(text) <= MAX_DETAIL else text[:MAX_DETAIL] + "..."

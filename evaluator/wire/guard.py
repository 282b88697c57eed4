"""The future guard: an event may not be later than its record, or our clock, allows (docs/semantics.md 2).

The two answers are kept apart because only the first is a function of the log; what the clock decided has to
be recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from evaluator.wire.records import NO_ENVELOPE

if TYPE_CHECKING:
    import numpy.typing as npt

    from evaluator.core.event import DurationUs, EpochUs, Int64s

_LAST_MS = 10**15
"""No event is as late as this; larger record timestamps are capped so that their microseconds fit in 64 bits."""


def late_for_record(
    time: Int64s, timestamps: Int64s, position: Int64s, max_future: DurationUs
) -> npt.NDArray[np.bool_]:
    """Which events are more than `max_future` after their record's timestamp (in ms; 0 and less: absent)."""
    known = np.where((timestamps > 0) & (timestamps < _LAST_MS), timestamps, _LAST_MS)
    return time > (known * 1000 + max_future)[position]


def late_for_clock(
    time: Int64s, timestamps: Int64s, position: Int64s, max_future: DurationUs, now: EpochUs | None
) -> npt.NDArray[np.bool_]:
    """Which events are more than `max_future` after `now`: none without a clock, or without an envelope."""
    if now is None:
        return np.zeros(len(time), dtype=np.bool_)
    late: npt.NDArray[np.bool_] = (time > now + max_future) & (timestamps != NO_ENVELOPE)[position]
    return late

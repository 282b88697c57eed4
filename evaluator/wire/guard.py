"""The future guard: an event may not be later than its record, or our clock, allows (docs/semantics.md 2).

The two answers are kept apart because only the first is a function of the log; what the clock decided has to
be recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from evaluator.core.event import DurationUs, EpochUs, Int64s

_LAST_MS = 10**15
"""No event is as late as this; larger record timestamps are capped so that their microseconds fit in 64 bits."""


def late_for_record(
    time: Int64s, timestamps: Sequence[int | None], position: Int64s, max_future: DurationUs
) -> npt.NDArray[np.bool_]:
    """Which events are more than `max_future` after their record's timestamp (in ms; None, 0 and less: absent)."""
    known = [stamp if stamp is not None and 0 < stamp < _LAST_MS else _LAST_MS for stamp in timestamps]
    latest = np.array(known, dtype=np.int64) * 1000 + max_future
    return time > latest[position]


def late_for_clock(
    time: Int64s, timestamps: Sequence[int | None], position: Int64s, max_future: DurationUs, now: EpochUs | None
) -> npt.NDArray[np.bool_]:
    """Which events are more than `max_future` after `now`: none without a clock, or without an envelope (None)."""
    if now is None:
        return np.zeros(len(time), dtype=np.bool_)
    late = time > now + max_future
    if None in timestamps:
        late &= np.array([stamp is not None for stamp in timestamps], dtype=np.bool_)[position]
    return late

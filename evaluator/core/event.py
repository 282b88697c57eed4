"""Events as columns, and the series that they belong to.

A batch of a few thousand records is a few arrays, not a few thousand objects: that is what lets one Python
process keep up with the log. The columns are known here and in `aggregate.py` only; everything after sees
panes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, NewType

import numpy as np
import numpy.typing as npt

EpochUs = NewType("EpochUs", int)
"""Microseconds since 1970-01-01T00:00:00Z."""

DurationUs = NewType("DurationUs", int)
"""A span of time, or a latency, in microseconds."""

SECOND = DurationUs(1_000_000)
MINUTE = DurationUs(60 * SECOND)

GOOD, FAILED, UNKNOWN = 0, 1, 2
"""The codes of the column `EventBatch.failed`."""

NO_LATENCY = -1
NO_SCORE = -1
UNMATCHED = -1
OVERFLOW = "__overflow__"
"""Stands for a `group_by` value that is too long, and for every value past `max_series`."""

MAX_LATENCY = DurationUs(10**15)

SCORE_UNIT = 10**6
"""Scores lie in [0, 1] and are kept as integers of 10^-6."""

MAIN = "main"
"""The context of an event that names none."""

MAX_GROUP_VALUE = 1024
MAX_TEXT = 256
"""Bytes of trace_id, id, deploy and context that are kept; text of payloads is cut where it enters."""

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Int8s = npt.NDArray[np.int8]


SeriesKind = tuple[str, int]
"""A surface, and how many fields split it into series of this kind: none where it is meant as a whole."""


class SeriesKey(NamedTuple):
    """A surface and the values of its `group_by` fields, in the listed order ("" where absent)."""

    surface: str
    values: tuple[str, ...] = ()

    @property
    def kind(self) -> SeriesKind:
        """What the rules tell series apart by: one of those that split a surface is not the surface as a whole."""
        return (self.surface, len(self.values))

    def encoded(self) -> bytes:
        """Each part followed by byte 255, which UTF-8 never holds: what the shard is hashed from."""
        return b"".join(part.encode("utf-8", "surrogatepass") + b"\xff" for part in (self.surface, *self.values))


Picked = Callable[[Sequence[int]], Sequence[str]]
"""Gives the texts ("" where absent) of the events that it is asked for: so few are that nobody reads the others."""


def listed(texts: Sequence[str]) -> Picked:
    """Texts that are there already."""
    return lambda events: [texts[event] for event in events]


class RunColumns(NamedTuple):
    """What only run groups ask for: scores in 10^-6 (NO_SCORE: none), deploys ("": none) and contexts (MAIN: none)."""

    score: Int64s
    deploy: Sequence[str]
    context: Sequence[str]


@dataclass(slots=True)
class EventBatch:
    """The accepted events of a run of records of one partition, in log order.

    All columns have the same length. Several events may share an offset (batch records). Offsets and
    times are int64; `failed` holds GOOD, FAILED or UNKNOWN; `latency` is in microseconds, NO_LATENCY
    where there is none; `weight` is None where every weight is 1; `series` indexes the `SeriesTable`
    that the batch was decoded against, UNMATCHED where no surface matched; `trace_ids` gives those of some events.
    `held` is about how many bytes `trace_ids` keeps in memory. `runs` is there where a rule judges run groups.
    """

    offset: Int64s
    time: Int64s
    failed: Int8s
    latency: Int64s
    series: Int32s
    trace_ids: Picked
    weight: Int64s | None = None
    held: int = 0
    runs: RunColumns | None = None

    def __len__(self) -> int:
        """How many events there are."""
        return len(self.offset)


class SeriesTable:
    """Numbers the series seen since the last `take`, at most `limit(surface)` of each surface.

    Beyond the limit new values share the overflow series of their surface, counted in `overflowed`. The
    table is dropped with every `take`, so its size is bounded by config, whatever values the traffic holds.
    """

    __slots__ = ("_count", "_index", "_limits", "keys", "overflowed")

    def __init__(self, limits: dict[str, int]) -> None:
        self.keys: list[SeriesKey] = []
        self.overflowed: dict[str, int] = {}
        self._index: dict[SeriesKey, int] = {}
        self._count: dict[str, int] = {}
        self._limits = limits

    def intern(self, key: SeriesKey) -> int:
        """The number of `key`, or of its surface's overflow series where the surface is full."""
        found = self._index.get(key)
        if found is not None:
            return found
        if key.values and self._count.get(key.surface, 0) >= self._limits[key.surface]:
            self.overflowed[key.surface] = self.overflowed.get(key.surface, 0) + 1
            key = overflow_of(key)
            found = self._index.get(key)
            if found is not None:
                return found
        if key.values:
            self._count[key.surface] = self._count.get(key.surface, 0) + 1
        self._index[key] = len(self.keys)
        self.keys.append(key)
        return len(self.keys) - 1


def overflow_of(key: SeriesKey) -> SeriesKey:
    """The series that everything past `max_series` shares."""
    return SeriesKey(key.surface, (OVERFLOW,) * len(key.values))


_FNV_OFFSET = 14695981039346656037
_FNV_PRIME = 1099511628211
_U64 = (1 << 64) - 1


def fnv1a(data: bytes) -> int:
    """64-bit FNV-1a. Source: Fowler, Noll, Vo, draft-eastlake-fnv."""
    value = _FNV_OFFSET
    for byte in data:
        value = ((value ^ byte) * _FNV_PRIME) & _U64
    return value


@lru_cache(maxsize=1 << 16)
def shard_of(key: SeriesKey, shards: int) -> int:
    """The shard that owns a series, in [0, shards)."""
    return fnv1a(key.encoded()) % shards

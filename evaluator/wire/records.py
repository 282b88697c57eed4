"""Records of a partition as columns.

A record is looked at as a whole only where something is wrong with it. So a batch is four columns, which is all
that decoding needs, beside whatever its source has of each record; a `Record` is made when somebody asks for one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias, overload

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from evaluator.core.event import Int64s

Headers: TypeAlias = tuple[tuple[str, bytes], ...]

NO_ENVELOPE = -2
"""Stands in the column of timestamps for None. Whatever else is absent there is -1."""


class Record(NamedTuple):
    """A record as read. `timestamp` is in milliseconds since 1970 (-1: absent); a None value is a tombstone.

    A None timestamp marks a bare line of a file, which has neither timestamp nor key nor headers: the future guard
    is off, and every field about the record is absent.
    """

    offset: int
    timestamp: int | None
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


class Row(Protocol):
    """A record as a client library has it."""

    @property
    def offset(self) -> int:
        """The position in the partition."""

    @property
    def timestamp(self) -> int | None:
        """When it was produced or appended, in milliseconds."""

    @property
    def key(self) -> bytes | None:
        """The key."""

    @property
    def value(self) -> bytes | None:
        """The payload."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]:
        """Names and values, in order; Kafka lets a value be null."""


class Records(Sequence[Record]):
    """Records of one partition, in the order of their offsets.

    `offsets` and `timestamps` (milliseconds, -1 for absent, NO_ENVELOPE for None) are int64, `values` the payloads,
    `sizes` their lengths in bytes (int64, -1 for None). All have the length of `rows`, which hold what else there is.
    """

    __slots__ = ("_rows", "offsets", "sizes", "timestamps", "values")

    def __init__(
        self, rows: Sequence[Row], offsets: Int64s, timestamps: Int64s, values: list[bytes | None], sizes: Int64s
    ) -> None:
        self._rows = rows
        self.offsets, self.timestamps, self.values, self.sizes = offsets, timestamps, values, sizes

    @classmethod
    def of(cls, records: Sequence[Record]) -> Records:
        """These records as columns."""
        if isinstance(records, Records):
            return records
        if not records:
            nothing = np.empty(0, dtype=np.int64)
            return cls((), nothing, nothing, [], nothing)
        offsets, stamps, _, values, _ = zip(*records, strict=True)
        timestamps = np.array([NO_ENVELOPE if stamp is None else max(stamp, -1) for stamp in stamps], dtype=np.int64)
        return cls(records, np.array(offsets, dtype=np.int64), timestamps, list(values), _sizes(values))

    @classmethod
    def of_rows(cls, rows: Sequence[Row], runs: Sequence[Sequence[int]]) -> Records:
        """The records of a client library, none of them without an envelope. `runs` are their offsets, in pieces."""
        columns = [np.arange(r.start, r.stop) if isinstance(r, range) else np.array(r, dtype=np.int64) for r in runs]
        offsets = np.concatenate(columns) if columns else np.empty(0, dtype=np.int64)
        stamps, values = [row.timestamp for row in rows], [row.value for row in rows]
        try:
            timestamps = np.array(stamps, dtype=np.int64)
        except TypeError:  # None: so aiokafka says of the formats before Kafka 0.11 that there is none
            timestamps = np.array([-1 if stamp is None else stamp for stamp in stamps], dtype=np.int64)
        return cls(rows, offsets, np.maximum(timestamps, -1), values, _sizes(values))

    def __len__(self) -> int:
        """How many there are."""
        return len(self.values)

    def __iter__(self) -> Iterator[Record]:
        """One after the other."""
        return map(_record, self._rows)

    @overload
    def __getitem__(self, at: int) -> Record: ...
    @overload
    def __getitem__(self, at: slice) -> Records: ...
    def __getitem__(self, at: int | slice) -> Record | Records:
        """A record, or a run of them; the run of all is these records themselves."""
        if isinstance(at, slice):
            if at.indices(len(self)) == (0, len(self), 1):
                return self
            return Records(self._rows[at], self.offsets[at], self.timestamps[at], self.values[at], self.sizes[at])
        return _record(self._rows[at])

    def only(self, kept: Sequence[int]) -> Records:
        """Those at the places `kept`, which ascend."""
        places = np.array(kept, dtype=np.int64)
        rows, values = [self._rows[place] for place in kept], [self.values[place] for place in kept]
        return Records(rows, self.offsets[places], self.timestamps[places], values, self.sizes[places])


def _sizes(values: Sequence[bytes | None]) -> Int64s:
    try:
        return np.fromiter(map(len, values), dtype=np.int64, count=len(values))  # type: ignore[arg-type]  # tried
    except TypeError:
        return np.array([-1 if value is None else len(value) for value in values], dtype=np.int64)


def _record(row: Row) -> Record:
    if isinstance(row, Record):
        return row
    timestamp = -1 if row.timestamp is None else row.timestamp
    return Record(row.offset, timestamp, row.key, row.value, tuple(row.headers) if row.headers else ())

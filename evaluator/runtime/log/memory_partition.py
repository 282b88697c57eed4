"""One partition in memory: its records, and which of them a reader may see.

    offset   0    1    2    3    4    5    6    7
             a    x    a    Ca   b    x    a    -         a, b: transactions; x: outside any; Ca: commit marker of a
                                 ^              ^
                                 last stable    high watermark
                                 offset: b is open, nothing from here on is shown to a read_committed reader

A marker takes an offset and is never shown. An aborted record keeps its offset and is shown only to a
reader who asks for uncommitted ones. It knows nothing of producers, topics or time.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import count, repeat
from operator import itemgetter
from typing import TYPE_CHECKING

from evaluator.wire.records import Headers, Record

if TYPE_CHECKING:
    from collections.abc import Iterable

_offset = itemgetter(0)
_GONE = Record(-1, -1, None, None)
"""Stands where a trimmed record was, so that its memory is free at once; sorts before every offset."""


class PartitionLog:
    """Records in the order of their offsets; markers and compacted records leave gaps."""

    def __init__(self, compact_every: int | None = None) -> None:
        """`compact_every`: compact after so many appends at the earliest; None: never by itself."""
        self.first = 0
        self.end = 0
        self._compact_every = compact_every
        self._records: list[Record] = []
        self._head = 0
        # Offsets of each open transaction. A dict keeps the order of the first sends, so the first entry
        # begins at the last stable offset.
        self._open: dict[int, list[int]] = {}
        self._aborted: list[int] = []
        self._dirty = 0
        self._cleaned = 0

    @property
    def last_stable(self) -> int:
        """Where the first open transaction begins; the high watermark when none is open."""
        for offsets in self._open.values():
            return offsets[0]
        return self.end

    def extend(
        self,
        timestamps: Iterable[int | None],
        keys: Iterable[bytes | None],
        values: Iterable[bytes | None],
        headers: Iterable[Headers] = repeat(()),
        offsets: Iterable[int] | None = None,
    ) -> None:
        """Append records outside any transaction, given as columns; the shortest column decides how many.

        `offsets` must rise from the present end; without them they are the next ones.
        """
        before = len(self._records)
        # tuple.__new__ instead of Record(...): all in C, a third of the time.
        columns = zip(count(self.end) if offsets is None else offsets, timestamps, keys, values, headers, strict=False)
        self._records.extend(map(tuple.__new__, repeat(Record), columns))
        added = len(self._records) - before
        if added:
            self.end = self._records[-1].offset + 1
        self._compact_if_due(added)

    def skip(self, offset: int) -> None:
        """Go on at `offset`, as after markers or compacted records."""
        self.end = max(self.end, offset)

    def write(self, transaction: int, timestamp: int, key: bytes | None, value: bytes | None, headers: Headers) -> int:
        """Append one record of an open transaction; gives its offset."""
        offset = self.end
        self._records.append(Record(offset, timestamp, key, value, headers))
        self._open.setdefault(transaction, []).append(offset)
        self.end += 1
        self._dirty += 1
        return offset

    def mark(self, transaction: int, *, commit: bool) -> None:
        """End a transaction that wrote here: a control marker takes the next offset."""
        offsets = self._open.pop(transaction)
        if not commit:
            self._aborted += offsets
            self._aborted.sort()
        self.end += 1
        self._compact_if_due(0)

    def available(self, position: int) -> int:
        """How many records there are from `position` to the last stable offset, aborted ones included."""
        return max(0, self._index(self.last_stable) - self._index(position))

    def fetch(self, position: int, limit: int) -> tuple[list[Record], int]:
        """Up to `limit` committed records from `position`, and the position after them.

        Fewer than `limit` means that the last stable offset was reached; markers before it are passed.
        """
        stable = self.last_stable
        at, stop = self._index(position), self._index(stable)
        found: list[Record] = []
        while at < stop and len(found) < limit:
            window = self._records[at : min(stop, at + limit - len(found))]
            at += len(window)
            window = self._without_aborted(window)
            # The usual window is the whole answer: hand out the slice itself, not a copy.
            found = found + window if found else window
        if at < stop and found:
            return found, found[-1].offset + 1
        return found, position if at < stop else max(position, stable)

    def read(self, start: int, *, committed: bool) -> list[Record]:
        """Every record from `start`: the committed ones to the last stable offset, or all to the end."""
        if not committed:
            return self._records[self._index(start) :]
        return self._without_aborted(self._records[self._index(start) : self._index(self.last_stable)])

    def trim(self, before: int) -> None:
        """Forget the records below `before`. An open transaction is never cut: it stops at the last stable offset."""
        self.first = max(self.first, min(before, self.last_stable))
        head = self._index(self.first)
        self._records[self._head : head] = repeat(_GONE, head - self._head)
        self._head = head
        if head * 2 >= len(self._records):
            # Only now is the tail moved: each record is moved at most once per halving.
            del self._records[:head]
            self._head = 0
        del self._aborted[: bisect_left(self._aborted, self.first)]

    def compact(self) -> None:
        """Keep the newest committed record of each key below the last stable offset; offsets stay as they are.

        A tombstone outlives one pass, so that a reader who has begun sees it; the next pass drops it.
        """
        stable = self.last_stable
        cut = self._index(stable)
        decided = self._without_aborted(self._records[self._head : cut])
        newest = {record.key: record for record in decided}
        self._records = [
            record
            for record in decided
            if newest[record.key] is record and (record.value is not None or record.offset >= self._cleaned)
        ] + self._records[cut:]
        self._head = 0
        del self._aborted[: bisect_left(self._aborted, stable)]
        self._cleaned, self._dirty = stable, 0

    def _compact_if_due(self, added: int) -> None:
        self._dirty += added
        # At least as many new records as old ones: a pass costs a constant per append, however long the log.
        if self._compact_every is not None and self._dirty >= max(self._compact_every, len(self._records) // 2):
            self.compact()

    def _index(self, offset: int) -> int:
        return bisect_left(self._records, offset, key=_offset)

    def _without_aborted(self, window: list[Record]) -> list[Record]:
        if not self._aborted or not window:
            return window
        low = bisect_left(self._aborted, window[0].offset)
        high = bisect_left(self._aborted, window[-1].offset + 1)
        if low == high:
            return window
        hidden = set(self._aborted[low:high])
        return [record for record in window if record.offset not in hidden]

"""Which series an event belongs to.

The values that the matchers and `group_by` of a source name decide it, so each distinct combination gets a
*class* once: a number for its series. A `SeriesTable` lives for one commit only; numbering the classes in a
new one is a single look at an array.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evaluator.core.event import MAX_GROUP_VALUE, OVERFLOW, UNMATCHED, Int32s, SeriesKey
from evaluator.wire.field import label_of, longer_than
from evaluator.wire.memo import Memo

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evaluator.core.event import Int64s, SeriesTable
    from evaluator.wire.column import Column, Kinds
    from evaluator.wire.config.model import SurfaceConfig

_UNNUMBERED = -2

MAX_CLASSES = 65_536
"""How many classes are kept between batches. Fewer than a source has series would number them in every batch."""


class Numbered(NamedTuple):
    """`series` of every event in the table, how many have none, and how many group values were too long."""

    series: Int32s
    unmatched: int
    oversized: int


class Classifier:
    """Sorts the events of one source into series. `fields` are the paths whose values it looks at."""

    def __init__(self, surfaces: Sequence[SurfaceConfig]) -> None:
        self._surfaces = surfaces
        self.fields: tuple[str, ...] = tuple(dict.fromkeys(path for each in surfaces for path in _fields_of(each)))
        self._class_of = Memo(self._classified)
        self._forget()

    def _forget(self) -> None:
        self._class_of.clear()
        self._known: dict[tuple[SeriesKey | None, int], int] = {}
        self._table: SeriesTable | None = None
        self._series: Int32s = np.empty(0, dtype=np.int32)
        self._oversized: Int64s = np.empty(0, dtype=np.int64)

    def classes(self, columns: Sequence[Column], count: int, kinds: Sequence[Kinds | None] = ()) -> Int64s:
        """The classes of `count` events, for the next call of `number`. The columns are the values of `fields`."""
        if self._class_of.full or len(self._known) > MAX_CLASSES:
            self._forget()
        if columns:
            return np.array(self._class_of.column(columns, kinds), dtype=np.int64)
        return np.full(count, self._classified(()), dtype=np.int64)

    def number(self, classes: Int64s, table: SeriesTable) -> Numbered:
        """The series of events of these classes, numbered in `table`."""
        self._extend(table)
        series = self._series[classes]
        if len(classes) and series.min() == _UNNUMBERED:
            self._number(classes[series == _UNNUMBERED], table)
            series = self._series[classes]
        oversized = int(self._oversized[classes].sum()) if self._oversized.any() else 0
        return Numbered(series, int((series == UNMATCHED).sum()), oversized)

    def _extend(self, table: SeriesTable) -> None:
        """Room for the classes that are new, and for all of them in a new table."""
        if table is not self._table:
            self._table, self._series = table, np.empty(0, dtype=np.int32)
        new = len(self._known) - len(self._series)
        if new:
            self._series = np.append(self._series, np.full(new, _UNNUMBERED, dtype=np.int32))
            self._oversized = np.array([oversized for _, oversized in self._known], dtype=np.int64)

    def _number(self, classes: Int64s, table: SeriesTable) -> None:
        """Intern in the order of the log: past `max_series` the first ones have the places."""
        keys = [key for key, _ in self._known]
        for each in dict.fromkeys(classes.tolist()):
            key = keys[each]
            self._series[each] = UNMATCHED if key is None else table.intern(key)

    def _classified(self, values: tuple[object, ...]) -> int:
        return self._known.setdefault(self._key(dict(zip(self.fields, values, strict=True))), len(self._known))

    def _key(self, attributes: Mapping[str, object]) -> tuple[SeriesKey | None, int]:
        """The series of these attributes, and how many of its values were too long for a label."""
        for surface in self._surfaces:
            if surface.match is None or surface.match.holds(attributes.get):
                texts = [label_of(attributes[each.path]) for each in surface.group_by]
                long = [longer_than(text, MAX_GROUP_VALUE) for text in texts]
                values = tuple(OVERFLOW if cut else text for text, cut in zip(texts, long, strict=True))
                return SeriesKey(surface.name, values), sum(long)
        return None, 0


def _fields_of(surface: SurfaceConfig) -> list[str]:
    matched = [] if surface.match is None else list(surface.match.fields)
    return [*matched, *(each.path for each in surface.group_by)]

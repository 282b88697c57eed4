"""Schemas by id, as far as they are known: what decoding is a function of, beside the records.

Nobody is asked here. What a record names and is not known yet is told, so that it can be learned before the record is
read. A schema never changes under its id: what is known stays known, and all who read a source share it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from evaluator.errors import SchemasMissing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Decode = Callable[[bytes], object]
"""From a payload to the JSON value that it holds, or the fault that it holds none."""

MOST_ABSENT = 100_000
"""Ids of which it is known that there is nothing under them. More are no ids but garbage, and the oldest are asked for
again. With fewer than the records of a fetch, one of nothing but garbage would never end."""


class Schemas:
    """The decoder under an id, or that there is none. `is_complete`: what is not here does not exist."""

    def __init__(self, known: Mapping[int, Decode] | None = None, *, is_complete: bool = False) -> None:
        self.is_complete = is_complete
        self._known: dict[int, Decode] = dict(known or {})
        self._absent: dict[int, None] = {}

    def missing(self, named: Iterable[int]) -> list[int]:
        """Which of these ids have to be learned, ascending."""
        if self.is_complete:
            return []
        return sorted(set(named) - self._known.keys() - self._absent.keys())

    def learn(self, schema: int, decode: Decode | None) -> None:
        """What is under an id; None: nothing."""
        if decode is not None:
            self._known[schema] = decode
            return
        self._absent[schema] = None
        if len(self._absent) > MOST_ABSENT:
            del self._absent[next(iter(self._absent))]

    def find(self, schema: int) -> Decode | None:
        """What is under an id; None: nothing. Raises `SchemasMissing` where nobody knows."""
        found = self._known.get(schema)
        if found is None and self.missing([schema]):
            raise SchemasMissing([schema])
        return found

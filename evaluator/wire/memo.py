"""Answers that were given before for the same values.

Real traffic repeats itself: a status, a route, a pair of labels. So what is asked of matchers is asked once
for each distinct combination of values, not once for each event.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from evaluator.wire.column import Column, Kinds

T = TypeVar("T")

_NUMBERS = frozenset({bool, int, float})
_KEYS = _NUMBERS | {str, type(None)}

ROOM = 8 << 20
"""How much is remembered, in characters, each entry counting as 128 more: 65,536 entries of short values.

Smaller, and values of high cardinality evict what repeats; larger, and a source with long values costs
more memory than its batches.
"""
_ENTRY = 128


class Memo(Generic[T]):
    """Remembers what `answer` said of a combination of values. Starts afresh when it is full."""

    def __init__(self, answer: Callable[[tuple[object, ...]], T]) -> None:
        self._answer = answer
        self._known: dict[tuple[object, ...], _Answers[T]] = {}

    @property
    def full(self) -> bool:
        """Whether it is time to `clear`: between two batches, never within one."""
        return sum(answers.size for answers in self._known.values()) > ROOM

    def clear(self) -> None:
        """Forget everything."""
        self._known.clear()

    def column(self, columns: Sequence[Column], known: Sequence[Kinds | None] = ()) -> list[T]:
        """The answer for every event; `columns` holds the values of one field each, at least one field.

        `known`: types of which they are, where that is known.
        """
        kinds = [
            frozenset(map(type, column)) if kind is None or len(kind & _NUMBERS) > 1 else kind
            for column, kind in zip_longest(columns, known)
        ]
        numbers = [kind & _NUMBERS for kind in kinds]
        if any(kind - _KEYS for kind in kinds) or any(len(number) > 1 for number in numbers):
            # Lists and objects are no keys, and 1, 1.0 and True would be the same one.
            return [self._answer(values) for values in zip(*columns, strict=True)]
        signature = tuple(next(iter(number), None) for number in numbers)
        answers = self._known.get(signature)
        if answers is None:
            answers = self._known[signature] = _Answers(self._answer)
        keys = columns[0] if len(columns) == 1 else zip(*columns, strict=True)
        return list(map(answers.__getitem__, keys))


class _Answers(dict[object, T]):
    """Answers for values whose numbers are all of one type, field by field. The value of one field is its own key."""

    def __init__(self, answer: Callable[[tuple[object, ...]], T]) -> None:
        super().__init__()
        self._answer = answer
        self.size = 0

    def __missing__(self, key: object) -> T:
        values = key if isinstance(key, tuple) else (key,)
        answer = self[key] = self._answer(values)
        self.size += _ENTRY + sum(len(value) for value in values if isinstance(value, str))
        return answer

"""Duplicates: the same id again within the last R offsets of a partition (docs/semantics.md 2)."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

Ids = dict[str, int]
"""The newest offset of each id, in the order of these offsets."""

_MASKED = "xxxxxxxx-xxxx-"
"""How loggers that hide ids write every UUID. Taken for an id, it would make all events but one duplicates."""


def is_masked(identity: str) -> bool:
    """Whether an id says nothing."""
    return identity.startswith(_MASKED)


class Dedup:
    """The newest offset of every id of the last `reach` offsets of one partition, oldest first."""

    def __init__(self, reach: int) -> None:
        self._reach = reach
        self._newest: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        """Count the ids that are remembered."""
        return len(self._newest)

    def judged(self, offsets: Iterable[int], identities: Iterable[str]) -> tuple[list[bool], Ids]:
        """Which of these events are no duplicates, and the ids to `learn` once they count. Offsets never go back.

        An event without an id ("", or one that is masked) is always fresh.
        """
        fresh, ids = [], Ids()
        for offset, identity in zip(offsets, identities, strict=True):
            if not identity or is_masked(identity):
                fresh.append(True)
                continue
            newest = ids.pop(identity, None)
            if newest is None:
                newest = self._newest.get(identity)
            fresh.append(newest is None or newest < offset - self._reach)
            ids[identity] = offset
        return fresh, ids

    def learn(self, ids: Ids) -> None:
        """Remember ids, and forget those that are out of reach by the newest of them."""
        for identity, offset in ids.items():
            self._newest[identity] = offset
            self._newest.move_to_end(identity)
        oldest = next(reversed(self._newest.values()), 0) - self._reach
        while self._newest and next(iter(self._newest.values())) < oldest:
            self._newest.popitem(last=False)

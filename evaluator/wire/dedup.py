"""Duplicates: the same id again within the last R offsets of a partition (docs/semantics.md 2)."""

from __future__ import annotations

from collections import OrderedDict

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

    def fresh(self, offset: int, identity: str) -> bool:
        """Whether this is no duplicate, and remember the event either way. Offsets never go back.

        An event without an id ("", or one that is masked) is always fresh.
        """
        self._forget(before=offset - self._reach)
        if not identity or is_masked(identity):
            return True
        seen = identity in self._newest
        self._newest[identity] = offset
        self._newest.move_to_end(identity)
        return not seen

    def _forget(self, before: int) -> None:
        while self._newest and next(iter(self._newest.values())) < before:
            self._newest.popitem(last=False)

"""The panes of one series and step, packed, in pieces while they grow.

What the partitions of a source report of a pane comes in pieces, some every commit. They are kept as they come and
merged many series at a time (`rows.merged`). A pane that was stored stays sealed until it is asked for: opening them
is most of what restoring a shard would cost.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from evaluator.core.packed import Packed
from evaluator.core.sums import Sums, summed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from evaluator.core.pane import Evidence


SUMS_KEPT = 64
"""Windows whose sums are kept for the next rule. More are decided at a time only in a backlog of long windows."""


class Sealed(NamedTuple):
    """A pane as it lies in a record, and how to open it."""

    stored: bytes
    unseal: Callable[[bytes], Packed]

    @property
    def opened(self) -> Packed:
        """The pane. Raises what `unseal` raises."""
        return self.unseal(self.stored)


class Panes:
    """Panes by slot. Whatever opens a sealed one raises what its `unseal` raises."""

    __slots__ = ("_complete", "_failing", "_growing", "_slowest", "_sums", "_until")

    def __init__(self) -> None:
        self._growing: dict[int, list[Packed] | Sealed] = {}
        self._complete: dict[int, bytes | Sealed] = {}
        self._until = 0
        # Of the complete panes the newest evidence, and its slot: a rule that judges its first window later shows it.
        self._failing: tuple[int, tuple[Evidence, ...]] = (0, ())
        self._slowest: tuple[int, tuple[Evidence, ...]] = (0, ())
        # Rules with the same windows ask for the same sums, one after another.
        self._sums: dict[range, Sums | None] = {}

    def restore(self, slot: int, pane: Packed | Sealed) -> None:
        """Keep a pane that was stored."""
        self._sums.clear()
        self._growing[slot] = pane if isinstance(pane, Sealed) else [pane]

    def add(self, slot: int, piece: Packed) -> list[Packed]:
        """Add events to a pane that is not complete; returns its pieces, to be replaced by what they are together."""
        self._sums.clear()
        pieces = self._pieces(slot)
        if pieces is None:
            pieces = self._growing[slot] = []
        pieces.append(piece)
        return pieces

    def complete(self, until: int) -> None:
        """To the slots before `until` no event comes any more, and whoever judges took their evidence into account.

        Their pieces have been merged.
        """
        self._sums.clear()
        if until <= self._until:
            return
        self._until = until
        for slot in [slot for slot in self._growing if slot < until]:
            pane = self._growing.pop(slot)
            if isinstance(pane, Sealed):
                self._complete[_shared(slot)] = pane
            else:
                (whole,) = pane
                self._complete[_shared(slot)] = self._without_evidence(slot, whole)

    def drop(self, until: int) -> list[int]:
        """Forget the slots before `until`; returns those that held a pane."""
        self._sums.clear()
        dropped = [slot for slot in self if slot < until]
        for slot in dropped:
            self._growing.pop(slot, None)
            self._complete.pop(slot, None)
        return dropped

    def get(self, slot: int) -> Packed | None:
        """The pane at `slot`, whose pieces have been merged; of complete panes only the newest proof is known."""
        if slot in self._complete:
            counted = self._counted(slot)
            return Packed(counted, *(proof if slot == at else () for at, proof in (self._failing, self._slowest)))
        pieces = self._pieces(slot)
        if pieces is None:
            return None
        (whole,) = pieces
        return whole

    def sum(self, slots: range) -> Sums | None:
        """The panes at `slots` added up, None where there are none. Not to be changed: others get the same."""
        if slots not in self._sums:
            if len(self._sums) >= SUMS_KEPT:
                self._sums.clear()
            self._sums[slots] = self._sum(slots)
        return self._sums[slots]

    def _sum(self, slots: range) -> Sums | None:
        found = [self._counted(slot) for slot in _both(self._complete, slots)]
        for slot in _both(self._growing, slots):
            found += [piece.counted for piece in self._pieces(slot) or ()]
        return summed(found) if found else None

    def __iter__(self) -> Iterator[int]:
        """The slots that hold a pane, in no order."""
        yield from self._complete
        yield from self._growing

    def __len__(self) -> int:
        """How many panes there are."""
        return len(self._complete) + len(self._growing)

    def _pieces(self, slot: int) -> list[Packed] | None:
        pane = self._growing.get(slot)
        if isinstance(pane, Sealed):
            pane = self._growing[slot] = [pane.opened]
        return pane

    def _counted(self, slot: int) -> bytes:
        pane = self._complete[slot]
        if isinstance(pane, Sealed):
            pane = self._complete[slot] = self._without_evidence(slot, pane.opened)
        return pane

    def _without_evidence(self, slot: int, whole: Packed) -> bytes:
        if whole.failing and slot >= self._failing[0]:
            self._failing = (slot, whole.failing)
        if whole.slowest and slot >= self._slowest[0]:
            self._slowest = (slot, whole.slowest)
        return whole.counted


@lru_cache(maxsize=4096)
def _shared(slot: int) -> int:
    """The same number: all series keep one object of it, not one each."""
    return slot


def _both(kept: Collection[int], slots: range) -> list[int]:
    """The slots that are in both; the shorter one is gone through."""
    if len(kept) < len(slots):
        return [slot for slot in kept if slot in slots]
    return [slot for slot in slots if slot in kept]

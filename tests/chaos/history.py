"""The pure checker of a scenario: what was published against what one undisturbed pass over the same input finds.

Nothing here touches a log or a clock. A scenario records, this judges.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Judgement(NamedTuple):
    """Transitions by number. `invented` were published and no undisturbed pass finds them."""

    expected: int
    seen: int
    lost: int
    duplicated: int
    invented: int

    @property
    def is_exact(self) -> bool:
        """Each expected transition once, and nothing else."""
        return self.lost == self.duplicated == self.invented == 0


def name_of(alert: Mapping[str, Any]) -> str:
    """What makes two alert records the same transition."""
    return f"{alert['status']} {alert['id']}"


def judge(expected: Iterable[Mapping[str, Any]], seen: Iterable[Mapping[str, Any]]) -> Judgement:
    """Compare alert records as multisets of transitions."""
    wanted, found = Counter(map(name_of, expected)), Counter(map(name_of, seen))
    return Judgement(
        expected=wanted.total(),
        seen=found.total(),
        lost=sum(1 for name in wanted if name not in found),
        duplicated=sum(count - 1 for count in found.values()),
        invented=sum(1 for name in found if name not in wanted),
    )


def gaps(sequences: Iterable[int]) -> list[int]:
    """The sequence numbers of one task's committed transactions that are missing between its first and last."""
    there = set(sequences)
    return [number for number in range(min(there, default=0), max(there, default=-1) + 1) if number not in there]

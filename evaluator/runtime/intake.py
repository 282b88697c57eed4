"""What this process read of each source over the last minutes: how much was judged, how much was rejected, and why.

Made from the stages' tallies, which say only how much it was since the start. A share since the start would not
see a producer that broke today, nor let go of one that was mended. Others may read other partitions of a source:
nothing here knows of those.
"""

from __future__ import annotations

from collections import Counter, deque
from fractions import Fraction
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from evaluator.core.event import MINUTE, SECOND
from evaluator.wire.rejection import Reason

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from evaluator.runtime.clock import Clock

BUCKET_S = MINUTE // SECOND
"""Shorter: more to add up, and nobody sees the difference. Longer: the far end of the time is known less well."""

BUCKETS = 10
"""Fewer: what came while nobody looked is forgotten. More: a mended producer stays flagged for as long."""

OVER_S = BUCKETS * BUCKET_S
"""Seconds that are looked back, the present bucket included, so that it is up to one bucket less."""

MAX_REJECTED = Fraction(1, 100)
"""Less: every typo of one client is flagged. More: what rules with thresholds of a few per cent judge is not sound."""


class Rejects(NamedTuple):
    """Of `events` of a source that were read in the last `OVER_S` seconds, `rejected` could not be judged.

    `events` were accepted or rejected; those that are skipped or dropped as duplicates were never to be judged and
    are in neither number. `reason` is the commonest one, None where nothing was rejected.
    """

    rejected: int = 0
    events: int = 0
    reason: Reason | None = None

    @property
    def ratio(self) -> Fraction | None:
        """Rejected of all, 0 to 1; None before the first event."""
        return Fraction(self.rejected, self.events) if self.events else None

    @property
    def is_everything(self) -> bool:
        """Whether there were events, and not one of them could be judged."""
        return 0 < self.events == self.rejected

    def exceed(self, limit: Fraction) -> bool:
        """Whether more than `limit` (0 to 1) was rejected; or everything, which no limit is meant to allow."""
        return self.rejected > limit * self.events or self.is_everything


class Intake:
    """Counts by source over the last `OVER_S` seconds of `clock`, whose time of day may be set: it is not asked.

    Memory: `BUCKETS` + 1 numbers for each source, result and reason, however much is read.
    """

    def __init__(self, sources: Collection[str], clock: Clock) -> None:
        self._clock = clock
        self._keys: tuple[tuple[str, ...], ...] = (
            *product(("records",), sources, ("ok", "rejected")), *product(("rejected",), sources, Reason),
        )  # fmt: skip
        self._before: Mapping[tuple[str, ...], int] = {}
        self._buckets: deque[tuple[int, Counter[tuple[str, ...]]]] = deque(maxlen=BUCKETS)

    def count(self, tallies: Mapping[tuple[str, ...], int]) -> None:
        """Take in what was tallied since the last call, as read now; often enough is several times a bucket.

        `tallies` begin at zero with the process and only grow.
        """
        present = self._present()
        if not self._buckets or self._buckets[-1][0] < present:
            self._buckets.append((present, Counter()))
        now = {key: tallies.get(key, 0) for key in self._keys}
        self._buckets[-1][1].update(now)
        self._buckets[-1][1].subtract(self._before)
        self._before = now

    def rejects(self, source: str) -> Rejects:
        """What was rejected of a source lately. Nothing was read: all zero."""
        oldest = self._present() - BUCKETS
        recent = [counts for bucket, counts in self._buckets if bucket > oldest]
        ok, rejected = (sum(counts["records", source, result] for counts in recent) for result in ("ok", "rejected"))
        reasons = {reason: sum(counts["rejected", source, reason] for counts in recent) for reason in Reason}
        commonest = max(reasons, key=reasons.__getitem__)
        return Rejects(rejected, ok + rejected, commonest if reasons[commonest] else None)

    def _present(self) -> int:
        return int(self._clock.monotonic() // BUCKET_S)

"""`expect_every`: the windows of a surface as a whole, judged by how old its newest event is.

Such a rule waits for what does not come, so its windows begin without an event: with what was read first, of any
surface of the source. Nothing is forgotten, and nothing is NO_DATA.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from evaluator.core import grid
from evaluator.core.decide import Walk
from evaluator.core.event import EpochUs
from evaluator.core.watermark import BEGINNING, NEVER

if TYPE_CHECKING:
    from evaluator.core.decide import Progress
    from evaluator.core.panes import Panes
    from evaluator.core.rule import Rule
    from evaluator.core.sums import Sums
    from evaluator.core.watermark import SourceTime


class AbsenceWalk(Walk):
    """Decides the windows of a rule about absence, which are as long as its step.

    `first` is the earliest over the partitions of the source of the first event of each, None where none had one.
    """

    def __init__(
        self, rule: Rule, progress: Progress, panes: Panes, time: SourceTime, begin: EpochUs, first: EpochUs | None
    ) -> None:
        super().__init__(rule, progress, panes, time, begin)
        self._first = first
        (condition,) = rule.conditions
        self._patience = int(condition.threshold)

    def _next_end(self) -> EpochUs:
        """Windows are passed over that lie before everything was read, or begin before the rule does."""
        step, progress = self._rule.every, self._progress
        end = progress.next_end
        if end is None:
            origin = self._origin()
            if origin is None:
                return NEVER
            end = grid.pane_end(step, origin // step)
            if end <= self._time.watermark:
                # Settled from here on: no partition's first event that is still to come can be earlier.
                progress.next_end, progress.newest = end, origin
        seen_from = grid.pane_end(step, self._time.covered // step)
        return max(end, seen_from, grid.first_whole_end(step, step, self._begin))

    def _origin(self) -> EpochUs | None:
        """What stands for the newest event of a surface that was never seen."""
        known = max(self._time.covered, self._begin)
        return known if known > BEGINNING else self._first

    def _measured(self, end: EpochUs, sums: Sums) -> Sums:
        newest = self._newest()
        return replace(sums, newest=newest, silence=end - newest)

    def _newest(self) -> EpochUs:
        """Of what was lost nothing is held against the surface."""
        return max(self._progress.newest, self._time.covered)

    def _alike_until(self, end: EpochUs, last: EpochUs) -> EpochUs:
        good = grid.last_end(self._rule.every, EpochUs(self._newest() + self._patience))
        return min(good, last) if end <= good else last

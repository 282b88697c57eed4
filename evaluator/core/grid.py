"""Which windows are there: arithmetic on the grid of panes and window ends.

Panes of step E are `[kE, (k+1)E)` from the epoch. A window of length L is L/E panes and ends on a multiple
of E. Nothing here knows what is in a pane.
"""

from __future__ import annotations

from evaluator.core.event import DurationUs, EpochUs


def last_end(step: DurationUs, moment: EpochUs) -> EpochUs:
    """The newest window end at or before `moment`."""
    return EpochUs(moment // step * step)


def next_end(step: DurationUs, moment: EpochUs) -> EpochUs:
    """The first window end at or after `moment`."""
    return EpochUs(-(-moment // step) * step)


def first_whole_end(length: DurationUs, step: DurationUs, since: EpochUs) -> EpochUs:
    """The end of the first window that starts at or after `since`."""
    return EpochUs(next_end(step, since) + length)


def pane_end(step: DurationUs, index: int) -> EpochUs:
    """The first moment after pane `index`."""
    return EpochUs((index + 1) * step)


def panes_of(length: DurationUs, step: DurationUs, end: EpochUs) -> range:
    """The indexes of the panes of the window that ends at `end`."""
    return range((end - length) // step, end // step)

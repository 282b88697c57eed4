"""One alert of one series through its windows, in order of their ends.

Windows with events are judged one by one. A stretch of windows without any is one step, however long: equal
windows are applied until they change nothing, and the rest is skipped up to the next moment at which time
alone matters (an expiry, or forgetting the series).
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from evaluator.core import grid
from evaluator.core.event import EpochUs
from evaluator.core.packed import glance
from evaluator.core.pane import Evidence
from evaluator.core.streak import INACTIVE, Phase, Reason, Streak, advance, silence_jump
from evaluator.core.sums import nothing
from evaluator.core.verdict import Effect, Window, judge
from evaluator.core.watermark import BEGINNING, NEVER

if TYPE_CHECKING:
    from evaluator.core.event import DurationUs
    from evaluator.core.panes import Panes
    from evaluator.core.rule import Rule
    from evaluator.core.sums import Sums
    from evaluator.core.watermark import SourceTime

WINDOWS_KEPT = 24
"""Decided windows that are remembered for the status page, and as the proof in an alert (20 of them)."""


class Proof(NamedTuple):
    """Evidence and the start of the pane that it came from."""

    pane_start: EpochUs
    events: tuple[Evidence, ...]


@dataclass(slots=True)
class Progress:
    """How far one alert has judged one series.

    `next_end` is the end of the window to be decided next, None before the first. Panes that end at or
    before `seen` were taken into account, in `newest` (the newest on-time event) and the proofs; none of
    them opens a series again. `windows` are the last decided ones, oldest first. `bases` are the scores of the last
    run groups that a drop is measured from, oldest first.
    """

    next_end: EpochUs | None = None
    seen: EpochUs = BEGINNING
    newest: EpochUs = BEGINNING
    streak: Streak = INACTIVE
    windows: tuple[Window, ...] = ()
    failing: Proof | None = None
    slowest: Proof | None = None
    bases: tuple[int, ...] = ()


class Turn(NamedTuple):
    """A phase change: the progress as it was when it fired or resolved, and the deciding window's end."""

    reason: Reason
    at: EpochUs
    starts_at: EpochUs
    fired_at: EpochUs
    windows: tuple[Window, ...]
    failing: tuple[Evidence, ...]
    slowest: tuple[Evidence, ...]


class Walk:
    """Decides the windows of `rule` for one series, of which `panes` are the panes of the rule's step.

    `begin` is where the rule itself begins: it judges only windows that start there or later.
    """

    def __init__(self, rule: Rule, progress: Progress, panes: Panes, time: SourceTime, begin: EpochUs) -> None:
        self.turns: list[Turn] = []
        self.decided: list[Window] = []
        self.forgotten = False
        self._rule, self._progress, self._panes, self._time, self._begin = rule, progress, panes, time, begin
        # Asked once a gap: a backlog of sparse events has as many gaps as panes.
        self._order = sorted(panes)

    def run(self) -> None:
        """Decide every window that ended at or before the watermark."""
        while (end := self._next_end()) <= self._time.watermark:
            self._consume(end)
            indexes = grid.panes_of(self._rule.window, self._rule.every, end)
            present = self._panes.sum(indexes)
            if present is not None:
                self._judge_window(end, present)
            else:
                self._pass_silence(end, self._alike_until(end, self._silent_until(end)))

    def _next_end(self) -> EpochUs:
        """The end of the next window, which may lie beyond the watermark.

        Windows that began before everything was read are partial: they are passed over. Where a series
        begins is settled only when the watermark is there: until then an earlier pane may still come.
        """
        rule, end = self._rule, self._progress.next_end
        if end is None:
            first = max(self._begin, self._progress.seen)
            opening = self._first_pane_from(first)
            if opening is None:
                return NEVER
            end = grid.pane_end(rule.every, opening)
            if end <= self._time.watermark:
                self._progress.next_end = end
        whole_from = max(self._begin, self._time.covered)
        if end - rule.window < whole_from:
            end = grid.first_whole_end(rule.window, rule.every, whole_from)
        return end

    def _silent_until(self, end: EpochUs) -> EpochUs:
        """The end of the last window before the next pane with events, or before the watermark."""
        step = self._rule.every
        last = grid.last_end(step, self._time.watermark)
        coming = self._first_pane_from(end)
        return last if coming is None else min(last, EpochUs(coming * step))

    def _first_pane_from(self, moment: EpochUs) -> int | None:
        """The earliest pane that starts at or after `moment`."""
        place = bisect_left(self._order, -(-moment // self._rule.every))
        return self._order[place] if place < len(self._order) else None

    def _measured(self, _end: EpochUs, sums: Sums) -> Sums:
        """What the window that ends at `_end` is judged by; `sums` are its panes. Not to be changed."""
        return sums

    def _alike_until(self, _end: EpochUs, last: EpochUs) -> EpochUs:
        """The end of the last window without events, up to `last`, that is judged like the one that ends at `_end`."""
        return last

    def _judge_window(self, end: EpochUs, present: Sums) -> None:
        rule = self._rule
        self._apply(judge(rule, EpochUs(end - rule.window), end, self._measured(end, present)))
        self._forget_if_silent(end)

    def _consume(self, end: EpochUs) -> None:
        """Note the newest event and the evidence of the panes up to `end` that were not seen yet."""
        progress, step = self._progress, self._rule.every
        if progress.seen == end - step:
            indexes = [end // step - 1]
        else:
            places = (bisect_left(self._order, -(-moment // step)) for moment in (progress.seen, end))
            indexes = self._order[slice(*places)]
        for index in indexes:
            pane = self._panes.get(index)
            if pane is None:
                continue
            seen = glance(pane.counted)
            progress.newest = max(progress.newest, seen.last)
            start = EpochUs(index * step)
            if seen.bad:
                progress.failing = Proof(start, pane.failing)
            if pane.slowest:
                progress.slowest = Proof(start, pane.slowest)
        progress.seen = end

    def _pass_silence(self, end: EpochUs, last: EpochUs) -> None:
        rule, progress = self._rule, self._progress
        self.forgotten = False
        empty = judge(rule, EpochUs(end - rule.window), end, self._measured(end, nothing(rule.counted)))
        forget_at = grid.next_end(rule.every, EpochUs(progress.newest + rule.forget_after))
        while end <= last and not self.forgotten:
            before = progress.streak
            self._apply(_moved(empty, end))
            self._forget_if_silent(end)
            end = EpochUs(end + rule.every)
            if progress.streak == before and not self.forgotten:
                stop = min(last, EpochUs(forget_at - rule.every))
                jump = silence_jump(rule, before, empty.effect, EpochUs(end - rule.every), progress.newest)
                if jump is not None:
                    stop = min(stop, EpochUs(end - rule.every + jump))
                end = self._skip(empty, end, stop)

    def _skip(self, empty: Window, end: EpochUs, stop: EpochUs) -> EpochUs:
        """Record the equal windows that end in `[end, stop]` as one run; returns the end after them."""
        count = (stop - end) // self._rule.every + 1
        if count <= 0:
            return end
        self._record(_moved(empty, end)._replace(length=count, until=None if count == 1 else stop))
        self._progress.next_end = EpochUs(stop + self._rule.every)
        return self._progress.next_end

    def _apply(self, window: Window) -> None:
        rule, progress = self._rule, self._progress
        self._record(window)
        progress.next_end = EpochUs(window.end + rule.every)
        before = progress.streak
        step = advance(rule, before, window.effect, window.start, window.end, progress.newest)
        progress.streak = step.streak
        if step.reason is not None:
            # A resolve is told with the streak that it ends, a firing with the one that it makes.
            self._turn(step.reason, window.end, step.streak if step.reason is Reason.BREACHED else before)

    def _record(self, window: Window) -> None:
        self.decided.append(window)
        self._progress.windows = joined(self._progress.windows, window, self._rule.every)[-WINDOWS_KEPT:]

    def _turn(self, reason: Reason, at: EpochUs, streak: Streak) -> None:
        self.turns.append(turn_of(self._progress, reason, at, streak))

    def _forget_if_silent(self, end: EpochUs) -> None:
        progress = self._progress
        if end - progress.newest < self._rule.forget_after:
            return
        if progress.streak.phase is Phase.FIRING:
            self._turn(Reason.EXPIRED, end, progress.streak)
        progress.streak, progress.next_end, progress.windows = INACTIVE, None, ()
        progress.newest, progress.failing, progress.slowest = BEGINNING, None, None
        self.forgotten = True


def turn_of(progress: Progress, reason: Reason, at: EpochUs, streak: Streak) -> Turn:
    """The phase change of a firing `streak` at the window end `at`, with what proves it."""
    starts_at, fired_at = streak.starts_at, streak.fired_at
    assert starts_at is not None
    assert fired_at is not None
    windows = [window for window in progress.windows if window.effect is not Effect.SHOWN]
    # Run groups of several contexts do not end in the order in which they began.
    first = next((place for place, window in enumerate(windows) if window.start >= starts_at), len(windows))
    failing, slowest = (
        proof.events if proof is not None and proof.pane_start >= starts_at else ()
        for proof in (progress.failing, progress.slowest)
    )
    return Turn(reason, at, starts_at, fired_at, tuple(windows[first:]), failing, slowest)


def joined(windows: tuple[Window, ...], window: Window, step: DurationUs) -> tuple[Window, ...]:
    """`windows` with one more at the end, which lengthens the last run if nothing changed."""
    if windows and windows[-1].last_end + step == window.end and windows[-1].absorbs(window):
        return (*windows[:-1], windows[-1].extended(window))
    return (*windows, window)


def _moved(window: Window, end: EpochUs) -> Window:
    return window._replace(start=EpochUs(window.start + end - window.end), end=end)

r"""Consecutive windows: from verdicts to transitions.

Everything that can change an alert's phase is in this file. It knows what windows do to a streak and when
they end, no values, thresholds or clocks.

              N breaches in a row                K clear in a row
    inactive ---------------------> firing  ---------------------> inactive (recovered)
        \---- first breach ----> pending        silent too long --> inactive (expired)

                 breach            ok               held
    inactive     count it          -                -
    pending      count it          forget it        more than max_gap in a row: forget it
    firing       clear := 0        clear + 1, at K  newest event older than expire_after:
                                   resolved         resolved as expired

"Counting" with `consecutive: N` fires at N breaches, and an ok window empties the memory. With
`m_of_n: [M, N]` the memory holds the last N windows that were not held, and M breaches among them fire.
A held window neither extends a streak nor breaks it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from evaluator.core.event import DurationUs, EpochUs
from evaluator.core.verdict import Effect
from evaluator.core.word import Word

if TYPE_CHECKING:
    from evaluator.core.rule import Rule


class Phase(Word):
    """Where an alert stands for one series."""

    INACTIVE = "inactive"
    PENDING = "pending"
    FIRING = "firing"


class Reason(Word):
    """Why a transition happened."""

    BREACHED = "breached"
    BLIND = "blind"
    RECOVERED = "recovered"
    EXPIRED = "expired"
    RULE_REMOVED = "rule_removed"
    RULE_CHANGED = "rule_changed"


class Mark(NamedTuple):
    """A window that was not held: where it began, and whether it breached."""

    start: EpochUs
    breached: bool


@dataclass(frozen=True, slots=True)
class Streak:
    """The memory of one alert and series between windows.

    `breaches` counts the breaches of the streak; `starts_at` is where it began. `marks` is kept for
    `m_of_n` only. `held` counts the held windows in a row, `clear` the ok windows in a row while firing.
    """

    phase: Phase = Phase.INACTIVE
    breaches: int = 0
    starts_at: EpochUs | None = None
    fired_at: EpochUs | None = None
    clear: int = 0
    held: int = 0
    marks: tuple[Mark, ...] = ()


INACTIVE = Streak()


class Step(NamedTuple):
    """The streak after a window, and why it fired or resolved, if it did."""

    streak: Streak
    reason: Reason | None = None


def advance(rule: Rule, streak: Streak, effect: Effect, start: EpochUs, end: EpochUs, newest: EpochUs) -> Step:
    """The streak after the window `[start, end)`; `newest` is the newest on-time event before `end`."""
    return _TABLE[streak.phase, effect](rule, streak, start, end, newest)


def expires_at(rule: Rule, newest: EpochUs) -> EpochUs:
    """The first window end at which a firing alert whose series is silent since `newest` expires."""
    return EpochUs(-(-(newest + rule.expire_after) // rule.every) * rule.every)


def _stay(_rule: Rule, streak: Streak, _start: EpochUs, _end: EpochUs, _newest: EpochUs) -> Step:
    return Step(streak)


def _count(rule: Rule, streak: Streak, start: EpochUs, end: EpochUs, _newest: EpochUs) -> Step:
    counted = _remember(rule, streak, Mark(start, breached=True))
    if counted.breaches < rule.required:
        return Step(counted)
    return Step(Streak(Phase.FIRING, counted.breaches, counted.starts_at, end), Reason.BREACHED)


def _forgive(rule: Rule, streak: Streak, start: EpochUs, _end: EpochUs, _newest: EpochUs) -> Step:
    """An ok window: it ends a consecutive streak, and takes a place among the last N."""
    if rule.among is None:
        return Step(INACTIVE)
    return Step(_remember(rule, streak, Mark(start, breached=False)))


def _remember(rule: Rule, streak: Streak, mark: Mark) -> Streak:
    if rule.among is None:
        begun = mark.start if streak.starts_at is None else streak.starts_at
        return Streak(Phase.PENDING, streak.breaches + 1, begun)
    marks = _from_first_breach((*streak.marks, mark)[-rule.among :])
    if not marks:
        return INACTIVE
    return Streak(Phase.PENDING, sum(mark.breached for mark in marks), marks[0].start, marks=marks)


def _from_first_breach(marks: tuple[Mark, ...]) -> tuple[Mark, ...]:
    """Clear windows before the oldest breach are pushed out before it: remembering them changes nothing.

    Without them a series that is fine has no memory, which is what lets a long silence be one step.
    """
    first = next((place for place, mark in enumerate(marks) if mark.breached), len(marks))
    return marks[first:]


def _wait(rule: Rule, streak: Streak, _start: EpochUs, _end: EpochUs, _newest: EpochUs) -> Step:
    if streak.held >= rule.max_gap:
        return Step(INACTIVE)
    return Step(_with(streak, held=streak.held + 1))


def _still_bad(_rule: Rule, streak: Streak, _start: EpochUs, _end: EpochUs, _newest: EpochUs) -> Step:
    return Step(_with(streak, clear=0))


def _clear(rule: Rule, streak: Streak, _start: EpochUs, _end: EpochUs, _newest: EpochUs) -> Step:
    if streak.clear + 1 >= rule.resolve_after:
        return Step(INACTIVE, Reason.RECOVERED)
    return Step(_with(streak, clear=streak.clear + 1))


def _expire(rule: Rule, streak: Streak, _start: EpochUs, end: EpochUs, newest: EpochUs) -> Step:
    if end - newest >= rule.expire_after:
        return Step(INACTIVE, Reason.EXPIRED)
    return Step(streak)


def _with(streak: Streak, *, clear: int | None = None, held: int = 0) -> Streak:
    return Streak(
        streak.phase, streak.breaches, streak.starts_at, streak.fired_at,
        streak.clear if clear is None else clear, held, streak.marks,
    )  # fmt: skip


_TABLE = {
    (Phase.INACTIVE, Effect.BREACH): _count,
    (Phase.INACTIVE, Effect.OK): _forgive,
    (Phase.INACTIVE, Effect.HELD): _stay,
    (Phase.PENDING, Effect.BREACH): _count,
    (Phase.PENDING, Effect.OK): _forgive,
    (Phase.PENDING, Effect.HELD): _wait,
    (Phase.FIRING, Effect.BREACH): _still_bad,
    (Phase.FIRING, Effect.OK): _clear,
    (Phase.FIRING, Effect.HELD): _expire,
    **{(phase, Effect.SHOWN): _stay for phase in Phase},
}


def silence_jump(rule: Rule, streak: Streak, effect: Effect, end: EpochUs, newest: EpochUs) -> DurationUs | None:
    """How far equal windows after the one that ended at `end` change nothing: None means for ever.

    Valid once a window of this effect left the streak as it was; the only thing that time alone still
    brings about then is the expiry of a firing alert.
    """
    if streak.phase is Phase.FIRING and effect is Effect.HELD:
        return DurationUs(max(0, expires_at(rule, newest) - rule.every - end))
    return None

"""The verdict of one window: what its counts say about a rule.

The order is the contract's (docs/semantics.md, 6): BREACH where a condition is true with enough evidence,
NO_DATA where there was nothing to measure, INSUFFICIENT where there was too little, else OK. All tests are
in integers; `>` is strict.

Evidence. A ratio of 1 of 1 proves nothing. A condition `>` on a ratio or quantile must therefore stay true
on the raw counts *had the missing events up to `min_samples` all been good*.
"""

from __future__ import annotations

from fractions import Fraction
from math import gcd
from typing import TYPE_CHECKING, NamedTuple

from evaluator.core.condition import LATENCIES, RATIOS, UNSAMPLED, Condition, Kind, Op
from evaluator.core.event import SCORE_UNIT, EpochUs
from evaluator.core.pane import CARRY_BITS
from evaluator.core.rule import Policy
from evaluator.core.word import Word

if TYPE_CHECKING:
    from collections.abc import Callable

    from evaluator.core.pane import Counts
    from evaluator.core.rule import Rule
    from evaluator.core.sums import Sums


class Verdict(Word):
    """What a decided window says."""

    BREACH = "BREACH"
    OK = "OK"
    NO_DATA = "NO_DATA"
    INSUFFICIENT = "INSUFFICIENT"


class Effect(Word):
    """What a window does to the streak: the verdict after the rule's policies.

    SHOWN: nothing, it is a run group of a context that the rule does not count.
    """

    BREACH = "breach"
    OK = "ok"
    HELD = "held"
    SHOWN = "shown"


class Value(NamedTuple):
    """What a condition measured: a ratio, microseconds or a count.

    Kept as two integers in lowest terms, `numerator` None with nothing to measure: a shard remembers hundreds of
    thousands of them, and reads them all back when it is taken over. `carry` as in a pane: 2^62 of the numerator each.
    """

    name: str
    numerator: int | None
    denominator: int
    is_latency: bool
    is_estimate: bool
    carry: int = 0

    @property
    def whole(self) -> int | None:
        """The numerator with what was carried, None with nothing to measure."""
        return None if self.numerator is None else (self.carry << CARRY_BITS) + self.numerator

    @property
    def value(self) -> Fraction | None:
        """The number itself, None with nothing to measure."""
        whole = self.whole
        return None if whole is None else Fraction(whole, self.denominator)


class Window(NamedTuple):
    """One decided window, or a run of `length` equal ones of which `until` is the last end.

    A run group is a window too, of `deploy` and `context`, from its first event to its last.
    """

    start: EpochUs
    end: EpochUs
    verdict: Verdict
    effect: Effect
    breached: tuple[str, ...]
    values: tuple[Value, ...]
    n: int
    bad: int
    length: int = 1
    until: EpochUs | None = None
    deploy: str | None = None
    context: str | None = None

    @property
    def last_end(self) -> EpochUs:
        """The end of the run."""
        return self.end if self.until is None else self.until

    def absorbs(self, later: Window) -> bool:
        """Whether `later` continues this run of windows that changed nothing, or held nothing."""
        return self[2:8] == later[2:8] and (self.effect is Effect.HELD or self.n == 0)

    def extended(self, later: Window) -> Window:
        """The run with `later` at its end."""
        return self._replace(length=self.length + later.length, until=later.last_end)


def judge(rule: Rule, start: EpochUs, end: EpochUs, sums: Sums) -> Window:
    """The verdict of the window `[start, end)` of one series."""
    true = [c for c in rule.conditions if is_true(c, sums.weighted, sums)]
    breached = tuple([c.text for c in true if has_evidence(rule, c, sums)])
    verdict = Verdict.BREACH if breached else _without_breach(rule, sums, holds=bool(true))
    effect = _effect(rule, verdict, holds=bool(true))
    if true and not breached and effect is Effect.BREACH:
        breached = tuple([c.text for c in true])
    values = tuple([measure(c, sums) for c in rule.conditions])
    return Window(start, end, verdict, effect, breached, values, sums.weighted.n, sums.weighted.bad)


def _without_breach(rule: Rule, sums: Sums, *, holds: bool) -> Verdict:
    """The verdict where no condition that holds is proven; `holds`: whether one does."""
    samples = [sample(c, sums.weighted, sums) for c in rule.conditions if c.kind not in _NEVER_EMPTY]
    if samples and not any(samples):
        return Verdict.NO_DATA
    enough = [sample(c, sums.events, sums) >= min_samples(rule, c) for c in rule.conditions if c.kind not in UNSAMPLED]
    if holds or (enough and not any(enough)):
        return Verdict.INSUFFICIENT
    return Verdict.OK


def _effect(rule: Rule, verdict: Verdict, *, holds: bool) -> Effect:
    settled = _SETTLED.get(verdict)
    if settled is not None:
        return settled
    if verdict is Verdict.NO_DATA:
        return _POLICY[rule.no_data]
    effect = _POLICY[rule.low_traffic]
    return effect if effect is not Effect.BREACH or holds else Effect.HELD


_SETTLED = {Verdict.BREACH: Effect.BREACH, Verdict.OK: Effect.OK}
"""What no policy is asked about."""

_POLICY = {Policy.HOLD: Effect.HELD, Policy.OK: Effect.OK, Policy.BREACH: Effect.BREACH}


def sample(condition: Condition, counts: Counts, sums: Sums) -> int:
    """How many events the condition measures: of `counts`, or scores."""
    return _SAMPLE[condition.kind](counts, sums)


_SAMPLE: dict[Kind, Callable[[Counts, Sums], int]] = {
    Kind.ERROR_RATIO: lambda counts, _: counts.known,
    Kind.ERROR_COUNT: lambda counts, _: counts.known,
    Kind.REQUEST_COUNT: lambda counts, _: counts.n,
    **dict.fromkeys(LATENCIES, lambda counts, _: counts.lat_n),
    Kind.SILENCE: lambda _counts, _sums: 1,  # the newest event, whenever that was
    Kind.SCORE: lambda _, sums: sums.scored.size,
    Kind.SCORE_DROP: lambda _, sums: 0 if sums.scored.base is None else sums.scored.size,
}

_NEVER_EMPTY = frozenset({Kind.REQUEST_COUNT})
"""What measures a window without events as well."""


def is_true(condition: Condition, counts: Counts, sums: Sums, missing: int = 0) -> bool:
    """Whether the condition holds on `counts`, had there been `missing` more good events."""
    if sample(condition, counts, sums) == 0 and condition.kind not in _NEVER_EMPTY:
        return False
    return _exceeds(condition, counts, sums, missing) == condition.is_upper


def _exceeds(condition: Condition, counts: Counts, sums: Sums, missing: int) -> bool:
    """The exact test for `> t` (strict) or `>= t`."""
    left, right = _SIDES[condition.kind](condition, counts, sums, missing)
    # What a quantile counts as above its threshold is as strict as the condition is.
    strict = condition.is_strict or condition.q is not None
    return left > right if strict else left >= right


def _error_ratio(condition: Condition, counts: Counts, _sums: Sums, missing: int) -> tuple[int, int]:
    t = condition.threshold
    return counts.bad * t.denominator, t.numerator * (counts.known + missing)


def _slow_ratio(condition: Condition, counts: Counts, _sums: Sums, missing: int) -> tuple[int, int]:
    t = condition.threshold
    return counts.over[_counted(condition)] * t.denominator, t.numerator * (counts.lat_n + missing)


def _quantile(condition: Condition, counts: Counts, _sums: Sums, missing: int) -> tuple[int, int]:
    """Nearest rank: the quantile is above T iff more values are above T than stand behind the rank."""
    size = counts.lat_n + missing
    return counts.over[_counted(condition)], size - rank(condition.q or Fraction(0), size)


def _scored(condition: Condition, _counts: Counts, sums: Sums, _missing: int) -> tuple[int, int]:
    t, (value, whole) = condition.threshold, _score(condition, sums)
    return value * t.denominator, t.numerator * whole


_SIDES: dict[Kind, Callable[[Condition, Counts, Sums, int], tuple[int, int]]] = {
    Kind.ERROR_RATIO: _error_ratio,
    Kind.SLOW_RATIO: _slow_ratio,
    Kind.QUANTILE: _quantile,
    Kind.ERROR_COUNT: lambda condition, counts, _sums, _missing: (counts.bad, int(condition.threshold)),
    Kind.REQUEST_COUNT: lambda condition, counts, _sums, _missing: (counts.n, int(condition.threshold)),
    Kind.MEAN: lambda condition, counts, sums, _: (sums.lat_sum, int(condition.threshold) * counts.lat_n),
    Kind.MAX: lambda condition, _counts, sums, _missing: (sums.lat_max, int(condition.threshold)),
    Kind.SILENCE: lambda condition, _counts, sums, _missing: (sums.silence, int(condition.threshold)),
    Kind.SCORE: _scored,
    Kind.SCORE_DROP: _scored,
}
"""What of a window is compared with what, `missing` more good events counted among them where they could matter."""


def _score(condition: Condition, sums: Sums) -> tuple[int, int]:
    """Numerator and denominator of a score or a drop, of which there is a sample."""
    value, base = sums.scored.value, sums.scored.base
    assert value is not None
    if condition.kind is Kind.SCORE:
        return value, SCORE_UNIT
    assert base is not None
    # From nothing nothing drops.
    return (base - value, base) if base else (0, 1)


def rank(q: Fraction, size: int) -> int:
    """ceil(q * size): which of the ascending values is the quantile, counted from 1."""
    return -(-q.numerator * size // q.denominator)


def _counted(condition: Condition) -> int:
    threshold = condition.counted()
    assert threshold is not None
    return threshold


def has_evidence(rule: Rule, condition: Condition, sums: Sums) -> bool:
    """Whether enough events stand behind a true condition."""
    if condition.kind in UNSAMPLED:
        return True
    events, needed = sums.events, min_samples(rule, condition)
    padded = condition.is_upper and (condition.q is not None or condition.kind in RATIOS)
    if not padded:
        return sample(condition, events, sums) >= needed
    if condition.kind in RATIOS and _failed(condition, events) < rule.min_bad:
        return False
    return is_true(condition, events, sums, missing=max(0, needed - sample(condition, events, sums)))


def _failed(condition: Condition, counts: Counts) -> int:
    return counts.bad if condition.kind is Kind.ERROR_RATIO else counts.over[_counted(condition)]


def min_samples(rule: Rule, condition: Condition) -> int:
    """How many events the condition needs: the rule's own number, else so many that one cannot page alone."""
    if rule.min_samples is not None:
        return rule.min_samples
    t = condition.threshold
    if condition.kind in RATIOS and t.numerator > 0:
        if condition.op is Op.GT:
            return -(-t.denominator // t.numerator)
        if condition.op is Op.GE:
            return t.denominator // t.numerator + 1
    if condition.q is not None and condition.is_upper:
        tail = min(condition.q, 1 - condition.q)
        return -(-10 * tail.denominator // tail.numerator)
    return 1


_IN_MICROSECONDS = frozenset({Kind.QUANTILE, Kind.MEAN, Kind.MAX, Kind.SILENCE})


def measure(condition: Condition, sums: Sums) -> Value:
    """The value that a reader is shown."""
    counts = sums.weighted
    measured: tuple[int, int] | None = None
    if sample(condition, counts, sums) > 0 or condition.kind in _NEVER_EMPTY:
        measured = _MEASURED[condition.kind](condition, counts, sums)
    is_latency, is_estimate = condition.kind in _IN_MICROSECONDS, condition.q is not None
    if measured is None:
        return Value(condition.name, None, 1, is_latency, is_estimate)
    common = gcd(*measured)
    carry, numerator = divmod(measured[0] // common, 1 << CARRY_BITS)
    return Value(condition.name, numerator, measured[1] // common, is_latency, is_estimate, carry)


def _estimate(condition: Condition, _counts: Counts, sums: Sums) -> tuple[int, int] | None:
    estimate = sums.quantile(condition.q or Fraction(0))
    return None if estimate is None else (estimate, 1)


_MEASURED: dict[Kind, Callable[[Condition, Counts, Sums], tuple[int, int] | None]] = {
    Kind.ERROR_RATIO: lambda _condition, counts, _sums: (counts.bad, counts.known),
    Kind.SLOW_RATIO: lambda condition, counts, _: (counts.over[_counted(condition)], counts.lat_n),
    Kind.ERROR_COUNT: lambda _condition, counts, _sums: (counts.bad, 1),
    Kind.REQUEST_COUNT: lambda _condition, counts, _sums: (counts.n, 1),
    Kind.MEAN: lambda _, counts, sums: (sums.lat_sum, counts.lat_n),
    Kind.MAX: lambda _condition, _counts, sums: (sums.lat_max, 1),
    # Since when, not how long: that stays the same while nothing comes, so that windows alike are one run.
    Kind.SILENCE: lambda _condition, _counts, sums: (sums.newest, 1),
    Kind.QUANTILE: _estimate,
    Kind.SCORE: lambda condition, _, sums: _score(condition, sums),
    Kind.SCORE_DROP: lambda condition, _, sums: _score(condition, sums),
}
"""Numerator and denominator of what a reader is shown."""

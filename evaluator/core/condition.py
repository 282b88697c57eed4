"""Conditions of rules as exact values: an indicator, an operator and a threshold.

Thresholds are integers or fractions, never binary floats. What a condition says of a window is decided in
`verdict.py`; this module is the vocabulary that the config is parsed into.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from evaluator.core.word import Word


class Kind(Word):
    """What a condition looks at."""

    ERROR_RATIO = "error_ratio"
    ERROR_COUNT = "error_count"
    REQUEST_COUNT = "request_count"
    QUANTILE = "quantile"
    MEAN = "mean"
    MAX = "max"
    SLOW_RATIO = "slow_ratio"
    SILENCE = "silence"
    SCORE = "score"
    SCORE_DROP = "score_drop"


class Op(Word):
    """A comparison. `<` and `<=` are the negations of `>=` and `>`."""

    GT = ">"
    GE = ">="
    LT = "<"
    LE = "<="


_UPPER = frozenset({Op.GT, Op.GE})
_STRICT = frozenset({Op.GT, Op.LE})

RATIOS = frozenset({Kind.ERROR_RATIO, Kind.SLOW_RATIO})
COUNTS = frozenset({Kind.ERROR_COUNT, Kind.REQUEST_COUNT})
UNSAMPLED = COUNTS | {Kind.SILENCE}
"""What is true or not however few events there are."""
LATENCIES = frozenset({Kind.QUANTILE, Kind.MEAN, Kind.MAX, Kind.SLOW_RATIO})
SCORES = frozenset({Kind.SCORE, Kind.SCORE_DROP})


@dataclass(frozen=True, slots=True)
class Condition:
    """`<indicator> <op> <threshold>`.

    `text` is the condition as configured, single-spaced; `name` the indicator as configured (`median`,
    `p99.9`, `slow_ratio(500ms)`). `threshold` is a fraction in [0, 1] for ratios and scores, microseconds for
    QUANTILE, MEAN, MAX and SILENCE, an integer for counts. `q` is set for QUANTILE, `slower_than`
    (microseconds) for SLOW_RATIO. SILENCE is what `expect_every` asks: how old the newest event is.
    """

    text: str
    name: str
    kind: Kind
    op: Op
    threshold: Fraction
    q: Fraction | None = None
    slower_than: int | None = None

    @property
    def is_upper(self) -> bool:
        """Whether it is true above its threshold, not below."""
        return self.op in _UPPER

    @property
    def is_strict(self) -> bool:
        """Whether it is, or negates, a test for more than the threshold, not for as much."""
        return self.op in _STRICT

    def counted(self) -> int | None:
        """The T whose counter `over[T]` this condition reads, if it reads one.

        `x >= T` over integers is `x > T - 1`, so strict counters serve every operator.
        """
        if self.kind is Kind.SLOW_RATIO:
            return self.slower_than
        if self.kind is Kind.QUANTILE:
            return int(self.threshold) - (self.op is Op.GE or self.op is Op.LT)
        return None

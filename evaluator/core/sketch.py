"""A latency sketch for display: DDSketch bins of 1 % relative accuracy, in integers only.

Verdicts never read it (`verdict.py` counts thresholds exactly); it answers "how slow was it", and it merges
without error: two sketches added bin by bin are the sketch of all their values.

Source: Masson, Rim, Lee, "DDSketch: a fast and fully-mergeable quantile sketch", PVLDB 12(12), 2019. The
boundaries are floor(gamma^k) in exact integers, so that every machine puts a value in the same bin.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache

import numpy as np

from evaluator.core.event import MAX_LATENCY, DurationUs, Int64s

_NUMERATOR, _DENOMINATOR = 101, 99
"""gamma = (1 + a) / (1 - a) for the relative accuracy a = 1 %."""

_LOG_GAMMA = math.log(_NUMERATOR / _DENOMINATOR)


@cache
def boundaries() -> Int64s:
    """The upper bound of each bin, ascending: floor(gamma^k) until the largest latency is covered."""
    bounds: list[int] = []
    power, scale = 1, 1
    while not bounds or bounds[-1] < MAX_LATENCY:
        bounds.append(power // scale)
        power, scale = power * _NUMERATOR, scale * _DENOMINATOR
    return np.array(bounds, dtype=np.int64)


def bins_of(latencies: Int64s) -> Int64s:
    """The bin of each latency: the first k with latency <= boundary k.

    The logarithm says which, or a neighbour (a double is that exact); the integers decide.
    """
    bounds = boundaries()
    guess = np.ceil(np.log(np.maximum(latencies, 1)) / _LOG_GAMMA).astype(np.int64)
    np.minimum(guess, len(bounds) - 1, out=guess)
    guess += latencies > bounds[guess]
    guess -= (guess > 0) & (latencies <= bounds[guess - 1])
    return guess


@cache
def shown(index: int) -> DurationUs:
    """The value that stands for bin `index`: 2 gamma^k / (gamma + 1), rounded to a microsecond."""
    gamma = Fraction(_NUMERATOR, _DENOMINATOR)
    return DurationUs(round(2 * gamma**index / (gamma + 1)))

"""Panes: merging, evidence, and the sketch."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from evaluator.core import sketch
from evaluator.core.event import NO_LATENCY, EpochUs
from evaluator.core.pane import Counts, Evidence, Pane, Panes, Sealed, strongest
from evaluator.core.verdict import total
from evaluator.wire.stored import Codec, Form


def pane(n: int, latency: int, *, raw: Counts | None = None, over: dict[int, int] | None = None) -> Pane:
    """A pane of `n` events of one latency."""
    counts = Counts(n, n, 0, n, {} if over is None else over)
    return Pane(counts, EpochUs(latency), EpochUs(latency), raw, n * latency, latency, {1: n})


def test_the_largest_latency_survives_a_merge() -> None:
    merged = pane(1, 5)
    merged.merge(pane(1, 9))
    assert (merged.lat_max, merged.lat_sum, merged.weighted.n) == (9, 14, 2)


def test_a_sum_beyond_64_bits_has_a_stored_form_and_comes_back_whole() -> None:
    heavy = Pane(Counts(1, 1, 0, 1), EpochUs(0), EpochUs(0), lat_sum=10**15 * (2**31 - 1) * 5_000)
    codec = Codec("pane", 1, Form(Pane))
    merged = codec.decode(codec.encode(heavy.copy().in_order()))
    merged.merge(codec.decode(codec.encode(heavy.copy().in_order())))
    assert merged.in_order().lat_total == 2 * 10**15 * (2**31 - 1) * 5_000
    assert total([merged], ()).lat_sum == merged.lat_total


def test_a_threshold_that_only_one_side_counted_is_not_known() -> None:
    merged = pane(1, 5, over={3: 1, 4: 1})
    merged.merge(pane(1, 9, over={4: 1, 7: 1}))
    assert merged.weighted.over == {4: 2}


def test_event_counts_appear_as_soon_as_one_side_has_weights() -> None:
    merged = pane(3, 5)
    merged.merge(pane(10, 5, raw=Counts(2, 2, 0, 2)))
    assert (merged.weighted.n, merged.events.n) == (13, 5)


def test_evidence_keeps_the_newest_failures_and_settles_ties_by_trace_id() -> None:
    events = tuple(Evidence(EpochUs(10), trace_id, NO_LATENCY) for trace_id in "bdacfe")
    assert [event.trace_id for event in strongest(events, failing=True)] == ["f", "e", "d", "c", "b"]


def test_evidence_keeps_the_slowest() -> None:
    events = tuple(Evidence(EpochUs(0), "", latency) for latency in (3, 9, 1, 7, 5, 8))
    assert [event.latency for event in strongest(events, failing=False)] == [9, 8, 7, 5, 3]


@pytest.mark.parametrize(("latency", "expected"), [(0, 0), (1, 0), (2, 35), (10**15, len(sketch.boundaries()) - 1)])
def test_a_latency_falls_into_the_first_bin_that_reaches_it(latency: int, expected: int) -> None:
    assert sketch.bins_of(np.array([latency])).tolist() == [expected]


def test_there_are_about_1730_boundaries_and_they_reach_the_largest_latency() -> None:
    bounds = sketch.boundaries()
    assert 1720 < len(bounds) < 1740
    assert bounds[-1] >= 10**15 > bounds[-2]


@pytest.mark.parametrize("latency", [100, 12_345, 999_999, 5_000_000, 10**12])
def test_a_shown_value_is_within_one_percent(latency: int) -> None:
    (index,) = sketch.bins_of(np.array([latency])).tolist()
    assert abs(sketch.shown(index) - latency) <= latency * 0.011


def test_a_quantile_of_nothing_is_none() -> None:
    assert sketch.quantile({}, Fraction(1, 2)) is None


def test_a_sealed_pane_is_opened_once_and_only_when_it_is_asked_for() -> None:
    opened: list[bytes] = []

    def unseal(stored: bytes) -> Pane:
        opened.append(stored)
        return pane(1, 5)

    panes = Panes()
    panes[3], panes[7] = Sealed(b"three", unseal), Sealed(b"seven", unseal)
    assert (sorted(panes), len(panes), 7 in panes, 4 in panes, panes.get(4)) == ([3, 7], 2, True, False, None)
    assert opened == []
    panes[7].merge(pane(2, 9))
    assert panes[7].weighted.n == 3
    assert opened == [b"seven"]
    del panes[3]
    assert list(panes) == [7]


def test_evidence_of_passed_panes_is_dropped_and_none_is_opened_for_it() -> None:
    panes = Panes()
    proof = (Evidence(EpochUs(1), "t", 5),)
    for slot in (1, 2):
        panes[slot] = pane(1, 5)
        panes[slot].failing = panes[slot].slowest = proof
    opened: list[bytes] = []

    def unseal(stored: bytes) -> Pane:
        opened.append(stored)
        stored_pane = pane(1, 5)
        stored_pane.failing = stored_pane.slowest = proof
        return stored_pane

    panes[0], panes[3] = Sealed(b"zero", unseal), Sealed(b"three", unseal)
    panes.drop_evidence(2)
    assert opened == []
    assert (panes[1].failing, panes[1].slowest, panes[2].failing) == ((), (), proof)
    # As if it had been open.
    assert (panes[0].failing, panes[0].slowest, panes[3].failing) == ((), (), proof)

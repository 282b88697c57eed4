"""Packed panes are the panes: packing loses nothing, and adding packed ones up is merging."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from evaluator.core import sketch
from evaluator.core.event import NO_LATENCY, EpochUs
from evaluator.core.packed import pack, unpacked
from evaluator.core.pane import Counts, Evidence, Pane
from evaluator.core.rows import FEW, Columns, _added_rows, merged, packed_rows
from evaluator.core.sums import summed

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy

BINS = len(sketch.boundaries())
COUNTERS = st.one_of(st.integers(0, 9), st.integers(0, 2**40))


def counts(over: tuple[int, ...]) -> SearchStrategy[Counts]:
    above = st.tuples(*(COUNTERS for _ in over)).map(lambda values: dict(zip(over, values, strict=True)))
    return st.builds(Counts, COUNTERS, COUNTERS, COUNTERS, COUNTERS, above)


def proofs() -> SearchStrategy[tuple[Evidence, ...]]:
    one = st.builds(Evidence, st.integers(-(2**60), 2**60), st.text(max_size=3), st.integers(NO_LATENCY, 10**15))
    return st.lists(one, max_size=5).map(tuple)


@st.composite
def panes(draw: DrawFn, thresholds: tuple[tuple[int, ...], ...] = ((), (3,), (3, 10**9))) -> Pane:
    """Any pane; where several are drawn, most counted the same thresholds."""
    over = draw(st.sampled_from(thresholds))
    weighted = draw(counts(over))
    bins = draw(st.dictionaries(st.integers(0, BINS - 1), st.one_of(st.integers(1, 9), st.integers(1, 2**50))))
    weighted.lat_n = sum(bins.values())
    return Pane(
        weighted, draw(st.integers(-(2**60), 2**60)), draw(st.integers(-(2**60), 2**60)),
        draw(st.one_of(st.none(), counts(over))), draw(st.integers(0, 2**100)), draw(st.integers(NO_LATENCY, 10**15)),
        bins, draw(proofs()), draw(proofs()),
    ).in_order()  # fmt: skip


def plain_panes() -> SearchStrategy[Pane]:
    """Panes without weights that counted the same threshold."""
    return panes(thresholds=((3,),)).map(lambda pane: replace(pane, raw=None, lat_sum=pane.lat_max % 99, lat_carry=0))


@given(panes())
def test_a_pane_comes_back_whole(pane: Pane) -> None:
    assert unpacked(pack(pane.copy())) == pane
    assert list(unpacked(pack(pane.copy())).bins) == sorted(pane.bins)


def one_by_one(several: list[Pane]) -> Pane:
    """The sum by the plain definition."""
    whole = several[0].copy()
    for pane in several[1:]:
        whole.merge(pane.copy())
    return whole.in_order()


@given(st.lists(st.lists(st.one_of(panes(), plain_panes()), min_size=1, max_size=4), max_size=6))
def test_merging_many_at_a_time_is_merging_each(several: list[list[Pane]]) -> None:
    """To the byte: most in columns, those with weights or other thresholds beside them."""
    expected = [pack(one_by_one(pieces)) for pieces in several]
    packed = [[pack(pane) for pane in pieces] for pieces in several]
    assert merged(packed) == expected
    assert merged(packed * FEW) == expected * FEW


@given(st.lists(st.lists(plain_panes(), min_size=2, max_size=4), min_size=FEW, max_size=6))
def test_plain_panes_are_merged_in_columns(several: list[list[Pane]]) -> None:
    columns = _added_rows([[pack(pane).counted for pane in pieces] for pieces in several])
    assert columns is not None
    assert packed_rows(columns) == [pack(one_by_one(pieces)).counted for pieces in several]


@given(st.lists(plain_panes(), min_size=1, max_size=6))
def test_rows_are_packed_as_panes_are(several: list[Pane]) -> None:
    columns = Columns(
        (3,),
        *(np.array([getattr(pane, name) for pane in several]) for name in ("first", "last", "lat_max", "lat_sum")),
        np.array([[w.n, w.known, w.bad, w.lat_n, w.over[3]] for w in (pane.weighted for pane in several)]),
        np.array([len(pane.bins) for pane in several]),
        np.array([number for pane in several for number in pane.bins], dtype=np.int64),
        np.array([count for pane in several for count in pane.bins.values()], dtype=np.int64),
    )
    assert packed_rows(columns) == [pack(pane).counted for pane in several]


@given(st.lists(panes(), min_size=1, max_size=6), st.fractions(0, 1).filter(lambda q: 0 < q < 1))
def test_a_window_is_the_sum_of_its_panes(several: list[Pane], q: Fraction) -> None:
    whole, sums = one_by_one(several), summed([pack(pane).counted for pane in several])
    assert (sums.weighted, sums.events) == (whole.weighted, whole.events)
    assert (sums.lat_sum, sums.lat_max) == (whole.lat_total, whole.lat_max)
    latencies = sum(whole.bins.values())
    rank = -(-q.numerator * latencies // q.denominator)
    seen = 0
    for number, count in whole.bins.items():
        seen += count
        if seen >= rank:
            assert sums.quantile(q) == sketch.shown(number)
            return
    assert sums.quantile(q) is None


def test_a_quantile_is_exact_beyond_64_bits() -> None:
    heavy = pack(Pane(Counts(n=2**63, lat_n=2**63), EpochUs(0), EpochUs(0), bins={7: 2**63 - 1, 9: 1}))
    sums = summed([heavy.counted] * 300)
    assert sums.quantile(Fraction(2**63 - 1, 2**63)) == sketch.shown(7)
    assert sums.quantile(Fraction(2**63 * 300 - 300 + 1, 2**63 * 300)) == sketch.shown(9)

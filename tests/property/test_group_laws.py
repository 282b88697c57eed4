"""Grouping by sorted digits is grouping, and the bin by logarithm is the bin by comparison."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from evaluator.core import group, sketch
from evaluator.core.event import MAX_LATENCY, NO_LATENCY

NEAR = st.integers(0, 3)
WIDE = st.integers(0, 10**6)
MINOR = NEAR | st.integers(-(10**11), 10**11)
PAIRS = st.lists(st.tuples(NEAR | WIDE, MINOR), min_size=1, max_size=60)


@given(PAIRS)
def test_groups_are_the_rows_of_equal_pairs_in_the_order_of_the_log(pairs: list[tuple[int, int]]) -> None:
    expected: dict[tuple[int, int], list[int]] = {}
    for row, pair in enumerate(pairs):
        expected.setdefault(pair, []).append(row)
    major, minor = np.array([a for a, _ in pairs], dtype=np.int32), np.array([b for _, b in pairs], dtype=np.int64)
    groups = group.by(major, minor)
    found = np.split(groups.order, groups.edges[1:])
    assert [rows.tolist() for rows in found] == [rows for _, rows in sorted(expected.items())]
    assert groups.sizes.tolist() == [len(rows) for rows in found]
    assert groups.numbers.tolist() == [number for number, rows in enumerate(found) for _ in rows]
    marked = np.array([pair[1] % 3 == 0 for pair in pairs])[groups.order]
    assert groups.count(marked).tolist() == [int(part.sum()) for part in np.split(marked, groups.edges[1:])]


@given(
    pairs=st.lists(st.tuples(NEAR | WIDE, st.integers(1, 2**31)), max_size=40),
    has_weights=st.booleans(),
    is_dense=st.booleans(),
)
def test_a_tally_counts_each_key_with_and_without_weights(
    pairs: list[tuple[int, int]], *, has_weights: bool, is_dense: bool
) -> None:
    keys = np.array([key for key, _ in pairs], dtype=np.int64)
    weight = np.array([w for _, w in pairs], dtype=np.int64) if has_weights else None
    limit = 10**6 + 1
    if is_dense:
        keys %= 4
        limit = 4
    found, counts = group.tallied(keys, weight, limit)
    expected: Counter[int] = Counter()
    for key, each in zip(keys.tolist(), [1] * len(keys) if weight is None else weight.tolist(), strict=True):
        expected[key] += each
    assert dict(zip(found.tolist(), counts.tolist(), strict=True)) == dict(expected)
    assert found.tolist() == sorted(expected)


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=12), min_size=1, max_size=5), st.integers(1, 5))
def test_the_strongest_of_each_owner_come_first_with_all_that_equal_the_last_of_them(
    groups: list[list[int]], count: int
) -> None:
    values = np.array([value for each in groups for value in each], dtype=np.int64)
    owners = np.array([number for number, each in enumerate(groups) for _ in each], dtype=np.int64)
    places = group.strongest(values, owners, count)
    for number, each in enumerate(groups):
        found = values[places[owners[places] == number]].tolist()
        least = sorted(each, reverse=True)[:count][-1]
        assert found == sorted((value for value in each if value >= least), reverse=True)
    assert (np.diff(owners[places]) >= 0).all()
    assert len(set(places.tolist())) == len(places)


@given(st.lists(st.integers(0, MAX_LATENCY), min_size=1, max_size=50))
def test_a_bin_is_the_first_whose_boundary_is_not_below_the_latency(latencies: list[int]) -> None:
    column = np.array(latencies, dtype=np.int64)
    assert sketch.bins_of(column).tolist() == np.searchsorted(sketch.boundaries(), column).tolist()


def test_bins_are_exact_at_every_boundary() -> None:
    bounds = sketch.boundaries()
    near = np.unique(np.concatenate([bounds - 1, bounds, bounds + 1]))
    column = near[(near >= 0) & (near <= MAX_LATENCY)]
    assert (sketch.bins_of(column) == np.searchsorted(bounds, column)).all()


def test_no_latency_has_some_bin_which_nobody_counts() -> None:
    assert sketch.bins_of(np.array([NO_LATENCY])).tolist() == [0]

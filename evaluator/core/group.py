"""Grouping of columns by integer keys: the inner loop of stage 1, without a step of Python for each event.

Keys are sorted sixteen bits at a time, least significant first: numpy sorts integers of 16 bits by counting, which
takes a tenth of a comparison sort, and most keys (a series and a slot of time) fit in one or two such digits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from evaluator.core.event import Int32s, Int64s

Bools = npt.NDArray[np.bool_]

_DIGIT = 16
_LOWEST = -(2**63)
_DOUBLE = 2**53
"""Integers up to this are exact as doubles."""

_SPARSE = 8
"""A table may have this many entries for each value that is counted; beyond that sorting is faster."""


@dataclass
class Groups:
    """Rows in groups. `order` lists the rows group by group, `edges` says where in it each group begins; both int64."""

    order: Int64s
    edges: Int64s

    def __len__(self) -> int:
        """How many groups there are."""
        return len(self.edges)

    @cached_property
    def sizes(self) -> Int64s:
        """How many rows each group has."""
        return sizes_of(self.edges, len(self.order))

    @cached_property
    def numbers(self) -> Int64s:
        """The number of the group of each row, in the order of `order`."""
        return np.repeat(np.arange(len(self.edges)), self.sizes)

    def count(self, rows: Bools) -> Int64s:
        """How many rows of each group are marked; `rows` is in the order of `order`."""
        if rows.all():
            return self.sizes
        if rows.any():
            return np.add.reduceat(rows, self.edges, dtype=np.int64)
        return np.zeros(len(self.edges), dtype=np.int64)

    def sum(self, values: Int64s) -> Int64s:
        """The sum of each group; `values` is in the order of `order`."""
        return np.add.reduceat(values, self.edges)


def by(major: Int32s, minor: Int64s) -> Groups:
    """Rows (at least one) grouped by equal pairs, in ascending order of the pairs; `major` is not negative."""
    lowest = int(minor.min())
    keys = minor - lowest
    width = int(keys.max()) + 1
    keys += major.astype(np.int64) * width
    order = sorted_order(keys)
    return Groups(order, edges_of(keys[order]))


def sorted_order(keys: Int64s) -> Int64s:
    """The stable order of `keys`, none of them negative: a radix sort.

    Source: Knuth, The Art of Computer Programming, vol. 3, 5.2.5.
    """
    order = np.argsort(keys.astype(np.uint16), kind="stable")
    for digit in range(_DIGIT, int(keys.max()).bit_length(), _DIGIT):
        order = order[np.argsort((keys[order] >> digit).astype(np.uint16), kind="stable")]
    return order


def edges_of(keys: Int64s) -> Int64s:
    """Where each run of equal keys begins; there is at least one key."""
    return np.concatenate((np.zeros(1, dtype=np.int64), np.flatnonzero(keys[1:] != keys[:-1]) + 1))


def sizes_of(edges: Int64s, total: int) -> Int64s:
    """How long the runs are that begin at `edges`, of `total` rows."""
    sizes = np.empty_like(edges)
    np.subtract(edges[1:], edges[:-1], out=sizes[:-1])
    sizes[-1] = total - edges[-1]
    return sizes


def tallied(keys: Int64s, weight: Int64s | None, limit: int) -> tuple[Int64s, Int64s]:
    """The distinct keys, ascending, each in [0, `limit`), and how often each occurs (or its weights, summed)."""
    if limit <= _SPARSE * len(keys) and (weight is None or int(weight.sum()) < _DOUBLE):
        table = np.bincount(keys, weight, minlength=limit)
        found = np.flatnonzero(table)
        return found, table[found].astype(np.int64)
    if not len(keys):
        return keys, keys
    order = sorted_order(keys)
    edges = edges_of(keys[order])
    if weight is None:
        return keys[order[edges]], sizes_of(edges, len(order))
    return keys[order[edges]], np.add.reduceat(weight[order], edges)


def strongest(values: Int64s, owners: Int64s, count: int) -> Int64s:
    """The places of the `count` largest values of each owner, and of all that equal the last of them.

    `owners` ascend. The places come owner by owner, the largest values first.
    """
    edges = edges_of(owners)
    sizes = sizes_of(edges, len(owners))
    places = np.flatnonzero(values >= np.repeat(_least(values, edges, sizes, count), sizes))
    return places[np.lexsort((-values[places], owners[places]))]


def _least(values: Int64s, edges: Int64s, sizes: Int64s, count: int) -> Int64s:
    """The value of each group that `count` of its values reach, or its smallest: found by taking away the largest."""
    left, wanted = values.copy(), np.minimum(sizes, count)
    least = np.maximum.reduceat(left, edges)
    taken = np.zeros(len(edges), dtype=np.int64)
    for _ in range(count):
        best = left == np.repeat(least, sizes)
        taken += np.add.reduceat(best, edges, dtype=np.int64)
        unfinished = taken < wanted
        if not unfinished.any():
            break
        left[best] = _LOWEST
        least = np.where(unfinished, np.maximum.reduceat(left, edges), least)
    return least

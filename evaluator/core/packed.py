"""Panes as bytes: how they travel, are kept and are stored.

A pane of a hundred latencies is some thousand bytes as objects and two hundred when it is packed. Panes are packed and
merged many at a time (`rows.py`), and windows are added up of packed ones (`sums.py`). Little-endian throughout:

    shape      6 bytes          the widths of a counter, of a count, and of a step; 1 if there are raw counts; how many
                                thresholds there are (2)
    over       8 each           the thresholds, ascending
    bins       2 and 2          how many there are, the number of the lowest
    first, last, lat_max, lat_sum      8 each, signed
    counters   a width each     lat_carry, n, known, bad, lat_n, over each threshold; raw: the last of these again
    steps      a width each     from one bin's number to the next; the first is 0
    counts     a width each     how many latencies are in each bin

Equal panes are equal bytes, however they were merged: widths are the smallest that do.
"""

from __future__ import annotations

import operator
import struct
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from evaluator.core.event import EpochUs, Int64s
from evaluator.core.pane import Counts, Evidence, Pane

if TYPE_CHECKING:
    from collections.abc import Sequence

Unsigned = npt.NDArray[np.unsignedinteger[Any]]

SHAPE = struct.Struct("<4BH")
RAW = 3
"""Where in the shape it says whether there are raw counts."""

WIDTHS = {1: "B", 2: "H", 4: "I", 8: "Q"}
PLAIN = 4
"""Counters of events beside those over a threshold."""

EXACT = 2**62
"""Sums are taken in int64 only where they provably stay below this."""


class Packed(NamedTuple):
    """A pane: what it counted as bytes, and its evidence."""

    counted: bytes
    failing: tuple[Evidence, ...] = ()
    slowest: tuple[Evidence, ...] = ()


class Layout:
    """Where things are in the bytes of one shape."""

    def __init__(self, shape: bytes) -> None:
        counter, count, step, raw, thresholds = SHAPE.unpack(shape)
        each = PLAIN + thresholds
        counters = 1 + each * (1 + raw)
        self.head = struct.Struct(f"<4BH{thresholds}q2H4q{counters}{WIDTHS[counter]}")
        self.prefix = SHAPE.size + 8 * thresholds
        self.count, self.step = np.dtype(f"<{WIDTHS[count]}"), np.dtype(f"<{WIDTHS[step]}")
        # Of the values in a head, the shape's five at first.
        self.over = slice(5, 5 + thresholds)
        self.bins, self.lowest = 5 + thresholds, 6 + thresholds
        self.first, self.last, self.lat_max, self.lat_sum, self.carry = range(self.lowest + 1, self.lowest + 6)
        self.weighted = slice(self.carry + 1, self.carry + 1 + each)
        self.raw = slice(self.weighted.stop, self.weighted.stop + each) if raw else None
        # The newest event, and the first three counters of events: what is asked of each pane by itself.
        skipped = 16 + counter * (1 + each * raw)
        self.seen = struct.Struct(f"<{self.prefix + 12}xq{skipped}x3{WIDTHS[counter]}")
        self.columns = np.dtype([
            ("prefix", "u1", (self.prefix,)), ("bins", "<u2"), ("lowest", "<u2"), ("first", "<i8"),
            ("last", "<i8"), ("lat_max", "<i8"), ("lat_sum", "<i8"), ("counters", f"<u{counter}", (counters,)),
        ])  # fmt: skip


layout = cache(Layout)
"""The layout of a shape; each is made once."""


def layout_of(counted: bytes) -> Layout:
    """The layout of a packed pane."""
    return layout(counted[: SHAPE.size])


def _width(largest: int) -> int:
    """The bytes of an unsigned integer that holds `largest`."""
    return next((width for width in WIDTHS if largest < 1 << (8 * width)), max(WIDTHS))


def pack(pane: Pane) -> Packed:
    """The packed form of a pane, which is brought in order."""
    pane.in_order()
    over = sorted(pane.weighted.over)
    counters = [pane.lat_carry, *_counters(pane.weighted, over)]
    if pane.raw is not None:
        counters += _counters(pane.raw, over)
    numbers, counts = list(pane.bins), list(pane.bins.values())
    steps = [0, *map(operator.sub, numbers[1:], numbers)] if numbers else []
    widths = (_width(max(each, default=0)) for each in (counters, counts, steps))
    shape = (*widths, pane.raw is not None, len(over))
    its = layout(SHAPE.pack(*shape))
    times = (pane.first, pane.last, pane.lat_max, pane.lat_sum)
    head = its.head.pack(*shape, *over, len(numbers), numbers[0] if numbers else 0, *times, *counters)
    tail = np.array(steps, its.step).tobytes() + np.array(counts, its.count).tobytes()
    return Packed(head + tail, pane.failing, pane.slowest)


def unpacked(packed: Packed) -> Pane:
    """The pane that was packed."""
    its = layout_of(packed.counted)
    values = its.head.unpack_from(packed.counted)
    numbers, counts = bins_in(packed.counted)
    over = values[its.over]
    return Pane(
        weighted=counts_of(values[its.weighted], over),
        raw=None if its.raw is None else counts_of(values[its.raw], over),
        first=values[its.first], last=values[its.last], lat_max=values[its.lat_max], lat_sum=values[its.lat_sum],
        lat_carry=values[its.carry], bins=dict(zip(numbers.tolist(), counts.tolist(), strict=True)),
        failing=packed.failing, slowest=packed.slowest,
    )  # fmt: skip


def checked(packed: Packed) -> Packed:
    """The same. Raises `ValueError` where the bytes are no pane's."""
    counted = packed.counted
    try:
        its = layout_of(counted)
        bins: int = its.head.unpack_from(counted)[its.bins]
    except (struct.error, KeyError):
        message = f"no pane is packed in {len(counted)} bytes that begin with {counted[: SHAPE.size].hex()}"
        raise ValueError(message) from None
    if len(counted) != (expected := its.head.size + bins * (its.step.itemsize + its.count.itemsize)):
        message = f"a packed pane has {len(counted)} bytes instead of {expected}"
        raise ValueError(message)
    return packed


class Glance(NamedTuple):
    """What is asked of a pane by itself: its newest event, and how many events there are, have an outcome, failed."""

    last: EpochUs
    n: int
    known: int
    bad: int


def glance(counted: bytes) -> Glance:
    """Look at a packed pane."""
    return Glance(*layout_of(counted).seen.unpack_from(counted))


def _counters(counts: Counts, over: Sequence[int]) -> list[int]:
    return [counts.n, counts.known, counts.bad, counts.lat_n, *(counts.over[threshold] for threshold in over)]


def counts_of(values: Sequence[int], over: Sequence[int]) -> Counts:
    """The counters of a packed pane, which counted the thresholds `over`."""
    n, known, bad, lat_n, *above = values
    return Counts(n, known, bad, lat_n, dict(zip(over, above, strict=True)))


def bins_in(counted: bytes) -> tuple[Int64s, Unsigned]:
    """Numbers and counts of the bins of a packed pane, ascending."""
    its = layout_of(counted)
    values = its.head.unpack_from(counted)
    begin, size = its.head.size, values[its.bins]
    steps = np.frombuffer(counted, its.step, size, begin)
    numbers = np.add.accumulate(steps, dtype=np.int64)
    numbers += values[its.lowest]
    return numbers, np.frombuffer(counted, its.count, size, begin + its.step.itemsize * size)


def bins_of(panes: Sequence[bytes]) -> tuple[Int64s, Unsigned]:
    """Numbers and counts of the bins of packed panes of one shape, ascending for each."""
    its = layout_of(panes[0])
    begin, width = its.head.size, its.step.itemsize
    heads = [its.head.unpack_from(counted) for counted in panes]
    sizes = [head[its.bins] for head in heads]
    cut = [(counted, begin + width * size) for counted, size in zip(panes, sizes, strict=True)]
    steps = np.frombuffer(b"".join([counted[begin:end] for counted, end in cut]), its.step)
    counts = np.frombuffer(b"".join([counted[end:] for counted, end in cut]), its.count)
    numbers = np.cumsum(steps, dtype=np.int64)
    if len(numbers):
        size = np.array(sizes)
        # The first step of each is 0, so there stands how far those before it have climbed.
        before = numbers[np.minimum(np.cumsum(size) - size, len(numbers) - 1)]
        numbers += np.repeat(np.array([head[its.lowest] for head in heads]) - before, size)
    return numbers, counts

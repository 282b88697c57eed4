"""Panes as bytes: how they travel, are kept and are stored.

A pane of a hundred latencies is some thousand bytes as objects and two hundred when it is packed. Panes are packed and
merged many at a time (`rows.py`), and windows are added up of packed ones (`sums.py`). Little-endian throughout:

    shape      5 bytes          width of a counter, width of a bin's count, 1 if events have raw counts, thresholds (2)
    over       8 each           the thresholds, ascending
    bins       2                how many there are
    first, last, lat_max, lat_sum      8 each, signed
    counters   a width each     lat_carry, n, known, bad, lat_n, over each threshold; raw: the last of these again
    numbers    2 each           of the bins, ascending
    counts     a width each     how many latencies are in each bin

Equal panes are equal bytes, however they were merged: widths are the smallest that do.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from evaluator.core.event import EpochUs
from evaluator.core.pane import Counts, Evidence, Pane

if TYPE_CHECKING:
    from collections.abc import Sequence

Unsigned = npt.NDArray[np.unsignedinteger[npt.NBitBase]]

SHAPE = struct.Struct("<3BH")
RAW = 2
"""Where in the shape it says whether there are raw counts."""

WIDTHS = {1: "B", 2: "H", 4: "I", 8: "Q"}
NUMBER = 2
"""Bytes of the number of a bin."""

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
        counter, count, raw, thresholds = SHAPE.unpack(shape)
        each = PLAIN + thresholds
        counters = 1 + each * (1 + raw)
        self.head = struct.Struct(f"<3BH{thresholds}qH4q{counters}{WIDTHS[counter]}")
        self.prefix = SHAPE.size + 8 * thresholds
        self.count = np.dtype(f"<{WIDTHS[count]}")
        # Of the values in a head, the shape's four at first.
        self.over = slice(4, 4 + thresholds)
        self.bins = 4 + thresholds
        self.first, self.last, self.lat_max, self.lat_sum, self.carry = range(self.bins + 1, self.bins + 6)
        self.weighted = slice(self.carry + 1, self.carry + 1 + each)
        self.raw = slice(self.weighted.stop, self.weighted.stop + each) if raw else None
        self.columns = np.dtype([
            ("prefix", "u1", (self.prefix,)), ("bins", "<u2"), ("first", "<i8"), ("last", "<i8"), ("lat_max", "<i8"),
            ("lat_sum", "<i8"), ("counters", f"<u{counter}", (counters,)),
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
    counts = pane.bins.values()
    shape = (_width(max(counters)), _width(max(counts, default=0)), pane.raw is not None, len(over))
    its = layout(SHAPE.pack(*shape))
    times = (pane.first, pane.last, pane.lat_max, pane.lat_sum)
    head = its.head.pack(*shape, *over, len(counts), *times, *counters)
    numbers = np.fromiter(pane.bins, "<u2", len(counts)).tobytes()
    return Packed(head + numbers + np.fromiter(counts, its.count, len(counts)).tobytes(), pane.failing, pane.slowest)


def unpacked(packed: Packed) -> Pane:
    """The pane that was packed."""
    its = layout_of(packed.counted)
    values = its.head.unpack_from(packed.counted)
    numbers, counts = bins_of([packed.counted], [values[its.bins]], its)
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
    if len(counted) != (expected := its.head.size + bins * (NUMBER + its.count.itemsize)):
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
    its = layout_of(counted)
    values = its.head.unpack_from(counted)
    begin = (its.raw or its.weighted).start
    return Glance(values[its.last], *values[begin : begin + 3])


def _counters(counts: Counts, over: Sequence[int]) -> list[int]:
    return [counts.n, counts.known, counts.bad, counts.lat_n, *(counts.over[threshold] for threshold in over)]


def counts_of(values: Sequence[int], over: Sequence[int]) -> Counts:
    """The counters of a packed pane, which counted the thresholds `over`."""
    n, known, bad, lat_n, *above = values
    return Counts(n, known, bad, lat_n, dict(zip(over, above, strict=True)))


def bins_of(panes: Sequence[bytes], sizes: Sequence[int], its: Layout) -> tuple[Unsigned, Unsigned]:
    """Numbers and counts of the bins of packed panes of one layout, which have `sizes` of them."""
    begin = its.head.size
    cut = [(counted, begin + NUMBER * size) for counted, size in zip(panes, sizes, strict=True)]
    numbers = np.frombuffer(b"".join([counted[begin:end] for counted, end in cut]), "<u2")
    return numbers, np.frombuffer(b"".join([counted[end:] for counted, end in cut]), its.count)

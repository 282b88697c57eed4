"""Many packed panes at a time, as columns: how they are packed, and how the pieces of each are put together.

What needs more than 64 bits, or has weights, is added up one by one, by the plain definition (`Pane.merge`).
"""

from __future__ import annotations

from collections import defaultdict
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evaluator.core import group, sketch
from evaluator.core.event import Int64s
from evaluator.core.packed import EXACT, RAW, SHAPE, Packed, bins_of, layout, layout_of, pack, unpacked
from evaluator.core.pane import Evidence, strongest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluator.core.group import Bools

FEW = 4
"""Panes that are put together faster one by one than in columns."""


class Columns(NamedTuple):
    """Panes without weights as columns of int64, a row each. All of them counted the thresholds `over`.

    `counters` has the columns n, known, bad, lat_n and one for each threshold. The bins of all rows stand one after
    another in `numbers` and `counts`, `sizes` of them for each row, ascending.
    """

    over: tuple[int, ...]
    first: Int64s
    last: Int64s
    lat_max: Int64s
    lat_sum: Int64s
    counters: Int64s
    sizes: Int64s
    numbers: Int64s
    counts: Int64s


def packed_rows(columns: Columns) -> list[bytes]:
    """What each row counted, as `pack` writes it."""
    ends = np.cumsum(columns.sizes)
    begins = ends - columns.sizes
    filled = columns.sizes > 0
    lowest = np.zeros(len(ends), dtype=np.int64)
    lowest[filled] = columns.numbers[begins[filled]]
    steps = columns.numbers.copy()
    steps[1:] -= columns.numbers[:-1]
    steps[begins[filled]] = 0
    largest = (columns.counters.max(axis=1), *(_largest(each, begins, filled) for each in (columns.counts, steps)))
    # A shape's three widths, of which each is below ten, as one number.
    widths = _widths(largest[0]) * 100 + _widths(largest[1]) * 10 + _widths(largest[2])
    found = [b""] * len(ends)
    for code in np.unique(widths).tolist():
        (counter, rest), rows = divmod(code, 100), np.flatnonzero(widths == code)
        count, step = divmod(rest, 10)
        size, heads = _heads(columns, rows, lowest, SHAPE.pack(counter, count, step, 0, len(columns.over)))
        all_steps = steps.astype(f"<u{step}").tobytes()
        all_counts = columns.counts.astype(f"<u{count}").tobytes()
        for row, at, begin, end in zip(
            rows.tolist(), range(0, len(heads), size), begins[rows].tolist(), ends[rows].tolist(), strict=True
        ):
            tail = all_steps[step * begin : step * end] + all_counts[count * begin : count * end]
            found[row] = heads[at : at + size] + tail
    return found


def _heads(columns: Columns, rows: Int64s, lowest: Int64s, shape: bytes) -> tuple[int, bytes]:
    """The heads of rows of one shape, one after another, and the bytes of each."""
    its = layout(shape)
    heads = np.zeros(len(rows), dtype=its.columns)
    heads["prefix"] = np.frombuffer(shape + np.array(columns.over, "<i8").tobytes(), "u1")
    heads["bins"] = columns.sizes[rows]
    heads["lowest"] = lowest[rows]
    for name in ("first", "last", "lat_max", "lat_sum"):
        heads[name] = getattr(columns, name)[rows]
    heads["counters"][:, 1:] = columns.counters[rows]
    return its.head.size, heads.tobytes()


_WIDTHS = np.array([1, 2, 4, 8])
_BEYOND = np.array([1 << (8 * width) for width in (1, 2, 4)])
"""What each of the widths but the last does not hold any more."""


def _widths(largest: Int64s) -> Int64s:
    """The bytes of unsigned integers that hold each of `largest`."""
    return _WIDTHS[np.searchsorted(_BEYOND, largest, side="right")]


def _largest(values: Int64s, begins: Int64s, filled: Bools) -> Int64s:
    """The largest value of each row, 0 where it has none."""
    found = np.zeros(len(begins), dtype=np.int64)
    if len(values):
        found[filled] = np.maximum.reduceat(values, begins[filled])
    return found


def merged(several: Sequence[Sequence[Packed]]) -> list[Packed]:
    """Each of `several` lists of pieces (at least one) of a pane, as one."""
    found = [pieces[0] for pieces in several]
    numbers = [number for number, pieces in enumerate(several) if len(pieces) > 1]
    counted = _merged_bytes([[piece.counted for piece in several[number]] for number in numbers])
    for number, whole in zip(numbers, counted, strict=True):
        failing = _joined([piece.failing for piece in several[number]], failing=True)
        found[number] = Packed(whole, failing, _joined([piece.slowest for piece in several[number]], failing=False))
    return found


def _joined(proofs: list[tuple[Evidence, ...]], *, failing: bool) -> tuple[Evidence, ...]:
    some = [proof for proof in proofs if proof]
    return strongest(tuple(chain.from_iterable(some)), failing=failing) if len(some) > 1 else some[0] if some else ()


def _merged_bytes(several: list[list[bytes]]) -> list[bytes]:
    """What the pieces of each pane counted, added up."""
    found = [b""] * len(several)
    by_form: defaultdict[bytes | None, list[int]] = defaultdict(list)
    for number, pieces in enumerate(several):
        by_form[_form(pieces)].append(number)
    for form, numbers in by_form.items():
        groups = [several[number] for number in numbers]
        sums = None if form is None or len(groups) < FEW else _added_rows(groups)
        wholes = map(_added_one_by_one, groups) if sums is None else packed_rows(sums)
        for number, whole in zip(numbers, wholes, strict=True):
            found[number] = whole
    return found


def _form(pieces: list[bytes]) -> bytes | None:
    """The thresholds that all of the pieces counted; None where they differ, or where one has weights."""
    forms = {counted[RAW : layout_of(counted).prefix] for counted in pieces}
    form = forms.pop()
    return None if forms or form[0] else form


def _added_one_by_one(pieces: list[bytes]) -> bytes:
    whole, *others = (unpacked(Packed(counted)) for counted in pieces)
    for other in others:
        whole.merge(other)
    return pack(whole).counted


def _added_rows(groups: list[list[bytes]]) -> Columns | None:
    """A row for each group of pieces of one form; None where 64 bits may not hold a sum."""
    by_shape: defaultdict[bytes, tuple[list[int], list[bytes]]] = defaultdict(lambda: ([], []))
    for number, pieces in enumerate(groups):
        for counted in pieces:
            numbers, alike = by_shape[counted[: SHAPE.size]]
            numbers.append(number)
            alike.append(counted)
    parts = [part for _, alike in by_shape.values() if (part := _rows(alike)) is not None]
    if len(parts) < len(by_shape):
        return None
    rows = Columns(parts[0].over, *map(np.concatenate, zip(*(part[1:] for part in parts), strict=True)))
    if max(rows.lat_sum.max(), rows.counters.max()) >= EXACT // max(map(len, groups)):
        return None
    owners = np.concatenate([np.array(numbers) for numbers, _ in by_shape.values()])
    order = np.argsort(owners, kind="stable")
    edges = group.edges_of(owners[order])
    width = len(sketch.boundaries())
    keys, counts = group.tallied(
        np.repeat(owners, rows.sizes) * width + rows.numbers, rows.counts, len(groups) * width
    )  # fmt: skip
    of_bins, in_order = np.divmod(keys, width)
    return Columns(
        over=rows.over,
        first=np.minimum.reduceat(rows.first[order], edges),
        last=np.maximum.reduceat(rows.last[order], edges),
        lat_max=np.maximum.reduceat(rows.lat_max[order], edges),
        lat_sum=np.add.reduceat(rows.lat_sum[order], edges),
        counters=np.add.reduceat(rows.counters[order], edges, axis=0),
        sizes=np.bincount(of_bins, minlength=len(groups)),
        numbers=in_order,
        counts=counts,
    )


def _rows(panes: list[bytes]) -> Columns | None:
    """Panes of one shape and form as columns; None where they have more than 64 bits."""
    its = layout_of(panes[0])
    size = its.head.size
    heads = np.frombuffer(b"".join([counted[:size] for counted in panes]), its.columns)
    numbers, counts = bins_of(panes)
    counters = heads["counters"].astype(np.int64)
    if counters.min() < 0 or counters[:, 0].any():
        return None
    over = np.frombuffer(panes[0][SHAPE.size : its.prefix], "<i8").tolist()
    return Columns(
        tuple(over), heads["first"], heads["last"], heads["lat_max"], heads["lat_sum"], counters[:, 1:],
        heads["bins"].astype(np.int64), numbers, counts.astype(np.int64),
    )  # fmt: skip

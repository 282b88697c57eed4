"""Partials as bytes: what stage 1 writes to `<app>.partials` and stage 2 reads.

A partial larger than `PART_LIMIT` is split into numbered parts; all of them travel in one transaction.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from evaluator.core.partial import Partial
from evaluator.wire.stored import Codec, Form

if TYPE_CHECKING:
    from collections.abc import Iterator

PART_LIMIT = 512 * 1024
"""Half of Kafka's default record limit, so that no setting of a healthy cluster refuses a part."""

CODEC = Codec("partial", 1, Form(Partial))


def encode(partial: Partial, codec: Codec = CODEC) -> list[bytes]:
    """The parts of a partial, in order; most have one."""
    whole = codec.encode(partial)
    if len(whole) <= PART_LIMIT:
        return [whole]
    pieces = list(_pieces(partial, codec))
    return [codec.encode(replace(piece, part=number, parts=len(pieces))) for number, piece in enumerate(pieces)]


def decode(value: bytes, codec: Codec = CODEC) -> Partial:
    """The partial of a record's value. Raises `StateRefused`."""
    partial: Partial = codec.decode(value)
    return partial


def _pieces(partial: Partial, codec: Codec) -> Iterator[Partial]:
    """Halve cells, runs and rejections until each piece fits; the idle advances travel with the first."""
    cells = tuple((key, (cell,)) for key, of_series in partial.cells for cell in of_series)
    runs = tuple((key, (run,)) for key, of_series in partial.runs for run in of_series)
    waiting = [replace(partial, cells=cells, runs=runs)]
    while waiting:
        piece = waiting.pop()
        count = len(piece.cells) + len(piece.runs) + len(piece.future_rejections)
        if count <= 1 or len(codec.encode(piece)) <= PART_LIMIT:
            yield piece
            continue
        # One of each is halved as well: the cell stays behind, the others come first.
        cell, run, late = len(piece.cells) // 2, -(-len(piece.runs) // 2), -(-len(piece.future_rejections) // 2)
        waiting.append(replace(
            piece, cells=piece.cells[cell:], runs=piece.runs[run:], idle_advances=(),
            future_rejections=piece.future_rejections[late:],
        ))  # fmt: skip
        waiting.append(replace(
            piece, cells=piece.cells[:cell], runs=piece.runs[:run], future_rejections=piece.future_rejections[:late]
        ))  # fmt: skip

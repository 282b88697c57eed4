"""A fetch in slices: what is taken in without a turn of the event loop for anybody else.

A poll is bounded by its number of records. But one of them may hold thousands of spans, and what a partition sent
compressed may be tens of megabytes: decoded in one go, heartbeats would wait for all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evaluator.runtime.log.port import Fetched
from evaluator.wire.records import Records

if TYPE_CHECKING:
    from collections.abc import Iterator

SLICE_BYTES = 2 << 20
"""About 6,000 spans, or 14,000 events of 150 bytes: what is decoded within the 50 ms that a turn may take
(docs/exactly-once.md, 4). Smaller, and more is spent on what each slice costs by itself."""


class Slice(NamedTuple):
    """A part of a fetch, as if it had been fetched by itself, and how many bytes its values have."""

    fetched: Fetched
    size: int


def slices(fetched: Fetched) -> Iterator[Slice]:
    """All of a fetch, in order: slices of at most `SLICE_BYTES`, or of one record; at least one, also of nothing."""
    records = Records.of(fetched.records)
    sizes = np.maximum(records.sizes, 0)
    whole = int(sizes.sum())
    start = held = 0
    for place, size in enumerate(sizes.tolist() if whole > SLICE_BYTES else ()):
        if place > start and held + size > SLICE_BYTES:
            yield Slice(fetched._replace(records=records[start:place], next_offset=int(records.offsets[place])), held)
            whole -= held
            start, held = place, 0
        held += size
    yield Slice(fetched._replace(records=records[start:]), whole)

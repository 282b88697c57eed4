"""When columns are reduced is no matter to what a commit says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from support.rules import rule, rules

from evaluator.core.aggregate import REDUCE_A_SERIES, REDUCE_AT, REDUCE_AT_MOST, Aggregator
from evaluator.core.event import MINUTE, EventBatch, SeriesKey, listed

if TYPE_CHECKING:
    from evaluator.core.partial import Partial

COUNT = 3 * REDUCE_AT_MOST


def taken(series: int, batch: int) -> tuple[Partial, set[int]]:
    """The partial of the same events in batches of this size, and how many were waiting after each of them."""
    judged = rules(rule(), group_by=("f",))
    aggregator = Aggregator(judged, judged.sources["events"], 0, 1, 16)
    rng = np.random.default_rng(3)
    time = np.arange(COUNT) * (20 * MINUTE) // COUNT - rng.integers(0, MINUTE, COUNT) + MINUTE
    columns = {
        "offset": np.arange(COUNT), "time": time, "failed": rng.integers(0, 2, COUNT).astype(np.int8),
        "latency": rng.integers(1, 1_000_000, COUNT), "series": rng.integers(0, series, COUNT).astype(np.int32),
    }  # fmt: skip
    for number in range(series):
        aggregator.table.intern(SeriesKey("api", (str(number),)))
    pending = set()
    for begin in range(0, COUNT, batch):
        part = {name: column[begin : begin + batch] for name, column in columns.items()}
        ids = listed([f"{offset:032x}" for offset in part["offset"].tolist()])
        aggregator.add(EventBatch(**part, trace_ids=ids), begin, begin + batch)
        pending.add(aggregator.pending)
    return aggregator.take(), pending


@pytest.mark.parametrize("series", [1, 100, 640, 2000])
def test_a_commit_says_the_same_however_often_its_events_were_reduced(series: int) -> None:
    often, waiting = taken(series, 1024)
    assert max(waiting) == min(max(REDUCE_AT, REDUCE_A_SERIES * series), REDUCE_AT_MOST) - 1024
    assert 0 in waiting
    at_once, waiting = taken(series, COUNT)
    assert waiting == {0}
    assert (often, len(often.cells)) == (at_once, series)

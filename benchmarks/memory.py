"""What the state of stage 2 takes in memory: a day of panes for each of many series.

Ten thousand series with a rule over 24 hours that hops every five minutes, and a hundred events in each pane, as stage
1 sends them: a step of all series at a time, until the day is full and rolls. Each size runs in a process of its own;
what is shown is the peak of that process.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import job
import numpy as np
from table import Figure

from evaluator.core.aggregate import Aggregator
from evaluator.core.evaluate import Evaluator
from evaluator.core.event import MINUTE, EventBatch, SeriesKey, listed
from evaluator.runtime.collector import prefer_throughput
from evaluator.wire.config.load import load_rules

if TYPE_CHECKING:
    from collections.abc import Iterator

STEP = 5 * MINUTE
EVENTS = 100
STEPS = 300
KINDS = 64
"""Series with latencies of their own; the others repeat them."""

RULES = """\
version: 1
sources:
  bench:
    topic: bench
    format: json
    fields: {time: t, latency: ms, latency_unit: ms, failed: {status: ">= 500"}, trace_id: trace}
surfaces:
  voice-api: {source: bench, group_by: [{field: route, as: route}], max_series: 200000}
alerts:
  Errors: {surface: voice-api, when: error_ratio > 5%, window: 24h, every: 5m, severity: page}
  Slow: {surface: voice-api, when: p95 > 800ms, window: 24h, every: 5m, severity: ticket}
"""


def peak_mb() -> float:
    """Of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(series: int, steps: int) -> dict[str, float]:
    """Fill the windows of `series` step by step; returns what that took."""
    prefer_throughput()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rules.yaml"
        path.write_text(RULES)
        rules = load_rules([path]).rules
    rng = np.random.default_rng(7)
    keys = [SeriesKey("voice-api", (f"/v1/route-{number:06d}",)) for number in range(series)]
    latency = np.round(10 ** rng.uniform(3, 6, (KINDS, EVENTS))).astype(np.int64)
    trace_ids = [rng.bytes(16).hex() for _ in range(EVENTS)]
    aggregator = Aggregator(rules, rules.sources["bench"], 0, 1, 1)
    evaluator = Evaluator(rules)
    began, offset, prev, decided = peak_mb(), 0, None, 0.0
    for step in range(steps):
        for key in keys:
            aggregator.table.intern(key)
        for first in range(0, series, KINDS):
            several = min(KINDS, series - first)
            count = several * EVENTS
            events = EventBatch(
                offset=np.arange(offset, offset + count),
                time=job.START_MS * 1000 + step * STEP + np.tile(np.arange(EVENTS) * (STEP // EVENTS), several),
                failed=(rng.random(count) < 0.01).astype(np.int8),
                latency=latency[(np.arange(several) + step) % KINDS].reshape(-1),
                series=np.repeat(np.arange(first, first + several), EVENTS).astype(np.int32),
                trace_ids=listed(trace_ids * several),
            )
            aggregator.add(events, offset, offset + count)
            offset += count
        partial = replace(aggregator.take(), prev=prev)
        prev = partial.end
        evaluator.merge(partial)
        before = time.process_time()
        evaluator.decide()
        decided = time.process_time() - before
        evaluator.changes()
    return {"peak_mb": peak_mb(), "before_mb": began, "last_decide_s": decided}


def figures() -> Iterator[Figure]:
    """What the table shows of it."""
    for series in (50, 10_000):
        told = json.loads(subprocess.run([sys.executable, __file__, str(series)], capture_output=True, text=True,
                                         check=True).stdout)  # fmt: skip
        panes = series * 288
        each = round((told["peak_mb"] - told["before_mb"]) * 2**20 / panes)
        yield Figure("windows", f"stage 2, {series:,} series with a day of 5m panes of {EVENTS} events, peak",
                     told["peak_mb"], "MB", {"bytes_a_pane": each})  # fmt: skip
        yield Figure(
            "windows", f"a window end of 24h windows of {series:,} series, two rules", told["last_decide_s"], "s", {}
        )


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]), STEPS)))

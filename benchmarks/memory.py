"""What both stages take in memory. Each size runs in a process of its own; what is shown is the peak of that process.

Windows: ten thousand series with a rule over 24 hours that hops every five minutes, and a hundred events in each pane,
as stage 1 sends them: a step of all series at a time, until the day is full and rolls.

Cap: a million events of which none has the group value of another, with the `max_series` that a surface has by default,
from their bytes to their verdicts. Beside it as many events of a thousand group values, and of as many as fit the caps
of all shards.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import core
import job
import numpy as np
from table import Figure

from evaluator.core.aggregate import Aggregator
from evaluator.core.evaluate import Evaluator
from evaluator.core.event import MINUTE, EventBatch, SeriesKey, listed
from evaluator.runtime.collector import prefer_throughput
from evaluator.wire import partial as partial_wire
from evaluator.wire.decode import SourceDecoder
from evaluator.wire.records import Record, Records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STEP = 5 * MINUTE
EVENTS = 100
STEPS = 300
SHARDS = core.SHARDS
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


def filled(series: int, steps: int = STEPS) -> dict[str, float]:
    """Fill the windows of `series` step by step; returns what that took."""
    prefer_throughput()
    rules = core.loaded(RULES).rules
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


CAPPED_EVENTS = 1_000_000
CAPPED_RATE = 1_000
"""Events a second of event time: a million of them are sixteen minutes."""

A_COMMIT = 50_000
"""Events between two commits of stage 1: some three times as many series as the caps let through, each time."""


def fresh(values: int) -> Iterator[Records]:
    """Batches of events whose group value is one of `values` in turn."""
    for begin in range(0, CAPPED_EVENTS, core.BATCH):
        rows = []
        for number in range(begin, begin + core.BATCH):
            at = job.START_MS + number * 1000 // CAPPED_RATE
            value = (f'{{"time":{at},"surface":"voice-api-{number % values:09d}","duration_ms":{number % 997}.5,'
                     f'"status":{503 if number % 50 == 0 else 200},"trace_id":"{number:032x}"}}')  # fmt: skip
            rows.append(Record(number, at, None, value.encode()))
        yield Records.of(rows)


def capped(values: int) -> dict[str, float]:
    """Take events of so many group values through both stages; returns what that took, and how many series it left."""
    prefer_throughput()
    config = core.loaded(job.RULES)
    source = config.sources["bench"]
    decoder, aggregator = SourceDecoder(source), Aggregator(config.rules, config.rules.sources["bench"], 0, 1, SHARDS)
    evaluators = [Evaluator(config.rules, None, shard, SHARDS) for shard in range(SHARDS)]
    sent: dict[int, int] = {}
    began, windows, sequence, judged = peak_mb(), 0, 0, set[SeriesKey]()
    for records in fresh(values):
        decoded = decoder.decode(records, aggregator.table, None)
        assert decoded.records == decoded.ok == len(records), "a batch is more than a turn may take"
        end = int(records.offsets[-1]) + 1
        aggregator.add(decoded.events, int(records.offsets[0]), end)
        if end % A_COMMIT:
            continue
        sequence += 1
        for shard, part in enumerate(aggregator.take().split(SHARDS)):
            for value in partial_wire.encode(replace(part, prev=sent.get(shard), sequence=sequence)):
                evaluators[shard].merge(partial_wire.decode(value))
            sent[shard] = part.end
            decided = evaluators[shard].decide()
            windows += len(decided.verdicts)
            judged.update(series for _, series, _ in decided.verdicts)
            evaluators[shard].changes()
    return {"peak_mb": peak_mb(), "before_mb": began, "windows": windows, "series": len(judged)}


WORK: dict[str, Callable[[int], dict[str, float]]] = {"windows": filled, "cap": capped}


def measured(work: str, size: int) -> dict[str, float]:
    """What a process that does nothing else tells of it."""
    command = [sys.executable, __file__, work, str(size)]
    found: dict[str, float] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return found


def figures() -> Iterator[Figure]:
    """What the table shows of windows."""
    for series in (50, 10_000):
        told = measured("windows", series)
        panes = series * 288
        each = round((told["peak_mb"] - told["before_mb"]) * 2**20 / panes)
        yield Figure("windows", f"stage 2, {series:,} series with a day of 5m panes of {EVENTS} events, peak",
                     told["peak_mb"], "MB", {"bytes_a_pane": each})  # fmt: skip
        yield Figure(
            "windows", f"a window end of 24h windows of {series:,} series, two rules", told["last_decide_s"], "s", {}
        )


def cap_figures() -> Iterator[Figure]:
    """What the table shows of the cap."""
    few, full, many = sizes = (1_000, SHARDS * 1_000, CAPPED_EVENTS)
    told = {values: measured("cap", values) for values in sizes}
    for values, found in told.items():
        more = {"series": round(found["series"]), "windows": round(found["windows"])}
        name = f"both stages, {CAPPED_EVENTS:,} events of {values:,} group values, peak"
        yield Figure("cap", name, found["peak_mb"], "MB", {**more, "before_MB": round(found["before_mb"])})
    for values in (few, full):
        name = f"peak with {many:,} group values, of that with {values:,}"
        yield Figure("cap", name, told[many]["peak_mb"] / told[values]["peak_mb"], "")


if __name__ == "__main__":
    print(json.dumps(WORK[sys.argv[1]](int(sys.argv[2]))))

"""The benchmark job: two hours of events of 50 surfaces in 4 partitions, one failing, one slow.

Deterministic. Disorder is up to 5 s. The exact answer is computed here from the arrays, independently of the
evaluator: error ratio > 1 % and p95 > 500 ms per minute, a breach after 3 bad minutes in a row.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

START_MS, SPAN_MS, SURFACES, BATCH = 1_769_601_600_000, 7_200_000, 50, 100

RULES = """\
version: 1
sources:
  bench:
    topic: bench-events
    format: json
    out_of_orderness: 10s
    fields: {time: time, latency: duration_ms, latency_unit: ms, failed: {status: ">= 500"}, trace_id: trace_id}
surfaces:
  voice-api:
    source: bench
    match: {surface: "~ ^voice-api-"}
    group_by: [{field: surface, as: api}]
    owners: ["@bench"]
alerts:
  Errors: {surface: voice-api, when: error_ratio > 1%, window: 1m, consecutive: 3, min_samples: 1, severity: page}
  Slow: {surface: voice-api, when: p95 > 500ms, window: 1m, consecutive: 3, min_samples: 1, severity: page}
"""


class Job(NamedTuple):
    """The files that were written, one a partition, and how often each rule must fire."""

    files: list[Path]
    firings: dict[str, int]
    count: int


def write(folder: Path, count: int = 2_000_000, partitions: int = 4) -> Job:
    """Write the events as NDJSON, one file a partition."""
    rng = np.random.default_rng(7)
    number = np.arange(count)
    time = START_MS + 5000 + number * (SPAN_MS - 5000) // count - rng.integers(0, 5001, count)
    surface = rng.integers(0, SURFACES, count)
    minute = (time - START_MS) // 60_000
    latency = np.round(rng.lognormal(np.log(150), 0.6, count), 1)
    slow = (surface == 23) & (minute >= 60) & (minute < 75)
    latency = np.where(slow, np.round(latency * 3, 1), latency)
    failing = np.where((surface == 7) & (minute >= 30) & (minute < 40), 0.05, 0.01)
    failed = rng.random(count) < failing
    firings = _firings(surface, minute, latency, failed)
    trace = rng.bytes(16 * count).hex()
    files = [folder / f"p{index}.ndjson" for index in range(partitions)]
    columns = zip(time.tolist(), surface.tolist(), latency.tolist(), np.where(failed, 503, 200).tolist(), strict=True)
    streams = [path.open("w") for path in files]
    for n, (at, which, took, status) in enumerate(columns):
        streams[(n // BATCH) % partitions].write(
            f'{{"time":{at},"surface":"voice-api-{which:03d}","duration_ms":{took},"status":{status},'
            f'"trace_id":"{trace[32 * n : 32 * n + 32]}","route":"/v1/call"}}\n'
        )
    for stream in streams:
        stream.close()
    (folder / "rules.yaml").write_text(RULES)
    (folder / "expected.json").write_text(json.dumps(firings))
    return Job(files, firings, count)


def _firings(surface: np.ndarray, minute: np.ndarray, latency: np.ndarray, failed: np.ndarray) -> dict[str, int]:
    order = np.lexsort((minute, surface))
    key = surface[order] * 1000 + minute[order]
    streak: dict[tuple[int, str], int] = defaultdict(int)
    firings = {"Errors": 0, "Slow": 0}
    for group in np.split(order, np.flatnonzero(np.diff(key)) + 1):
        slowest = np.quantile(latency[group], 0.95, method="inverted_cdf")
        for rule, bad in (("Errors", failed[group].mean() > 0.01), ("Slow", slowest > 500)):
            place = (int(surface[group[0]]), rule)
            streak[place] = streak[place] + 1 if bad else 0
            firings[rule] += streak[place] == 3
    return firings

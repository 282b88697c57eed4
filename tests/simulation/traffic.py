"""Events of one seed: written partly before the service starts, partly while it runs, on every partition."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import orjson

from evaluator.core.event import SECOND, EpochUs
from evaluator.wire.text import rfc3339

if TYPE_CHECKING:
    import random

STEP_S = 3.5
WINDOW_S = 10
BROKEN = b"{"
DEPLOY_S = 15

RULES = """
version: 1
blind_after: 15s
sources:
  events: {topic: t, format: json, out_of_orderness: 2s, idle_after: 15s, dedup: 4,
           fields: {time: t, id: id, failed: {s: ">= 500"}, deploy: d, score: p}}
surfaces:
  api: {source: events, match: {app: api}, group_by: [f]}
  nightly: {source: events, match: {app: nightly}}
alerts:
  Errors: {surface: api, when: error_ratio > 20%, window: 10s, consecutive: 2, min_samples: 1, severity: page}
  Hopping: {surface: api, when: error_count > 2, window: 30s, every: 10s, severity: ticket}
  Quiet: {surface: api, expect_every: 3s, every: 10s, severity: ticket}
  NeverCame: {surface: nightly, expect_every: 35s, every: 10s, consecutive: 2, severity: ticket}
  Deploys: {surface: api, when: [score < 0.75, error_ratio > 50%], window: deploy, settle: 1m, severity: ticket}
"""


class Due(NamedTuple):
    """A record that a producer has at a time of its own; the log may get it later."""

    at_s: float
    partition: int
    value: bytes


def tick(time: EpochUs, name: str) -> bytes:
    """An event of no surface: it moves the watermark and nothing else."""
    return orjson.dumps({"t": rfc3339(time), "app": "tick", "id": name})


def traffic(rng: random.Random, start: EpochUs, partitions: int, *, is_punctual: bool) -> list[Due]:
    """Everything that producers will have to say, in the order of its time; `at_s` counts from `start`.

    Bad stretches come and go. A punctual one keeps to the source's `out_of_orderness`. One partition may fall
    silent early and never come back: then a clock has to decide for it.
    """
    windows = rng.randrange(4, 6)
    bad = {w for first in (rng.randrange(2), rng.randrange(3, 5)) for w in range(first, first + rng.randrange(2, 4))}
    silent = rng.randrange(partitions) if partitions > 1 and rng.random() < 0.4 else None
    found: list[Due] = []
    for partition in range(partitions):
        end = windows * WINDOW_S * (0.5 if partition == silent else 1.0)
        at, number = rng.random() * STEP_S, 0
        while at < end:
            number += 1
            early = rng.random() * 1.9
            if not is_punctual and rng.random() < 0.08:
                early = rng.choice((rng.random() * 25, -40.0))
            fails = int(at // WINDOW_S) in bad and rng.random() < 0.8
            time = at - early
            event = {"t": rfc3339(EpochUs(start + int(time * SECOND))), "app": "api", "f": rng.choice("ab"),
                     "s": 500 if fails else 200, "id": f"{partition}-{number}", "d": f"v{time // DEPLOY_S:.0f}",
                     "p": 0.7 if int(time // WINDOW_S) in bad else 0.9}  # fmt: skip
            value = orjson.dumps(event)
            found.append(Due(at, partition, value))
            if rng.random() < 0.08:
                found.append(Due(at, partition, value))
            if rng.random() < 0.04:
                found.append(Due(at, partition, BROKEN))
            at += rng.random() * 2 * STEP_S
        if partition != silent:
            closing = tick(EpochUs(start + (windows * WINDOW_S + 25) * SECOND), f"end-{partition}")
            found.append(Due(windows * WINDOW_S + 1.0, partition, closing))
    return sorted(found, key=lambda due: due.at_s)

"""Invariant 5, the second half, as a law: time alone moves a watermark only on a partition read to its end."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluator.core.event import SECOND, EpochUs
from evaluator.core.watermark import BEGINNING
from evaluator.runtime.aggregate_stage import AggregateStage, Timing
from evaluator.runtime.log.port import Fetched
from evaluator.runtime.topics import Topics
from evaluator.wire.config.load import load_rules
from evaluator.wire.records import Record
from evaluator.wire.text import rfc3339

if TYPE_CHECKING:
    from pathlib import Path

START = 1_769_558_400
RULES = """
version: 1
sources:
  events: {topic: t, format: json, out_of_orderness: 5s, idle_after: 30s, fields: {time: t, failed: {s: ">= 500"}}}
surfaces:
  api: {source: events}
alerts:
  A: {surface: api, when: error_ratio > 1%, window: 1m, severity: page}
"""


def expected(fetches: list[tuple[int, bool, bool]]) -> list[int | None]:
    """The watermark after each fetch, in seconds, straight from the text: (at, brings an event, reached the end)."""
    watermark: int | None = None
    since: int | None = None
    last = None
    result = []
    for at, event, at_end in fetches:
        if event:
            watermark = max(at - 5, at - 5 if watermark is None else watermark)
        if not at_end:
            since = None
        elif event or since is None or last is None or at - last > 10:
            since = at
        elif at - since >= 30:
            watermark = at - 5 if watermark is None else max(watermark, at - 5)
        last = at
        result.append(watermark)
    return result


def test_only_observed_time_at_the_end_of_the_log_moves_a_watermark(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    config = load_rules([path])
    reached: Counter[bool] = Counter()

    @settings(max_examples=200)
    @given(seed=st.integers(0, 2**32))
    def law(seed: int) -> None:
        rng = random.Random(seed)
        stage = AggregateStage(config, "events", 0, 1, 1, Topics("app"), Timing(SECOND), Counter())
        stage.restore([], (0, 0), None)
        at, offset, fetches, seen = START, 0, [], []
        for _ in range(40):
            at += rng.choice([1, 5, 5, 9, 10, 10, 11, 40] if rng.random() < 0.3 else [5, 9, 10])
            event, at_end = rng.random() < 0.1, rng.random() < 0.93
            fetches.append((at, event, at_end))
            value = orjson.dumps({"t": rfc3339(at * SECOND)})
            records = [Record(offset, at * 1000, None, value)] if event else []
            offset += len(records)
            stage.apply(Fetched(records, offset, offset + (not at_end), EpochUs(at * SECOND)))
            seen.append(None if stage.watermark == BEGINNING else stage.watermark // SECOND)
        reached[any(not e and w is not None and w == a - 5 for (a, e, _), w in zip(fetches, seen, strict=True))] += 1
        assert seen == expected(fetches)

    law()
    assert reached[True] >= reached[False], reached

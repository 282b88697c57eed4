"""Files through both stages: what the shape of the input may not change."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson

from evaluator.runtime.clock import run_virtual
from evaluator.runtime.replay import Outcome, Request, replay
from evaluator.wire.config.load import load_rules

if TYPE_CHECKING:
    from pathlib import Path

RULES = """
version: 1
sources: {events: {topic: t, format: json, out_of_orderness: 5s, fields: {time: t, failed: {s: ">= 500"}}}}
surfaces: {api: {source: events}}
alerts: {A: {surface: api, when: error_ratio > 20%, window: 1m, min_samples: 1, severity: page}}
"""
START = 1_769_558_400


def test_a_file_that_ends_early_does_not_hold_the_others_for_ever(tmp_path: Path) -> None:
    config, short, long = tmp_path / "rules.yaml", tmp_path / "short", tmp_path / "long"
    config.write_text(RULES)
    short.write_bytes(orjson.dumps({"t": START, "s": 500}) + b"\n")
    hours = [orjson.dumps({"t": START + 600 * number, "s": 500}) for number in range(100)]
    long.write_bytes(b"\n".join(hours))

    async def run() -> Outcome:
        request = Request({"events": [short, long]}, batch=10)
        return await replay(load_rules([config]), request, asyncio.get_running_loop())

    fired = [orjson.loads(alert)["firedAt"] for alert in run_virtual(run()).alerts]
    assert fired == ["2026-01-28T00:01:00Z"]

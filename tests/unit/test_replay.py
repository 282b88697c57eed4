"""Files through both stages: what the shape of the input may not change."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING

import orjson
import pytest

from evaluator.errors import SchemasUnavailable
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


def test_a_registry_that_cannot_be_asked_ends_a_replay_with_one_line(tmp_path: Path) -> None:
    """There is nobody to wait for it as the daemon does."""
    config, records = tmp_path / "rules.yaml", tmp_path / "records"
    config.write_text(RULES.replace("format: json", 'format: registry, schemas: {url: "http://127.0.0.1:1"}'))
    value = base64.b64encode(b"\0\0\0\0\1{}").decode()
    records.write_bytes(orjson.dumps({"timestamp": START * 1000, "encoding": "base64", "value": value}) + b"\n")

    async def run() -> Outcome:
        request = Request({"events": [records]}, envelope=True)
        return await replay(load_rules([config]), request, asyncio.get_running_loop())

    with pytest.raises(SchemasUnavailable, match=r"cannot read http://127\.0\.0\.1:1/schemas/ids/1: ") as caught:
        run_virtual(run())
    assert caught.value.exit_code == 4

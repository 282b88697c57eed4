"""Worked examples in files: a config, one file a partition, the expected transitions."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path
from typing import Any

import orjson

from evaluator.core.event import EpochUs
from evaluator.runtime.clock import VirtualLoop
from evaluator.runtime.replay import Outcome, Request, replay
from evaluator.wire.config.load import Config, load_rules
from evaluator.wire.instant import instant
from evaluator.wire.rejection import Reason

CASES = Path(__file__).parents[1] / "cases"
COMPARED = (
    "id", "status", "reason", "alertname", "surface", "slo", "severity", "labels", "startsAt", "firedAt", "endsAt",
    "fingerprint", "episode",
)  # fmt: skip


def names() -> list[str]:
    """The cases, by folder name."""
    return sorted(path.name for path in CASES.iterdir() if path.is_dir())


def run(folder: Path, *, batch: int = 20_000, verdicts: bool = False, backwards: bool = False) -> Outcome:
    """Replay a case; `backwards` gives its partitions in the opposite order."""
    words = shlex.split((folder / "args").read_text()) if (folder / "args").exists() else []
    until = EpochUs(instant(words[words.index("--until") + 1], "auto")) if "--until" in words else None
    files = sorted(folder.glob("p*.ndjson"), reverse=backwards)
    config = load_rules([folder / "config.yaml"])
    (source,) = config.rules.sources
    request = Request({source: files}, "--envelope" in words, until, verdicts=verdicts, batch=batch, shards=4)
    return replayed(config, request)


def replayed(config: Config, request: Request) -> Outcome:
    """What a replay finds, of which no decoder fails."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        outcome = runner.run(replay(config, request, runner.get_loop()))
    assert Reason.DECODER_BUG not in outcome.rejects
    return outcome


def compared(line: bytes) -> dict[str, Any]:
    """The fields of an alert record that a case fixes."""
    record = orjson.loads(line)
    return {name: record[name] for name in COMPARED}


def expected(folder: Path) -> list[dict[str, Any]]:
    """The expected transitions of a case."""
    return [compared(line) for line in (folder / "expected.ndjson").read_bytes().splitlines() if line.strip()]


def multiset(records: list[dict[str, Any]]) -> list[bytes]:
    """Records in an order of their own, for comparison."""
    return sorted(orjson.dumps(record, option=orjson.OPT_SORT_KEYS) for record in records)

"""The examples of config/examples: for each format and preset a config, one file a partition, the expected alerts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from evaluator.wire.envelope import Line, enveloped_columns

if TYPE_CHECKING:
    from collections.abc import Mapping

EXAMPLES = Path(__file__).parents[2] / "config" / "examples"
COMPARED = (
    "id", "status", "reason", "alertname", "surface", "severity", "labels", "annotations", "startsAt", "firedAt",
    "endsAt", "key", "windows", "evidence",
)  # fmt: skip
"""Of the alert record, what neither the release nor the files around it change."""


def partitions(name: str) -> list[Path]:
    """Its files, one a partition."""
    return sorted((EXAMPLES / name).glob("p*.ndjson"))


def lines(path: Path) -> list[Line]:
    """The records of a partition."""
    with path.open("rb") as file:
        return [
            Line(timestamp or 0, key, value, headers)
            for run in enveloped_columns(file, 1000, path.name)
            for value, timestamp, key, headers in zip(
                run.values, run.timestamps, run.keys or (), run.headers or (), strict=True
            )
        ]


def compared(record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an alert record that an example fixes."""
    return {name: record[name] for name in COMPARED}


def expected(name: str) -> list[dict[str, Any]]:
    """Its alerts."""
    return [orjson.loads(line) for line in (EXAMPLES / name / "expected.ndjson").read_bytes().splitlines()]

"""How fast `replay` judges the benchmark job on one core, beside decoding alone.

The reference, measured in the same run on the same lines, is msgspec's typed decoding of the same fields and
nothing else: what any Python program that reads these events pays at least. A run counts only if the alerts
are exactly those of the job.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import job
import msgspec
from table import Row, of_turns

if TYPE_CHECKING:
    from collections.abc import Iterator

END = "2026-01-28T14:00:00Z"
"""The end of the job's two hours: the last minute is decided too."""


class Event(msgspec.Struct):
    """The fields that the rules name."""

    time: int
    surface: str
    duration_ms: float
    status: int
    trace_id: str


def floor(files: list[Path]) -> float:
    """Seconds of CPU to read and decode every line."""
    decode = msgspec.json.Decoder(Event).decode
    began = time.process_time()
    for path in files:
        with path.open("rb") as lines:
            for line in lines:
                decode(line)
    return time.process_time() - began


def replayed(folder: Path, files: list[Path]) -> tuple[float, float, dict[str, int]]:
    """Wall seconds, peak MB, and firings by rule, of one `evaluator replay` on one core."""
    command = [str(Path(sys.executable).with_name("evaluator")), "replay", "--config", str(folder / "rules.yaml"),
               "--until", END, "-o", "json", *map(str, files)]  # fmt: skip
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True, preexec_fn=_one_core)
    wall = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    alerts = [json.loads(line) for line in done.stdout.splitlines()]
    firings = Counter(alert["alertname"] for alert in alerts if alert["status"] == "firing")
    return wall, peak, dict(firings)


def _one_core() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def rows(count: int, runs: int) -> Iterator[Row]:
    """What the table shows of it. Ends the program where a replay was not exact."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = job.write(folder, count)
        expected = {rule: n for rule, n in made.firings.items() if n}
        turns: list[tuple[float, float]] = []
        peak = 0.0
        for _ in range(runs):
            wall, memory, firings = replayed(folder, made.files)
            if firings != expected:
                sys.exit(f"a replay found {firings}, the job holds {expected}")
            turns.append((wall, floor(made.files)))
            peak = max(peak, memory)
    name = "of files, start-up included"
    yield of_turns("replay", name, "events", count, turns, "msgspec, typed, alone", peak_MB=round(peak))

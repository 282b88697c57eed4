"""How fast `replay` judges the benchmark job on one core, beside decoding alone.

The reference, measured in the same run on the same lines, is msgspec's typed decoding of the same fields and
nothing else: what any Python program that reads these events pays at least. A run counts only if the alerts
are exactly those of the job.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import job
import msgspec
from kafka import peak_mb
from table import Row, of_turns

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOK_S = 0.02

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
    began, peak = time.perf_counter(), 0.0
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said)
        os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
        # Of the process itself, while it is there: what the kernel says after its end counts this one before the fork.
        while process.poll() is None:
            with contextlib.suppress(StopIteration):
                peak = peak_mb(process.pid)
            time.sleep(LOOK_S)
        wall = time.perf_counter() - began
        if process.returncode:
            sys.exit(f"evaluator replay ended with {process.returncode}")
        said.seek(0)
        alerts = [json.loads(line) for line in said]
    firings = Counter(alert["alertname"] for alert in alerts if alert["status"] == "firing")
    return wall, peak, dict(firings)


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

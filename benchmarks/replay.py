"""How fast `replay` judges the benchmark job on one core, beside decoding alone.

The reference, measured in the same run on the same lines, is msgspec's typed decoding of the same fields and
nothing else: what any Python program that reads these events pays at least. A run counts only if the alerts
are exactly those of the job.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import job
import msgspec

RUNS = 3
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


def replayed(folder: Path, files: list[Path]) -> tuple[float, float, float, dict[str, int]]:
    """Wall seconds, CPU seconds, peak MB, and firings by rule, of one `evaluator replay`."""
    command = [str(Path(sys.executable).with_name("evaluator")), "replay", "--config", str(folder / "rules.yaml"),
               "--until", END, "-o", "json", *map(str, files)]  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True, preexec_fn=_one_core)
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    alerts = [json.loads(line) for line in done.stdout.splitlines()]
    firings = Counter(alert["alertname"] for alert in alerts if alert["status"] == "firing")
    print("  " + done.stderr.strip())
    return wall, cpu, after.ru_maxrss / 1024, dict(firings)


def _one_core() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def main() -> None:
    count = int(os.environ.get("EVENTS", "2000000"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = job.write(folder, count)
        size = sum(path.stat().st_size for path in made.files) / count
        print(f"{count} events of {size:.0f} bytes, 4 partitions, 50 series; expected firings {made.firings}")
        floors, rows = [], []
        for _ in range(RUNS):
            floors.append(floor(made.files))
            rows.append(replayed(folder, made.files))
        exact = all(row[3] == {rule: n for rule, n in made.firings.items() if n} for row in rows)
    decode = statistics.median(floors)
    wall, cpu, memory = (statistics.median(row[place] for row in rows) for place in range(3))
    print(f"msgspec decode alone   {count / decode:>10,.0f} events/s  1.00")
    print(f"evaluator replay       {count / wall:>10,.0f} events/s  {decode / wall:.2f} of the floor")
    print(f"                       {cpu / count * 1e6:.2f} CPU s per million, {memory:.0f} MB peak, exact: {exact}")
    sys.exit(0 if exact else 1)


if __name__ == "__main__":
    main()

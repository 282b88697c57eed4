"""Whether decoding, aggregating or evaluating got dearer, on a machine that is not quiet: make bench-check.

Seconds on a shared machine differ by half from one run to the next. The instructions of a program that does the same
are nearly the same each time. So each station runs under valgrind's callgrind with one round of its work and with
some more; a round is the difference by their number, so that what starting costs is not in it. What was counted before
is in docs/results/instructions.json: `make bench-check KEEP=1` counts anew, on a commit that you trust.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import core
import formats
import job
import numpy as np

from evaluator.core.event import SeriesTable
from evaluator.wire.decode import SourceDecoder
from evaluator.wire.records import Record, Records

KEPT = Path(__file__).parents[1] / "docs" / "results" / "instructions.json"
WORSE = 0.10
EVENTS = 10_000


def decode() -> Callable[[], object]:
    """Bytes in, columns out."""
    rows = [Record(n, int(value[8:21]), None, value) for n, value in enumerate(core.payloads(EVENTS, 140))]
    batches = [Records.of(rows[begin : begin + core.BATCH]) for begin in range(0, EVENTS, core.BATCH)]
    decoder, table = SourceDecoder(core.rules().sources["bench"]), SeriesTable({"voice-api": 20_000})
    return lambda: [decoder.decode(batch, table, None) for batch in batches]


def spans() -> Callable[[], object]:
    """A record of spans as protobuf in, columns out. What is counted is of a span, whether it is an event or not."""
    value = formats.request(EVENTS, np.random.default_rng(7)).SerializeToString()
    records = Records.of([Record(0, job.START_MS + 10**8, None, value)])
    decoder, table = SourceDecoder(formats.source("otlp_proto")), SeriesTable({"api": 20_000})
    return lambda: decoder.decode(records, table, None)


def aggregate() -> Callable[[], object]:
    """Columns in, panes out."""
    events, config = core.stream(50, minutes=1, count=EVENTS), core.rules()
    return lambda: core.reduced(config, events, lambda _: None)


def evaluate() -> Callable[[], object]:
    """Partials in, verdicts out."""
    config = core.rules()
    partials = core.stored(config, core.stream(50, minutes=20, count=EVENTS))
    return lambda: core.evaluated(config, partials)


class Station(NamedTuple):
    """Prepares its work, of which so many more rounds take some thousand million instructions."""

    prepare: Callable[[], Callable[[], object]]
    more: int


STATIONS = {
    "decode": Station(decode, 8),
    "spans": Station(spans, 8),
    "aggregate": Station(aggregate, 64),
    "evaluate": Station(evaluate, 2),
}


def instructions(station: str, rounds: int) -> int:
    """What callgrind counted over a whole process that does `rounds` rounds. Exits where it cannot count."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        sys.exit("bench-check counts instructions with valgrind, which is not installed: apt-get install valgrind")
    # Everything that Python chooses by chance would be another path.
    fixed = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONMALLOC": "malloc", "PYTHONPATH": str(KEPT.parents[2])}
    run = subprocess.run(
        [valgrind, "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable, __file__,
         "--count", station, "--rounds", str(rounds)],
        env=fixed, capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = re.search(r"Collected\s*:\s*(\d+)", run.stderr)
    if run.returncode or found is None:
        sys.exit(f"{station} did not run under valgrind (exit {run.returncode}):\n{run.stderr[-2000:]}")
    return int(found[1])


def an_event(station: str) -> float:
    """Instructions of one event."""
    more = STATIONS[station].more
    return (instructions(station, 1 + more) - instructions(station, 1)) / more / EVENTS


def about() -> dict[str, str]:
    """What decides how many instructions the same work takes, beside our own code."""
    return {"python": platform.python_version(), "machine": platform.machine(),
            **{name: version(name) for name in ("numpy", "msgspec", "protobuf")}}  # fmt: skip


def main() -> int:
    """Count and compare; 1 where a station got dearer by more than a tenth."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="keep what is counted, for the next time")
    parser.add_argument("--count", choices=STATIONS, help="do this station's work: what is counted")
    parser.add_argument("--rounds", type=int, default=1)
    wish = parser.parse_args()
    if wish.count:
        gc.disable()  # when it comes is chance
        work = STATIONS[wish.count].prepare()
        work()  # what is made once, at the first round, is no cost of an event
        for _ in range(wish.rounds):
            work()
        return 0
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {"about": None, "instructions": {}}
    if not wish.keep and kept["about"] != about():
        sys.exit(f"the kept counts are of {kept['about']}, this is {about()}: they do not compare; count a commit that "
                 f"you trust with `make bench-check KEEP=1`, then this one")  # fmt: skip
    counted, dearer = {}, 0
    for station in STATIONS:
        counted[station] = round(an_event(station))
        before = kept["instructions"].get(station)
        change = counted[station] / before - 1 if before else 0.0
        dearer += change > WORSE
        print(f"{station:<10} {counted[station]:>8,} instructions an event  {change:+6.1%}", flush=True)
    if wish.keep:
        KEPT.write_text(json.dumps({"about": about(), "instructions": counted}, indent=1) + "\n")
        return 0
    if dearer:
        print(f"{dearer} of them got dearer by more than {WORSE:.0%}")
    return 1 if dearer else 0


if __name__ == "__main__":
    sys.exit(main())

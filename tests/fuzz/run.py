"""Fuzz formats: python tests/fuzz/run.py [FORMAT ...] [--inputs 1000000] [--seconds 600] [--seed 1]

Without a format all of them, as many at a time as there are cores. What each run did is kept in
docs/results/fuzz.json. The first input that escapes is kept in the corpus, and ends it all.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]

if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))

from evaluator.wire import formats  # noqa: E402
from fuzz.mutation import mutated  # noqa: E402  # found by the path above
from fuzz.targets import CORPUS, Target, all_seeds_of  # noqa: E402

RESULTS = ROOT / "docs" / "results" / "fuzz.json"


class Wish(NamedTuple):
    """What to run."""

    name: str
    inputs: int
    seconds: float
    seed: int


class Run(NamedTuple):
    """What came of it: none escaped."""

    name: str
    inputs: int
    seconds: int
    seed: int


def run(wish: Wish) -> Run:
    """Fuzz one format for so long. Raises what an input raises; the input is kept then."""
    rng, seeds, target = random.Random(wish.seed), all_seeds_of(wish.name), Target(wish.name)
    began, done = time.monotonic(), 0
    while done < wish.inputs and time.monotonic() < began + wish.seconds:
        value = mutated(rng, seeds)
        try:
            target(value)
        except Exception:
            kept = CORPUS / wish.name / f"escaped-{hashlib.sha256(value).hexdigest()[:12]}"
            kept.write_bytes(value)
            sys.stderr.write(f"{wish.name}: input {done} escaped; kept as {kept}\n")
            raise
        done += 1
    return Run(wish.name, done, round(time.monotonic() - began), wish.seed)


def keep(found: Run) -> None:
    """Add a run to what is kept; of each format and seed the last one."""
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    row = {**found._asdict(), "date": time.strftime("%Y-%m-%d", time.gmtime())}
    rows = [each for each in before if (each["name"], each["seed"]) != (found.name, found.seed)]
    rows = sorted([*rows, row], key=lambda each: (each["name"], each["seed"]))
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("format", nargs="*")
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    if unknown := {*given.format} - {*formats.known()}:
        parser.error(f"no format {', '.join(sorted(unknown))}; there are {', '.join(sorted(formats.known()))}")
    names = given.format or sorted(formats.known())
    wishes = [Wish(name, given.inputs, given.seconds, given.seed) for name in names]
    with ProcessPoolExecutor(os.cpu_count() or 1) as pool:
        for found in pool.map(run, wishes):
            keep(found)
            row = f"{found.name}: {found.inputs:,} inputs in {found.seconds} s, seed {found.seed}, none escaped\n"
            sys.stdout.write(row)
            sys.stdout.flush()


if __name__ == "__main__":
    main()

"""Fuzz a format: python tests/fuzz/run.py FORMAT [--inputs 1000000] [--seconds 600] [--seed 1]

Ends at the first input that escapes, which it keeps in the corpus; else says how many inputs there were.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz.mutation import mutated  # found by the path above
from fuzz.targets import CORPUS, Target, seeds_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("format")
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    rng, seeds, target = random.Random(given.seed), seeds_of(given.format), Target(given.format)
    deadline, done = time.monotonic() + given.seconds, 0
    while done < given.inputs and time.monotonic() < deadline:
        value = mutated(rng, seeds)
        try:
            target(value)
        except Exception:
            kept = CORPUS / given.format / f"escaped-{hashlib.sha256(value).hexdigest()[:12]}"
            kept.write_bytes(value)
            sys.stderr.write(f"input {done} escaped; kept as {kept}\n")
            raise
        done += 1
    sys.stdout.write(f"{given.format}: {done} inputs, seed {given.seed}, none escaped\n")


if __name__ == "__main__":
    main()

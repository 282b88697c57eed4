"""Seeds ten known bugs, one at a time, and names the law or case that each dies by.

Each mutant is a textual change to a copy of the package; the laws and the worked cases run against the copy.
A mutant that survives, or no longer applies, fails the run: then a test is missing or this list is stale.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
JUDGES = ("tests/property/test_laws.py", "tests/unit/test_cases.py", "tests/property/test_idle.py")


class Mutant(NamedTuple):
    """A bug: replace `old` by `new` in `file` of the package."""

    name: str
    file: str
    old: str
    new: str


MUTANTS = (
    Mutant("late uses < instead of <=", "core/aggregate.py", "* step <= run.before", "* step < run.before"),
    Mutant("W is the maximum of W_p", "core/watermark.py", "watermark = min(time", "watermark = max(time"),
    Mutant("pane end is inclusive", "core/aggregate.py", "run.time // step", "(run.time - 1) // step"),
    Mutant("rank uses floor", "core/verdict.py", "return -(-q.numerator * size // q.denominator)",
           "return q.numerator * size // q.denominator"),
    Mutant("ratio uses >= for >", "core/verdict.py", "return left > right if strict else left >= right",
           "return left >= right"),
    Mutant("a held window resets the streak", "core/streak.py", "(Phase.PENDING, Effect.HELD): _wait",
           "(Phase.PENDING, Effect.HELD): _forgive"),
    Mutant("min_samples is ignored", "core/verdict.py", "sums.events, min_samples(rule, condition)", "sums.events, 0"),
    Mutant("idle does not check the end", "runtime/aggregate_stage.py",
           "at_end = fetched.next_offset >= fetched.high_watermark", "at_end = True"),
    Mutant("fingerprint does not sort labels", "core/alert.py", "for name in sorted(labels)", "for name in labels"),
    Mutant("merge adds lat_max", "core/rows.py", "lat_max=np.maximum.reduceat(rows.lat_max",
           "lat_max=np.add.reduceat(rows.lat_max"),
)  # fmt: skip


def killer_of(mutant: Mutant) -> str | None:
    """The first test that fails on the mutant; None when all pass."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "evaluator"
        shutil.copytree(ROOT / "evaluator", package, ignore=shutil.ignore_patterns("__pycache__"))
        source = package / mutant.file
        text = source.read_text()
        if text.count(mutant.old) != 1:
            sys.exit(f"{mutant.name}: found {text.count(mutant.old)} places for the change in {mutant.file}")
        source.write_text(text.replace(mutant.old, mutant.new))
        run = subprocess.run(
            [sys.executable, "-P", "-m", "pytest", "-x", "-q", "--no-header", "--tb=no", "-rf", *JUDGES],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": folder}, capture_output=True, text=True, check=False,
        )  # fmt: skip
    failed = re.search(r"^FAILED (\S+)", run.stdout, re.MULTILINE)
    if failed is None and run.returncode:
        sys.exit(f"{mutant.name}: the tests did not run:\n{run.stdout}{run.stderr}")
    return None if failed is None else failed.group(1)


def main() -> None:
    """Run every mutant; exit with 1 when one survives."""
    survivors = 0
    for mutant in MUTANTS:
        killer = killer_of(mutant)
        survivors += killer is None
        sys.stdout.write(f"{'SURVIVED' if killer is None else 'killed':<9} {mutant.name:<36} {killer or ''}\n")
        sys.stdout.flush()
    sys.exit(1 if survivors else 0)


if __name__ == "__main__":
    main()

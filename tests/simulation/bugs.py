"""Known bugs, each a patch in `bugs/`: the simulation must find every one of them within 2,000 seeds.

    python tests/simulation/bugs.py [NAME ...]

Each is applied to a copy of the package. One that survives, or that does not apply any more, fails the run: then
the simulation got weaker, or the patch is stale.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SEEDS = 2_000


def found_by(patch: Path) -> str | None:
    """The first seed that breaks with this bug, and how; None where 2,000 do not."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "evaluator", Path(folder) / "evaluator", ignore=shutil.ignore_patterns("__pycache__"))
        applied = subprocess.run(
            ["git", "apply", "--recount", str(patch.resolve())], cwd=folder, capture_output=True, text=True, check=False
        )
        if applied.returncode:
            sys.exit(f"{patch.name} does not apply: {applied.stderr}")
        run = subprocess.run(
            [sys.executable, "-P", str(HERE / "simulate.py"), "--seeds", str(SEEDS), "--stop"],
            cwd=folder, env={**os.environ, "PYTHONPATH": folder}, capture_output=True, text=True, check=False,
        )  # fmt: skip
    failed = re.search(r"^seed (\d+): (.*)$", run.stdout, re.MULTILINE)
    if failed is None and run.returncode:
        sys.exit(f"{patch.name}: the simulation did not run:\n{run.stdout[-2000:]}{run.stderr[-2000:]}")
    return None if failed is None else f"seed {failed[1]}: {failed[2]}"


def main() -> int:
    """Try them all; 1 where one survives."""
    wanted = sys.argv[1:]
    survivors = 0
    for patch in sorted((HERE / "bugs").glob("*.patch")):
        if wanted and patch.stem not in wanted:
            continue
        how = found_by(patch)
        survivors += how is None
        sys.stdout.write(f"{'SURVIVED' if how is None else 'found':<9} {patch.stem:<38} {(how or '')[:140]}\n")
        sys.stdout.flush()
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())

"""A short form of `make simulate`: enough seeds to see most faults of the task machinery."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from simulation.simulate import config, run_chunk, tell, total
from simulation.trial import Report, try_seed

SEEDS = 100
BUGS = Path(__file__).parent / "bugs"


@pytest.mark.parametrize("first", range(0, SEEDS, 10))
def test_whatever_happens_every_transition_is_published_once(first: int) -> None:
    result = total(run_chunk(range(first, first + 10)))
    assert not result.failures, "".join(map(tell, result.failures))
    assert result.deciding > 5
    assert result.counts["crash in a transaction"]


def test_a_seed_is_a_run_to_the_byte_in_any_process() -> None:
    here = try_seed(5, config())
    script = Path(__file__).with_name("simulate.py")
    for hashes in ("1", "2"):
        done = subprocess.run(
            [sys.executable, str(script), "--seed", "5"],
            capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": hashes},
        )  # fmt: skip
        assert f"digest {here.digest}" in done.stdout
    assert try_seed(6, config()).digest != here.digest


@pytest.mark.parametrize(
    "patch", sorted((Path(__file__).parent / "bugs").glob("*.patch")), ids=lambda patch: patch.stem
)
def test_every_known_bug_still_fits_the_code(patch: Path) -> None:
    root = Path(__file__).parents[2]
    applied = subprocess.run(
        ["git", "apply", "--check", "--recount", str(patch)], cwd=root, capture_output=True, text=True, check=False
    )
    assert not applied.returncode, f"{applied.stderr}; make the patch anew for today's code"


def test_a_failed_seed_is_told_as_a_command() -> None:
    assert "make simulate SEED=7" in tell(Report(7, "lost: firing 1"))


def test_seeds_without_crashes_in_transactions_prove_nothing() -> None:
    easy = Report(1)
    easy.counts.update(firing=1)
    assert "only 0 of 1" in (total([easy]).problem or "")

"""No bytes raise out of any format: the corpus, and a short run of what tests/fuzz/run.py does for long."""

from __future__ import annotations

import random

import pytest

from evaluator.wire import formats
from fuzz.mutation import mutated
from fuzz.targets import Target, all_seeds_of

INPUTS = 300
"""Some seconds for all formats."""


@pytest.mark.parametrize("name", sorted(formats.known()))
def test_no_bytes_raise_out_of_a_format(name: str) -> None:
    target, seeds, rng = Target(name), all_seeds_of(name), random.Random(20260128)
    assert seeds
    for seed in seeds:
        target(seed)
    for _ in range(INPUTS):
        target(mutated(rng, seeds))

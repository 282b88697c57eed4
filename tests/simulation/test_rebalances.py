"""Processes join, leave and freeze: partitions move, and a read_committed reader sees the same transitions."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from simulation.test_crashes import RULES, records
from simulation.world import Cluster

from evaluator.runtime.clock import run_virtual
from evaluator.wire.config.load import load_rules

if TYPE_CHECKING:
    from pathlib import Path

    from evaluator.runtime.worker import Worker
    from evaluator.wire.config.load import Config

STEPS = 120


async def undisturbed(config: Config, seed: int) -> list[dict[str, object]]:
    cluster = Cluster(config, records(seed, partitions=3))
    await cluster.fill()
    await cluster.run(await cluster.process())
    return await cluster.alerts()


async def moved_about(config: Config, seed: int, *, freezes: bool) -> list[dict[str, object]]:
    """Up to three processes that come and go; with `freezes` some stop turning, and some of those thaw later."""
    rng = random.Random(seed)
    cluster = Cluster(config, records(seed, partitions=3))
    await cluster.fill()
    workers = [await cluster.process()]
    frozen: list[Worker] = []
    for _ in range(STEPS):
        chance = rng.random()
        if chance < 0.15 and len(workers) < 3:
            workers.append(await cluster.process())
        elif chance < 0.27 and len(workers) > 1:
            worker = workers.pop(rng.randrange(len(workers)))
            if freezes and rng.random() < 0.5:
                frozen.append(worker)
            else:
                await worker.shut_down()
        elif chance < 0.3 and frozen:
            workers.append(frozen.pop())
        rng.shuffle(workers)
        for worker in workers:
            await worker.turn()
    last, *others = workers
    for worker in (*others, *frozen):
        await worker.shut_down()
    await cluster.run(last)
    return await cluster.alerts()


@pytest.mark.parametrize("freezes", [False, True])
@pytest.mark.parametrize("seed", [*range(10), 37, 75, 91, 92, 103])
def test_processes_that_come_and_go_change_nothing(tmp_path: Path, seed: int, freezes: bool) -> None:  # noqa: FBT001  # a parameter of the test
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    config = load_rules([path])
    expected = run_virtual(undisturbed(config, seed))
    assert {alert["status"] for alert in expected} == {"firing", "resolved"}
    assert run_virtual(moved_about(config, seed, freezes=freezes)) == expected

"""Invariant 6 on the in-memory log: whatever dies wherever, a read_committed reader sees each transition once."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import orjson
import pytest
from simulation.world import START, Cluster, Crash

from evaluator.core.event import MINUTE, SECOND
from evaluator.runtime.clock import run_virtual
from evaluator.wire.config.load import load_rules
from evaluator.wire.text import rfc3339

if TYPE_CHECKING:
    from pathlib import Path

    from evaluator.wire.config.load import Config

RULES = """
version: 1
sources:
  events: {topic: t, format: json, out_of_orderness: 5s, dedup: 4, fields: {time: t, id: id, failed: {s: ">= 500"}}}
surfaces:
  api: {source: events, match: {app: api}, group_by: [f]}
alerts:
  Errors: {surface: api, when: error_ratio > 20%, window: 1m, consecutive: 2, min_samples: 1, severity: page}
  Hopping: {surface: api, when: error_count > 2, window: 3m, every: 1m, severity: ticket}
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    return load_rules([path])


def records(seed: int, partitions: int = 2, minutes: int = 12) -> list[list[bytes]]:
    """Traffic with a bad stretch in the middle, some duplicates and garbage, and a last event that closes it."""
    rng = random.Random(seed)
    result: list[list[bytes]] = []
    for partition in range(partitions):
        lines = []
        for number in range(minutes * 4):
            time = START + number * 15 * SECOND - rng.randrange(4 * SECOND)
            bad = minutes // 4 <= number // 4 < minutes // 2 and rng.random() < 0.7
            event = {"t": rfc3339(time), "app": "api", "f": rng.choice("ab"), "s": 500 if bad else 200}
            lines.append(orjson.dumps({**event, "id": f"{partition}-{number}"}))
            if rng.random() < 0.1:
                lines.append(lines[-1])
            if rng.random() < 0.05:
                lines.append(b"{")
        closing = START + (minutes + 10) * MINUTE
        result.append([*lines, orjson.dumps({"t": rfc3339(closing), "app": "tick", "id": f"end-{partition}"})])
    return result


async def undisturbed(config: Config, seed: int) -> tuple[list[dict[str, object]], list[str]]:
    """What one process that nothing happens to publishes, and every step that it takes on the log."""
    steps: list[str] = []

    async def note(name: str) -> None:
        steps.append(name)

    cluster = Cluster(config, records(seed))
    await cluster.fill()
    await cluster.run(await cluster.process(note))
    return await cluster.alerts(), steps


async def with_crashes(config: Config, seed: int, deaths: list[int]) -> list[dict[str, object]]:
    """The same with the n-th process dying at its `deaths[n]`-th step; the last one lives."""
    cluster = Cluster(config, records(seed))
    await cluster.fill()
    for death in deaths:
        left = death

        async def die(_name: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Crash

        try:
            await cluster.run(await cluster.process(die))
        except Crash:
            continue
    await cluster.run(await cluster.process())
    return await cluster.alerts()


def test_a_crash_at_every_step_changes_nothing_that_a_committed_reader_sees(config: Config) -> None:
    expected, steps = run_virtual(undisturbed(config, 1))
    assert {alert["status"] for alert in expected} == {"firing", "resolved"}
    assert sum(step.startswith("producer.") for step in steps) > 100
    for number in range(len(steps)):
        seen = run_virtual(with_crashes(config, 1, [number]))
        assert seen == expected, f"crash at step {number} ({steps[number]})"


@pytest.mark.parametrize("seed", range(30))
def test_processes_that_die_again_and_again_change_nothing(config: Config, seed: int) -> None:
    expected, steps = run_virtual(undisturbed(config, seed))
    rng = random.Random(seed)
    deaths = [rng.randrange(len(steps)) for _ in range(4)]
    assert run_virtual(with_crashes(config, seed, deaths)) == expected

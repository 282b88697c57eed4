"""What the compacted topics hold after hours of load, and what a commit writes: as much as there is, and as changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import pytest
from simulation.world import START, TOPICS, Cluster

from evaluator.core.event import MINUTE, SECOND
from evaluator.runtime.clock import run_virtual
from evaluator.runtime.log.port import Outgoing, Partition
from evaluator.wire.config.load import load_rules
from evaluator.wire.text import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from evaluator.runtime.log.memory import MemoryLog
    from evaluator.wire.config.load import Config

RULES = """
version: 1
sources:
  events:
    {topic: t, format: json, out_of_orderness: 5s,
     fields: {time: t, latency: ms, latency_unit: ms, failed: {s: ">= 500"}}}
surfaces:
  api: {source: events, group_by: [f]}
alerts:
  Hour:
    {surface: api, when: [error_ratio > 20%, p95 > 800ms], window: 1h, every: 5m, severity: page,
     expire_after: 1h, forget_after: 2h}
  Now: {surface: api, when: error_ratio > 20%, window: 5m, severity: ticket, expire_after: 1h, forget_after: 2h}
"""
HOUR = 60 * MINUTE


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    return load_rules([path])


def event(at: int, series: str, number: int) -> Outgoing:
    """One of many: a twentieth of them fails, and they take 1 ms to a second."""
    value = {
        "t": rfc3339(START + at),
        "f": series,
        "ms": 1 + number * 7919 % 1000,
        "s": 500 if number % 20 == 0 else 200,
    }
    return Outgoing("t", None, orjson.dumps(value), number % 2)


async def held(log: MemoryLog, topic: str) -> int:
    """Bytes of the newest value of every key: what compaction leaves."""
    size = 0
    for index in range(await log.partitions(topic)):
        newest = {record.key: record.value for record in await log.read(Partition(topic, index))}
        size += sum(len(key or b"") + len(value) for key, value in newest.items() if value is not None)
    return size


async def written(log: MemoryLog, topic: str, since: dict[Partition, int]) -> int:
    """Bytes of all values since the last call with the same `since`."""
    size = 0
    for index in range(await log.partitions(topic)):
        place = Partition(topic, index)
        size += sum(len(record.value or b"") for record in await log.read(place, since.get(place, 0)))
        _, since[place] = await log.bounds(place)
    return size


def test_compacted_topics_hold_no_more_after_a_day_than_after_four_hours(config: Config) -> None:
    async def main() -> list[dict[str, int]]:
        cluster = Cluster(config, [[], []])
        await cluster.fill()
        worker = await cluster.process()
        seen, number = [], 0
        for hour in range(24):
            load = []
            for minute in range(60):
                # Twenty that stay, and three an hour that come and never again.
                for series in (*(f"stays-{n}" for n in range(20)), f"goes-{hour}-{minute // 20}"):
                    number += 1
                    load.append(event(hour * HOUR + minute * MINUTE + number % 60 * SECOND, series, number))
            await cluster.log.append(load)
            await cluster.run(worker)
            seen.append({topic: await held(cluster.log, topic) for topic in compacted()})
        return seen

    hours = run_virtual(main())
    for topic in compacted():
        settled = [hour[topic] for hour in hours[4:]]
        assert max(settled) < 1.1 * min(settled), (topic, settled)
        assert settled[0]


def compacted() -> Iterable[str]:
    """The topics in which only the newest value of a key counts."""
    return (TOPICS.state, TOPICS.progress("events"), TOPICS.status)


@pytest.mark.parametrize("many", [1, 10, 100])
def test_a_commit_writes_what_changed_whatever_else_there_is(config: Config, many: int) -> None:
    async def main() -> tuple[int, int]:
        cluster = Cluster(config, [[], []])
        await cluster.fill()
        worker, since = await cluster.process(), dict[Partition, int]()
        await cluster.log.append([event(n % 200 * SECOND, f"s{n % 400}", n) for n in range(2_000)])
        await cluster.run(worker)
        of_everything = await written(cluster.log, TOPICS.state, since)
        # In the same five minutes: no window ends.
        await cluster.log.append([event(201 * SECOND, f"s{n}", n) for n in range(many)])
        await cluster.run(worker)
        return of_everything, await written(cluster.log, TOPICS.state, since)

    of_everything, of_few = run_virtual(main())
    shard_records = 4 * 1_000
    assert of_few < shard_records + many * of_everything / 400

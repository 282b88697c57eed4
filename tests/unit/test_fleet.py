"""Who works on what, as each replica sees it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from simulation.test_crashes import RULES, records
from simulation.world import TOPICS, Cluster
from structlog.testing import capture_logs

from evaluator.core.event import MINUTE, EpochUs
from evaluator.runtime.clock import run_virtual
from evaluator.runtime.fleet import CONFLICT_LOOKS, Fleet
from evaluator.runtime.log.port import KafkaUnreachable
from evaluator.wire.config.load import load_rules

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from evaluator.runtime.log.memory import MemoryLog
    from evaluator.runtime.log.port import Log, Owner, Partition
    from evaluator.runtime.worker import Worker
    from evaluator.wire.config.load import Config


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    return load_rules([path])


async def replicas(config: Config, *names: str) -> tuple[Cluster, list[Worker], list[Fleet]]:
    """Processes that share two source partitions and two shards, everything read."""
    cluster = Cluster(config, records(1))
    await cluster.fill()
    workers = [await cluster.process(name=name) for name in names]
    for _ in range(400):
        await asyncio.gather(*(worker.turn() for worker in workers))
    fleets = [
        Fleet(cluster.log.connect(name=name), worker, config.rules) for name, worker in zip(names, workers, strict=True)
    ]
    return cluster, workers, fleets


def test_every_replica_shows_all_of_the_work_and_what_is_its_own_in_full(config: Config) -> None:
    async def main() -> None:
        _, _, fleets = await replicas(config, "one", "two")
        for fleet in fleets:
            await fleet.look()
            rows = fleet.work()
            assert [(row.stage, row.partition.topic, row.partition.index) for row in rows] == [
                ("aggregate", "t", 0), ("aggregate", "t", 1),
                ("evaluate", TOPICS.partials, 0), ("evaluate", TOPICS.partials, 1),
            ]  # fmt: skip
            own = [row for row in rows if row.owner == fleet.name]
            assert [(row.stage, row.state, row.host) for row in own] == [
                ("aggregate", "running", None),
                ("evaluate", "running", None),
            ]
            assert {(row.owner, row.state, row.host) for row in rows if row not in own} == {
                (fleets[fleet is fleets[0]].name, None, "127.0.0.1")
            }
            tasks = [row.task for row in own if row.task is not None]
            assert all(task.committed_at is not None and task.restored_in_s is not None for task in tasks)

    run_virtual(main())


def test_how_far_a_partition_of_another_was_read_is_known_from_the_shards(config: Config) -> None:
    async def main() -> None:
        _, _, fleets = await replicas(config, "one", "two")
        seen: list[list[EpochUs]] = []
        for fleet in fleets:
            await fleet.look()
            seen.append([row.watermark for row in fleet.work() if row.stage == "aggregate" and row.watermark])
        for partition in range(2):
            told, read = sorted(watermarks[partition] for watermarks in seen)
            assert read - MINUTE <= told <= read  # watermarks travel when a window ends

    run_virtual(main())


def test_replicas_that_judge_by_other_rules_are_seen_and_told_once(config: Config, tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text(RULES.replace("error_count > 2", "error_count > 3"))
    other = load_rules([path])
    assert other.rules.hash != config.rules.hash

    async def main() -> None:
        cluster, workers, (fleet,) = await replicas(config, "one")
        await fleet.look()
        assert fleet.others() == {}
        rival = await cluster.process(name="rival", config=other)
        for _ in range(400):
            await asyncio.gather(*(worker.turn() for worker in (*workers, rival)))
        with capture_logs() as said:
            for _ in range(CONFLICT_LOOKS + 1):
                await fleet.look()
            assert fleet.others() == {"rival": other.rules.hash}
            assert {row.rules for row in fleet.work()} == {config.rules.hash, other.rules.hash}
            # While a group is rebalanced nobody knows who is there: that is no end of it.
            cluster.log._cluster.group(workers[0].aggregate.name).rebalance()  # noqa: SLF001  # as a new member does
            await fleet.look()
            assert fleet.others() == {"rival": other.rules.hash}
            for crew in (rival.aggregate, rival.evaluate):
                await crew.consumer.stop()
            for _ in range(400):
                await workers[0].turn()
            await fleet.look()
        assert fleet.others() == {}
        told = [(one["log_level"], one["event"]) for one in said if one["event"].startswith("fleet")]
        assert told[:2] == [("warning", "fleet.other_rules"), ("error", "fleet.conflict")]
        (conflict,) = [one for one in said if one["event"] == "fleet.conflict"]
        assert (conflict["replicas"], conflict["ours"]) == (["rival"], config.rules.hash)

    run_virtual(main())


class Silent:
    """A cluster that stops answering."""

    def __init__(self, log: MemoryLog) -> None:
        self.name, self._log, self.answers = log.name, log, True

    async def owners(self, group: str) -> Mapping[Partition, Owner]:
        if self.answers:
            return await self._log.owners(group)
        raise KafkaUnreachable(group)


def test_without_an_answer_of_the_groups_only_our_own_work_is_shown(config: Config) -> None:
    async def main() -> None:
        cluster, workers, _ = await replicas(config, "one", "two")
        silent = Silent(cluster.log.connect(name="one"))
        log: Log = silent  # type: ignore[assignment]  # what is needed of it
        fleet = Fleet(log, workers[0], config.rules)
        await fleet.look()
        assert len(fleet.work()) == 4
        silent.answers = False
        await fleet.look()
        assert [(row.owner, row.state) for row in fleet.work()] == [("one", "running")] * 2

    run_virtual(main())

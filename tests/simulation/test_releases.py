"""An upgrade to a release with new schemas, back, again, and for good: nothing changes but the stored bytes.

release     this    next    this    next    next, finalized      this
writes      1       1       1       1       2                    nothing: refused
"""

from __future__ import annotations

import pytest
from simulation.test_crashes import RULES, records
from simulation.world import TOPICS, Cluster
from support.next_release import NEXT

from evaluator.errors import SchemaRefused
from evaluator.runtime.clock import run_virtual
from evaluator.runtime.log.port import Partition
from evaluator.wire.codecs import CODECS, Codecs
from evaluator.wire.config.load import Config, load_rules

PARTITIONS = 2
TURNS = 12


@pytest.fixture
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    path = tmp_path_factory.mktemp("rules") / "rules.yaml"
    path.write_text(RULES)
    return load_rules([path])


async def numbers(cluster: Cluster) -> dict[str, set[int]]:
    """The schema numbers that a restore would read, and those of every partial."""
    places = {
        "progress": [Partition(TOPICS.progress("events"), n) for n in range(PARTITIONS)],
        "state": [Partition(TOPICS.state, n) for n in range(cluster.shards)],
        "partials": [Partition(TOPICS.partials, n) for n in range(cluster.shards)],
    }
    found: dict[str, set[int]] = {}
    for name, partitions in places.items():
        kept: dict[object, bytes | None] = {}
        for partition in partitions:
            for record in await cluster.log.read(partition):
                kept[partition, record.offset if name == "partials" else record.key] = record.value
        found[name] = {value[0] for value in kept.values() if value is not None}
    return found


async def tenure(cluster: Cluster, codecs: Codecs, turns: int = TURNS) -> None:
    """One process of a release for some turns, ended in order."""
    worker = await cluster.process(codecs=codecs)
    for _ in range(turns):
        await worker.turn()
    await worker.shut_down()


async def undisturbed(config: Config, seed: int) -> list[dict[str, object]]:
    cluster = Cluster(config, records(seed))
    await cluster.fill()
    await cluster.run(await cluster.process())
    alerts = await cluster.alerts()
    assert alerts
    return alerts


@pytest.mark.parametrize("seed", range(10))
def test_an_upgrade_a_rollback_and_a_finalization_change_no_transition(config: Config, seed: int) -> None:
    async def changing() -> list[dict[str, object]]:
        cluster = Cluster(config, records(seed))
        await cluster.fill()
        for codecs in (CODECS, NEXT, CODECS, NEXT):
            await tenure(cluster, codecs)
            assert await numbers(cluster) == {"progress": {1}, "state": {1}, "partials": {1}}
        await cluster.run(await cluster.process(codecs=NEXT.finalized()))
        assert await numbers(cluster) == {"progress": {2}, "state": {2}, "partials": {1, 2}}
        return await cluster.alerts()

    assert run_virtual(changing()) == run_virtual(undisturbed(config, seed))


@pytest.mark.parametrize("seed", range(10))
def test_the_next_release_may_be_finalized_and_not_in_turns(config: Config, seed: int) -> None:
    async def in_turns() -> list[dict[str, object]]:
        cluster = Cluster(config, records(seed))
        await cluster.fill()
        for turn in range(20):
            await tenure(cluster, NEXT.finalized() if turn % 2 else NEXT, 4)
            assert (await numbers(cluster))["state"] == {1 + turn % 2}
        await cluster.run(await cluster.process(codecs=NEXT))
        assert (await numbers(cluster))["state"] == {1}
        return await cluster.alerts()

    assert run_virtual(in_turns()) == run_virtual(undisturbed(config, seed))


@pytest.mark.parametrize("seed", range(5))
def test_a_finalized_release_is_taken_back_by_itself_unfinalized(config: Config, seed: int) -> None:
    async def back() -> list[dict[str, object]]:
        cluster = Cluster(config, records(seed))
        await cluster.fill()
        await tenure(cluster, NEXT.finalized(), 3 * TURNS)
        worker = await cluster.process(codecs=NEXT)
        await cluster.run(worker)
        await worker.shut_down()
        await tenure(cluster, CODECS)
        return await cluster.alerts()

    assert run_virtual(back()) == run_virtual(undisturbed(config, seed))


@pytest.mark.parametrize("turns", [1, TURNS, 3 * TURNS])
def test_the_release_before_refuses_what_was_finalized_and_writes_nothing(config: Config, turns: int) -> None:
    async def refused() -> None:
        cluster = Cluster(config, records(1))
        await cluster.fill()
        await tenure(cluster, NEXT.finalized(), turns)
        before = [await cluster.log.bounds(p) for p in await _everything(cluster)]
        with pytest.raises(SchemaRefused, match="stored with schema 2, this release reads schema 1; run the release"):
            await tenure(cluster, CODECS, 100)
        assert [await cluster.log.bounds(p) for p in await _everything(cluster)] == before

    run_virtual(refused())


async def _everything(cluster: Cluster) -> list[Partition]:
    topics = [TOPICS.alerts, TOPICS.status, TOPICS.dlq, TOPICS.state, TOPICS.partials, TOPICS.progress("events")]
    return [Partition(topic, n) for topic in topics for n in range(await cluster.log.partitions(topic))]

"""Who works on a partition, when the group, the brokers and the processes are slow, frozen or mistaken."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from simulation.test_crashes import RULES, records
from simulation.world import TOPICS, Cluster

from evaluator.runtime.clock import run_virtual
from evaluator.runtime.crew import REVOKE_S
from evaluator.runtime.live import WorkerHealth
from evaluator.runtime.log.port import KafkaUnreachable, OutcomeUnknown, Outgoing
from evaluator.runtime.stage import Unobserved
from evaluator.runtime.task import TaskState
from evaluator.wire.config.load import load_rules

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from evaluator.runtime.crew import Crew
    from evaluator.runtime.worker import Worker
    from evaluator.wire.config.load import Config

Alerts = list[dict[str, object]]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return rules(tmp_path, 0)


def rules(folder: Path, revision: int) -> Config:
    path = folder / f"rules-{revision}.yaml"
    path.write_text(RULES + f"revision: {revision}\n")
    return load_rules([path])


class Counted(Unobserved):
    """Counts what went wrong."""

    def __init__(self) -> None:
        self.retries = self.fences = self.restores = 0

    def restored(self, seconds: float) -> None:
        self.restores += 1

    def retried(self, stage: str) -> None:
        self.retries += 1

    def fenced(self) -> None:
        self.fences += 1


async def filled(config: Config) -> Cluster:
    cluster = Cluster(config, records(1))
    await cluster.fill()
    return cluster


async def undisturbed(config: Config) -> Alerts:
    cluster = await filled(config)
    await cluster.run(await cluster.process())
    return await cluster.alerts()


async def turn_until(worker: Worker, wanted: Callable[[], bool], turns: int = 500) -> None:
    for _ in range(turns):
        if wanted():
            return
        await worker.turn()
    message = "it did not come to that"
    raise AssertionError(message)


def settled(worker: Worker) -> bool:
    return worker.aggregate.is_settled and worker.evaluate.is_settled


def committing(crew: Crew) -> list[int]:
    """The next offsets of the tasks whose commit is under way."""
    return [task.stage.next_offset for task in crew.running() if task.is_committing]


def test_a_slow_commit_does_not_keep_reading_back(config: Config) -> None:
    async def main() -> Alerts:
        cluster = await filled(config)
        delay = 0.0

        async def step(name: str) -> None:
            if name == "producer.commit:before" and delay:
                await cluster.clock.sleep(delay)

        worker = await cluster.process(step)
        await turn_until(worker, lambda: settled(worker))
        delay = 5.0
        await turn_until(worker, lambda: bool(committing(worker.aggregate)))
        before, began = committing(worker.aggregate), cluster.clock.monotonic()
        while cluster.clock.monotonic() < began + 1:
            await worker.turn()
        assert sum(committing(worker.aggregate)) > sum(before)
        delay = 0.0
        await cluster.run(worker)
        return await cluster.alerts()

    assert run_virtual(main()) == run_virtual(undisturbed(config))


@pytest.mark.parametrize("delay", [pytest.param(3.0, id="in_time"), pytest.param(60.0, id="over_the_budget")])
def test_partitions_are_taken_away_in_the_middle_of_a_commit(config: Config, delay: float) -> None:
    async def main() -> tuple[Alerts, float]:
        cluster = await filled(config)
        is_slow = False

        async def step(name: str) -> None:
            if name == "producer.commit:before" and is_slow:
                await cluster.clock.sleep(delay)

        slow = await cluster.process(step)
        await turn_until(slow, lambda: settled(slow))
        is_slow = True
        await turn_until(slow, lambda: bool(committing(slow.aggregate)))
        other = await cluster.process()
        began = cluster.clock.monotonic()
        await slow.turn()
        took = cluster.clock.monotonic() - began
        is_slow = False
        for _ in range(30):
            await other.turn()
            await slow.turn()
        await slow.shut_down()
        await cluster.run(other)
        return await cluster.alerts(), took

    alerts, took = run_virtual(main())
    assert alerts == run_virtual(undisturbed(config))
    # Both crews give up what they have, each within its budget.
    assert took < 2 * min(delay, REVOKE_S) + 1


def test_a_process_that_thaws_before_it_asked_the_group_fences_nobody(config: Config) -> None:
    async def main() -> tuple[Alerts, list[str], int]:
        cluster = await filled(config)
        thawed, names = asyncio.Event(), list[str]()

        async def step(name: str) -> None:
            names.append(name)
            if name == "consumer.confirm:before":
                await thawed.wait()

        stale, counted = await cluster.process(step), Counted()
        await stale.turn()
        await stale.turn()
        assert "consumer.confirm:before" in names
        await cluster.clock.sleep(30)
        owner = await cluster.process(observer=counted)
        await turn_until(owner, lambda: settled(owner))
        names.clear()
        thawed.set()
        # Nothing of the thawed process runs but what was under way when it froze.
        for _ in range(20):
            await owner.turn()
        started = [name for name in names if name.startswith("producer.start")]
        await cluster.run(owner)
        return await cluster.alerts(), started, counted.fences

    alerts, started, fences = run_virtual(main())
    assert alerts == run_virtual(undisturbed(config))
    assert (started, fences) == ([], 0)


def test_an_owner_that_was_fenced_by_mistake_comes_back_as_the_group_confirms_it(config: Config) -> None:
    async def main() -> tuple[Alerts, Counted]:
        cluster, counted = await filled(config), Counted()
        worker = await cluster.process(observer=counted)
        await turn_until(worker, lambda: settled(worker))
        for _ in range(3):
            for transactional_id in ("sim.aggregate.events.0", "sim.evaluate.1"):
                await cluster.log.connect().producer(transactional_id).start()
            for _ in range(10):
                await worker.turn()
        await cluster.run(worker)
        return await cluster.alerts(), counted

    alerts, counted = run_virtual(main())
    assert alerts == run_virtual(undisturbed(config))
    assert counted.fences >= 3
    assert counted.restores > 4


def test_brokers_that_are_away_for_minutes_cost_time_only(config: Config) -> None:
    answers = {"producer.bump": OutcomeUnknown, "producer.commit": OutcomeUnknown, "producer.start": KafkaUnreachable,
               "log.read": KafkaUnreachable, "consumer.confirm": KafkaUnreachable,
               "consumer.commit": KafkaUnreachable}  # fmt: skip

    async def main() -> tuple[Alerts, int]:
        cluster, counted = await filled(config), Counted()
        began = news = cluster.clock.monotonic()

        async def step(name: str) -> None:
            effect = name.partition(":")[0]
            minute = (cluster.clock.monotonic() - began) // 60
            # The second minute is a good one: what was taken over then has to hold out.
            if effect in answers and minute in {0, 2, 3}:
                message = "no answer"
                raise answers[effect](message)

        worker = await cluster.process(step, observer=counted)
        while cluster.clock.monotonic() < began + 240:
            await worker.turn()
            if cluster.clock.monotonic() > news + 10:
                # Something to be written, at any time.
                news = cluster.clock.monotonic()
                await cluster.log.append([Outgoing("t", None, b"{", 0)])
        await cluster.run(worker)
        return await cluster.alerts(), counted.retries

    alerts, retries = run_virtual(main())
    assert alerts == run_virtual(undisturbed(config))
    assert retries > 3


def test_an_older_revision_rests_and_a_newer_one_goes_on(tmp_path: Path) -> None:
    newer, older = rules(tmp_path, 2), rules(tmp_path, 1)

    async def main() -> Alerts:
        cluster = await filled(newer)
        first = await cluster.process()
        await turn_until(first, lambda: settled(first))
        for _ in range(5):
            await first.turn()
        await first.shut_down()
        late = await cluster.process(config=older)
        await turn_until(late, lambda: settled(late))
        states = {task.state for crew in (late.aggregate, late.evaluate) for task in crew.tasks.values()}
        assert states == {TaskState.PAUSED}
        assert WorkerHealth(late, cluster.clock).ready()[0]
        heir = await cluster.process()
        for _ in range(20):
            await late.turn()
            await heir.turn()
        await late.shut_down()
        await cluster.run(heir)
        return await cluster.alerts()

    assert run_virtual(main()) == run_virtual(undisturbed(newer))


def test_a_take_over_that_takes_minutes_does_not_stop_the_polling(config: Config) -> None:
    async def main() -> tuple[Alerts, float]:
        cluster, counted = await filled(config), Counted()

        async def step(name: str) -> None:
            if name == "log.read:before" and cluster.clock.monotonic() < 30:
                await cluster.clock.sleep(120)

        worker = await cluster.process(step, observer=counted)
        longest = 0.0
        while counted.restores < 4:
            began = cluster.clock.monotonic()
            await worker.turn()
            longest = max(longest, cluster.clock.monotonic() - began)
        assert cluster.clock.monotonic() > 100
        await cluster.run(worker)
        return await cluster.alerts(), longest

    alerts, longest = run_virtual(main())
    assert alerts == run_virtual(undisturbed(config))
    assert longest < 1


def test_partials_that_are_merged_and_a_week_old_are_deleted(config: Config) -> None:
    async def main() -> list[tuple[int, int]]:
        cluster = await filled(config)
        worker = await cluster.process()
        await cluster.run(worker)
        await cluster.clock.sleep(8 * 86_400)
        for _ in range(5):
            await worker.turn()
        partials = [stage.input for stage in worker.shard_stages()]
        assert {partition.topic for partition in partials} == {TOPICS.partials}
        return [await cluster.log.bounds(partition) for partition in partials]

    for first, end in run_virtual(main()):
        assert 0 < first <= end

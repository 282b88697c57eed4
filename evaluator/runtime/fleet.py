"""Who works on what, over all replicas, for the page, the API and `evaluator status`.

What is ours we know best. Who has the rest is what the groups say, asked every few seconds; how far it was read is
what our shards were told. Nothing here decides anything: the groups suggest, the transactional ids decide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import structlog

from evaluator.core.event import EpochUs
from evaluator.core.watermark import BEGINNING
from evaluator.runtime.log.port import KafkaUnreachable, NotAuthorized, Owner, Partition
from evaluator.runtime.task import Task

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evaluator.core.rule import RuleSet
    from evaluator.runtime.clock import Clock
    from evaluator.runtime.log.port import Log
    from evaluator.runtime.worker import Worker

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 5.0
"""Four requests of a few bytes: as often as a browser looks at the page."""

CONFLICT_LOOKS = round(600 / LOOK_EVERY_S)
"""After so many looks in a row that found other rules at work it is no rolling change any more: ten minutes."""

CONFLICT = ("two fleets share one app_id, or a rollout is stuck: each takes partitions of the other, and alerts follow "
            "the rules of whoever has them; give one of them its own app_id, or number the rules with `revision`, "
            "then the lower one stands back")  # fmt: skip


class Work(NamedTuple):
    """A partition, and the process that works on it: `host` is its address, None for this one.

    `task` is None where another process works. `watermark` is in event time, None before anything was read. `rules` is
    the hash of the rules by which its owner judges, "" where that is not known.
    """

    stage: str
    partition: Partition
    owner: str
    host: str | None
    watermark: EpochUs | None
    task: Task | None
    rules: str = ""

    @property
    def state(self) -> str | None:
        """Where our task stands."""
        return None if self.task is None else self.task.state.value


class Fleet:
    """The worker of this process among those of the others."""

    def __init__(self, log_port: Log, worker: Worker, rules: RuleSet) -> None:
        self.name = log_port.name
        self._sources = {source.topic: name for name, source in rules.sources.items()}
        self._log, self._worker = log_port, worker
        self._owners: dict[str, Mapping[Partition, Owner]] = {}
        self._rules = rules.hash
        self._others: dict[str, str] = {}
        self._looks = 0

    async def follow(self, clock: Clock) -> None:
        """Ask the groups every so often, for ever. Without an answer the owners of others' partitions are unknown."""
        while True:
            await self.look()
            await clock.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Ask the groups once."""
        said = []
        for crew in (self._worker.aggregate, self._worker.evaluate):
            try:
                self._owners[crew.name] = await self._log.owners(crew.name)
            except (KafkaUnreachable, NotAuthorized) as error:
                self._owners[crew.name] = {}
                log.info("fleet.unknown", group=crew.name, reason=str(error))
            said.append(bool(self._owners[crew.name]))
        if all(said):
            # Without an answer, or while a group is rebalanced, nobody knows who is there.
            self._tell(self._found())

    def others(self) -> dict[str, str]:
        """The processes that judged by other rules than we do when both groups were last seen, and the hash of those.

        A rolling change of the rules has some for as long as it lasts. Two fleets under one `app_id` have them for
        good: each takes partitions of the other, and what fires is by whoever has the shard.
        """
        return self._others

    def _found(self) -> dict[str, str]:
        owners = (owner for of_group in self._owners.values() for owner in of_group.values())
        return {owner.name: owner.note for owner in owners if owner.note not in {self._rules, ""}}

    def _tell(self, others: dict[str, str]) -> None:
        """Once when it begins, once more when it is no rolling change any more, and when it is over."""
        self._looks = self._looks + 1 if others else 0
        facts = {"replicas": sorted(others), "theirs": sorted(set(others.values())), "ours": self._rules}
        if self._looks == 1:
            log.warning("fleet.other_rules", **facts, hint="normal while new rules are rolled out")
        elif self._looks == CONFLICT_LOOKS:
            log.error("fleet.conflict", **facts, hint=CONFLICT)
        elif self._others and not others:
            log.info("fleet.one_set_of_rules", ours=self._rules)
        self._others = others

    def work(self) -> list[Work]:
        """Every partition of which somebody is known to work on it, by stage, topic and number."""
        rows = []
        for stage, crew in (("aggregate", self._worker.aggregate), ("evaluate", self._worker.evaluate)):
            owners = self._owners.get(crew.name, {})
            for partition in sorted(owners.keys() | crew.tasks.keys()):
                task, owner = crew.tasks.get(partition), owners.get(partition)
                name = self.name if task is not None or owner is None else owner.name
                host = None if task is not None or owner is None else owner.host
                rules = self._rules if task is not None or owner is None else owner.note
                rows.append(Work(stage, partition, name, host, self._watermark(stage, partition, task), task, rules))
        return rows

    def _watermark(self, stage: str, partition: Partition, task: Task | None) -> EpochUs | None:
        if task is not None:
            return _known(task.stage.watermark)
        return self._told(partition) if stage == "aggregate" else None

    def _told(self, partition: Partition) -> EpochUs | None:
        """How far a source partition of others was read, as the most advanced of our shards was told."""
        source = self._sources[partition.topic]
        states = [shard.sources[source] for shard in self._worker.shard_stages() if source in shard.sources]
        told = [state.partitions[partition.index] for state in states if partition.index in state.partitions]
        return _known(max((one.time.watermark for one in told), default=BEGINNING))


def _known(watermark: EpochUs) -> EpochUs | None:
    return watermark if watermark > BEGINNING else None

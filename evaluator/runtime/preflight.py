"""What has to be right on the brokers before a process joins a group, all of it told at once.

aiokafka waits for ever for a topic that it may not read and writes to one of the wrong shape without a word. So
everything is looked at first, and each finding is one line: what, where, what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import structlog

from evaluator.errors import EvaluatorError, StateRefused
from evaluator.runtime.log.port import NotAuthorized, OffsetOutOfRange, Partition

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evaluator.runtime.log.port import Log, TopicInfo, TopicSpec
    from evaluator.runtime.topics import Topics
    from evaluator.wire.config.load import Config

log = structlog.get_logger(__name__)

SAFE_REPLICATION = 3

_POLICY = "cleanup.policy"


class TopicsUnfit(EvaluatorError):
    """Topics are missing or wrong. The message has a line for each thing to fix."""

    exit_code = 1


class Findings(NamedTuple):
    """What keeps us from starting, and what only may turn out badly later."""

    errors: list[str]
    notes: list[str]


async def source_partitions(log_port: Log, config: Config) -> dict[str, int]:
    """How many partitions each source has, by its name. Raises `TopicsUnfit`, `NotAuthorized`."""
    there = await log_port.describe([source.topic for source in config.rules.sources.values()])
    missing = [
        f"source {name}: topic {source.topic} does not exist; create it, or correct `topic` of the source"
        for name, source in config.rules.sources.items()
        if source.topic not in there
    ]
    if missing:
        raise TopicsUnfit("\n".join(missing))
    return {name: there[source.topic].partitions for name, source in config.rules.sources.items()}


class Wish(NamedTuple):
    """How many shards there are, whether to create what is missing, whether to begin anew beside old alerts."""

    shards: int
    create: bool = False
    init: bool = False


async def preflight(log_port: Log, config: Config, topics: Topics, wish: Wish) -> dict[str, int]:
    """Check everything, create what is missing if that is wished; how many partitions each source has.

    Raises `TopicsUnfit`, `NotAuthorized` and `StateRefused`.
    """
    partitions = await source_partitions(log_port, config)
    specs = topics.specs(wish.shards, partitions)
    if wish.create:
        await log_port.create(specs)
    findings = compare(specs, await log_port.describe([spec.name for spec in specs]))
    if findings.errors:
        raise TopicsUnfit("\n".join(findings.errors))
    for source in config.rules.sources.values():
        await _may_read(log_port, source.topic)
    if not wish.init:
        await _has_its_state(log_port, topics, specs)
    return partitions


async def _has_its_state(log_port: Log, topics: Topics, specs: Sequence[TopicSpec]) -> None:
    """Alerts and no state: the internal topics were lost, or this app is new beside others. Only a person knows."""

    async def holds(name: str, count: int) -> bool:
        return any([(await log_port.bounds(Partition(name, index)))[1] > 0 for index in range(count)])

    # Each shard writes its state when it is taken over for the first time, before anything is decided. Without it
    # the partials that are still there would be merged, and every alert published, a second time.
    (state,) = (spec for spec in specs if spec.name == topics.state)
    if await holds(topics.alerts, 1) and not await holds(state.name, state.partitions):
        message = (
            f"topic {topics.alerts} has alerts, but the state of app_id {topics.app_id} ({state.name}) is empty: "
            f"if it was lost, every alert would fire anew; if this app is new, start it once with --init"
        )
        raise StateRefused(message)


def compare(specs: Sequence[TopicSpec], there: Mapping[str, TopicInfo]) -> Findings:
    """How the topics differ from what we need."""
    findings = Findings([], [])
    for spec in specs:
        info = there.get(spec.name)
        if info is None:
            findings.errors.append(f"topic {spec.name} does not exist; create it with `evaluator topics create`")
        else:
            _compare(spec, info, findings)
    return findings


def _compare(spec: TopicSpec, info: TopicInfo, findings: Findings) -> None:
    if ".progress." in spec.name and info.partitions < spec.partitions:
        findings.notes.append(
            f"topic {spec.name} has {info.partitions} partitions and its source {spec.partitions}: they are added when "
            f"the new ones are taken over"
        )
    elif info.partitions < spec.partitions or (info.partitions > spec.partitions and spec.partitions > 1):
        findings.errors.append(
            f"topic {spec.name} has {info.partitions} partitions and needs {spec.partitions}; {_way_out(spec, info)}"
        )
    if info.config is None:
        findings.notes.append(f"topic {spec.name}: its settings cannot be seen (no right to describe them)")
        return
    policy = info.config.get(_POLICY, "delete")
    if policy != spec.config[_POLICY]:
        findings.errors.append(
            f"topic {spec.name} has {_POLICY}={policy} and needs {spec.config[_POLICY]}; "
            f"change it with kafka-configs --alter --topic {spec.name} --add-config {_POLICY}={spec.config[_POLICY]}"
        )
    findings.notes.extend(
        f"topic {spec.name} has {name}={info.config.get(name)}, `evaluator topics create` sets {value}"
        for name, value in spec.config.items()
        if name != _POLICY and info.config.get(name) not in {None, value}
    )
    findings.notes.extend(_durability(spec.name, info, info.config))


def _way_out(spec: TopicSpec, info: TopicInfo) -> str:
    """Shards may not change."""
    if spec.name.endswith((".partials", ".state")):
        return f"set EVALUATOR_SHARDS={info.partitions}, or use a new app_id: shards cannot be changed under one app_id"
    return "recreate it, or use a new app_id"


def _durability(name: str, info: TopicInfo, config: Mapping[str, str]) -> list[str]:
    notes = []
    if info.replication < SAFE_REPLICATION:
        notes.append(f"topic {name} is replicated {info.replication} times; in production use {SAFE_REPLICATION}")
    elif config.get("min.insync.replicas", "1") == "1":
        notes.append(f"topic {name} has min.insync.replicas=1; in production use 2")
    if config.get("unclean.leader.election.enable") == "true":
        notes.append(f"topic {name} allows unclean leader elections, which lose acknowledged records")
    return notes


async def _may_read(log_port: Log, topic: str) -> None:
    """Fetch something: without the right to read, a group member gets no partition and no error either."""
    partition = Partition(topic, 0)
    first, _ = await log_port.bounds(partition)
    reader = log_port.reader({partition: first})
    try:
        await reader.poll(0.5, 1)
    except OffsetOutOfRange:
        log.info("preflight.trimmed", topic=topic)  # deleted between the two questions: it can be read
    except NotAuthorized as error:
        message = f"not allowed to read topic {topic}: {error}"
        raise NotAuthorized(message) from error
    finally:
        await reader.stop()

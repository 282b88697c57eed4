"""What has to be right on the brokers before a process joins a group, all of it told at once.

aiokafka waits for ever for a topic that it may not read and writes to one of the wrong shape without a word. So
everything is looked at first, and each finding is one line: what, where, what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import structlog

from evaluator.errors import EvaluatorError, StateRefused
from evaluator.runtime.acls import needed
from evaluator.runtime.log.port import (
    SAFE_REPLICATION,
    NotAuthorized,
    OffsetOutOfRange,
    Partition,
    TopicInfo,
    TopicSpec,
)
from evaluator.runtime.log.rights import Resource

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from evaluator.runtime.log.port import Log
    from evaluator.runtime.topics import Topics
    from evaluator.wire.config.load import Config

log = structlog.get_logger(__name__)

_POLICY = "cleanup.policy"


class TopicsUnfit(EvaluatorError):
    """Topics are missing or wrong. The message has a line for each thing to fix."""

    exit_code = 1


class Findings(NamedTuple):
    """What keeps us from starting, and what only may turn out badly later."""

    errors: list[str]
    notes: list[str]


class Examined(NamedTuple):
    """The topics as they are: partitions by source, what ours should be, what they are, how they differ."""

    partitions: dict[str, int]
    specs: list[TopicSpec]
    there: Mapping[str, TopicInfo]
    findings: Findings


class Wish(NamedTuple):
    """How many shards there are, whether to create what is missing, whether to begin anew beside old alerts."""

    shards: int
    create: bool = False
    init: bool = False


async def source_partitions(log_port: Log, config: Config) -> dict[str, int]:
    """How many partitions each source has, by its name. Raises `TopicsUnfit`, `NotAuthorized`."""
    partitions, missing = await _sources(log_port, config, hidden=())
    if missing:
        raise TopicsUnfit("\n".join(missing))
    return partitions


async def preflight(log_port: Log, config: Config, topics: Topics, wish: Wish) -> dict[str, int]:
    """Check everything, create what is missing if that is wished; how many partitions each source has.

    Raises `TopicsUnfit`, `NotAuthorized` and `StateRefused`.
    """
    sources = {name: source.topic for name, source in config.rules.sources.items()}
    lacked = await log_port.lacking(needed(topics, sources))
    hidden = {name for right in lacked if right.resource is Resource.TOPIC for name in right.used}
    if wish.create and not lacked:
        # As far as the sources are there, which tell how many partitions some of ours need.
        partitions, _ = await _sources(log_port, config, hidden)
        await log_port.create(topics.specs(wish.shards, partitions))
    found = await examine(log_port, config, topics, wish.shards, hidden)
    if lacked:
        raise NotAuthorized("\n".join([*(f"no right to {right}: {right.why}" for right in lacked),
                                       *found.findings.errors,
                                       "`evaluator topics acls` prints what to grant"]))  # fmt: skip
    if found.findings.errors:
        raise TopicsUnfit("\n".join(found.findings.errors))
    for topic in sources.values():
        await _may_read(log_port, topic)
    if not wish.init:
        await _has_its_state(log_port, topics, found.there)
    for note in found.findings.notes:
        log.warning("topics.note", note=note)
    return found.partitions


async def examine(
    log_port: Log, config: Config, topics: Topics, shards: int, hidden: Collection[str] = ()
) -> Examined:  # fmt: skip
    """Look at everything but the topics in `hidden`, which we may not use as we would have to.

    What depends on a source that is missing is not looked at: nobody knows how many partitions it will have.
    """
    partitions, missing = await _sources(log_port, config, hidden)
    specs = [spec for spec in topics.specs(shards, partitions) if spec.name not in hidden]
    there = await log_port.describe([spec.name for spec in specs])
    errors, notes = compare(specs, there)
    return Examined(partitions, specs, there, Findings(missing + errors, notes))


async def _sources(log_port: Log, config: Config, hidden: Collection[str]) -> tuple[dict[str, int], list[str]]:
    """How many partitions each source has that is there, and a line for each that is not."""
    sources = {name: source.topic for name, source in config.rules.sources.items() if source.topic not in hidden}
    there = await log_port.describe(list(sources.values()))
    missing = [
        f"source {name}: topic {topic} does not exist; create it, or correct `topic` of the source"
        for name, topic in sources.items()
        if topic not in there
    ]
    return {name: there[topic].partitions for name, topic in sources.items() if topic in there}, missing


async def _has_its_state(log_port: Log, topics: Topics, there: Mapping[str, TopicInfo]) -> None:
    """Alerts and no state: the internal topics were lost, or this app is new beside others. Only a person knows."""

    async def holds(name: str) -> bool:
        places = [Partition(name, index) for index in range(there[name].partitions)]
        return any([(await log_port.bounds(place))[1] > 0 for place in places])

    # Each shard writes its state when it is taken over for the first time, before anything is decided. Without it
    # the partials that are still there would be merged, and every alert published, a second time.
    if await holds(topics.alerts) and not await holds(topics.state):
        message = (
            f"topic {topics.alerts} has alerts, but the state of app_id {topics.app_id} ({topics.state}) is empty: "
            f"if it was lost, every alert would fire anew; if this app is new, start it once with --init"
        )
        raise StateRefused(message)


def compare(specs: Sequence[TopicSpec], there: Mapping[str, TopicInfo]) -> Findings:
    """How the topics differ from what we need. A note is one line, however many topics it is about."""
    errors: list[str] = []
    notes: dict[str, list[str]] = {}
    for spec in specs:
        info = there.get(spec.name)
        if info is None:
            errors.append(f"topic {spec.name} does not exist; create it with `evaluator topics create`")
            continue
        errors += _errors(spec, info)
        for note in _notes(spec, info):
            notes.setdefault(note, []).append(spec.name)
    told = [f"topic{'s' if len(names) > 1 else ''} {', '.join(names)}: {note}" for note, names in notes.items()]
    return Findings(errors, told)


def _errors(spec: TopicSpec, info: TopicInfo) -> list[str]:
    found = []
    too_few, too_many = info.partitions < spec.partitions, info.partitions > spec.partitions
    if (too_few and not _grows(spec)) or (too_many and not spec.may_have_more):
        found.append(
            f"topic {spec.name} has {info.partitions} partitions and needs {spec.partitions}; {_way_out(spec, info)}"
        )
    policy = None if info.config is None else info.config.get(_POLICY, "delete")
    if policy not in {None, spec.config[_POLICY]}:
        found.append(
            f"topic {spec.name} has {_POLICY}={policy} and needs {spec.config[_POLICY]}; "
            f"change it with kafka-configs --alter --topic {spec.name} --add-config {_POLICY}={spec.config[_POLICY]}"
        )
    return found


def _grows(spec: TopicSpec) -> bool:
    """Whether partitions are added by us, when those of the source that they are for are taken over."""
    return ".progress." in spec.name


def _way_out(spec: TopicSpec, info: TopicInfo) -> str:
    """Shards may not change."""
    if spec.name.endswith((".partials", ".state")):
        return f"set EVALUATOR_SHARDS={info.partitions}, or use a new app_id: shards cannot be changed under one app_id"
    return "recreate it, or use a new app_id"


def _notes(spec: TopicSpec, info: TopicInfo) -> list[str]:
    found = []
    if _grows(spec) and info.partitions < spec.partitions:
        found.append(
            f"{info.partitions} partitions where the source has {spec.partitions}: they are added when the new ones "
            f"are taken over"
        )
    if info.replication < SAFE_REPLICATION:
        found.append(f"replicated {info.replication} times; in production use {SAFE_REPLICATION}")
    if info.config is None:
        return [*found, "the settings cannot be seen (no right to describe them)"]
    found += [
        f"{name}={info.config[name]}, `evaluator topics create` sets {value}"
        for name, value in spec.config.items()
        if name != _POLICY and info.config.get(name) not in {None, value}
    ]
    if info.replication >= SAFE_REPLICATION and info.config.get("min.insync.replicas", "1") == "1":
        found.append("min.insync.replicas=1; in production use 2")
    if info.config.get("unclean.leader.election.enable") == "true":
        found.append("unclean leader elections are allowed, which lose acknowledged records")
    return found


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

"""Which topics are to be created, before anything is: what is there is counted, not assumed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from evaluator.runtime.log.port import TopicSpec
from evaluator.runtime.preflight import source_partitions

if TYPE_CHECKING:
    from evaluator.runtime.log.port import Log
    from evaluator.runtime.topics import Topics
    from evaluator.wire.config.load import Config


class Plan(NamedTuple):
    """Every topic, the names of those that are there, and what a person should know about the numbers."""

    specs: list[TopicSpec]
    there: frozenset[str]
    notes: list[str]

    @property
    def missing(self) -> list[TopicSpec]:
        """What is to be created."""
        return [spec for spec in self.specs if spec.name not in self.there]


async def plan(log: Log, config: Config, topics: Topics, shards: int, sources: int | None) -> Plan:
    """What `topics create` makes. Changes nothing.

    A source that is not there gets `sources` partitions; None: that is an error, `TopicsUnfit`.
    """
    new: list[TopicSpec] = []
    notes: list[str] = []
    if sources is None:
        counts = await source_partitions(log, config)
    else:
        counts, new, notes = await _with_new_sources(log, config, sources)
    specs = [*new, *topics.specs(shards, counts)]
    there = frozenset(await log.describe([spec.name for spec in specs]))
    return Plan(specs, there, notes)


async def _with_new_sources(log: Log, config: Config, wished: int) -> tuple[dict[str, int], list[TopicSpec], list[str]]:
    """Partitions by source, the topics of sources that are missing, and a line where the wish is not what counts."""
    by_name = {name: source.topic for name, source in sorted(config.rules.sources.items())}
    there = await log.describe(sorted(by_name.values()))
    counts, notes = {}, []
    for name, topic in by_name.items():
        counts[name] = there[topic].partitions if topic in there else wished
        if topic not in there:
            notes.append(f"source {name}: topic {topic} does not exist yet; {wished} partitions, as --sources says")
        elif there[topic].partitions != wished:
            notes.append(
                f"source {name}: topic {topic} exists with {there[topic].partitions} partitions, which count; "
                f"--sources {wished} is for topics that do not exist"
            )
    return counts, [TopicSpec(topic, wished) for topic in sorted(set(by_name.values()) - there.keys())], notes

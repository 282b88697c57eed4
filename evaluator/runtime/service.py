"""One place wires: a worker of both stages on a log, for `run`, `demo`, `replay` and the simulation alike."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from evaluator import __version__
from evaluator.core.blind import Telling
from evaluator.core.event import SECOND
from evaluator.runtime.aggregate_stage import AggregateStage, Timing
from evaluator.runtime.crew import Crew
from evaluator.runtime.evaluate_stage import EvaluateStage, Publishing
from evaluator.runtime.growing import Growing
from evaluator.runtime.registries import Registries
from evaluator.runtime.stage import Unobserved
from evaluator.runtime.turns import Turns
from evaluator.runtime.worker import Pace, Worker
from evaluator.wire.codecs import CODECS, Codecs
from evaluator.wire.record import Publisher

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from evaluator.core.partial import ClockDecision
    from evaluator.runtime.clock import Clock
    from evaluator.runtime.log.port import Log, Partition
    from evaluator.runtime.registries import Learn
    from evaluator.runtime.stage import Observer, Stage
    from evaluator.runtime.topics import Topics
    from evaluator.wire.config.load import Config
    from evaluator.wire.records import Record


class World(NamedTuple):
    """What differs between a daemon, a demo and a replay: pace and clock, nothing that decides."""

    shards: int = 16
    commit_interval: int = SECOND
    state_interval: int = 5 * SECOND
    pace: Pace = Pace()
    is_replay: bool = False
    verdicts: bool = False
    accepts_loss: bool = False
    status: bool = True
    telling: Telling | None = Telling()
    external_url: str = "http://127.0.0.1:10095"
    codecs: Codecs = CODECS


@dataclass(slots=True)
class Service:
    """A worker and what it counts."""

    worker: Worker
    tallies: Counter[tuple[str, ...]] = field(default_factory=Counter)


async def prepare(log: Log, config: Config, topics: Topics, shards: int) -> dict[str, int]:
    """Create the topics that are missing; returns how many partitions each source has."""
    partitions = {name: await log.partitions(source.topic) for name, source in config.rules.sources.items()}
    await log.create(topics.specs(shards, partitions))
    return partitions


def build(
    log: Log, config: Config, topics: Topics, clock: Clock, world: World, partitions: Mapping[str, int],
    decisions: Mapping[tuple[str, int], Sequence[ClockDecision]] | None = None, observer: Observer | None = None,
) -> Service:  # fmt: skip
    """A worker for the sources in `partitions` (name to partition count), ready to `run` or `turn`."""
    tallies: Counter[tuple[str, ...]] = Counter()
    by_topic = {config.rules.sources[name].topic: name for name in partitions}
    timing = Timing(world.commit_interval, uses_clock=not world.is_replay, accepts_loss=world.accepts_loss)
    publisher = Publisher(topics.app_id, config.rules.hash, __version__, world.external_url)
    publishing = Publishing(
        publisher, world.state_interval, verdicts=world.verdicts, status=world.status, marks_late=not world.is_replay,
        telling=None if world.is_replay else world.telling, decided_at_once=world.pace.decided_at_once,
    )  # fmt: skip

    latest = {name for name in partitions if config.sources[name].start == "latest" and timing.uses_clock}
    growing = Growing(log, topics, by_topic, partitions, latest, world.codecs.source_progress)

    def aggregate(partition: Partition) -> Stage:
        source = by_topic[partition.topic]
        recorded = (decisions or {}).get((source, partition.index), ())
        count = growing.count_with(partition)
        original = partial(growing.original, source) if source in latest else None
        return AggregateStage(
            config, source, partition.index, count, world.shards, topics, timing, tallies, recorded, world.codecs,
            original,
        )  # fmt: skip

    def evaluate(partition: Partition) -> Stage:
        return EvaluateStage(config.rules, partition.index, world.shards, topics, publishing, tallies, world.codecs)

    note = config.rules.hash
    watch = observer if observer is not None else Unobserved()
    turns = Turns(clock, world.pace.turn_s)
    worker = Worker(
        log,
        Crew(
            f"{topics.app_id}.aggregate", sorted(by_topic), aggregate, log, clock, watch, growing.prepare, note,
            # A replay has learned what its records name before it reads them: its time does not pass while it waits.
            None if world.is_replay else _lessons(Registries(config.sources, clock), by_topic),
            turns,
        ),
        Crew(f"{topics.app_id}.evaluate", [topics.partials], evaluate, log, clock, watch, note=note, turns=turns),
        config.rules,
        clock,
        world.pace,
    )  # fmt: skip
    return Service(worker, tallies)


def _lessons(
    registries: Registries, by_topic: Mapping[str, str]
) -> Callable[[Partition, Sequence[int], Sequence[Record]], Learn]:
    return lambda partition, ids, records: registries.lesson(by_topic[partition.topic], ids, records)

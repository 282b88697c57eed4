"""Recorded events through the same two stages, on the in-memory log, as fast as they can be read.

Files are read a chunk at a time, always of the partition whose watermark is furthest behind, so that what
stage 2 has to hold between partitions stays small. What was consumed is trimmed from the log: memory does
not grow with the input.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from evaluator.core.event import EpochUs
from evaluator.core.partial import ClockDecision
from evaluator.core.watermark import BEGINNING
from evaluator.errors import UsageError
from evaluator.runtime.clock import VirtualClock
from evaluator.runtime.log.follow import Follower
from evaluator.runtime.log.memory import MemoryLog
from evaluator.runtime.log.port import Partition, TopicSpec
from evaluator.runtime.registries import learn_named
from evaluator.runtime.service import Service, World, build
from evaluator.runtime.topics import Topics
from evaluator.runtime.worker import Pace
from evaluator.wire.dead_letter import Letter, letter_of
from evaluator.wire.envelope import Columns, bare_columns, enveloped_columns
from evaluator.wire.record import dumps

if TYPE_CHECKING:
    import asyncio
    from typing import BinaryIO

    from evaluator.runtime.aggregate_stage import AggregateStage
    from evaluator.wire.config.load import Config
    from evaluator.wire.config.model import SourceConfig
    from evaluator.wire.records import Record


@dataclass(frozen=True, slots=True)
class Request:
    """What to replay. `files` are by source, one file a partition; `until` moves the end of the input."""

    files: Mapping[str, Sequence[Path]]
    envelope: bool = False
    until: EpochUs | None = None
    decisions: Mapping[tuple[str, int], Sequence[ClockDecision]] = field(default_factory=dict)
    verdicts: bool = False
    shards: int = 16
    batch: int = 40_000


class Outcome(NamedTuple):
    """Alert records in the order (window end, key, alertname, firing first), verdict records, and counters.

    `rejects` is the first dead letter of each reason.
    """

    alerts: list[bytes]
    verdicts: list[bytes]
    tallies: Counter[tuple[str, ...]]
    rejects: Mapping[str, Letter]


async def replay(config: Config, request: Request, loop: asyncio.AbstractEventLoop) -> Outcome:
    """Judge the files. Raises `UsageError` where a file cannot be read or a line is no envelope.

    And `SchemasUnavailable` where a registry cannot be asked: there is nobody to wait for it as the daemon does.
    """
    clock = VirtualClock(loop)
    log = MemoryLog(clock=clock, max_record_bytes=1 << 30)
    topics = Topics("replay")
    for name, paths in request.files.items():
        await log.create([TopicSpec(config.rules.sources[name].topic, len(paths))])
    partitions = {name: len(paths) for name, paths in request.files.items()}
    await log.create(topics.specs(request.shards, partitions))
    world = World(
        shards=request.shards,
        commit_interval=0,
        state_interval=1 << 62,
        is_replay=True,
        status=False,
        verdicts=request.verdicts,
        pace=Pace(request.batch, 0.0, aligns=False),
    )
    service = build(log, config, topics, clock, world, partitions, request.decisions)
    run = _Run(log, topics, service, config.sources)
    await service.worker.start()
    await run.settle(sum(partitions.values()), request.shards)
    with ExitStack() as opened:
        feeds = [
            _Feed(name, Partition(config.rules.sources[name].topic, index), _columns(opened, path, request))
            for name, paths in request.files.items()
            for index, path in enumerate(paths)
        ]
        await run.feed(feeds)
    await run.finish(request.until)
    return run.outcome()


class _Feed(NamedTuple):
    """The rest of a file, on its way into a partition."""

    source: str
    partition: Partition
    columns: Iterator[Columns]


def _columns(opened: ExitStack, path: Path, request: Request) -> Iterator[Columns]:
    try:
        stream: BinaryIO = opened.enter_context(path.open("rb"))
    except OSError as error:
        message = f"{path}: cannot be read ({error.strerror})"
        raise UsageError(message) from error
    if request.envelope:
        return enveloped_columns(stream, request.batch, str(path))
    return bare_columns(stream, request.batch)


class _Run:
    """One replay under way."""

    def __init__(self, log: MemoryLog, topics: Topics, service: Service, sources: Mapping[str, SourceConfig]) -> None:
        self._log, self._topics, self._service, self._sources = log, topics, service, sources
        self._worker = service.worker
        self._alerts: list[tuple[tuple[str, str, str, str], bytes]] = []
        self._verdicts = _Verdicts()
        self._rejects: dict[str, Letter] = {}
        self._followers: dict[str, Follower] = {}

    async def settle(self, partitions: int, shards: int) -> None:
        """Turn until every task runs."""
        while len(self._worker.source_stages()) < partitions or len(self._worker.shard_stages()) < shards:
            await self._worker.turn()

    async def feed(self, feeds: list[_Feed]) -> None:
        """Read every file to its end, the partition that is furthest behind first."""
        while feeds:
            stages = {stage.input: stage for stage in self._worker.source_stages()}
            feed = min(feeds, key=lambda feed: stages[feed.partition].watermark)
            chunk = next(feed.columns, None)
            if chunk is None:
                feeds.remove(feed)
                continue
            learn_named(self._sources[feed.source], chunk.values)
            await self._log.append_values(feed.partition, *chunk)
            await self._pass_on(feed.partition)

    async def _pass_on(self, partition: Partition) -> None:
        """Take one chunk through both stages, collect what came out, and trim what was consumed."""
        while (await self._log.bounds(partition))[1] > self._stage(partition).next_offset:
            await self._worker.turn()
        await self._worker.aggregate.commit_all()
        await self._worker.evaluate.poll(0, 1 << 30)
        self._worker.evaluate.commit_due()
        await self._worker.evaluate.finish()
        await self._log.trim(partition, self._stage(partition).next_offset)
        for stage in self._worker.shard_stages():
            await self._log.trim(stage.input, stage.next_offset)
        await self._collect()

    def _stage(self, partition: Partition) -> AggregateStage:
        return next(stage for stage in self._worker.source_stages() if stage.input == partition)

    async def finish(self, until: EpochUs | None) -> None:
        """The input ended: every partition's watermark moves to the largest accepted time of its source."""
        newest: dict[str, EpochUs] = {}
        for stage in self._worker.source_stages():
            ends = (stage.newest, until, newest.get(stage.source.name))
            newest[stage.source.name] = max((end for end in ends if end is not None), default=BEGINNING)
        for stage in self._worker.source_stages():
            stage.finish(newest[stage.source.name])
        await self._worker.drain()
        await self._collect()

    async def _collect(self) -> None:
        for record in await self._news(self._topics.alerts):
            alert = orjson.loads(record.value or b"")
            moment = alert["endsAt"] or alert["firedAt"]
            order = (moment, alert["key"], alert["alertname"], alert["status"])
            self._alerts.append((order, record.value or b""))
        for record in await self._news(self._topics.verdicts):
            self._verdicts.add(orjson.loads(record.value or b""))
        for letter in map(letter_of, await self._news(self._topics.dlq)):
            if letter is not None:
                self._rejects.setdefault(letter.reason, letter)

    async def _news(self, topic: str) -> list[Record]:
        """The committed records of a public topic since the last call; they are trimmed."""
        follower = self._followers.setdefault(topic, Follower(self._log, topic))
        records = await follower.news()
        for partition, position in follower.positions.items():
            await self._log.trim(partition, position)
        return records

    def outcome(self) -> Outcome:
        """Everything in its documented order."""
        alerts = [value for _, value in sorted(self._alerts, key=lambda alert: alert[0])]
        return Outcome(alerts, self._verdicts.sorted(), self._service.tallies, self._rejects)


class _Verdicts:
    """Verdict records by alert and series; a run of equal windows that held nothing becomes one record."""

    def __init__(self) -> None:
        self._of_key: dict[str, list[dict[str, Any]]] = {}

    def add(self, window: dict[str, Any]) -> None:
        """Take the next window of its alert and series."""
        windows = self._of_key.setdefault(window["key"], [])
        if not windows or not _continues(windows[-1], window):
            windows.append(window)
            return
        run = windows[-1]
        run["count"] = run.get("count", 1) + window.get("count", 1)
        run["until"] = window.get("until", window["end"])

    def sorted(self) -> list[bytes]:
        """All of them in the order (window end, key)."""
        windows = [window for of_key in self._of_key.values() for window in of_key]
        return [dumps(window) for window in sorted(windows, key=lambda w: (w["end"], w["key"]))]


_SAME = ("verdict", "held", "breached", "values", "n", "bad", "deploy", "context")


def _continues(run: dict[str, Any], window: dict[str, Any]) -> bool:
    return (window["n"] == 0 or window["held"]) and all(run.get(field) == window.get(field) for field in _SAME)

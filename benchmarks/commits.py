"""What a commit takes of a core, and how many bytes it writes: what an installation of another size is calculated with.

One partition of a source and 16 shards. A commit of stage 1 holds a second of events, or a minute of them as in a
backlog, and every shard commits as soon as it has merged that; verdicts are on. A run is a minute of event time: one
end of a window for each series and alert. What is counted are keys, values and headers, neither compressed nor in
Kafka's own frames.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import core
import job
import msgspec
import orjson
from table import RUNS, Figure, Row, cpu_seconds, of_turns

from evaluator.core.event import EpochUs
from evaluator.runtime.aggregate_stage import AggregateStage, Timing
from evaluator.runtime.collector import prefer_throughput
from evaluator.runtime.evaluate_stage import EvaluateStage, Publishing
from evaluator.runtime.log.port import Fetched, Outgoing
from evaluator.runtime.topics import Topics
from evaluator.wire import partial as partial_wire
from evaluator.wire.record import Publisher
from evaluator.wire.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

EVENTS_A_SECOND = 10_000
SIZES = ((50, 1, RUNS), (50, 60, RUNS), (10_000, 1, 3), (10_000, 60, RUNS))
"""Series, seconds of a commit, and how many runs at most: a minute of many series takes one in sixty commits."""

WARM_UP, WARM_UP_RATE = 26, 500
"""Minutes before anything is measured, and events a second in them: an alert's progress and status hold its last 24
windows, so they are of full size only when those were decided."""

TOPICS = Topics("bench")
PANE, PARTIAL = "a pane in partials", "a partial without its panes"
OF_TOPIC = {TOPICS.status: "a changed status", TOPICS.verdicts: "a window in verdicts", TOPICS.alerts: "an alert",
            TOPICS.progress("bench"): "the progress of a partition"}  # fmt: skip
OF_STATE = {"p": "a pane in the state", "a": "the progress of an alert in the state", "m": "the progress of a shard"}
SEAL = 5
"""Bytes before the body of a stored value."""


class Minutes:
    """Both stages over one partition, minute by minute."""

    def __init__(self, series: int) -> None:
        config = core.rules()
        publishing = Publishing(Publisher("bench", config.rules.hash, "0", "http://here"), 0, verdicts=True)
        self.series = series
        self.first = AggregateStage(
            config, "bench", 0, 1, core.SHARDS, TOPICS, Timing(0, uses_clock=False), Counter()
        )  # fmt: skip
        self.second = [
            EvaluateStage(config.rules, shard, core.SHARDS, TOPICS, publishing, Counter())
            for shard in range(core.SHARDS)
        ]
        for stage in (self.first, *self.second):
            stage.restore([], (0, 0), None)
        frozen((self.first, *self.second), EpochUs(0))
        self._read = self._second = 0
        self._partials = [0] * core.SHARDS

    def commits(
        self, seconds: int, rate: int = EVENTS_A_SECOND
    ) -> Iterator[tuple[list[Outgoing], float, list[Outgoing], float]]:
        """What each commit of a minute writes, and the seconds that its freeze takes: of stage 1, of all of stage 2.

        There is one after every `seconds` of events.
        """
        for _ in range(60 // seconds):
            self._feed(list(core.payloads(seconds * rate, 140, self.series, self._second * rate, rate)))
            self._second += seconds
            now = EpochUs((job.START_MS + self._second * 1000) * 1000)
            reduced, of_first = frozen([self.first], now)
            self._pass_on(reduced, now)
            decided, of_second = frozen(self.second, now)
            yield reduced, of_first, decided, of_second

    def _feed(self, values: Sequence[bytes]) -> None:
        for begin in range(0, len(values), core.BATCH):
            rows = [
                Record(self._read + number, int(value[8:21]), None, value)
                for number, value in enumerate(values[begin : begin + core.BATCH])
            ]
            self._read += len(rows)
            taken_in(self.first, Fetched(rows, self._read, self._read, EpochUs(0)))

    def _pass_on(self, reduced: Sequence[Outgoing], now: EpochUs) -> None:
        for stage in self.second:
            shard = stage.input.index
            values = [each.value for each in reduced if each.topic == TOPICS.partials and each.partition == shard]
            begin, self._partials[shard] = self._partials[shard], self._partials[shard] + len(values)
            rows = [Record(begin + number, 0, None, value) for number, value in enumerate(values)]
            taken_in(stage, Fetched(rows, self._partials[shard], self._partials[shard], now))


def taken_in(stage: AggregateStage | EvaluateStage, fetched: Fetched) -> None:
    """All of it, in as many turns as the stage wants."""
    rest: Fetched | None = fetched
    while rest is not None:
        rest = stage.apply(rest)


def frozen(stages: Sequence[AggregateStage | EvaluateStage], now: EpochUs) -> tuple[list[Outgoing], float]:
    """What the stages write, and the seconds of CPU until they know it."""
    began = time.process_time()
    outboxes = [stage.freeze(now) for stage in stages]
    records = [record for outbox in outboxes if outbox is not None for record in outbox.records]
    taken = time.process_time() - began
    for stage in stages:
        stage.committed(now)
    return records, taken


# -- floor --------------------------------------------------------------------------------------------------


def encoded(records: Sequence[Outgoing]) -> float:
    """Seconds that msgspec and orjson take to encode what the records hold."""
    stored, published = [], []
    for record in records:
        if record.value is not None and record.topic.startswith(f"{TOPICS.app_id}."):
            stored.append(msgspec.msgpack.decode(record.value[SEAL:]))
        elif record.value is not None:
            published.append(orjson.loads(record.value))
    encode = msgspec.msgpack.Encoder().encode
    return cpu_seconds(lambda: ([encode(each) for each in stored], [orjson.dumps(each) for each in published]))


# -- bytes --------------------------------------------------------------------------------------------------


def size_of(record: Outgoing) -> int:
    """Bytes of key, value and headers."""
    of_headers = sum(len(name) + len(value) for name, value in record.headers)
    return len(record.key or b"") + len(record.value or b"") + of_headers


class Written:
    """How many things of each kind were written, and how many bytes they are."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.sizes: Counter[str] = Counter()

    def add(self, records: Sequence[Outgoing]) -> None:
        """What a commit wrote."""
        for record in records:
            if record.topic == TOPICS.partials:
                self._partial(record)
            elif record.topic == TOPICS.state:
                kind = OF_STATE[chr((record.key or b"")[0])]
                self._count(kind if record.value is not None else f"{kind}, deleted", 1, size_of(record))
            else:
                self._count(OF_TOPIC[record.topic], 1, size_of(record))

    def _partial(self, record: Outgoing) -> None:
        whole = partial_wire.decode(record.value or b"")
        (bare,) = partial_wire.encode(replace(whole, cells=()))
        panes = len(record.value or b"") - len(bare)
        self._count(PANE, sum(len(cells) for _, cells in whole.cells), panes)
        self._count(PARTIAL, 1, size_of(record) - panes)

    def _count(self, kind: str, count: int, size: int) -> None:
        self.counts[kind] += count
        self.sizes[kind] += size

    @property
    def size(self) -> int:
        """Bytes of everything."""
        return sum(self.sizes.values())


# -- all ----------------------------------------------------------------------------------------------------


def of_size(series: int, seconds: int, runs: int) -> Iterator[Row | Figure]:
    """What commits of so many seconds of events of so many series take and write."""
    minutes = Minutes(series)
    for _ in range(WARM_UP):
        list(minutes.commits(60, WARM_UP_RATE))
    first, second = Written(), Written()
    turns: tuple[list[tuple[float, float]], list[tuple[float, float]]] = ([], [])
    for _ in range(runs):
        taken = [0.0] * 4
        for reduced, of_first, decided, of_second in minutes.commits(seconds):
            first.add(reduced)
            second.add(decided)
            several = (of_first, encoded(reduced), of_second, encoded(decided))
            taken = [before + more for before, more in zip(taken, several, strict=True)]
        turns[0].append((taken[0], taken[1]))
        turns[1].append((taken[2], taken[3]))
    commits = runs * 60 // seconds
    what = f"{seconds} s of {EVENTS_A_SECOND:,} events/s of {series:,} series"
    panes, windows = first.counts[PANE], second.counts[OF_TOPIC[TOPICS.verdicts]]
    for name, unit, count, written, of_stage in (
        ("stage 1", "panes", panes, first, turns[0]),
        ("stage 2, all shards", "windows", windows, second, turns[1]),
    ):
        yield of_turns(
            "commits", f"freeze of {name}, {what}", unit, count / runs, of_stage, "msgspec and orjson, encoding alone",
            ms_a_commit=round(statistics.median(mine for mine, _ in of_stage) * 1000 * runs / commits, 2),
            bytes_a_commit=round(written.size / commits), **{f"bytes_a_{unit[:-1]}": round(written.size / count)},
        )  # fmt: skip
    for written in (first, second):
        for kind, size in written.sizes.items():
            told = {"in_a_commit": round(written.counts[kind] / commits, 2), "bytes_a_commit": round(size / commits)}
            yield Figure("commits", f"{kind}, {what}", size / written.counts[kind], "bytes", told)


def rows(runs: int = RUNS) -> Iterator[Row | Figure]:
    """What the table shows of it: first of the benchmark job's series."""
    prefer_throughput()
    for series, seconds, most in SIZES:
        yield from of_size(series, seconds, min(runs, most))

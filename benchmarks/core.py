"""The stations of an event in one process: decoded, classified, reduced to panes, merged, decided.

Every row runs the code that `run` runs, on one core, without a log beside it. Decoding reads the trace ids of every
twentieth event: about as many end as evidence. Aggregating is given them.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import job
import msgspec
import numpy as np
from table import Row, cpu_seconds, row

from evaluator.core.aggregate import Aggregator
from evaluator.core.evaluate import Evaluator
from evaluator.core.event import MINUTE, EpochUs, EventBatch, SeriesKey, SeriesTable, listed
from evaluator.core.packed import unpacked
from evaluator.runtime.collector import prefer_throughput
from evaluator.wire import partial as partial_wire
from evaluator.wire.classify import Classifier
from evaluator.wire.config.load import load_rules
from evaluator.wire.decode import SourceDecoder
from evaluator.wire.records import Record, Records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from evaluator.wire.config.load import Config
    from evaluator.wire.config.model import SourceConfig

DECODED = 200_000
CLASSIFIED = 500_000
REDUCED = 1_000_000
BATCH = 5_000
COMMIT = 250_000
"""Events between two commits of a partition that is read as fast as it can be."""

SHARDS = 16


class Event(msgspec.Struct):
    """The fields that the rules name."""

    time: int
    surface: str
    duration_ms: float
    status: int


def rules(alerts: int = 2, window: str = "1m") -> Config:
    """The job's rules, or as many alerts with thresholds of their own."""
    text = job.RULES.replace("source: bench\n", "source: bench\n    max_series: 20000\n", 1)
    text = text.replace("window: 1m", f"window: {window}")
    if alerts != 2:
        text = text[: text.index("alerts:")] + "alerts:\n"
        for number in range(alerts):
            when = f"p95 > {500 + number}ms" if number % 2 else f"error_ratio > {1 + number}%"
            text += f"  A{number}: {{surface: voice-api, when: {when}, window: 1m, severity: page}}\n"
    return loaded(text)


def loaded(text: str) -> Config:
    """What a rules file with this text says."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rules.yaml"
        path.write_text(text)
        return load_rules([path])


# -- decode -------------------------------------------------------------------------------------------------


def payloads(count: int, size: int, series: int = 50, first: int = 0, rate: int = 10_000) -> Iterator[bytes]:
    """Events of the job from number `first` on, `rate` of them a second.

    They are filled up to about `size` bytes with fields that no rule names.
    """
    rng = np.random.default_rng(7 + first)
    surfaces, latencies = rng.integers(0, series, count).tolist(), np.round(rng.lognormal(5, 0.6, count), 1).tolist()
    trace = rng.bytes(16 * count).hex()
    filling = ",".join(f'"tag{number}":"value-{number:09d}"' for number in range(max(0, size - 147) // 27))
    for number, (surface, took) in enumerate(zip(surfaces, latencies, strict=True)):
        at = job.START_MS + (first + number) * 1000 // rate
        yield (
            f'{{"time":{at},"surface":"voice-api-{surface:03d}","duration_ms":{took},'
            f'"status":{503 if number % 100 == 0 else 200},"trace_id":"{trace[32 * number : 32 * number + 32]}",'
            f'"route":"/v1/call"{"," if filling else ""}{filling}}}'
        ).encode()


def decode_rows() -> Iterator[Row]:
    """Bytes in, columns out, by the size of the events."""
    config = rules()
    source = config.sources["bench"]
    typed = msgspec.json.Decoder(Event).decode
    for size in (140, 500, 2000):
        count = DECODED * 140 // size
        values = list(payloads(count, size))
        rows = [Record(number, int(value[8:21]), None, value) for number, value in enumerate(values)]
        batches = [Records.of(rows[begin : begin + BATCH]) for begin in range(0, count, BATCH)]

        def decode(batches: list[Records] = batches) -> None:
            decoder, table = SourceDecoder(source), SeriesTable({"voice-api": 20_000})
            for batch in batches:
                decoded = decoder.decode(batch, table, None)
                assert decoded.records == len(batch), "a batch is more than a turn may take"
                decoded.events.trace_ids(range(0, len(decoded.events), 20))

        def floor(values: list[bytes] = values) -> None:
            for value in values:
                typed(value)

        bytes_of = round(sum(map(len, values)) / count)
        yield row("decode", f"JSON of {bytes_of} bytes", "events", count, partial(cpu_seconds, decode),
                  ("msgspec, typed, alone", partial(cpu_seconds, floor)))  # fmt: skip


# -- classify -----------------------------------------------------------------------------------------------

CLASSIFY = """\
version: 1
sources: {bench: {topic: bench, format: json, fields: {time: time}}}
surfaces:
"""
KINDS = ("call", "push", "mail")
"""What the matchers of the surfaces look for; each group value is of one of them."""


def group_value(number: int, surfaces: int) -> tuple[str, str]:
    """Its kind and its text."""
    return KINDS[number % surfaces], f"voice-api-{number:05d}"


def values_of(groups: int, surfaces: int) -> list[tuple[list[str], list[str]]]:
    """Columns of kinds and of group values, a batch each. No two events share a text: decoding makes new ones, too."""
    numbers = np.random.default_rng(7).integers(0, groups, CLASSIFIED).tolist()
    kinds = [KINDS[number % surfaces].encode().decode() for number in numbers]
    texts = [f"voice-api-{number:05d}" for number in numbers]
    return [(kinds[begin : begin + BATCH], texts[begin : begin + BATCH]) for begin in range(0, CLASSIFIED, BATCH)]


def classified(source: SourceConfig, groups: int, surfaces: int) -> float:
    """Seconds for all batches, the first sight of every value in it; a table lives for `COMMIT` events."""
    batches, classifier = values_of(groups, surfaces), Classifier(source.surfaces)

    def classify() -> None:
        for number, columns in enumerate(batches):
            if number * BATCH % COMMIT == 0:
                table = SeriesTable(dict.fromkeys(KINDS, 20_000))
            numbered = classifier.number(classifier.classes(columns, BATCH), table)
            assert not numbered.unmatched, "every event has a surface"

    return cpu_seconds(classify)


def looked_up(groups: int, surfaces: int) -> float:
    """Seconds to find a number for the values of each event, where all of them are known."""
    batches, known = values_of(groups, surfaces), {group_value(n, surfaces): n for n in range(groups)}
    return cpu_seconds(lambda: [[known[key] for key in zip(*columns, strict=True)] for columns in batches])


def classify_rows() -> Iterator[Row]:
    """Columns of values in, numbered series out: by surfaces that may match, and by distinct group values."""
    for surfaces in (1, 3):
        group = "group_by: [{field: surface, as: api}], max_series: 20000"
        lines = [f"  {kind}: {{source: bench, match: {{kind: {kind}}}, {group}}}\n" for kind in KINDS[:surfaces]]
        source = loaded(CLASSIFY + "".join(lines)).sources["bench"]
        matched = "a surface with a matcher" if surfaces == 1 else f"{surfaces} surfaces with matchers"
        for groups in (50, 10_000):
            yield row("classify", f"{groups:,} group values, {matched}", "events", CLASSIFIED,
                      partial(classified, source, groups, surfaces),
                      ("a look at a dict for each event", partial(looked_up, groups, surfaces)))  # fmt: skip


# -- aggregate ----------------------------------------------------------------------------------------------


class Stream(NamedTuple):
    """Decoded events of one partition."""

    time: np.ndarray
    series: np.ndarray
    latency: np.ndarray
    failed: np.ndarray
    keys: list[SeriesKey]


def stream(series: int, disorder: float = 0.0, minutes: int = 20, count: int = REDUCED) -> Stream:
    """`count` events over `minutes`; `disorder` is the share of them that comes up to 5 s late."""
    rng = np.random.default_rng(7)
    time = job.START_MS * 1000 + np.arange(count) * (minutes * MINUTE) // count
    time = np.where(rng.random(count) < disorder, time - rng.integers(0, 5_000_000, count), time)
    latency = (rng.lognormal(5, 0.6, count) * 1000).astype(np.int64)
    failed = (rng.random(count) < 0.01).astype(np.int8)
    keys = [SeriesKey("voice-api", (f"voice-api-{number:05d}",)) for number in range(series)]
    return Stream(time, rng.integers(0, series, count).astype(np.int32), latency, failed, keys)


def reduced(config: Config, events: Stream, keep: Callable[[object], None]) -> None:
    """Every batch added, a commit taken after each `COMMIT` events."""
    aggregator = Aggregator(config.rules, config.rules.sources["bench"], 0, 1, SHARDS)
    traces = listed([""] * BATCH)
    for begin in range(0, len(events.time), BATCH):
        if begin % COMMIT == 0:
            if begin:
                keep(aggregator.take())
            for key in events.keys:
                aggregator.table.intern(key)
        part = slice(begin, begin + BATCH)
        batch = EventBatch(
            offset=np.arange(begin, begin + BATCH), time=events.time[part], failed=events.failed[part],
            latency=events.latency[part], series=events.series[part], trace_ids=traces,
        )  # fmt: skip
        aggregator.add(batch, begin, begin + BATCH)
    keep(aggregator.take())


def aggregate_rows() -> Iterator[Row]:
    """Columns in, panes out: by series, by alerts of the surface, by disorder."""
    variants = [(f"{series:,} series", stream(series), rules()) for series in (1, 10, 50, 1_000, 10_000)]
    variants += [("10,000 series, 5m panes of 100 events", stream(10_000, minutes=5), rules(window="5m"))]
    variants += [(f"50 series, {alerts} alerts", stream(50), rules(alerts)) for alerts in (1, 3, 10)]
    variants += [(f"50 series, {share:.0%} disorder", stream(50, share), rules()) for share in (0.01, 0.3)]
    for name, events, config in variants:
        keys = events.series.astype(np.int64) * 2**32 + events.time // MINUTE % 2**32

        def floor(keys: np.ndarray = keys) -> None:
            for begin in range(0, REDUCED, 65_536):
                np.argsort(keys[begin : begin + 65_536], kind="stable")

        yield row(
            "aggregate", name, "events", REDUCED,
            partial(cpu_seconds, partial(reduced, config, events, lambda _: None)),
            ("numpy, one argsort of the same keys", partial(cpu_seconds, floor)),
        )  # fmt: skip


# -- evaluate -----------------------------------------------------------------------------------------------


def stored(config: Config, events: Stream) -> list[list[bytes]]:
    """The partials of the stream as stage 2 reads them, by shard."""
    taken: list[object] = []
    reduced(config, events, taken.append)
    of_shard: list[list[bytes]] = [[] for _ in range(SHARDS)]
    sent: dict[int, int] = {}
    for number, whole in enumerate(taken):
        for shard, part in enumerate(whole.split(SHARDS)):
            chained = replace(part, prev=sent.get(shard), sequence=number + 1)
            sent[shard] = part.end
            of_shard[shard] += partial_wire.encode(chained)
    return of_shard


def merged_bins(partials: list[list[bytes]]) -> None:
    """The sketches of the same cells, decoded and added up in dictionaries: what merging takes at least."""
    for values in partials:
        sums: dict[object, dict[int, int]] = {}
        for value in values:
            for key, cells in partial_wire.decode(value).cells:
                for cell in cells:
                    bins = sums.setdefault((key, cell.slot), {})
                    for index, count in unpacked(cell.pane).bins.items():
                        bins[index] = bins.get(index, 0) + count


def evaluated(config: Config, partials: list[list[bytes]]) -> int:
    """Every partial merged and what it ripened decided; returns how many windows that were."""
    windows = 0
    for values in partials:
        evaluator = Evaluator(config.rules)
        for value in values:
            evaluator.merge(partial_wire.decode(value))
            windows += len(evaluator.decide().verdicts)
        evaluator.changes()
    return windows


def evaluate_rows() -> Iterator[Row]:
    """Partials in, verdicts out; and a week of silence."""
    config = rules()
    for series in (50, 1_000, 10_000):
        partials = stored(config, stream(series))
        windows = evaluated(config, partials)
        evaluate = partial(evaluated, config, partials)
        floor = partial(cpu_seconds, partial(merged_bins, partials))
        yield row("evaluate", f"{series:,} series", "windows", windows, partial(cpu_seconds, evaluate),
                  ("decoding, and the sketches added up", floor))  # fmt: skip
    yield silent_week(config)


def silent_week(config: Config) -> Row:
    """10,000 series fall silent: a week of windows without events is decided at once."""
    series = 10_000
    events = stream(series, minutes=2)
    partials = stored(config, events)
    week = EpochUs(int(events.time[-1]) + 7 * 24 * 60 * MINUTE)
    states = []
    for values in partials:
        last = partial_wire.decode(values[-1])
        quiet = replace(
            last, begin=last.end, sequence=last.sequence + 1, prev=last.end, before=last.time.watermark, cells=(),
            time=replace(last.time, watermark=week),
        )  # fmt: skip
        states.append((values, quiet))

    def decide() -> float:
        taken = 0.0
        for values, quiet in states:
            evaluator = Evaluator(config.rules)
            for value in values:
                evaluator.merge(partial_wire.decode(value))
            evaluator.decide()
            evaluator.merge(quiet)
            taken += cpu_seconds(evaluator.decide)
        return taken

    def floor() -> float:
        return cpu_seconds(lambda: merged_bins(partials))

    return row("evaluate", "a silent week over 10,000 series", "series", series, decide,
               ("decoding their two minutes, and the sketches added up", floor), runs=3)  # fmt: skip


def rows() -> Iterator[Row]:
    """All of them."""
    prefer_throughput()
    yield from decode_rows()
    yield from classify_rows()
    yield from aggregate_rows()
    yield from evaluate_rows()

"""How long a process that starts needs to have all of its state back, on a real Kafka.

The state is that of 10,000 (and 100,000) series of which a 1h rule that hops every 5m and a 5m rule have full
windows: 12 panes of 200 latencies over three decades each, and the last windows decided of both. It is made by
stage 2 itself, from partials as stage 1 encodes them, in transactions of its own; a reader of the compacted topics
finds what a service leaves there. More than 10,000 series are those 10,000 again under other names. The floor is
aiokafka reading the same state, nothing decoded, in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from aiokafka import AIOKafkaProducer
from kafka import broker_module, peak_mb, running, scrape

from evaluator.core.event import MINUTE, EpochUs, SeriesKey, shard_of
from evaluator.core.packed import pack, unpacked
from evaluator.core.partial import Cell, Origin, Partial
from evaluator.core.watermark import PartitionTime
from evaluator.runtime.aggregate_stage import AggregateStage, Timing
from evaluator.runtime.clock import SystemClock
from evaluator.runtime.evaluate_stage import EvaluateStage, Publishing
from evaluator.runtime.log.kafka import KafkaLog
from evaluator.runtime.log.port import Fetched, Outgoing, Partition, TopicSpec
from evaluator.runtime.settings import KafkaSettings
from evaluator.runtime.stage import Unobserved
from evaluator.runtime.task import Task
from evaluator.runtime.topics import Topics
from evaluator.wire import partial as partial_wire
from evaluator.wire import progress as progress_wire
from evaluator.wire import state as state_wire
from evaluator.wire.codecs import CODECS
from evaluator.wire.config.load import Config, load_rules
from evaluator.wire.progress import SourceProgress
from evaluator.wire.record import Publisher
from evaluator.wire.records import Record

if TYPE_CHECKING:
    from evaluator.core.pane import Pane

SHARDS, STEP, STEPS, SAMPLES, KINDS = 16, 5 * MINUTE, 25, 200, 64
START = 1_769_601_600 * 1_000_000
END = START + STEPS * STEP
SERIES_A_PARTIAL = 500
FRESH = 4
"""Steps of which nothing is compacted yet: segments are closed every ten minutes, and then compacted."""

RULES = """\
version: 1
sources:
  events:
    topic: {app}-events
    format: json
    idle_after: 1h
    fields: {{time: t, latency: ms, latency_unit: ms, failed: {{status: ">= 500"}}, trace_id: trace}}
surfaces:
  voice-api: {{source: events, match: {{app: voice}}, group_by: [{{field: route, as: route}}], max_series: 200000}}
alerts:
  Hour: {{surface: voice-api, when: [error_ratio > 5%, p95 > 800ms], window: 1h, every: 5m, severity: page}}
  Now: {{surface: voice-api, when: [error_ratio > 20%, p95 > 900ms], window: 5m, severity: ticket}}
"""

DRAIN = """
import asyncio, sys, time
from aiokafka import AIOKafkaConsumer, TopicPartition
async def main():
    consumer = AIOKafkaConsumer(bootstrap_servers=sys.argv[1], isolation_level="read_committed",
                                enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    places = [TopicPartition(sys.argv[2], index) for index in range(int(sys.argv[3]))]
    consumer.assign(places)
    ends = await consumer.end_offsets(places)
    began, count, size = time.perf_counter(), 0, 0
    while any([await consumer.position(place) < ends[place] for place in places]):
        for records in (await consumer.getmany(timeout_ms=500, max_records=10_000)).values():
            count += len(records)
            size += sum(len(r.key) + len(r.value or b"") for r in records)
    print(time.perf_counter() - began, count, size)
    await consumer.stop()
asyncio.run(main())
"""


def kinds(config: Config, topics: Topics) -> list[Pane]:
    """Panes of one step, as the decoder and stage 1 make them of JSON events."""
    rng = np.random.default_rng(1)
    lines = []
    for kind in range(KINDS):
        for n, ms in enumerate(10 ** rng.uniform(0, 3, SAMPLES)):
            event = {"t": (START + n * 1_000_000) // 1000, "app": "voice", "route": f"k{kind}", "ms": round(ms, 3),
                     "status": 503 if n % 50 == 0 else 200, "trace": rng.bytes(16).hex()}  # fmt: skip
            lines.append(json.dumps(event).encode())
    tallies: Counter[tuple[str, ...]] = Counter()
    stage = AggregateStage(config, "events", 0, 1, 1, topics, Timing(0, uses_clock=False), tallies)
    stage.restore([], (0, 0), None)
    stage.freeze(EpochUs(0))
    records = [Record(n, 0, None, line) for n, line in enumerate(lines)]
    stage.apply(Fetched(records, len(records), len(records), EpochUs(0)))
    outbox = stage.freeze(EpochUs(0))
    partials = [partial_wire.decode(one.value) for one in outbox.records if one.topic == topics.partials]
    return [
        unpacked(cell.pane) for partial in partials for _, cells in partial.cells for cell in cells if cell.step == STEP
    ]


def moved(pane: Pane, by: int) -> Pane:
    """The same events at another time."""
    later = pane.copy()
    later.first, later.last = EpochUs(pane.first + by), EpochUs(pane.last + by)
    later.failing = tuple(one._replace(time=EpochUs(one.time + by)) for one in pane.failing)
    later.slowest = tuple(one._replace(time=EpochUs(one.time + by)) for one in pane.slowest)
    return later


def partials_of(config: Config, keys: list[SeriesKey], panes: list[Pane]) -> list[bytes]:
    """Two hours of one shard, step by step. No record of the source stands behind them: none is read again."""
    found, watermark, prev = [], START, None
    origin = Origin(config.rules.revision, config.rules.hash)
    for step in range(STEPS):
        slot = START // STEP + step
        for first in range(0, len(keys), SERIES_A_PARTIAL):
            chunk = keys[first : first + SERIES_A_PARTIAL]
            is_last = first + SERIES_A_PARTIAL >= len(keys)
            after = START + (step + 1) * STEP if is_last and step < STEPS - 1 else watermark
            cells = tuple(
                (key, (Cell(STEP, slot, pack(moved(panes[(first + n + step) % KINDS], step * STEP))),))
                for n, key in enumerate(chunk)
            )
            partial = Partial(
                source="events", partition=0, partitions=1, begin=0, end=0, sequence=len(found) + 1,
                before=EpochUs(watermark), time=PartitionTime(EpochUs(after), EpochUs(START - STEP), EpochUs(START)),
                origin=origin, prev=prev, cells=cells,
            )  # fmt: skip
            found += partial_wire.encode(partial)
            prev, watermark = 0, after
    return found


async def fill(bootstrap: str, rules: Path, topics: Topics, count: int) -> None:
    """Let stage 2 write the state of `count` series."""
    config, clock = load_rules([rules]), SystemClock()
    log = KafkaLog(KafkaSettings(bootstrap_servers=bootstrap))
    await log.start()
    source = config.rules.sources["events"]
    await log.create([TopicSpec(source.topic, 1, retention_ms=-1), *topics.specs(SHARDS, {"events": 1})])
    panes = kinds(config, topics)
    by_shard: list[list[SeriesKey]] = [[] for _ in range(SHARDS)]
    for number in range(count):
        key = SeriesKey("voice-api", (f"/v1/route-{number:06d}",))
        by_shard[shard_of(key, SHARDS)].append(key)
    publishing = Publishing(Publisher(topics.app_id, config.rules.hash, "0", "http://here"), 0)
    for shard, keys in enumerate(by_shard):
        stage = EvaluateStage(config.rules, shard, SHARDS, topics, publishing, Counter())
        task = Task(stage, log, clock, Unobserved())
        await task.take_over()
        for offset, value in enumerate(partials_of(config, keys, panes)):
            await log.append([Outgoing(topics.partials, None, value, shard)])
            rest: Fetched | None = Fetched([Record(offset, 0, None, value)], offset + 1, offset + 1, clock.now())
            while rest is not None:
                rest = task.apply(rest)
            if partial_wire.decode(value).time.watermark > START + (STEPS - FRESH) * STEP:
                await task.commit()
        await task.commit()
        await task.stop()
    progress = SourceProgress(
        sequence=1, topic=source.topic, partitions=1, next_offset=0, newest_pane_end=EpochUs(END), shards=SHARDS,
        time=PartitionTime(EpochUs(END - STEP), EpochUs(START - STEP), EpochUs(START)), revision=config.rules.revision,
        sent=dict.fromkeys(range(SHARDS), 0), config=config.rules.hash,
    )  # fmt: skip
    written = Outgoing(topics.progress("events"), progress_wire.key_of(0), progress_wire.encode(progress), 0)
    await log.append([written])
    await log.close()


async def multiply(bootstrap: str, rules: Path, made: Topics, topics: Topics, times: int) -> None:
    """Write what `made` holds once more for each of `times`, every series under another name."""
    config = load_rules([rules])
    log = KafkaLog(KafkaSettings(bootstrap_servers=bootstrap))
    await log.start()
    source = config.rules.sources["events"]
    await log.create([TopicSpec(source.topic, 1, retention_ms=-1), *topics.specs(SHARDS, {"events": 1})])
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, max_batch_size=900_000, linger_ms=20)
    await producer.start()
    stored = (await log.read(Partition(made.progress("events"), 0)))[-1].value
    progress = replace(progress_wire.decode(stored), topic=source.topic, config=config.rules.hash)
    await producer.send(topics.progress("events"), progress_wire.encode(progress), progress_wire.key_of(0), 0)
    for shard in range(SHARDS):
        partials = await log.read(Partition(made.partials, shard))
        for record in partials:
            await producer.send(topics.partials, record.value, record.key, shard)
        records = await log.read(Partition(made.state, shard))
        for record in records:
            for again in range(times if record.key != state_wire.META_KEY else 0):
                key, place = renamed(record.key, again)
                await producer.send(topics.state, record.value, key, place)
        # All of the partials were merged; without markers they end sooner.
        meta = replace(CODECS.state.meta.decode(records[-1].value), next_offset=len(partials))
        await producer.send(topics.state, state_wire.encode_meta(meta), state_wire.META_KEY, shard)
    await producer.stop()
    await log.close()


def renamed(key: bytes, number: int) -> tuple[bytes, int]:
    """The key of a state record for another series, and the shard of that one."""
    series, *rest = msgspec.msgpack.decode(key[1:])
    surface, (route,) = series
    series = SeriesKey(surface, (f"{route}-{number}",))
    return key[:1] + msgspec.msgpack.encode([series, *rest]), shard_of(series, SHARDS)


def restored(process: subprocess.Popen[bytes], began: float) -> float:
    """Seconds until every shard runs."""
    while process.poll() is None:
        try:
            if f'evaluator_tasks{{stage="evaluate",state="running"}} {SHARDS}.0' in scrape():
                return time.perf_counter() - began
        except OSError:
            pass
        time.sleep(0.1)
    return 0.0


def sum_of(metrics: str, name: str) -> float:
    return sum(float(line.split()[-1]) for line in metrics.splitlines() if line.startswith(name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--runs", type=int, default=3)
    wish = parser.parse_args()
    with closing(broker_module().Broker().start()) as broker, tempfile.TemporaryDirectory() as name:
        print(" series  records in the state    MB   read alone  start to all shards running   peak MB")
        made: tuple[int, Topics] | None = None
        for count in wish.series:
            app = f"restore-{count}"
            rules = Path(name) / f"{app}.yaml"
            rules.write_text(RULES.format(app=app))
            topics = Topics(app, f"{app}.alerts", f"{app}.status")
            began = time.perf_counter()
            if made is None or count % made[0]:
                asyncio.run(fill(broker.bootstrap, rules, topics, count))
                made = (count, topics)
            else:
                asyncio.run(multiply(broker.bootstrap, rules, made[1], topics, count // made[0]))
            print(f"(made in {time.perf_counter() - began:.0f} s)", file=sys.stderr)
            times, memory = [], 0.0
            for _ in range(wish.runs):
                drained = subprocess.run([sys.executable, "-c", DRAIN, broker.bootstrap, topics.state, str(SHARDS)],
                                         capture_output=True, text=True, check=True).stdout.split()  # fmt: skip
                began = time.perf_counter()
                with running(broker.bootstrap, rules, app) as process:
                    times.append(restored(process, began))
                    memory = max(memory, peak_mb(process.pid) if process.poll() is None else 0.0)
            times.sort()
            state = f"{int(drained[1]):>20,}  {int(drained[2]) / 1e6:>6.0f}  {float(drained[0]):>8.1f} s"
            spread = f"({times[0]:.1f} to {times[-1]:.1f})"
            line = f"{count:>7,}  {state}  {times[len(times) // 2]:>8.1f} s {spread}  {memory:>8.0f}"
            print(line, flush=True)


if __name__ == "__main__":
    main()

"""What an alert waits for, and what a look at the service costs, while events come in.

Delay: producers write events of now at a tenth, and at four fifths, of the rate that the service keeps up with beside
them on the same cores; every series fails and recovers every few seconds. The delay of a commit runs from the broker's
append of the record that moved the last watermark past a window's end to the acknowledged commit of the transition.

Scrape: a backlog of 10,000 series is read as fast as it can be, once left alone and once with a scrape and a page a
second.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from kafka import PARTITIONS, PORT, cpu_of, kafka_broker, peak_mb, records_seen, running, scrape, until
from table import Figure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SERIES = 50
TICK_S = 0.05
WARM_S = 8.0
PHASE_S = 4
MANY = 10_000
BACKLOG = 800_000
"""Of `MANY` series: half a minute of reading, which two turns with and without looks repeat."""

RULES = """\
version: 1
sources:
  load:
    topic: {topic}
    format: json
    out_of_orderness: 0s
    fields: {{time: time, latency: duration_ms, latency_unit: ms, failed: {{status: ">= 500"}}, trace_id: trace_id}}
surfaces:
  voice-api: {{source: load, group_by: [{{field: surface, as: api}}], max_series: 20000, owners: ["@bench"]}}
alerts:
  Errors: {{surface: voice-api, when: error_ratio > 50%, window: {window}, min_samples: 1, severity: page}}
  Slow: {{surface: voice-api, when: p95 > 60s, window: {window}, min_samples: 1, severity: page}}
"""


# -- producing ----------------------------------------------------------------------------------------------


async def produce(bootstrap: str, topic: str, rate: int, seconds: float) -> None:
    """Write `rate` events a second, each of the millisecond in which it is written."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, max_batch_size=900_000, linger_ms=0)
    await producer.start()
    tails = [
        [f',"surface":"voice-api-{series:03d}","duration_ms":{series * 3 + 9.5},"status":{status},"trace_id":'
         f'"{series:032x}","route":"/v1/call"}}'.encode() for series in range(SERIES)] for status in (200, 503)
    ]  # fmt: skip
    began, sent, number = time.perf_counter(), 0, 0
    while (elapsed := time.perf_counter() - began) < seconds:
        due = min(int(rate * elapsed) - sent, 40_000)
        for partition in range(PARTITIONS):
            batch, now = producer.create_batch(), int(time.time() * 1000)
            head, phase = f'{{"time":{now}'.encode(), now // 1000 // PHASE_S
            for _ in range(due // PARTITIONS):
                number += 1
                series = number % SERIES
                value = head + tails[(phase + series) % 2][series]
                if batch.append(key=None, value=value, timestamp=now) is None:
                    await producer.send_batch(batch, topic, partition=partition)
                    batch = producer.create_batch()
                    batch.append(key=None, value=value, timestamp=now)
            if batch.record_count():
                await producer.send_batch(batch, topic, partition=partition)
        sent += due // PARTITIONS * PARTITIONS
        await asyncio.sleep(TICK_S if due < rate * 2 * TICK_S else 0)
    await producer.stop()


@contextlib.contextmanager
def producing(bootstrap: str, topic: str, rate: int, seconds: float) -> Iterator[None]:
    """A process that produces meanwhile."""
    command = [sys.executable, __file__, bootstrap, topic, str(rate), str(seconds)]
    with subprocess.Popen(command) as process:
        yield
        process.terminate()


async def create(bootstrap: str, topic: str) -> None:
    """A topic whose records carry the broker's time."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    settings = {"message.timestamp.type": "LogAppendTime"}
    await admin.create_topics([NewTopic(topic, PARTITIONS, 1, topic_configs=settings)])
    await admin.close()


# -- delay --------------------------------------------------------------------------------------------------


class Delay(NamedTuple):
    """What was seen at one rate: events per second, seconds, and how many transitions there were."""

    rate: float
    p50: float
    p99: float
    loop_lag_p99: float
    transitions: int


def delays(bootstrap: str, folder: Path, rate: int, seconds: float) -> Delay:
    """Run a service of its own under a load of `rate`."""
    name = f"load-{rate}"
    asyncio.run(create(bootstrap, f"{name}-events"))
    rules = folder / f"{name}.yaml"
    rules.write_text(RULES.format(topic=f"{name}-events", window="1s"))
    with running(bootstrap, rules, name) as process:
        until(process, lambda text: f'evaluator_tasks{{stage="aggregate",state="running"}} {PARTITIONS}.0' in text)
        with producing(bootstrap, f"{name}-events", rate, WARM_S + seconds + 5):
            time.sleep(WARM_S)
            first, began, lags = scrape(), time.perf_counter(), []
            while time.perf_counter() - began < seconds:
                time.sleep(0.5)
                lags.append(value_of(last := scrape(), "evaluator_loop_lag_seconds"))
            taken = time.perf_counter() - began
    counts = {le: count - before for (le, count), (_, before) in zip(buckets(last), buckets(first), strict=True)}
    seen = (records_seen(last) - records_seen(first)) / taken
    lags.sort()
    return Delay(seen, quantile(counts, 0.5), quantile(counts, 0.99), lags[int(0.99 * len(lags))],
                 int(counts[float("inf")]))  # fmt: skip


def value_of(metrics: str, name: str) -> float:
    """The value of a gauge without labels."""
    return next(float(line.split()[-1]) for line in metrics.splitlines() if line.startswith(f"{name} "))


def buckets(metrics: str) -> list[tuple[float, float]]:
    """The cumulative counts of the commit delay by upper bound."""
    prefix = 'evaluator_commit_delay_seconds_bucket{le="'
    lines = [line[len(prefix) :] for line in metrics.splitlines() if line.startswith(prefix)]
    return [(float(bound), float(count)) for bound, _, count in (line.partition('"} ') for line in lines)]


def quantile(counts: dict[float, float], q: float) -> float:
    """The upper bound of the bucket that holds the quantile: no delay is told better than it is."""
    total = max(counts.values())
    if total == 0:
        return float("nan")
    return next((bound for bound, count in sorted(counts.items()) if count >= q * total), float("nan"))


# -- scrape -------------------------------------------------------------------------------------------------


async def fill(bootstrap: str, topic: str) -> None:
    """A backlog of twenty minutes of `MANY` series."""
    await create(bootstrap, topic)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, max_batch_size=900_000, linger_ms=20)
    await producer.start()
    start = int(time.time() * 1000) - 1_800_000
    for first in range(0, BACKLOG, 4_000):
        batch = producer.create_batch()
        for number in range(first, first + 4_000):
            at, series = start + number * 1_200_000 // BACKLOG, number * 7919 % MANY
            value = (f'{{"time":{at},"surface":"voice-api-{series:05d}",'
                     f'"duration_ms":{number % 997}.5,"status":200,"trace_id":"{number:032x}"}}')  # fmt: skip
            batch.append(key=None, value=value.encode(), timestamp=None)
        await producer.send_batch(batch, topic, partition=first // 4_000 % PARTITIONS)
    await producer.stop()


class Looked(NamedTuple):
    """A pass over the backlog: seconds of wall and CPU, peak MB; and of each look at it the seconds."""

    wall: float
    cpu: float
    memory: float
    scrapes: list[float]
    pages: list[float]
    lags: list[float]


def pass_over(bootstrap: str, folder: Path, number: int, *, look: bool) -> Looked:
    """Read the backlog; where `look` is set, scrape and open the page every second."""
    rules = folder / "many.yaml"
    rules.write_text(RULES.format(topic="many-events", window="5m"))
    scrapes: list[float] = []
    pages: list[float] = []
    lags: list[float] = []
    done = threading.Event()

    def looking() -> None:
        while not done.wait(1.0):
            for path, taken in (("/metrics", scrapes), ("/", pages)):
                began = time.perf_counter()
                with urllib.request.urlopen(f"http://127.0.0.1:{PORT}{path}", timeout=60) as answer:
                    body = answer.read().decode()
                taken.append(time.perf_counter() - began)
                if path == "/metrics":
                    lags.append(value_of(body, "evaluator_loop_lag_seconds"))

    with running(bootstrap, rules, f"many-{number}") as process:
        began = until(process, lambda text: records_seen(text) > 0)
        before = cpu_of(process.pid)
        watcher = threading.Thread(target=looking, daemon=True)
        if look:
            watcher.start()
        # Each look of ours is a scrape too: few of them.
        ended = until(process, lambda text: records_seen(text) >= BACKLOG, every=2.0)
        done.set()
        cpu, memory = cpu_of(process.pid) - before, peak_mb(process.pid)
        if look:
            watcher.join()
    return Looked(ended - began, cpu, memory, scrapes, pages, lags)


# -- all ----------------------------------------------------------------------------------------------------


def figures(runs: int) -> Iterator[Figure]:
    """What the table shows of it."""
    with kafka_broker() as bootstrap, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        most = delays(bootstrap, folder, 10_000_000, 15.0)
        for share in (0.1, 0.8):
            found = delays(bootstrap, folder, round(most.rate * share), 40.0)
            at = f"at {share:.0%} of the {most.rate:,.0f} events/s that it keeps up with beside producer and broker"
            told = {"transitions": found.transitions, "events_per_second": round(found.rate)}
            yield Figure("delay", f"commit delay p50 {at}", found.p50, "s", told)
            yield Figure("delay", f"commit delay p99 {at}", found.p99, "s", told)
            yield Figure("delay", f"loop lag p99 {at}", found.loop_lag_p99, "s", {})
        asyncio.run(fill(bootstrap, "many-events"))
        turns = [
            (pass_over(bootstrap, folder, 2 * n, look=False), pass_over(bootstrap, folder, 2 * n + 1, look=True))
            for n in range(runs)
        ]
        looked = [with_looks for _, with_looks in turns]
        several: tuple[tuple[str, Callable[[Looked], list[float]]], ...] = (
            ("scrape", lambda each: each.scrapes),
            ("page", lambda each: each.pages),
            ("loop lag", lambda each: each.lags),
        )
        for what, of in several:
            values = sorted(value for each in looked for value in of(each))
            more = {"median": round(statistics.median(values), 3), "looks": len(values)}
            yield Figure(
                "scrape", f"{what} of {MANY:,} series at full rate, p99", values[int(0.99 * len(values))], "s", more
            )
        cost = statistics.median(mine.cpu / alone.cpu for alone, mine in turns)
        rates = {"events_per_second": round(BACKLOG / statistics.median(alone.wall for alone, _ in turns))}
        what = f"CPU of the stream with a scrape and a page a second, of it alone, {MANY:,} series"
        yield Figure("scrape", what, cost, "", rates)
        memory = max(each.memory for pair in turns for each in pair)
        yield Figure("scrape", f"`run` over a backlog of {MANY:,} series, peak", memory, "MB", {})


if __name__ == "__main__":
    where, events, per_second, how_long = sys.argv[1:]
    asyncio.run(produce(where, events, int(per_second), float(how_long)))

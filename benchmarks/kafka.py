"""`run` on a real Kafka over the benchmark job, in turns with a raw drain of the topic and with a loop by hand.

The floor is aiokafka's own `getmany` with nothing decoded: what any Python consumer pays. A run counts only if its
firings are exactly those of the job. Needs Java and Maven (tools/broker).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import job
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from table import Row, of_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PARTITIONS = 4
BATCH_BYTES = 900_000
PORT = 10195
MINUTES = 60
_TICKS = os.sysconf("SC_CLK_TCK")

DRAIN = """
import asyncio, sys, time
from aiokafka import AIOKafkaConsumer, TopicPartition
async def main():
    consumer = AIOKafkaConsumer(bootstrap_servers=sys.argv[1], auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    places = [TopicPartition(sys.argv[3], index) for index in range(int(sys.argv[4]))]
    consumer.assign(places)
    left, wall, cpu = int(sys.argv[2]), time.perf_counter(), time.process_time()
    while left > 0:
        left -= sum(map(len, (await consumer.getmany(timeout_ms=500, max_records=10_000)).values()))
    print(time.perf_counter() - wall, time.process_time() - cpu)
    await consumer.stop()
asyncio.run(main())
"""


class Pass(NamedTuple):
    """One measured pass: seconds of wall and CPU, peak MB, and what the metrics say."""

    wall: float
    cpu: float
    memory: float
    metrics: str = ""


@contextmanager
def kafka_broker() -> Iterator[str]:
    """A broker of its own: its address."""
    broker = broker_module().Broker().start()
    try:
        yield broker.bootstrap
    finally:
        broker.close()


def broker_module() -> object:
    """tools/broker/broker.py, which is in no package."""
    path = Path(__file__).parents[1] / "tools" / "broker" / "broker.py"
    spec = importlib.util.spec_from_file_location("kafka_broker", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def fill(bootstrap: str, files: list[Path], topic: str = "bench-events", codec: str | None = None) -> None:
    """Write the job's events, their time as the record's, a file to a partition."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    # The job is in the past: with a retention it would be deleted while it is read.
    await admin.create_topics([NewTopic(topic, len(files), 1, topic_configs={"retention.ms": "-1"})])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, max_batch_size=BATCH_BYTES, linger_ms=20,
                                compression_type=codec)  # fmt: skip
    await producer.start()
    for index, path in enumerate(files):
        batch = producer.create_batch()
        with path.open("rb") as lines:
            for line in lines:
                at = int(line[8:21])
                if batch.append(key=None, value=line[:-1], timestamp=at) is None:
                    await producer.send_batch(batch, topic, partition=index)
                    batch = producer.create_batch()
                    batch.append(key=None, value=line[:-1], timestamp=at)
        await producer.send_batch(batch, topic, partition=index)
    await producer.flush()
    await producer.stop()


def drained(bootstrap: str, count: int, topic: str = "bench-events", partitions: int = PARTITIONS) -> Pass:
    """The floor."""
    command = [sys.executable, "-c", DRAIN, bootstrap, str(count), topic, str(partitions)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    wall, cpu = map(float, done.stdout.split())
    return Pass(wall, cpu, 0.0)


class Ended(Exception):  # not an error by itself: `running` says what it was
    """The process that is waited for is no more."""


@contextmanager
def running(bootstrap: str, rules: Path, app: str, port: int = PORT) -> Iterator[subprocess.Popen[bytes]]:
    """An `evaluator run` of an app of its own."""
    environ = {
        **os.environ, "EVALUATOR_APP_ID": app, "EVALUATOR_KAFKA__BOOTSTRAP_SERVERS": bootstrap,
        "EVALUATOR_KAFKA__CREATE_TOPICS": "true", "EVALUATOR_WEB__LISTEN": f"127.0.0.1:{port}",
        "EVALUATOR_TOPICS__ALERTS": f"{app}.alerts", "EVALUATOR_TOPICS__STATUS": f"{app}.status",
        "EVALUATOR_LOG__LEVEL": "warning",
    }  # fmt: skip
    evaluator = str(Path(sys.executable).with_name("evaluator"))
    said = rules.with_suffix(f".{port}.log")
    with said.open("wb") as log:
        process = subprocess.Popen([evaluator, "run", "--config", str(rules)], env=environ, stderr=log)
    try:
        with contextlib.suppress(Ended):
            yield process
        if process.poll() is not None:
            sys.exit(f"evaluator run ended with {process.returncode}: {said.read_text()[-2000:]}")
    finally:
        process.terminate()
        process.wait()


def ran(bootstrap: str, folder: Path, count: int, app: str) -> tuple[Pass, dict[str, int]]:
    """One `evaluator run` from an empty app to the end of the topic, and to the last decided window."""
    with running(bootstrap, folder / "rules.yaml", app) as process:
        began = until(process, lambda text: records_seen(text) > 0)
        before = cpu_of(process.pid)
        ended = until(process, lambda text: records_seen(text) >= count)
        cpu, memory = cpu_of(process.pid) - before, peak_mb(process.pid)
        firings = asyncio.run(_firings(bootstrap, f"{app}.alerts", folder))
        return Pass(ended - began, cpu, memory, scrape()), firings


async def delayed(bootstrap: str, folder: Path) -> str:
    """The metrics after a minute of event time each half second, with a transition every second minute."""
    rules = folder / "delay.yaml"
    rules.write_text(job.RULES.replace("bench-events", "delay-events").replace("consecutive: 3", "consecutive: 1"))
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    # The broker's time of the append is where the delay begins.
    settings = {"retention.ms": "-1", "message.timestamp.type": "LogAppendTime"}
    await admin.create_topics([NewTopic("delay-events", PARTITIONS, 1, topic_configs=settings)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    with running(bootstrap, rules, "delay") as process:
        until(process, lambda text: 'evaluator_tasks{stage="aggregate",state="running"} 4.0' in text)
        for number in range(MINUTES * 4):
            at = job.START_MS + number * 15_000
            for partition in range(PARTITIONS):
                status = 503 if number // 4 % 2 else 200
                event = f'{{"time":{at},"surface":"voice-api-{number % 4:03d}","duration_ms":9,"status":{status}}}'
                await producer.send("delay-events", event.encode(), partition=partition)
            await asyncio.sleep(0.125)
        await asyncio.sleep(3)
        await producer.stop()
        return scrape()


def until(
    process: subprocess.Popen[bytes], reached: Callable[[str], bool], every: float = 0.25, port: int = PORT
) -> float:
    """When the metrics said so, as far as a look every `every` seconds tells."""
    while process.poll() is None:
        try:
            if reached(scrape(port)):
                return time.perf_counter()
        except OSError:
            pass
        time.sleep(every)
    raise Ended


def scrape(port: int = PORT) -> str:
    """The metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return answer.read().decode()


def records_seen(text: str) -> float:
    """How many records were judged or rejected so far."""
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("evaluator_records_total"))


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def peak_mb(pid: int) -> float:
    """The most memory that a process has had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


async def _firings(bootstrap: str, topic: str, folder: Path) -> dict[str, int]:
    """Wait until silence has closed the last windows, at most a minute."""
    expected = json.loads((folder / "expected.json").read_text())
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, isolation_level="read_committed",
                                auto_offset_reset="earliest", enable_auto_commit=False)  # fmt: skip
    await consumer.start()
    consumer.assign([TopicPartition(topic, 0)])
    found: Counter[str] = Counter()
    deadline = time.monotonic() + 60
    while dict(found) != {rule: n for rule, n in expected.items() if n} and time.monotonic() < deadline:
        for records in (await consumer.getmany(timeout_ms=500)).values():
            alerts = [json.loads(record.value) for record in records]
            # Of a backlog that is months old we are blind until it is read, and say so: that is not of the job.
            found.update(a["alertname"] for a in alerts if a["status"] == "firing" and a["alertname"] in expected)
    await consumer.stop()
    return dict(found)


def _mean(metrics: str, name: str) -> str:
    """Mean of a histogram by its labels, in milliseconds."""
    sums = {line.rsplit(" ", 1)[0]: float(line.split()[-1]) for line in metrics.splitlines() if line.startswith(name)}
    parts = []
    for key, total in sums.items():
        if key.startswith(f"{name}_sum"):
            times = sums[key.replace("_sum", "_count")]
            label = key.split('"')[1] if '"' in key else ""
            parts.append(f"{label} {total / times * 1e3:.1f} ms ({times:.0f})".strip() if times else f"{label} -")
    return ", ".join(parts)


def by_hand(bootstrap: str, count: int, number: int) -> Pass:
    """The loop of benchmarks/by_hand.py."""
    script = str(Path(__file__).with_name("by_hand.py"))
    done = subprocess.run([sys.executable, script, bootstrap, str(count), f"by-hand-{number}"], capture_output=True,
                          text=True, check=True)  # fmt: skip
    said = json.loads(done.stdout)
    return Pass(said["wall"], said["cpu"], 0.0)


def least(bootstrap: str, count: int, expected: dict[str, int]) -> Pass:
    """The bare loop of benchmarks/least.py. Ends the program where it found other firings."""
    script = str(Path(__file__).with_name("least.py"))
    done = subprocess.run([sys.executable, script, bootstrap, str(PARTITIONS), str(count)], capture_output=True,
                          text=True, check=True)  # fmt: skip
    said = json.loads(done.stdout)
    if said["fired"] != expected:
        sys.exit(f"the least found {said['fired']} instead of {expected}")
    return Pass(said["wall"], said["cpu"], 0.0)


class Taken(NamedTuple):
    """Every pass over one topic, in turns: the floor, the loop by hand, the least that must be done, and ours."""

    floors: list[Pass]
    loops: list[Pass]
    leasts: list[Pass]
    ours: list[Pass]
    exact: bool
    delays: str


def measured(count: int, runs: int) -> Taken:
    """All passes over the job on a broker of its own."""
    floors, loops, leasts, ours, exact = [], [], [], [], True
    with kafka_broker() as bootstrap, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = job.write(folder, count)
        asyncio.run(fill(bootstrap, made.files))
        for number in range(runs):
            floors.append(drained(bootstrap, made.count))
            loops.append(by_hand(bootstrap, made.count, number))
            leasts.append(least(bootstrap, made.count, made.firings))
            ours_now, firings = ran(bootstrap, folder, made.count, f"bench-{number}")
            ours.append(ours_now)
            exact = exact and firings == {rule: n for rule, n in made.firings.items() if n}
        delays = asyncio.run(delayed(bootstrap, folder))
    return Taken(floors, loops, leasts, ours, exact, delays)


def rows(count: int, runs: int) -> Iterator[Row]:
    """What the table shows of it. Ends the program where a run was not exact."""
    taken = measured(count, runs)
    if not taken.exact:
        sys.exit("a run on Kafka found other firings than the job holds")

    drain, loop, bare, ours = taken.floors, taken.loops, taken.leasts, taken.ours
    by_drain = [(mine.wall, base.wall) for mine, base in zip(ours, drain, strict=True)]
    of_a_core = [(mine.cpu, base.cpu) for mine, base in zip(ours, drain, strict=True)]
    by_loop = [(mine.cpu, base.cpu) for mine, base in zip(ours, loop, strict=True)]
    loop_by_drain = [(mine.wall, base.wall) for mine, base in zip(loop, drain, strict=True)]
    bare_by_drain = [(mine.wall, base.wall) for mine, base in zip(bare, drain, strict=True)]
    bare_by_loop = [(mine.cpu, base.cpu) for mine, base in zip(bare, loop, strict=True)]
    memory = round(statistics.median(each.memory for each in ours))
    yield of_turns("Kafka", "`run`, exactly once", "events", count, by_drain, "getmany alone", peak_MB=memory)
    yield of_turns("Kafka", "`run`, exactly once, of a core", "events", count, of_a_core, "getmany alone")
    yield of_turns("Kafka", "`run`, exactly once, of a core", "events", count, by_loop, "the loop by hand")
    yield of_turns("Kafka", "the loop by hand", "events", count, loop_by_drain, "getmany alone")
    yield of_turns("Kafka", "the least: read, decode, count", "events", count, bare_by_drain, "getmany alone")
    yield of_turns("Kafka", "the least, of a core", "events", count, bare_by_loop, "the loop by hand")
    print(f"restore of a task, mean            {_mean(taken.ours[-1].metrics, 'evaluator_restore_duration_seconds')}")
    print(f"commit under full load, mean       {_mean(taken.ours[-1].metrics, 'evaluator_commit_duration_seconds')}")
    print(f"commit at a low rate, mean         {_mean(taken.delays, 'evaluator_commit_duration_seconds')}")
    print(f"event appended to alert committed  {_mean(taken.delays, 'evaluator_commit_delay_seconds')}")

"""A service under test: its topics on a real Kafka, processes of it, events for it, and what `replay` makes of them."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from evaluator.cli.healthcheck import get
from evaluator.runtime.log.kafka import KafkaLog
from evaluator.runtime.log.port import Outgoing, Partition, TopicSpec
from evaluator.runtime.preflight import source_partitions
from evaluator.runtime.settings import KafkaSettings
from evaluator.runtime.topics import Topics
from evaluator.wire import progress as progress_wire
from evaluator.wire.codecs import CODECS
from evaluator.wire.config.load import load_rules

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

    from support.cluster import Cluster

MINUTE_US = 60_000_000
START_US = 1_769_601_600_000_000
PATIENCE_S = 60.0
SHARDS = 4

TOPIC = "calls-topic"
"""Stands for the topic in rules."""

RULES = f"""\
version: 1
sources:
  calls:
    topic: {TOPIC}
    format: json
    out_of_orderness: 5s
    idle_after: 10s
    fields: {{time: time, latency: ms, latency_unit: ms, failed: {{status: ">= 500"}}, trace_id: trace}}
surfaces:
  voice-api: {{source: calls, group_by: [region], owners: ["@on-call"]}}
alerts:
  Failing: {{surface: voice-api, when: error_ratio > 20%, window: 1m, consecutive: 2, min_samples: 1, severity: page}}
  Slow: {{surface: voice-api, when: p95 > 500ms, window: 1m, consecutive: 2, min_samples: 1, severity: ticket}}
"""


def event(at_us: int, region: str, *, bad: bool = False, slow: bool = False) -> bytes:
    """One request."""
    trace = f"{at_us:032x}"
    return json.dumps(
        {"time": at_us // 1000, "region": region, "ms": 900 if slow else 90, "status": 503 if bad else 200,
         "trace": trace}
    ).encode()  # fmt: skip


def minutes(first: int, last: int, *, bad: bool = False, slow: bool = False) -> list[bytes]:
    """Ten requests of each region in each minute of [first, last)."""
    return [
        event(START_US + minute * MINUTE_US + second * 1_000_000, region, bad=bad and second % 2 == 0, slow=slow)
        for minute in range(first, last)
        for second in range(0, 60, 6)
        for region in ("kigali", "goma")
    ]


class Process:
    """One running `evaluator run`."""

    def __init__(self, popen: subprocess.Popen[bytes], log: Path, port: int) -> None:
        self.popen, self.log, self.port = popen, log, port

    def signal(self, number: int) -> None:
        """Send a signal."""
        self.popen.send_signal(number)

    async def ended(self, seconds: float = PATIENCE_S) -> int:
        """Wait for its end: the exit code, negative for a signal."""
        code = await asyncio.to_thread(self.popen.wait, seconds)
        return int(code)

    def output(self) -> str:
        """What it logged."""
        return self.log.read_text(errors="replace")

    async def ready(self) -> tuple[int, str]:
        """What the readiness probe is told: status and words; 0 where nobody answers."""
        return await asyncio.to_thread(get, f"http://127.0.0.1:{self.port}", "/-/ready")

    async def status(self) -> dict[str, Any]:
        """What the API says of it."""
        code, said = await asyncio.to_thread(get, f"http://127.0.0.1:{self.port}", "/api/v1/status")
        assert code == http.client.OK, said
        return dict(orjson.loads(said)["data"])


class Service:
    """One app on one cluster."""

    def __init__(
        self, cluster: Cluster, folder: Path, *, rules: str = RULES, topic: str = TOPIC, partitions: int = 2,
        shards: int = SHARDS, source_settings: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.app = cluster.name("app")
        self.source = f"{self.app}.calls"
        self.rules = folder / "rules.yaml"
        self.rules.write_text(rules.replace(topic, self.source))
        self.topics = Topics(self.app, f"{self.app}.alerts", f"{self.app}.status", f"{self.app}.verdicts",
                             f"{self.app}.dlq", f"{self.app}.control")  # fmt: skip
        self.partitions, self.shards = partitions, shards
        self._source_settings = source_settings or {}
        self.log: KafkaLog
        self.source_name: str
        self.topic_of: dict[str, str] = {}
        """The topic of each source, once it runs."""
        self.bootstrap, self._session_ms, self._folder = cluster.bootstrap, cluster.session_ms, folder
        self.codecs = CODECS
        self._written: list[list[bytes]] = [[] for _ in range(partitions)]
        self._processes: list[Process] = []

    @property
    def session_s(self) -> float:
        """After which a silent process loses its partitions."""
        return self._session_ms / 1000

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Service]:
        """With its topics made; every process that is left is killed at the end. No decoder had a bug."""
        self.log = KafkaLog(KafkaSettings(bootstrap_servers=self.bootstrap))
        await self.log.start()
        try:
            config = load_rules([self.rules])
            self.topic_of = {name: source.topic for name, source in config.rules.sources.items()}
            await self.log.create(
                [
                    TopicSpec(topic, self.partitions, retention_ms=-1, settings=self._source_settings)
                    for topic in self.topic_of.values()
                ]
            )
            self.source_name = next(iter(self.topic_of))
            await self.log.create(self.topics.specs(self.shards, await source_partitions(self.log, config)))
            yield self
        finally:
            for process in self._processes:
                if process.popen.poll() is None:
                    process.signal(signal.SIGKILL)
                    process.popen.wait()
            await self.log.close()
            bugs = [line for each in self._processes for line in each.output().splitlines() if "decoder.bug" in line]
            assert not bugs, bugs[0]

    def start(self, failpoint: dict[str, Any] | None = None, **settings: Any) -> Process:
        """Start a process."""
        command = [sys.executable, str(Path(__file__).with_name("process.py"))]
        options = [str(self._session_ms)] + ([] if failpoint is None else [json.dumps(failpoint)])
        return self._start(lambda file: [*command, str(self.rules), file, *options], settings)

    def run(self, stderr: int | None = None, **settings: Any) -> Process:
        """The command as a user types it (session: 20 s); `stderr` instead of the file that `output` reads."""
        command = [sys.executable, "-m", "evaluator", "run", "--config", str(self.rules), "--settings"]
        return self._start(lambda file: [*command, file], settings, stderr)

    def _start(
        self, command: Callable[[str], list[str]], settings: dict[str, Any], stderr: int | None = None
    ) -> Process:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        number = len(self._processes)
        file = self._folder / f"settings-{number}.yaml"
        names = {"alerts": self.topics.alerts, "status": self.topics.status, "verdicts": self.topics.verdicts,
                 "dlq": self.topics.dlq, "control": self.topics.control}  # fmt: skip
        file.write_text(json.dumps({
            "app_id": self.app, "shards": self.shards, "topics": names, "web": {"listen": f"127.0.0.1:{port}"},
            # Events of these tests are of long ago: by the clock nothing is seen of today.
            "blind_alert": "off", "kafka": {"bootstrap_servers": self.bootstrap}, **settings,
        }))  # fmt: skip
        log = self._folder / f"process-{number}.log"
        with log.open("wb") as stream:
            popen = subprocess.Popen(command(str(file)), stdout=stream, stderr=stream if stderr is None else stderr,
                                     env={**os.environ, "PYTHONWARNINGS": ""})  # fmt: skip
        process = Process(popen, log, port)
        self._processes.append(process)
        return process

    async def write(self, events: Sequence[bytes], partition: int | None = None) -> None:
        """Append events, in turn to all partitions or to one."""
        placed = [(n % self.partitions if partition is None else partition, value) for n, value in enumerate(events)]
        for index, value in placed:
            self._written[index].append(value)
        await self.log.append([Outgoing(self.source, None, value, index) for index, value in placed])

    async def grow(self) -> None:
        """One more partition of the source."""
        self.partitions += 1
        self._written.append([])
        await self.log.grow(self.source, self.partitions)

    async def fill(self, partition: int, lines: Iterable[bytes]) -> None:
        """Append many lines to a partition."""
        waiting: list[Outgoing] = []
        for line in lines:
            waiting.append(Outgoing(self.source, None, line[:-1], partition))
            if len(waiting) == 20_000:
                await self.log.append(waiting)
                waiting = []
        await self.log.append(waiting)

    async def progress(self) -> dict[int, int]:
        """How far stage 1 has committed, by partition."""
        found = {}
        for index in range(self.partitions):
            place = Partition(self.topics.progress(self.source_name), index)
            if index >= await self.log.partitions(place.topic):
                continue  # of a partition that was added and that nobody has taken over yet
            records = await self.log.read(place)
            if records:
                found[index] = progress_wire.decode(records[-1].value or b"", self.codecs.source_progress).next_offset
        return found

    async def metric(self, process: Process, name: str) -> float:
        """The sum of a counter over its labels."""

        def scrape() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{process.port}/metrics", timeout=10) as answer:
                return str(answer.read().decode())

        lines = (await asyncio.to_thread(scrape)).splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    def replayed(self, *options: str) -> list[dict[str, Any]]:
        """The alerts that `replay` makes of everything written."""
        files = []
        for index, values in enumerate(self._written):
            file = self._folder / f"partition-{index}"
            file.write_bytes(b"".join(value + b"\n" for value in values))
            files.append(str(file))
        return self.replay_files(files, *options)

    def replay_files(self, files: Sequence[str], *options: str) -> list[dict[str, Any]]:
        """The alerts that `replay` makes of these files, one a partition."""
        command = [sys.executable, "-m", "evaluator", "replay", "--config", str(self.rules), "-o", "json", *options]
        done = subprocess.run([*command, *files], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return [orjson.loads(line) for line in done.stdout.splitlines()]

    async def alerts(self) -> list[dict[str, Any]]:
        """What a read_committed reader of the alerts topic sees."""
        records = await self.log.read(Partition(self.topics.alerts, 0))
        return [orjson.loads(record.value or b"") for record in records]

    async def until(self, alerts: int, *watched: Process) -> list[dict[str, Any]]:
        """The alerts, once there are so many; a watched process that ends is a failure."""
        deadline = time.monotonic() + PATIENCE_S
        while len(found := await self.alerts()) < alerts:
            for process in watched:
                assert process.popen.poll() is None, process.output()
            logs = "\n".join(process.output() for process in self._processes[-2:])
            assert time.monotonic() < deadline, f"{len(found)} of {alerts} alerts after {PATIENCE_S} s:\n{logs}"
            await asyncio.sleep(0.2)
        return found

    async def aborted(self, partitions: Sequence[Partition]) -> int:
        """How many records only a read_uncommitted reader sees."""
        hidden = 0
        for partition in partitions:
            committed = {record.offset for record in await self.log.read(partition)}
            everything = {record.offset for record in await self.log.read(partition, committed=False)}
            hidden += len(everything - committed)
        return hidden

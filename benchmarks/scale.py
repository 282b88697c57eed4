"""What it costs to add and to remove a replica: 1 to 8 processes of `evaluator run` on one broker, and back to one.

Per step: how many of the 16 source partitions and 16 shards changed hands, beside how many had to; how many were
restored; and how long it took until a window that ended after the change was decided on every shard. A joining process
counts from the moment when its start-up checks are over, a leaving one from its SIGTERM. Needs Java and Maven
(tools/broker).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from kafka import broker_module

from evaluator.cli.healthcheck import get
from evaluator.wire.instant import instant

if TYPE_CHECKING:
    from collections.abc import Iterable

PARTITIONS = SHARDS = 16
MOST = 8
LIMIT_S = 180.0
LOOK_S = 0.2
EVENT_EVERY_S = 0.25
ZONES = 64
OUT = Path(__file__).parents[1] / "docs" / "results" / "scale.json"

RULES = """\
version: 1
sources:
  scale: {topic: scale-events, format: json, out_of_orderness: 0s, fields: {time: t, failed: {s: ">= 500"}}}
surfaces:
  api: {source: scale, group_by: [zone], owners: ["@bench"]}
alerts:
  Failing: {surface: api, when: error_ratio > 50%, window: 1s, severity: page}
"""

Place = tuple[str, int]


@dataclass
class Step:
    """One replica more or less. Counts are of source partitions and shards together, times in seconds."""

    change: str
    replicas: int
    moved: int
    needed: int
    restored: int
    seconds: float
    largest_share: int
    load: float


class Replica(NamedTuple):
    """A process and where it listens."""

    popen: subprocess.Popen[bytes]
    url: str


class Seen(NamedTuple):
    """What all replicas say at one moment: who runs what, how far each shard decided, and restores by replica."""

    owners: dict[Place, list[int]]
    shards: dict[Place, int]
    restores: dict[int, int]

    def at_work(self) -> int:
        """How many replicas have something of both stages: one that joins is in the two groups one after the other."""
        by_topic: dict[str, set[int]] = {}
        for (topic, _), owners in self.owners.items():
            by_topic.setdefault(topic, set()).update(owners)
        return len(set[int].intersection(*by_topic.values())) if by_topic else 0

    def is_whole(self) -> bool:
        """Whether everything runs, each partition once."""
        return len(self.owners) == PARTITIONS + SHARDS and all(len(owners) == 1 for owners in self.owners.values())


class Fleet:
    """The broker's topics, traffic on them, and the replicas."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.replicas: list[Replica] = []
        self.all: list[Replica] = []
        self._bootstrap, self._folder = bootstrap, folder
        (folder / "rules.yaml").write_text(RULES)

    async def prepare(self) -> None:
        """The source's topic; the rest is made by the first replica."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        await admin.start()
        await admin.create_topics([NewTopic("scale-events", PARTITIONS, 1)])
        await admin.close()

    async def traffic(self) -> None:
        """An event a quarter of a second in each partition, of now."""
        producer = AIOKafkaProducer(bootstrap_servers=self._bootstrap)
        await producer.start()
        try:
            number = 0
            while True:
                now = time.time_ns() // 1_000_000
                for partition in range(PARTITIONS):
                    number += 1
                    event = f'{{"t":{now},"zone":"z{number * 7 % ZONES}","s":200}}'
                    await producer.send("scale-events", event.encode(), partition=partition)
                await asyncio.sleep(EVENT_EVERY_S)
        finally:
            await producer.stop()

    def start(self) -> Replica:
        """One replica more."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            listen = f"127.0.0.1:{probe.getsockname()[1]}"
        environ = {
            **os.environ, "EVALUATOR_APP_ID": "scale", "EVALUATOR_KAFKA__BOOTSTRAP_SERVERS": self._bootstrap,
            "EVALUATOR_KAFKA__CREATE_TOPICS": "true", "EVALUATOR_WEB__LISTEN": listen, "EVALUATOR_SHARDS": str(SHARDS),
        }  # fmt: skip
        command = [
            str(Path(sys.executable).with_name("evaluator")),
            "run",
            "--config",
            str(self._folder / "rules.yaml"),
        ]
        with (self._folder / f"{listen}.log").open("wb") as log:
            replica = Replica(subprocess.Popen(command, env=environ, stdout=log, stderr=log), f"http://{listen}")
        self.replicas.append(replica)
        self.all.append(replica)
        return replica

    async def look(self) -> Seen:
        """Ask every replica."""
        answers = await asyncio.gather(*(asyncio.to_thread(get, one.url, "/api/v1/status") for one in self.replicas))
        seen = Seen({}, {}, {})
        for replica, (code, said) in zip(self.replicas, answers, strict=True):
            if replica.popen.poll() is not None:
                sys.exit(f"a replica ended with {replica.popen.poll()}")
            if code != 200:  # not there yet
                continue
            data = json.loads(said)["data"]
            seen.restores[replica.popen.pid] = data["restores"]["count"]
            for task in data["tasks"]:
                place = (task["topic"], task["partition"])
                if task["owner"] == data["replica"] and task["state"] == "running":
                    seen.owners.setdefault(place, []).append(replica.popen.pid)
                    if task["stage"] == "evaluate" and task["watermark"]:
                        seen.shards[place] = instant(task["watermark"], "us")
        return seen

    async def evaluated(self, since: float) -> Seen:
        """Wait until every shard has decided what ended after `since`, a Unix time."""
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            seen = await self.look()
            if (
                seen.is_whole()
                and seen.at_work() == len(self.replicas)
                and len(seen.shards) == SHARDS
                and min(seen.shards.values()) > since * 1e6
            ):
                return seen
            await asyncio.sleep(LOOK_S)
        sys.exit(f"not everything was evaluated within {LIMIT_S:.0f} s")

    async def joins(self) -> float:
        """Start a replica; the time at which it joins."""
        replica = self.start()
        while get(replica.url, "/-/ready")[0] == 0:
            if replica.popen.poll() is not None:
                sys.exit(f"a replica ended with {replica.popen.poll()}")
            await asyncio.sleep(LOOK_S / 4)
        return time.time()

    async def leaves(self) -> tuple[float, int]:
        """Stop the oldest replica in an orderly way; the time at which it was asked to, and who it was."""
        replica = self.replicas.pop(0)
        asked = time.time()
        replica.popen.send_signal(signal.SIGTERM)
        return asked, replica.popen.pid


def _step(change: str, needed: int, before: Seen, after: Seen, seconds: float) -> Step:
    moved = sum(1 for place, owners in after.owners.items() if before.owners.get(place) != owners)
    restored = sum(count - before.restores.get(pid, 0) for pid, count in after.restores.items())
    shares = Counter(pid for owners in after.owners.values() for pid in owners)
    return Step(change, len(after.restores), moved, needed, restored, round(seconds, 1), max(shares.values()),
                round(os.getloadavg()[0], 1))  # fmt: skip


async def measured(place: Fleet, most: int) -> list[Step]:
    """Up to `most` replicas and back to one."""
    steps = []
    began = await place.joins()
    seen = await place.evaluated(began)
    steps.append(_step("first", PARTITIONS + SHARDS, Seen({}, {}, {}), seen, time.time() - began))
    seen = await _quiet(place)
    began = time.time()
    steps.append(_step("none", 0, seen, await place.evaluated(began), time.time() - began))
    for count in range(2, most + 1):
        before, began = seen, await place.joins()
        seen = await place.evaluated(began)
        # The fair share of a new one, rounded down in each group, has to move to it and nothing else.
        needed = PARTITIONS // count + SHARDS // count
        steps.append(_step("join", needed, before, seen, time.time() - began))
        seen = await _quiet(place)
    for _ in range(most - 1):
        before = seen
        began, leaver = await place.leaves()
        seen = await place.evaluated(began)
        # What the leaver had has to move, and nothing else.
        needed = sum(owners == [leaver] for owners in before.owners.values())
        steps.append(_step("leave", needed, before, seen, time.time() - began))
        seen = await _quiet(place)
    return steps


async def _quiet(place: Fleet) -> Seen:
    """A moment in which nothing changes, and what is true then."""
    await asyncio.sleep(2.0)
    return await place.evaluated(time.time())


async def run(bootstrap: str, most: int) -> list[Step]:
    """The whole of it, on a broker of its own."""
    with tempfile.TemporaryDirectory() as name:
        place = Fleet(bootstrap, Path(name))
        writing: asyncio.Task[None] | None = None
        try:
            await place.prepare()
            writing = asyncio.create_task(place.traffic(), name="traffic")
            return await measured(place, most)
        finally:
            if writing is not None:
                writing.cancel()
            for replica in place.all:
                replica.popen.terminate()
            for replica in place.all:
                replica.popen.wait()


def table(steps: Iterable[Step]) -> list[str]:
    """For people, in Markdown."""
    rows = [
        f"| {one.change} | {one.replicas} | {one.moved} | {one.needed} | {one.restored} | {one.largest_share} "
        f"| {one.seconds:.1f} |"
        for one in steps
    ]
    return ["| change | replicas | moved | had to | restored | largest share | s until all is evaluated |",
            "| --- | --- | --- | --- | --- | --- | --- |", *rows]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--most", type=int, default=MOST)
    parser.add_argument("--out", type=Path, default=OUT)
    wish = parser.parse_args()
    broker = broker_module().Broker().start()
    try:
        steps = asyncio.run(run(broker.bootstrap, wish.most))
    finally:
        broker.close()
    changes = [step for step in steps if step.change in {"join", "leave"}]
    moved, needed = sum(step.moved for step in changes), sum(step.needed for step in changes)
    print("\n".join(table(steps)))
    print(f"moved {moved}, had to move {needed}: {moved / max(needed, 1):.2f} times as many as needed")
    found = {"date": datetime.now(UTC).date().isoformat(), "cores": os.cpu_count(), "moved": moved, "needed": needed,
             "steps": [asdict(step) for step in steps]}  # fmt: skip
    wish.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

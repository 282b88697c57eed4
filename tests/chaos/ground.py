"""Where a scenario takes place: a broker of its own, the proxy before it, one service, traffic, and the verdict."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kafka.service import RULES, SHARDS, Process, Service, minutes
from support.cluster import OURS_MS, Cluster, own_broker

from chaos.history import gaps, judge
from chaos.proxy import Proxy
from chaos.scenario import Outcome
from evaluator.errors import StateRefused
from evaluator.runtime.log.port import Partition
from evaluator.wire import progress as progress_wire
from evaluator.wire import state as state_wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    from aiokafka import AIOKafkaProducer

    from evaluator.wire.records import Record

PATIENCE_S = 60.0

HURRIED: dict[str, Any] = {
    "patience": {"limit_s": 6.0, "session_ms": OURS_MS, "heartbeat_ms": 300, "transaction_ms": 20_000},
    "request_timeout_ms": 1_500,
}
"""What keeps the short forms short; in the product's proportions."""

PRODUCT: dict[str, Any] = {}
"""As patient as in production."""


class Place(Service):
    """A service whose processes can be hurt (`chaos.child`)."""

    def __init__(
        self, cluster: Cluster, folder: Path, proxied: str, *, rules: str = RULES, partitions: int = 2
    ) -> None:
        super().__init__(cluster, folder, rules=rules, partitions=partitions)
        self.proxied, self.text = proxied, rules
        self.failures: list[str] = []
        self.neighbours = AsyncExitStack()

    async def neighbour(self, name: str, *, partitions: int | None = None) -> Place:
        """Another service on the same broker, with its own topics; it ends with this one."""
        folder = self._folder / name
        folder.mkdir()
        cluster = Cluster(self.bootstrap, OURS_MS)
        other = Place(cluster, folder, self.proxied, rules=self.text, partitions=partitions or self.partitions)
        await self.neighbours.enter_async_context(other.running())
        return other

    def begin(
        self, harm: Mapping[str, Any] = HURRIED, *, proxied: bool = True, rules: Path | None = None,
        kafka: Mapping[str, Any] | None = None, stderr: str | None = None, **settings: Any,
    ) -> Process:  # fmt: skip
        """Start a process, through the proxy or beside it; `stderr` is where its log goes instead."""
        port, number = free_port(), len(self._processes)
        file = self._folder / f"settings-{number}.yaml"
        names = {name: getattr(self.topics, name) for name in ("alerts", "status", "verdicts", "dlq", "control")}
        servers = self.proxied if proxied else self.bootstrap
        file.write_text(json.dumps({
            "app_id": self.app, "shards": SHARDS, "topics": names, "web": {"listen": f"127.0.0.1:{port}"},
            # Events of these tests are of long ago: by the clock nothing is seen of today.
            "blind_alert": "off", "state_interval": "1s",
            "kafka": {"bootstrap_servers": servers, **(kafka or {})}, **settings,
        }))  # fmt: skip
        log = self._folder / f"process-{number}.log"
        script = Path(__file__).with_name("child.py")
        command = [sys.executable, str(script), str(rules or self.rules), str(file), json.dumps(harm)]
        with (Path(stderr) if stderr else log).open("wb") as stream:
            popen = subprocess.Popen(command, stdout=stream, stderr=stream, env={**os.environ, "PYTHONWARNINGS": ""})
        if stderr:
            log.touch()
        process = Process(popen, log, port)
        self._processes.append(process)
        return process

    @property
    def written(self) -> int:
        """How many records were written to the source, as far as the oracle sees them."""
        return sum(map(len, self._written))

    async def write_raw(self, producer: AIOKafkaProducer, value: bytes, *, is_judged: bool) -> None:
        """Append one event to partition 0 with a producer of its own kind; the oracle sees it if it `is_judged`."""
        if is_judged:
            self._written[0].append(value)
        await producer.send_and_wait(self.source, value, partition=0)

    async def reaches(self, partition: int, offset: int, limit_s: float) -> bool:
        """Whether stage 1 commits a partition up to an offset in time."""
        deadline = time.monotonic() + limit_s
        while (await self.progress()).get(partition, 0) < offset:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.1)
        return True

    async def ends(self) -> tuple[dict[int, int], dict[int, int]]:
        """The ends of the source and of the partials, by partition."""
        source = {n: (await self.log.bounds(Partition(self.source, n)))[1] for n in range(self.partitions)}
        partials = {n: (await self.log.bounds(Partition(self.topics.partials, n)))[1] for n in range(SHARDS)}
        return source, partials

    async def merged(self) -> dict[int, int]:
        """How far stage 2 has committed, by shard."""
        found = {}
        for shard in range(SHARDS):
            records = await self.log.read(Partition(self.topics.state, shard))
            kept = ((r.key or b"", r.value) for r in records if r.key == state_wire.META_KEY)
            meta = state_wire.restore(kept, self.codecs.state).meta
            if meta is not None:
                found[shard] = meta.next_offset
        return found

    async def caught_up(self, what: str, *watched: Process, limit_s: float = PATIENCE_S) -> float:
        """Seconds until both stages have committed everything that is there now; a failure if that takes too long."""
        began = time.monotonic()
        source, partials = await self.ends()
        while True:
            first, second = await self.progress(), await self.merged()
            behind = any(first.get(n, 0) < end for n, end in source.items())
            if not behind and all(second.get(n, 0) >= end for n, end in partials.items()):
                return time.monotonic() - began
            ended = [process for process in watched if process.popen.poll() is not None]
            if ended or time.monotonic() - began > limit_s:
                why = f"a process ended with {ended[0].popen.poll()}" if ended else f"{limit_s:.0f} s were not enough"
                self.failures.append(
                    f"{what}: {why}; stage 1 at {first} of {source}, stage 2 at {second} of {partials}"
                )
                return time.monotonic() - began
            await asyncio.sleep(0.1)

    async def at_work(self, *processes: Process, limit_s: float = PATIENCE_S) -> None:
        """Wait until each has taken something over: before that, a start may fail where a running one would not."""
        deadline = time.monotonic() + limit_s
        while any("task.restored" not in process.output() for process in processes):
            if time.monotonic() > deadline:
                self.failures.append("a process took nothing over")
                return
            await asyncio.sleep(0.1)

    async def gone(self, what: str, process: Process, code: int, *, says: str = "", limit_s: float = 30.0) -> float:
        """Wait for a process that must end with this code and these words; seconds it took."""
        began = time.monotonic()
        try:
            found: int | None = await process.ended(limit_s)
        except subprocess.TimeoutExpired:
            found = None
        if found == -signal.SIGTERM and not process.output():
            found = 0  # Python was still loading it: nobody could listen yet, and nothing was begun
        if found != code:
            self.failures.append(f"{what}: expected exit {code}, found {found}: {last_line(process)}")
        elif says not in process.output():
            self.failures.append(f"{what}: exit {code} without {says!r}: {last_line(process)}")
        return time.monotonic() - began

    async def verdict(
        self, scenario: str, what: str, *processes: Process, faults: int, runs: int = 1,
        recovery_s: float | None = None, notes: str = "", oracle: Iterable[Mapping[str, Any]] | None = None,
        only: Callable[[Mapping[str, Any]], bool] = bool,
    ) -> Outcome:  # fmt: skip
        """Wait for what the oracle expects, end the processes in order, and compare the alerts in question."""
        expected = await asyncio.to_thread(self.replayed) if oracle is None else list(oracle)
        deadline = time.monotonic() + PATIENCE_S
        while sum(map(only, await self.alerts())) < len(expected) and time.monotonic() < deadline:
            if any(process.popen.poll() is not None for process in processes):
                break
            await asyncio.sleep(0.2)
        for process in processes:
            if process.popen.poll() is None:
                process.signal(signal.SIGTERM)
        for number, process in enumerate(processes):
            await self.gone(f"end of process {number}", process, 0, limit_s=60.0)
        self.failures += await self.missing()
        found = judge(expected, filter(only, await self.alerts()))
        return Outcome(
            scenario, what, runs, faults, found.expected, found.seen, found.duplicated, found.lost, found.invented,
            recovery_s, tuple(self.failures), notes,
        )  # fmt: skip

    async def missing(self) -> list[str]:
        """Sequence numbers that no committed transaction has."""
        found = []
        for index in range(self.partitions):
            records = await self.log.read(Partition(self.topics.progress(self.source_name), index))
            missing = gaps(sequence for r in records if (sequence := self._sequence(r)) is not None)
            if missing:
                found.append(f"source partition {index}: sequences {missing} are missing")
        return found

    def _sequence(self, record: Record) -> int | None:
        """Of a progress record; None for one that a scenario damaged."""
        try:
            codec = self.codecs.source_progress
            return None if record.value is None else progress_wire.decode(record.value, codec).sequence
        except StateRefused:
            return None


def last_line(process: Process) -> str:
    """The end of what a process logged, for people."""
    lines = process.output().splitlines()
    return without_traceback(lines[-1])[-500:] if lines else "nothing logged"


def without_traceback(line: str) -> str:
    """A line of the log with only the error of its traceback: a report is committed, the paths are of one machine."""
    try:
        said = json.loads(line)
    except json.JSONDecodeError:
        return line
    if not isinstance(said, dict) or "exception" not in said:
        return line
    return json.dumps({**said, "exception": said["exception"].rpartition("\n")[2]})


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Ground:
    """A broker, its proxy, and the service on it."""

    def __init__(self, broker: Any, proxy: Proxy, place: Place) -> None:
        self.broker, self.proxy, self.place = broker, proxy, place


@asynccontextmanager
async def ground(
    folder: Path,
    *,
    rules: str = RULES,
    partitions: int = 2,
    protocol: str = "PLAINTEXT",
    broker: Mapping[str, str] | None = None,
) -> AsyncIterator[Ground]:
    """A broker with a second listener, which is advertised at the proxy's port, and a service with its topics."""
    inner, outer = free_port(), free_port()
    made = own_broker(
        listeners=f"PLAINTEXT://127.0.0.1:{{port}},PROXIED://127.0.0.1:{inner},"
        "CONTROLLER://127.0.0.1:{controller_port}",
        advertised__listeners=f"PLAINTEXT://127.0.0.1:{{port}},PROXIED://127.0.0.1:{outer}",
        listener__security__protocol__map=f"PLAINTEXT:PLAINTEXT,PROXIED:{protocol},CONTROLLER:PLAINTEXT",
        inter__broker__listener__name="PLAINTEXT",
        **(broker or {}),
    )
    proxy = Proxy(outer, inner)
    try:
        await asyncio.to_thread(made.start)
        await proxy.start()
        place = Place(
            Cluster(made.bootstrap, OURS_MS), folder, f"127.0.0.1:{outer}", rules=rules, partitions=partitions
        )
        async with place.running(), place.neighbours:
            yield Ground(made, proxy, place)
    finally:
        await proxy.close()
        await asyncio.to_thread(made.close)


class Traffic:
    """A minute of events after the other; an incident of errors every eight, of slowness every twelve."""

    def __init__(self, place: Place, every_s: float) -> None:
        self._place, self._every_s = place, every_s
        self.minute = 0

    async def flow(self, stop: asyncio.Event) -> None:
        """Write until asked to stop, then let everything resolve."""
        while not stop.is_set():
            await self.write(bad=self.minute % 8 in {2, 3, 4}, slow=self.minute % 12 in {6, 7, 8})
            await asyncio.sleep(self._every_s)
        for _ in range(6):
            await self.write()

    async def write(self, *, bad: bool = False, slow: bool = False) -> None:
        """One minute."""
        await self._place.write(minutes(self.minute, self.minute + 1, bad=bad, slow=slow))
        self.minute += 1


@asynccontextmanager
async def traffic(place: Place, every_s: float = 0.2) -> AsyncIterator[Traffic]:
    """Traffic for as long as it lasts."""
    stop, flow = asyncio.Event(), Traffic(place, every_s)
    task = asyncio.create_task(flow.flow(stop), name="traffic")
    try:
        yield flow
    finally:
        stop.set()
        await task

"""`run` on a real Kafka over the same job in other shapes: partitions, compression, and two and four processes.

Each shape is in turns with a raw drain of the same topic, and counts only if it is exact. What several processes take
of CPU is in turns with what one takes of the same topic, by the records that they count.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import job
from kafka import PORT, Pass, cpu_of, drained, fill, kafka_broker, ran, records_seen, running, scrape, until
from table import Row, of_turns

if TYPE_CHECKING:
    from collections.abc import Iterator


class Shape(NamedTuple):
    """How the topic is made."""

    partitions: int
    codec: str | None


SHAPES = (Shape(1, None), Shape(4, None), Shape(4, "lz4"), Shape(4, "zstd"), Shape(16, None), Shape(64, None))


def together(bootstrap: str, folder: Path, count: int, app: str, processes: int) -> Pass:
    """Several processes of one app from an empty start to the end of the topic: wall, and CPU of all of them."""
    ports = [PORT + number for number in range(processes)]
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(running(bootstrap, folder / "rules.yaml", app, port)) for port in ports]

        def seen() -> float:
            return sum(records_seen(scrape(port)) for port in ports)

        for process, port in zip(started, ports, strict=True):
            until(process, lambda _: True, port=port)
        while seen() == 0:
            time.sleep(0.1)
        began, before = time.perf_counter(), sum(cpu_of(process.pid) for process in started)
        while seen() < count:
            time.sleep(0.25)
        return Pass(time.perf_counter() - began, sum(cpu_of(process.pid) for process in started) - before, 0.0)


def rows(count: int, runs: int) -> Iterator[Row]:
    """What the table shows of it. Ends the program where a run was not exact."""
    with kafka_broker() as bootstrap, tempfile.TemporaryDirectory() as name:
        for number, shape in enumerate(SHAPES):
            folder = Path(name) / str(number)
            folder.mkdir()
            made = job.write(folder, count, shape.partitions)
            topic = f"bench-{number}-events"
            rules = folder / "rules.yaml"
            rules.write_text(job.RULES.replace("bench-events", topic))
            asyncio.run(fill(bootstrap, made.files, topic, shape.codec))
            expected = {rule: firings for rule, firings in made.firings.items() if firings}
            taken = []
            for turn in range(runs):
                base = drained(bootstrap, made.count, topic, shape.partitions)
                mine, found = ran(bootstrap, folder, made.count, f"shape-{number}-{turn}")
                if found != expected:
                    sys.exit(f"a run over {shape} found {found} instead of {expected}")
                taken.append((mine.wall, base.wall))
            what = f"{shape.partitions} partitions, {shape.codec or 'no compression'}"
            yield of_turns("shapes", what, "events", made.count, taken, "getmany alone")
            if shape == Shape(4, None):
                yield from _several(bootstrap, folder, made.count, runs)


def _several(bootstrap: str, folder: Path, count: int, runs: int) -> Iterator[Row]:
    """CPU of two and of four processes, of one."""
    for processes in (2, 4):
        taken = []
        for turn in range(runs):
            one = together(bootstrap, folder, count, f"one-of-{processes}-{turn}", 1)
            taken.append((together(bootstrap, folder, count, f"several-{processes}-{turn}", processes).cpu, one.cpu))
        yield of_turns("shapes", f"{processes} processes, of a core", "events", count, taken, "one process")

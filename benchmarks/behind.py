"""What it costs in memory that one of eight partitions is a day of event time behind the others, on a real Kafka.

A day of 1,000 series in eight partitions is read twice from its beginning: once with everything there, once with the
last partition written only when the others have stopped for it. The floor is the first: the same records, evenly.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from kafka import broker_module, peak_mb, records_seen, running, scrape

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterable

PARTITIONS, SERIES, DAY_S = 8, 1_000, 86_400
START_MS = 1_769_601_600_000
QUIET_S = 30.0

RULES = """\
version: 1
sources:
  day:
    topic: {topic}
    format: json
    out_of_orderness: 10s
    idle_after: 12h
    fields: {{time: t, latency: ms, latency_unit: ms, failed: {{s: ">= 500"}}}}
surfaces:
  voice-api: {{source: day, group_by: [api], owners: ["@bench"]}}
alerts:
  Hour: {{surface: voice-api, when: [error_ratio > 5%, p95 > 800ms], window: 1h, every: 5m, severity: page}}
  Now: {{surface: voice-api, when: error_ratio > 20%, window: 5m, severity: ticket}}
"""


async def write(bootstrap: str, topic: str, partitions: Iterable[int], count: int) -> None:
    """Events of the whole day, evenly."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=20, max_batch_size=900_000)
    await producer.start()
    rng = random.Random(1)
    for number in range(count):
        at = START_MS + number * DAY_S * 1000 // count
        code, ms = (503, 900) if rng.random() < 0.02 else (200, rng.randrange(1, 700))
        event = f'{{"t":{at},"api":"a{number % SERIES}","ms":{ms},"s":{code}}}'.encode()
        for partition in partitions:
            await producer.send(topic, event, partition=partition, timestamp_ms=at)
    await producer.stop()


async def create(bootstrap: str, topic: str) -> None:
    """The source."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, PARTITIONS, 1, topic_configs={"retention.ms": "-1"})])
    await admin.close()


def read(process: subprocess.Popen[bytes], wanted: int) -> int:
    """Wait until `wanted` records were read, or none more for a while; how many were."""
    seen, since = 0, time.monotonic() + QUIET_S  # until it has started
    while process.poll() is None and time.monotonic() - since < QUIET_S and seen < wanted:
        try:
            now = int(records_seen(scrape()))
        except OSError:
            now = 0
        if now != seen:
            seen, since = now, time.monotonic()
        time.sleep(0.25)
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200_000, help="events in each partition")
    wish = parser.parse_args()
    everything = wish.count * PARTITIONS
    peaks = {}
    with closing(broker_module().Broker().start()) as broker, tempfile.TemporaryDirectory() as name:
        for how in ("even", "behind"):
            rules = Path(name) / f"{how}.yaml"
            rules.write_text(RULES.format(topic=f"day-{how}"))
            asyncio.run(create(broker.bootstrap, f"day-{how}"))
            first = range(PARTITIONS - 1) if how == "behind" else range(PARTITIONS)
            asyncio.run(write(broker.bootstrap, f"day-{how}", first, wish.count))
            with running(broker.bootstrap, rules, f"day-{how}") as process:
                held_at = read(process, everything)
                if how == "behind":
                    asyncio.run(write(broker.bootstrap, f"day-{how}", [PARTITIONS - 1], wish.count))
                    read(process, everything)
                time.sleep(5)  # the last windows
                peaks[how] = peak_mb(process.pid)
                if (seen := int(records_seen(scrape()))) != everything:
                    sys.exit(f"{how}: {seen} of {everything} records were read")
            print(
                f"{how:<7} {peaks[how]:>6.0f} MB at its peak; stood at {held_at:,} of {everything:,} records",
                flush=True,
            )
    print(f"one of {PARTITIONS} partitions a day behind: {peaks['behind'] / peaks['even']:.2f} times the memory")


if __name__ == "__main__":
    main()

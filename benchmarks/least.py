"""The least that must be done for the same verdicts: read, decode, count. A bare loop, to tell what the rest takes.

The client's batches are read as columns, as `run` reads them; msgspec makes a struct of the named fields of each
event; numpy adds up events, failures, slow ones and sketch bins by surface and minute. Nothing else: all is kept in
arrays until the end, nothing is written, a crash loses it all, disorder is no matter because there are no watermarks,
nobody can look at it. Prints its seconds of wall and CPU, and what it found.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter, defaultdict

import msgspec
import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition

from evaluator.runtime.collector import prefer_throughput
from evaluator.runtime.log.kafka_fetch import hand_out_our_records

MAX_RECORDS = 10_000
LOG_GAMMA = np.log(1.01 / 0.99)
BINS = 1 << 16


class Event(msgspec.Struct, gc=False):
    """The fields that the rules name."""

    time: int
    surface: str
    duration_ms: float
    status: int


class _Numbers(dict[str, int]):
    def __missing__(self, key: str) -> int:
        self[key] = len(self)
        return self[key]


class Counts:
    """How many events there are of each place (surface and minute), bad ones, slow ones, and in each bin."""

    def __init__(self) -> None:
        self.surfaces = _Numbers()
        self._decode = msgspec.json.Decoder(Event).decode
        self._parts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)

    def add(self, values: list[bytes]) -> None:
        """The values of records."""
        events = list(map(self._decode, values))
        minutes = np.array([event.time for event in events]) // 60_000
        surfaces = np.array(list(map(self.surfaces.__getitem__, [event.surface for event in events])))
        places = minutes * 1024 + surfaces
        latencies = np.array([event.duration_ms for event in events])
        bad = np.array([event.status for event in events]) >= 500
        bins = np.ceil(np.log(latencies * 1000) / LOG_GAMMA).astype(np.int64)
        for name, keys in (
            ("n", places), ("bad", places[bad]), ("slow", places[latencies > 500]), ("bins", places * BINS + bins),
        ):  # fmt: skip
            self._parts[name].append(np.unique(keys, return_counts=True))

    def totals(self, name: str) -> dict[int, int]:
        """The sum of each key."""
        total: Counter[int] = Counter()
        for keys, counts in self._parts[name]:
            for key, count in zip(keys.tolist(), counts.tolist(), strict=True):
                total[key] += count
        return total

    def fired(self) -> dict[str, int]:
        """How often three minutes in a row were bad."""
        n, bad, slow = self.totals("n"), self.totals("bad"), self.totals("slow")
        fired, streaks = Counter(), Counter()
        for place in sorted(n):
            events = n[place]
            is_bad = {"Errors": bad.get(place, 0) / events > 0.01,
                      "Slow": events - slow.get(place, 0) < np.ceil(0.95 * events)}  # fmt: skip
            for rule, holds in is_bad.items():
                key = (place % 1024, rule)
                streaks[key] = streaks[key] + 1 if holds else 0
                fired[rule] += streaks[key] == 3
        return dict(fired)


async def count(bootstrap: str, topic: str, partitions: int, left: int) -> None:
    prefer_throughput()
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    hand_out_our_records(consumer)
    consumer.assign([TopicPartition(topic, index) for index in range(partitions)])
    counts, wall, cpu = Counts(), time.perf_counter(), time.process_time()
    while left > 0:
        for records in (await consumer.getmany(timeout_ms=500, max_records=MAX_RECORDS)).values():
            if records:
                counts.add(records.values)
                left -= len(records)
    taken = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    print(json.dumps({**taken, "fired": counts.fired()}))
    await consumer.stop()


if __name__ == "__main__":
    asyncio.run(count(sys.argv[1], "bench-events", int(sys.argv[2]), int(sys.argv[3])))

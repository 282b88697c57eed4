"""The same job as a loop that is written by hand in an hour: aiokafka, orjson, DDSketch. For comparison only.

It commits offsets, so it loses no event, but a crash loses its windows; it has one watermark for all partitions and
needs half an hour of grace not to drop most of a backlog; and it tells nobody when events stop. Prints its seconds of
wall and CPU, and what it found.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter, defaultdict

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from ddsketch import DDSketch

WINDOW_MS = 60_000
GRACE_MS = 30 * 60_000


class Window:
    """One surface in one minute."""

    __slots__ = ("count", "errors", "sketch")

    def __init__(self) -> None:
        self.count = self.errors = 0
        self.sketch = DDSketch(0.01)


class Loop:
    """Open windows, streaks and what fired."""

    def __init__(self) -> None:
        self.windows: dict[tuple[int, str], Window] = defaultdict(Window)
        self.fired: Counter[str] = Counter()
        self.newest = self.closed = 0
        self._streaks: Counter[tuple[str, str]] = Counter()

    def add(self, value: bytes) -> None:
        """One event."""
        event = orjson.loads(value)
        at = event["time"]
        start = at - at % WINDOW_MS
        if start + WINDOW_MS <= self.closed:
            return
        window = self.windows[start, event["surface"]]
        window.count += 1
        window.errors += event["status"] >= 500
        window.sketch.add(event["duration_ms"])
        self.newest = max(self.newest, at)

    def close(self, until: int) -> list[bytes]:
        """Decide the windows that ended; returns the alerts."""
        self.closed = max(self.closed, until)
        alerts = []
        for key in sorted(key for key in self.windows if key[0] + WINDOW_MS <= until):
            window, surface = self.windows.pop(key), key[1]
            bad = {"Errors": window.errors / window.count > 0.01, "Slow": window.sketch.get_quantile_value(0.95) > 500}
            for rule, is_bad in bad.items():
                self._streaks[surface, rule] = self._streaks[surface, rule] + 1 if is_bad else 0
                if self._streaks[surface, rule] == 3:
                    self.fired[rule] += 1
                    alerts.append(orjson.dumps({"surface": surface, "rule": rule}))
        return alerts


async def judge(bootstrap: str, count: int, group: str) -> None:
    consumer = AIOKafkaConsumer(
        "bench-events", bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest",
        enable_auto_commit=False,
    )  # fmt: skip
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(f"{group}-alerts", 1, 1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await consumer.start()
    await producer.start()
    loop, left = Loop(), count
    wall = cpu = 0.0
    while left > 0:
        fetched = await consumer.getmany(timeout_ms=500, max_records=5000)
        if not fetched:
            continue
        if not wall:
            wall, cpu = time.perf_counter(), time.process_time()
        for records in fetched.values():
            for record in records:
                loop.add(record.value)
            left -= len(records)
        for alert in loop.close(loop.newest - GRACE_MS):
            await producer.send(f"{group}-alerts", alert)
        await consumer.commit()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    loop.close(loop.newest + WINDOW_MS)
    print(json.dumps({"wall": wall, "cpu": cpu, "fired": loop.fired}))
    await consumer.stop()
    await producer.stop()


if __name__ == "__main__":
    asyncio.run(judge(sys.argv[1], int(sys.argv[2]), sys.argv[3]))

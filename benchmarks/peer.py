"""`evaluator run` in the form in which stream processors are compared on the benchmark job: one `RESULT {json}` line.

Settings come by environment: BOOTSTRAP, TOPIC, TOTAL (events in it), RUN_ID (names everything that is written), GRACE_S
(the disorder that is allowed), SILENCE_S (how long to wait for the last windows after the last record).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import job
import kafka
from aiokafka import AIOKafkaConsumer, TopicPartition

BOOTSTRAP = os.environ.get("BOOTSTRAP", "127.0.0.1:9092")
TOPIC = os.environ.get("TOPIC", "bench-events")
TOTAL = int(os.environ.get("TOTAL", "2000000"))
RUN_ID = os.environ.get("RUN_ID", f"peer-{os.getpid()}")
GRACE_S = round(float(os.environ.get("GRACE_S", "10")))
SILENCE_S = float(os.environ.get("SILENCE_S", "0"))
LAST_END = "2026-01-28T14:00:00Z"


async def read(topic: str) -> list[tuple[bytes | None, dict[str, object] | None]]:
    """Key and value of every committed record of a topic with one partition."""
    consumer = AIOKafkaConsumer(bootstrap_servers=BOOTSTRAP, isolation_level="read_committed", enable_auto_commit=False)
    await consumer.start()
    place = TopicPartition(topic, 0)
    consumer.assign([place])
    await consumer.seek_to_beginning(place)
    end = (await consumer.end_offsets([place]))[place]
    found: list[tuple[bytes | None, dict[str, object] | None]] = []
    while await consumer.position(place) < end:
        for records in (await consumer.getmany(timeout_ms=500)).values():
            found += [(record.key, json.loads(record.value) if record.value else None) for record in records]
    await consumer.stop()
    return found


def breaches() -> dict[str, int]:
    """Firings by the names that the job gives its rules."""
    alerts = asyncio.run(read(f"{RUN_ID}.alerts"))
    fired = [each["alertname"] for _, each in alerts if each and each["status"] == "firing"]
    return {"error": fired.count("Errors"), "p95": fired.count("Slow")}


def last_windows() -> int:
    """How many series have the last window of the job decided. Those that were forgotten since had it decided too."""
    newest = {key: each for key, each in asyncio.run(read(f"{RUN_ID}.status")) if key and b"/Errors{" in key}
    return sum(not each or (each["windows"] and each["windows"][-1]["end"] >= LAST_END) for each in newest.values())


def late(metrics: str) -> int:
    """Events that came after their pane was decided."""
    lines = [line for line in metrics.splitlines() if line.startswith("evaluator_late_events_total")]
    return round(sum(float(line.split()[-1]) for line in lines))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        rules = Path(folder) / "rules.yaml"
        text = job.RULES.replace("topic: bench-events", f"topic: {TOPIC}")
        rules.write_text(text.replace("out_of_orderness: 10s", f"out_of_orderness: {GRACE_S}s"))
        with kafka.running(BOOTSTRAP, rules, RUN_ID) as process:
            began = kafka.until(process, lambda text: kafka.records_seen(text) > 0)
            first = kafka.cpu_of(process.pid)
            ended = kafka.until(process, lambda text: kafka.records_seen(text) >= TOTAL)
            cpu = kafka.cpu_of(process.pid) - first
            deadline = time.monotonic() + SILENCE_S
            while SILENCE_S and time.monotonic() < deadline and last_windows() < job.SURFACES:
                time.sleep(1)
            time.sleep(2)
            wall, metrics = ended - began, kafka.scrape()
            result = {
                "events": TOTAL, "wall_s": round(wall, 2), "eps": round(TOTAL / wall), "cpu_s": round(cpu, 2),
                "cpu_per_m": round(cpu / TOTAL * 1e6, 2), "rss_mb": round(kafka.peak_mb(process.pid)),
                "last_windows": last_windows(), "late": late(metrics), "breaches": breaches(),
            }  # fmt: skip
    sys.stdout.write("RESULT " + json.dumps(result) + "\n")


if __name__ == "__main__":
    main()

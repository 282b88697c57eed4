"""`evaluator publish` against a real Kafka: what it says is there, and is judged."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from kafka.service import Service
from kafka.test_sources import stopped

from evaluator.runtime.log.port import Partition

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from support.cluster import Cluster

TOPIC = "runs-topic"
RULES = f"""
version: 1
sources:
  runs: {{topic: {TOPIC}, format: lighthouse, out_of_orderness: 5s, idle_after: 1h}}
  checks: {{topic: {TOPIC}.checks, format: drift, out_of_orderness: 0s, idle_after: 1h}}
  beats: {{topic: {TOPIC}.beats, format: heartbeat, out_of_orderness: 0s, idle_after: 1h}}
surfaces:
  admin: {{source: runs, group_by: [url], owners: ["@web"]}}
  database: {{source: checks, group_by: [{{field: surface, as: what}}], owners: ["@web"]}}
  nightly: {{source: beats, match: {{surface: nightly}}, owners: ["@web"]}}
alerts:
  Failing: {{surface: admin, when: error_count > 0, window: 1m, min_samples: 1, severity: ticket}}
  Drifted: {{surface: database, when: error_count > 0, window: 1m, min_samples: 1, severity: ticket}}
  Silent: {{surface: nightly, expect_every: 10m, severity: ticket}}
"""
DRIFT = "Supabase reported drift between remote database and migrations.\nalter table calls drop column note;\n"
CLEAN = "Remote schema matches migrations\n"
HOUR = "2026-01-28T12"


async def evaluator(service: Service, *words: str) -> tuple[int, str, str]:
    """A command to its end: exit code, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "evaluator", *words, "--bootstrap", service.bootstrap,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    """A good run, one that failed, and one later, all whole."""
    folder = tmp_path / "reports"
    folder.mkdir()
    for number, (time, score) in enumerate([("00:00", 0.9), ("00:10", None), ("05:00", 0.9)]):
        audits = {f"audit-{n}": {"details": "x" * 1000} for n in range(1500)}
        report = {"lighthouseVersion": "12.6.0", "requestedUrl": f"https://example.com/{number}", "audits": audits,
                  "fetchTime": f"{HOUR}:{time}.000Z", "categories": {"performance": {"score": score}}}  # fmt: skip
        (folder / f"lhr-{number}.json").write_bytes(orjson.dumps(report))
    return folder


async def sent(service: Service, *commands: Sequence[str]) -> list[dict[str, Any]]:
    """What `publish` says that it sent, one command after the other, each of which is where it says."""
    told = []
    for words in commands:
        code, out, err = await evaluator(service, "publish", *words, "--config", str(service.rules), "-o", "json")
        assert (code, err) == (0, "")
        told += [orjson.loads(line) for line in out.splitlines()]
    for each in told:
        (record, *_) = await service.log.read(Partition(each["topic"], each["partition"]), each["offset"])
        assert ((record.key or b"").decode(), orjson.loads(record.value or b"")) == (each["key"], each["value"])
        assert len(record.value or b"") < 1000
    return told


async def test_what_is_published_is_where_the_command_says_and_is_judged(
    kafka: Cluster, tmp_path: Path, reports: Path
) -> None:
    """A run fails, a database drifts, and nothing is heard for half an hour; of each what comes next passes time."""
    drifted, clean = tmp_path / "drifted.txt", tmp_path / "clean.txt"
    drifted.write_text(DRIFT)
    clean.write_text(CLEAN)
    runs = ["lighthouse", str(reports), "--commit", "4f2a9c1"]
    check, beat = ("drift", "--surface", "supabase", "--time"), ("heartbeat", "--surface", "nightly", "--time")
    checks = [*check, f"{HOUR}:00:00Z", str(drifted)], [*check, f"{HOUR}:02:00Z", str(clean)]
    beats = [*beat, f"{HOUR}:00:00Z"], [*beat, f"{HOUR}:30:00Z"]
    async with Service(kafka, tmp_path, rules=RULES, topic=TOPIC, partitions=1, shards=1).running() as service:
        process = service.start()
        async with asyncio.TaskGroup() as group:
            told = group.create_task(sent(service, runs), name="runs")
            group.create_task(sent(service, *checks), name="checks")
            group.create_task(sent(service, *beats), name="beats")
        assert [each["key"] for each in told.result()] == [f"https://example.com/{n}" for n in range(3)]
        assert [each["value"]["commit"] for each in told.result()] == ["4f2a9c1"] * 3
        alerts = await service.until(3, process)
        assert await service.metric(process, "evaluator_rejected_total") == 0
        await stopped(process)
    assert sorted(map(told_of, alerts)) == [
        ("Drifted", "firing", f"{HOUR}:01:00Z", "supabase", (1, 1)),
        ("Failing", "firing", f"{HOUR}:01:00Z", "https://example.com/1", (1, 1)),
        ("Silent", "firing", f"{HOUR}:11:00Z", "nightly", (0, 0)),
    ]


def told_of(alert: dict[str, Any]) -> tuple[str, str, str, str, tuple[int, int]]:
    """Name, status, when, of what, and of how many in the last window how many failed."""
    labels, last = alert["labels"], alert["windows"][-1]
    about = labels.get("url") or labels.get("what") or labels["surface"]
    return alert["alertname"], alert["status"], alert["firedAt"], about, (last["n"], last["bad"])


async def test_a_dry_run_sends_nothing(kafka: Cluster, tmp_path: Path) -> None:
    async with Service(kafka, tmp_path, rules=RULES, topic=TOPIC).running() as service:
        code, out, _ = await evaluator(
            service, "publish", "heartbeat", "--surface", "admin", "--topic", service.source, "--dry-run"
        )
        assert (code, out[:11]) == (0, "would send ")
        ends = [(await service.log.bounds(Partition(service.source, n)))[1] for n in range(service.partitions)]
        assert sum(ends) == 0


async def test_a_topic_that_is_not_there_is_not_made_by_writing_to_it(kafka: Cluster, tmp_path: Path) -> None:
    async with Service(kafka, tmp_path, rules=RULES, topic=TOPIC).running() as service:
        name = kafka.name("misspelt")
        code, out, err = await evaluator(service, "publish", "heartbeat", "--surface", "admin", "--topic", name)
        assert (code, out) == (1, "")
        assert err == f"topic {name} does not exist; create it with `evaluator topics create`\n"
        assert await service.log.describe([name]) == {}

"""`evaluator publish` against a real Kafka: what it says is there, and is judged."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import orjson
import pytest
from service import Service

from evaluator.runtime.log.port import Partition

if TYPE_CHECKING:
    from pathlib import Path

    from support.cluster import Cluster

TOPIC = "runs-topic"
RULES = f"""
version: 1
sources: {{runs: {{topic: {TOPIC}, format: lighthouse, out_of_orderness: 5s}}}}
surfaces: {{admin: {{source: runs, owners: ["@web"]}}}}
alerts: {{Failing: {{surface: admin, when: error_count > 0, window: 1m, min_samples: 1, severity: ticket}}}}
"""


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
    for number, (time, score) in enumerate([("12:00:00", 0.9), ("12:00:10", None), ("12:05:00", 0.9)]):
        audits = {f"audit-{n}": {"details": "x" * 1000} for n in range(1500)}
        report = {"lighthouseVersion": "12.6.0", "requestedUrl": f"https://example.com/{number}", "audits": audits,
                  "fetchTime": f"2026-01-28T{time}.000Z", "categories": {"performance": {"score": score}}}  # fmt: skip
        (folder / f"lhr-{number}.json").write_bytes(orjson.dumps(report))
    return folder


async def test_reports_are_where_the_command_says_and_are_judged(kafka: Cluster, tmp_path: Path, reports: Path) -> None:
    async with Service(kafka, tmp_path, rules=RULES, topic=TOPIC).running() as service:
        rules = str(service.rules)
        code, out, err = await evaluator(
            service, "publish", "lighthouse", str(reports), "--config", rules, "--commit", "4f2a9c1", "-o", "json"
        )
        assert (code, err) == (0, "")
        told = [orjson.loads(line) for line in out.splitlines()]
        assert [each["key"] for each in told] == [f"https://example.com/{n}" for n in range(3)]
        for each in told:
            (record, *_) = await service.log.read(Partition(each["topic"], each["partition"]), each["offset"])
            assert ((record.key or b"").decode(), orjson.loads(record.value or b"")) == (each["key"], each["value"])
            assert each["value"]["commit"] == "4f2a9c1"
            assert len(record.value or b"") < 1000
        code, out, _ = await evaluator(
            service, "publish", "heartbeat", "--surface", "admin", "--topic", service.source, "--dry-run"
        )
        assert (code, out[:11]) == (0, "would send ")
        ends = [(await service.log.bounds(Partition(service.source, n)))[1] for n in range(service.partitions)]
        assert sum(ends) == 3


async def test_a_topic_that_is_not_there_is_not_made_by_writing_to_it(kafka: Cluster, tmp_path: Path) -> None:
    async with Service(kafka, tmp_path, rules=RULES, topic=TOPIC).running() as service:
        name = kafka.name("misspelt")
        code, out, err = await evaluator(service, "publish", "heartbeat", "--surface", "admin", "--topic", name)
        assert (code, out) == (1, "")
        assert err == f"topic {name} does not exist; create it with `evaluator topics create`\n"
        assert await service.log.describe([name]) == {}

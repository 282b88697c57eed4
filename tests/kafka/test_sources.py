"""What sources do in the wild, on a real Kafka and with processes that restart."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from kafka.service import MINUTE_US, START_US, Process, Service, event, minutes
from kafka.test_kills import ids

from evaluator.runtime.log.port import Outgoing, Partition, TopicSpec

if TYPE_CHECKING:
    from support.cluster import Cluster


async def stopped(process: Process) -> None:
    """End it in order."""
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0, process.output()


async def consumed(service: Service, *watched: Process) -> None:
    """Wait until stage 1 has committed everything that is in the source."""
    deadline = time.monotonic() + 60
    ends = [(await service.log.bounds(Partition(service.source, index)))[1] for index in range(service.partitions)]
    while True:
        held = await service.progress()
        if all(held.get(index, -1) >= end for index, end in enumerate(ends)):
            return
        for process in watched:
            assert process.popen.poll() is None, process.output()
        assert time.monotonic() < deadline, (ends, held)
        await asyncio.sleep(0.2)


def now_us() -> int:
    return time.time_ns() // 1000


async def test_a_thousand_rejects_and_then_one_event_of_another_shard_keep_the_chain_whole(
    kafka: Cluster, tmp_path: Path
) -> None:
    async with Service(kafka, tmp_path, partitions=1).running() as service:
        process = service.start()
        await service.write(minutes(0, 2))
        await consumed(service, process)
        await service.write([b"{"] * 1000)
        await consumed(service, process)
        await service.write([event(START_US + 2 * MINUTE_US, "bukavu")])
        await service.write(minutes(3, 6, bad=True))
        await service.write(minutes(6, 9))
        expected = service.replayed()
        assert ids(await service.until(len(expected), process)) == ids(expected)
        assert len(await service.log.read(Partition(service.topics.dlq, 0))) == 1000
        await stopped(process)


async def test_a_partition_that_was_empty_gets_its_first_record_after_a_restart(kafka: Cluster, tmp_path: Path) -> None:
    async with Service(kafka, tmp_path).running() as service:
        process = service.start()
        await service.write(minutes(0, 2), partition=0)
        await consumed(service, process)
        await stopped(process)
        await service.write(minutes(2, 5, bad=True), partition=1)
        await service.write(minutes(2, 5), partition=0)
        await service.write(minutes(5, 9))
        again = service.start()
        expected = service.replayed()
        assert {alert["status"] for alert in expected} == {"firing", "resolved"}
        assert ids(await service.until(len(expected), again)) == ids(expected)
        await stopped(again)


async def test_an_edited_threshold_begins_where_the_old_one_ended(kafka: Cluster, tmp_path: Path) -> None:
    async with Service(kafka, tmp_path).running() as service:
        process = service.start()
        await service.write(minutes(0, 6, bad=True))
        await service.until(2, process)
        await consumed(service, process)
        await stopped(process)
        text = service.rules.read_text()
        service.rules.write_text(text.replace("error_ratio > 20%", "error_ratio > 70%"))
        again = service.start()
        await service.write(minutes(6, 12, bad=True))
        await service.write(minutes(12, 13))
        found = await service.until(4, again)
        await stopped(again)
    # Half of the events fail: a breach of 20 %, none of 70 %. The alerts of both regions resolve by the new rule.
    assert Counter((a["status"], a["labels"]["region"]) for a in found) == Counter(
        (status, region) for status in ("firing", "resolved") for region in ("kigali", "goma")
    )


def test_two_sources_on_one_topic_are_a_config_error(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "version: 1\nsources:\n  a: {topic: t, format: json, fields: {time: time}}\n"
        "  b: {topic: t, format: json, fields: {time: time}}\n"
    )
    command = [sys.executable, "-m", "evaluator", "run", "--config", str(rules)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "topic" in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_topic_recreated_with_more_records_is_refused_and_nothing_is_emitted(
    kafka: Cluster, tmp_path: Path
) -> None:
    async with Service(kafka, tmp_path, partitions=1).running() as service:
        process = service.start()
        await service.write(minutes(0, 2))
        await consumed(service, process)
        await stopped(process)
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
        await admin.start()
        await admin.delete_topics([service.source])
        await admin.close()
        while service.source in await service.log.describe([service.source]):
            await asyncio.sleep(0.1)
        await service.log.create([TopicSpec(service.source, 1, retention_ms=-1)])
        await service.log.append([Outgoing(service.source, None, value, 0) for value in minutes(10, 20, bad=True)])
        again = service.start()
        assert await again.ended() == 78, again.output()
        assert "the topic was recreated" in again.output()
        assert await service.alerts() == []


async def dumped(service: Service, folder: Path, *, decisions: bool) -> list[dict[str, Any]]:
    """The alerts that `replay` makes of what `dump` wrote."""
    environ = {**os.environ, "EVALUATOR_APP_ID": service.app,
               "EVALUATOR_KAFKA__BOOTSTRAP_SERVERS": service.bootstrap}  # fmt: skip
    evaluator = [sys.executable, "-m", "evaluator"]

    def command(*words: str) -> None:
        done = subprocess.run([*evaluator, *words], capture_output=True, env=environ, check=False)
        assert done.returncode == 0, done.stderr.decode()

    await asyncio.to_thread(command, "dump", service.source, "--out", str(folder / "dump"))
    files = [str(folder / "dump" / f"{service.source}-{index}.ndjson") for index in range(service.partitions)]
    options = ["--envelope"]
    if decisions:
        file = folder / "decisions.ndjson"
        await asyncio.to_thread(command, "dump", "--decisions", "--out", str(file))
        assert file.read_text()
        options += ["--decisions", str(file)]
    return await asyncio.to_thread(service.replay_files, files, *options)


async def test_an_empty_and_a_sparse_partition_replay_to_the_same_ids_with_the_recorded_decisions(
    kafka: Cluster, tmp_path: Path
) -> None:
    async with Service(kafka, tmp_path, partitions=3).running() as service:
        process = service.start()
        base = now_us() - 30 * MINUTE_US

        def at(minute: int, *, bad: bool) -> list[bytes]:
            return [event(base + minute * MINUTE_US + s * 1_000_000, "goma", bad=bad and s % 2 == 0) for s in range(60)]

        async def trickle() -> None:
            while True:
                await service.write([event(base + 6 * MINUTE_US, "bukavu")], partition=0)
                await asyncio.sleep(1)

        for minute in range(6):
            await service.write(at(minute, bad=minute > 2), partition=0)
        await service.write([event(base, "kigali")], partition=2)
        # Partition 1 stays empty and 2 says nothing more: only the clock can close the windows. Partition 0 is never
        # silent for so long that the clock moves it as well, past what it is still to say.
        async with asyncio.TaskGroup() as tasks:
            trickling = tasks.create_task(trickle())
            await service.until(1, process)
            trickling.cancel()
        await service.write([event(base + 6 * MINUTE_US, "kigali", bad=True)], partition=2)
        for minute in range(28, 30):
            await service.write(at(minute, bad=False), partition=0)
        await service.until(2, process)
        await stopped(process)
        live = await service.alerts()
        assert {alert["status"] for alert in live} == {"firing", "resolved"}
        replayed = await dumped(service, tmp_path, decisions=True)
        assert ids(replayed)[: len(live)] == ids(live)
        assert ids(replayed) == ids(live)


async def test_a_source_that_never_idles_replays_to_the_same_ids_without_decisions(
    kafka: Cluster, tmp_path: Path
) -> None:
    async with Service(kafka, tmp_path).running() as service:
        process = service.start()
        for minute in range(20):
            await service.write(minutes(minute, minute + 1, bad=5 <= minute < 9, slow=12 <= minute < 15))
            await asyncio.sleep(0.1)
        expected = service.replayed()
        live = await service.until(len(expected), process)
        await stopped(process)
        assert ids(await dumped(service, tmp_path, decisions=False)) == ids(live)


@pytest.mark.parametrize("replicas", [1, 2])
async def test_a_backlog_is_judged_without_a_late_event_by_any_number_of_replicas(
    kafka: Cluster, tmp_path: Path, replicas: int
) -> None:
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    import job  # type: ignore[import-not-found]  # noqa: PLC0415  # a script beside the benchmarks

    made = job.write(tmp_path, 60_000)
    async with Service(kafka, tmp_path, rules=job.RULES, topic="bench-events", partitions=4).running() as service:
        for index, path in enumerate(made.files):
            with path.open("rb") as lines:
                await service.fill(index, lines)
        processes = [service.start() for _ in range(replicas)]
        expected = sum(made.firings.values())

        def firings(alerts: list[dict[str, Any]]) -> Counter[str]:
            return Counter(alert["alertname"] for alert in alerts if alert["status"] == "firing")

        deadline = time.monotonic() + 240
        while (found := firings(await service.alerts())).total() < expected:
            assert time.monotonic() < deadline, found
            assert all(process.popen.poll() is None for process in processes)
            await asyncio.sleep(1)
        late = [await service.metric(process, "evaluator_late_events_total") for process in processes]
        for process in processes:
            await stopped(process)
        assert firings(await service.alerts()) == Counter(made.firings)
        assert sum(late) == 0

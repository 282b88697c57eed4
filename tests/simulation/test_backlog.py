"""After a stop of an hour or a year the backlog is judged as if somebody had been there all the time."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from simulation.world import START, TOPICS, Cluster

from evaluator.core.event import MINUTE, SECOND
from evaluator.runtime.clock import run_virtual
from evaluator.runtime.log.port import Outgoing, Partition
from evaluator.runtime.replay import Request, replay
from evaluator.runtime.worker import Pace
from evaluator.wire.config.load import load_rules
from evaluator.wire.instant import instant
from evaluator.wire.text import rfc3339

if TYPE_CHECKING:
    from pathlib import Path

    from evaluator.runtime.log.memory import MemoryLog

RULES = """
version: 1
sources:
  events: {{topic: t, format: json, out_of_orderness: 5s, idle_after: 1d, fields: {{time: t, failed: {{s: ">= 500"}}}}}}
surfaces:
  api: {{source: events, group_by: [f]}}
alerts:
  Failing: {{surface: api, when: error_ratio > 50%, window: 1m, min_samples: 1, severity: page}}
  Silent:
    {{surface: api, when: request_count < 1, window: {silence}h, every: 10m, min_samples: 1, no_data: breach,
     severity: page}}
"""
HOUR = 60 * MINUTE
PACE = Pace(2_000, 0.2)


def traffic(hours: int, every: int, silence: int) -> list[list[tuple[int, bytes]]]:
    """Events of two partitions with their times in microseconds after the start, disordered by less than 5 s."""
    rng = random.Random(hours)
    end, found = hours * HOUR, list[list[tuple[int, bytes]]]()
    for partition in range(2):
        lines = []
        for number, at in enumerate(range(0, end, every)):
            # A tenth of the time it fails; and in the last quarter there is a gap that no stop of ours made.
            if 3 * end // 4 < at < 3 * end // 4 + 3 * silence * HOUR:
                continue
            code = 500 if at // every // 3 % 10 == 1 else 200
            time = at - rng.randrange(4 * SECOND)
            event = {"t": rfc3339(START + time), "f": f"f{(number + partition) % 2}", "s": code}
            lines.append((at, orjson.dumps(event)))
        lines.append((end + 5 * MINUTE, orjson.dumps({"t": rfc3339(START + end + 5 * MINUTE), "f": "f0", "s": 200})))
        found.append(lines)
    return found


async def published(log: MemoryLog) -> list[dict[str, Any]]:
    """The alert topic, in its order."""
    return [orjson.loads(record.value or b"") for record in await log.read(Partition(TOPICS.alerts, 0))]


@pytest.mark.parametrize(
    ("hours", "every", "stop", "silence"),
    [
        pytest.param(24, 20 * SECOND, 23 * HOUR, 1, id="an_hour"),
        pytest.param(365 * 24, 4 * HOUR, 20 * HOUR, 12, id="a_year"),
    ],
)
def test_a_backlog_is_judged_in_event_time_and_in_order(
    tmp_path: Path, hours: int, every: int, stop: int, silence: int
) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES.format(silence=silence))
    config, events = load_rules([path]), traffic(hours, every, silence)
    files = [tmp_path / f"partition-{number}" for number in range(2)]
    for file, lines in zip(files, events, strict=True):
        file.write_bytes(b"\n".join(line for _, line in lines))

    async def undisturbed() -> list[dict[str, Any]]:
        outcome = await replay(config, Request({"events": files}), asyncio.get_running_loop())
        return [orjson.loads(alert) for alert in outcome.alerts]

    async def stopped() -> tuple[list[dict[str, Any]], int]:
        cluster = Cluster(config, [[line for at, line in lines if at < stop] for lines in events])
        await cluster.fill()
        await cluster.run(await cluster.process(pace=PACE))
        before = len(await published(cluster.log))
        # Nobody is there, and the producers go on.
        await cluster.clock.sleep((START + hours * HOUR + 10 * MINUTE - cluster.clock.now()) / SECOND)
        backlog = [
            Outgoing("t", None, line, index)
            for index, lines in enumerate(events)
            for at, line in lines
            if at >= stop
        ]  # fmt: skip
        await cluster.log.append(backlog)
        await cluster.run(await cluster.process(pace=PACE))
        return await published(cluster.log), before

    expected = run_virtual(undisturbed())
    found, before = run_virtual(stopped())
    assert sorted((one["id"], one["status"]) for one in found) == sorted((one["id"], one["status"]) for one in expected)
    assert {one["alertname"] for one in expected} == {"Failing", "Silent"}
    silences = {(one["labels"]["f"], one["firedAt"]) for one in found if one["alertname"] == "Silent"}
    assert len(silences) == 2  # of the gap in the traffic, and none of our stop
    assert 0 < before < len(found)
    end = START + hours * HOUR + 10 * MINUTE
    by_key: dict[str, list[int]] = {}
    for number, one in enumerate(found):
        at = instant(one["endsAt"] or one["firedAt"], "us")
        by_key.setdefault(one["key"], []).append(at)
        if number >= before:
            assert one["evaluated_late"] == (end - at > HOUR)
    assert all(times == sorted(times) for times in by_key.values())

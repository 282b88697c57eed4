"""The four surfaces of the runbook, from what their producers send to alerts, with the rules that are shipped.

Every source has one partition, and no clock moves time: the events themselves do. In the middle the process is
killed and another one goes on.
"""

from __future__ import annotations

import gzip
import json
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from kafka.service import MINUTE_US, START_US, Service
from kafka.test_sources import stopped

from evaluator.runtime.log.port import Outgoing
from evaluator.wire.text import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.cluster import Cluster

SHIPPED = Path(__file__).parents[2] / "config" / "evaluator.yaml"
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US

PAGE = "https://admin.example.com/dashboard"
FUNCTION = "f1c2a7e0-8f5e-4f0b-9a63-0d5a2f7d1b11"


class Sent(NamedTuple):
    """A record of one of the sources."""

    source: str
    value: bytes
    at_us: int
    headers: tuple[tuple[str, bytes], ...] = ()


def at(us: int) -> str:
    """Hours and minutes since the start, as tests say it."""
    minutes = (us - START_US) // MINUTE_US
    return f"{minutes // 60}:{minutes % 60:02d}"


def calls() -> Iterator[Sent]:
    """Of the Voice API: 3 hours in which one of ten fails, then good ones until after the fifth."""
    for minute in range(5 * 60 + 10):
        us = START_US + minute * MINUTE_US
        line = {
            "timestamp": rfc3339(us), "level": "info", "service": "easymo-api", "target": "api-router",
            "env": "production", "trace_id": f"414f45ae-8bef-4d91-8e9c-{minute:012d}", "request_id": f"r{minute}",
            "method": "POST", "path": "/v1/voice/calls", "event": "http.request.completed",
            "status_code": 503 if minute % 10 == 3 and minute < 180 else 200, "duration_ms": 40.0,
        }  # fmt: skip
        yield Sent("api-events", json.dumps(line).encode(), us)
        started = {**line, "event": "http.request.started", "status_code": None}
        yield Sent("api-events", json.dumps(started).encode(), us)


def invocations() -> Iterator[Sent]:
    """Of Supabase: batches of 20 a minute; for 35 minutes one of them fails in each."""
    for minute in range(60):
        us = START_US + minute * MINUTE_US
        batch = [
            {"id": f"i{minute}-{n}", "timestamp": us + n * 1000, "event_message": "POST | 200 | https://x.example.com",
             "metadata": [{
                 "function_id": FUNCTION, "deployment_id": "x_1", "version": "7", "execution_time_ms": 40 + n,
                 "request": [{"method": "POST", "pathname": "/functions/v1/wa-webhook"}],
                 "response": [{"status_code": 546 if n == 7 and minute < 35 else 200}],
             }]}
            for n in range(20)
        ]  # fmt: skip
        yield Sent("function-logs", gzip.compress(json.dumps(batch).encode()), us)


def messages() -> Iterator[Sent]:
    """Of the broker: half an hour at 8 s, then at 1 s."""
    for third in range(20 * 90):
        us = START_US + third * MINUTE_US // 20
        took_us = 8_000_000 if third < 20 * 30 else 1_000_000
        produced = str((us - took_us) // 1000).encode()
        yield Sent("broker-out", b'{"kind": "message"}', us, (("x-produced-at", produced),))


def runs(url: str, us: int, commit: str, *scores: float, context: str = "main") -> Iterator[Sent]:
    """Of Lighthouse: one a minute, published three minutes after it ran."""
    for number, score in enumerate(scores):
        ran = us + number * MINUTE_US
        report = {
            "lighthouseVersion": "12.6.0", "requestedUrl": url, "finalDisplayedUrl": url, "fetchTime": rfc3339(ran),
            "configSettings": {"formFactor": "mobile"}, "categories": {"performance": {"score": score}},
            "commit": commit, "context": context,
        }  # fmt: skip
        yield Sent("lighthouse", json.dumps(report).encode(), ran + 3 * MINUTE_US)


def reports() -> Iterator[Sent]:
    """Good, a pull request that nobody is paged for, bad, good again, two days of nothing, and good again."""
    yield from runs(PAGE, START_US, "c1", 0.92, 0.9, 0.94)
    yield from runs(PAGE, START_US + 30 * MINUTE_US, "pr1", 0.3, 0.31, 0.3, context="pr")
    yield from runs(PAGE, START_US + HOUR_US, "c2", 0.6, 0.74, 0.7)
    yield from runs(PAGE, START_US + 2 * HOUR_US, "c3", 0.91, 0.93, 0.9)
    # Somebody else's page moves the time of the topic.
    for day in (1, 2):
        yield from runs("https://www.example.com/", START_US + day * DAY_US, f"www{day}", 0.5)
    yield from runs(PAGE, START_US + 50 * HOUR_US, "c4", 0.92, 0.9, 0.91)
    yield from runs("https://www.example.com/", START_US + 51 * HOUR_US, "www3", 0.5)


def told(alert: dict[str, Any]) -> tuple[str, str, str, dict[str, str], dict[str, Any]]:
    """Name, status, when, what names the series, and the last window's values."""
    rest = {n: v for n, v in alert["labels"].items() if n not in ("alertname", "severity", "surface", "team", "slo")}
    last = alert["windows"][-1]
    values = {"n": last["n"], "bad": last["bad"], **last["values"]}
    assert alert["reason"] == ("breached" if alert["status"] == "firing" else "recovered")
    return alert["alertname"], alert["status"], alert["endsAt"] or alert["firedAt"], rest, values


FUNCTION_LABELS = {"metadata_function_id": FUNCTION}
PAGE_LABELS = {"url": PAGE, "form_factor": "mobile"}


class Surfaces(Service):
    """A service on the shipped rules."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        super().__init__(cluster, folder, rules=SHIPPED.read_text(), partitions=1)
        # A machine that stands still for half a minute would let our clock pass time, to the day of this run.
        changed = rf"\1topic: {self.app}.\2\1idle_after: 1h"
        self.rules.write_text(re.sub(r"(\n +)topic: (\S+)", changed, self.rules.read_text()))


async def test_the_four_surfaces_fire_and_resolve_on_their_real_formats_through_a_kill(
    kafka: Cluster, tmp_path: Path
) -> None:
    sent = sorted([*calls(), *invocations(), *messages(), *reports()], key=lambda each: each.at_us)
    async with Surfaces(kafka, tmp_path).running() as service:
        records = [Outgoing(service.topic_of[s.source], None, s.value, 0, s.headers, s.at_us // 1000) for s in sent]
        first = [n for n, each in enumerate(sent) if each.at_us <= START_US + 100 * MINUTE_US]
        process = service.start()
        await service.log.append(records[: len(first)])
        await service.until(4, process)
        process.signal(signal.SIGKILL)
        await process.ended()
        again = service.start()
        await service.log.append(records[len(first) :])
        alerts = await service.until(len(EXPECTED), again)
        assert await service.metric(again, "evaluator_rejected_total") == 0
        await stopped(again)
    found = sorted((told(alert) for alert in alerts), key=str)
    # Quantiles are estimates within 1 %.
    assert found == [(*rest, pytest.approx(values, rel=0.01)) for *rest, values in sorted(EXPECTED, key=str)]


EXPECTED = [
    ("VoiceApiDegraded", "firing", "2026-01-28T15:00:00Z", {}, {"n": 60, "bad": 6, "error_ratio": 0.1, "median": 0.04}),
    ("VoiceApiDegraded", "resolved", "2026-01-28T16:00:00Z", {}, {"n": 60, "bad": 0, "error_ratio": 0, "median": 0.04}),
    ("FunctionFailures", "firing", "2026-01-28T12:30:00Z", FUNCTION_LABELS, {"n": 100, "bad": 5, "error_ratio": 0.05}),
    ("FunctionFailures", "resolved", "2026-01-28T12:40:00Z", FUNCTION_LABELS, {"n": 100, "bad": 0, "error_ratio": 0}),
    ("BrokerSlow", "firing", "2026-01-28T12:30:00Z", {}, {"n": 300, "bad": 0, "p95": 8}),
    ("BrokerSlow", "resolved", "2026-01-28T12:45:00Z", {}, {"n": 300, "bad": 0, "p95": 1}),
    ("AdminRouterScore", "firing", "2026-01-28T13:02:00Z", PAGE_LABELS, {"n": 3, "bad": 0, "score": 0.7}),
    ("AdminRouterScore", "resolved", "2026-01-28T14:02:00Z", PAGE_LABELS, {"n": 3, "bad": 0, "score": 0.91}),
    ("AdminRouterRegressed", "firing", "2026-01-28T13:02:00Z", PAGE_LABELS, {"n": 3, "bad": 0, "score_drop": 0.239}),
    ("AdminRouterRegressed", "resolved", "2026-01-28T14:02:00Z", PAGE_LABELS, {"n": 3, "bad": 0, "score_drop": -0.3}),
    # The last run of a page was at 14:02; 26 hours and a window later that is too long ago.
    ("LighthouseMissing", "firing", "2026-01-29T16:03:00Z", {}, {"n": 0, "bad": 0, "last_event": 1769608920}),
    ("LighthouseMissing", "resolved", "2026-01-30T14:01:00Z", {}, {"n": 1, "bad": 0, "last_event": 1769781600}),
]

"""What the libraries of others write goes through a real Kafka and comes out as the right counts.

Of ten requests of `checkout` in a minute four fail and the last is slow; those of `search` are good. What is asserted
is what an alert and the newest status say of them, down to the trace ids; of a record that is as large as a Collector
makes them, how many there were and how many failed. Formats that nobody has a library for go through it as their
examples.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, to_binary_event, to_structured_event
from kafka.service import MINUTE_US, PATIENCE_S, START_US, TOPIC, Service
from kafka.test_sources import consumed, stopped
from kafka.test_traps import raw
from support.examples import EXAMPLES, compared, expected, lines, partitions
from support.exported import (
    Request,
    cloud_event,
    exported,
    lighthouse_report,
    sdks_json,
    sdks_proto,
    sdks_proto_as_json,
)

from evaluator.runtime.log.port import Outgoing, Partition
from evaluator.wire.text import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cloudevents.core.v1.event import CloudEvent
    from opentelemetry.sdk.trace import ReadableSpan
    from support.cluster import Cluster

RULES = """\
version: 1
sources:
  calls: {{topic: calls-topic, format: {format}, out_of_orderness: 0s, idle_after: 1h{fields}}}
surfaces:
  shop: {{source: calls, group_by: [{group}], owners: ["@on-call"]}}
alerts:
  Failing: {{surface: shop, when: error_ratio > 20%, window: 1m, min_samples: 1, severity: page}}
  Slow: {{surface: shop, when: [slow_ratio(500ms) > 50%, max > 1h], window: 1m, min_samples: 1, severity: ticket}}
"""
CLOUDEVENTS = ', fields: {latency: took.ms, latency_unit: ms, failed: {status: ">= 500"}}'
SPANS_GROUP, EVENTS_GROUP = "{field: service.name, as: who}", "{field: ce.source, as: who}"

STATUSES = (200, 503, 200, 500, 404, 503, 200, 200, 502, 200)
SLOW_US = 900_000

REQUESTS = [
    *(Request("checkout", START_US + n * 5_000_000, SLOW_US if n == 9 else 90_000, status)
      for n, status in enumerate(STATUSES)),
    *(Request("search", START_US + n * 5_000_000 + 1, 40_000) for n in range(5)),
]  # fmt: skip
AFTERWARDS = [Request(service, START_US + MINUTE_US + 1) for service in ("checkout", "search")]
"""Of the next minute: it closes the one that is judged."""

LARGEST = 4 << 20
"""Bytes of a record: what a source takes unless it is told otherwise, four times what Kafka does."""

FAILED = [request for request in REQUESTS if request.status >= 500]


async def judged(service: Service, records: Sequence[Outgoing], told: int) -> tuple[list[dict[str, Any]], list[Any]]:
    """The alerts that a process makes of these records, and the newest status of `told` alerts and series."""
    process = service.start()
    async with raw(service.bootstrap, max_request_size=LARGEST) as producer:
        for one in records:
            await producer.send_and_wait(one.topic, one.value, one.key, one.partition, headers=list(one.headers))
    await consumed(service, process)
    await service.until(1, process)
    # Each shard writes its own: those of another one may come later.
    deadline = time.monotonic() + PATIENCE_S
    while len(status := await statuses(service)) < told:
        assert time.monotonic() < deadline, status
        await asyncio.sleep(0.2)
    assert await service.metric(process, "evaluator_rejected_total") == 0
    await stopped(process)
    return await service.alerts(), status


async def statuses(service: Service) -> list[dict[str, Any]]:
    """The newest status of each alert and series of which a window was decided."""
    records = await service.log.read(Partition(service.topics.status, 0))
    newest = {record.key: orjson.loads(record.value) for record in records if record.value}
    return [each for each in newest.values() if each["windows"]]


def counts(status: Sequence[dict[str, Any]], alertname: str) -> dict[str, tuple[int, int, dict[str, Any]]]:
    """By series: how many there were and how many failed in the first minute, and the values of the rule."""
    return {
        each["labels"]["who"]: (window["n"], window["bad"], window["values"])
        for each in status if each["alertname"] == alertname
        for window in each["windows"] if window["start"] == rfc3339(START_US)
    }  # fmt: skip


def judge(
    alerts: Sequence[dict[str, Any]], status: Sequence[dict[str, Any]], trace_ids: dict[Request, str], who: str
) -> None:
    """`who` names a series by its service."""
    (alert,) = alerts
    checkout, search = who.format("checkout"), who.format("search")
    assert (alert["status"], alert["alertname"], alert["labels"]["who"]) == ("firing", "Failing", checkout)
    (window,) = alert["windows"]
    assert (window["n"], window["bad"], window["values"]) == (10, 4, {"error_ratio": 0.4})
    assert alert["evidence"]["failing"] == [
        {"trace_id": trace_ids[request], "time": rfc3339(request.end_us), "latency": request.latency_us / 1e6}
        for request in reversed(FAILED)
    ]
    assert alert["evidence"]["slowest"][0]["trace_id"] == trace_ids[REQUESTS[len(STATUSES) - 1]]
    assert counts(status, "Failing") == {
        checkout: (10, 4, {"error_ratio": 0.4}),
        search: (5, 0, {"error_ratio": 0}),
    }
    assert counts(status, "Slow") == {
        checkout: (10, 4, {"slow_ratio(500ms)": 0.1, "max": 0.9}),
        search: (5, 0, {"slow_ratio(500ms)": 0, "max": 0.04}),
    }


@pytest.mark.parametrize(
    ("name", "encode"),
    [
        ("otlp_proto", sdks_proto),
        ("otlp_json", sdks_json),
        ("otlp_json", sdks_proto_as_json),
        ("otlp", sdks_proto),
        ("otlp", sdks_json),
    ],
)
async def test_what_opentelemetry_exports_is_counted(
    name: str, encode: Callable[[Sequence[ReadableSpan]], bytes], kafka: Cluster, tmp_path: Path
) -> None:
    requests = [*REQUESTS, *AFTERWARDS]
    made = [exported(requests[:8]), exported(requests[8:])]
    trace_ids = dict(zip(requests, [each for _, ids in made for each in ids], strict=True))
    alerts, status = await judged_spans(name, [encode(spans) for spans, _ in made], 4, kafka, tmp_path)
    judge(alerts, status, trace_ids, "{}")


async def judged_spans(
    name: str, values: Sequence[bytes], told: int, kafka: Cluster, tmp_path: Path, **source: str
) -> tuple[list[dict[str, Any]], list[Any]]:
    """What a process makes of records of spans; `source` are settings of their topic, by Kafka's names."""
    rules = RULES.format(format=name, fields="", group=SPANS_GROUP)
    settings = {key.replace("__", "."): value for key, value in source.items()}
    under_test = Service(kafka, tmp_path, rules=rules, topic="calls-topic", partitions=1, source_settings=settings)
    async with under_test.running() as service:
        return await judged(service, [Outgoing(service.source, None, value, 0) for value in values], told)


async def test_a_record_of_ten_thousand_spans_is_counted(kafka: Cluster, tmp_path: Path) -> None:
    """As a Collector batches them: spans of many resources and scopes. The first services fail now and then, one often.

    More than a topic takes unless it is told to, but not more than a source does.
    """
    failing = {f"service-{number:02d}": number for number in range(39)} | {"service-39": 100}
    requests = [
        Request(service, START_US + (number * len(failing) + place) * 5_000, status=503 if number < failed else 200)
        for number in range(10_000 // len(failing))
        for place, (service, failed) in enumerate(failing.items())
    ]
    afterwards = [Request(service, START_US + MINUTE_US + 1) for service in failing]
    spans = [exported(some, ["http", "grpc", "jobs"], with_client=False)[0] for some in (requests, afterwards)]
    values = [sdks_proto(each) for each in spans]
    assert (len(spans[0]), len(values[0]) > 1 << 20) == (10_000, True)
    told = 2 * len(failing)
    (alert,), status = await judged_spans("otlp_proto", values, told, kafka, tmp_path, max__message__bytes=str(LARGEST))
    assert (alert["alertname"], alert["labels"]["who"]) == ("Failing", "service-39")
    assert {who: (n, bad) for who, (n, bad, _) in counts(status, "Failing").items()} == {
        service: (250, failed) for service, failed in failing.items()
    }


@pytest.mark.parametrize("write", [to_structured_event, to_binary_event])
async def test_what_the_sdk_of_cloudevents_writes_is_counted(
    write: Callable[[CloudEvent], KafkaMessage], kafka: Cluster, tmp_path: Path
) -> None:
    requests = sorted([*REQUESTS, *AFTERWARDS], key=lambda request: request.end_us)
    trace_ids = {request: f"request-{number}" for number, request in enumerate(requests)}
    rules = RULES.format(format="cloudevents", fields=CLOUDEVENTS, group=EVENTS_GROUP)
    async with Service(kafka, tmp_path, rules=rules, topic="calls-topic", partitions=1).running() as service:
        messages = [write(cloud_event(number, request)) for number, request in enumerate(requests)]
        assert messages[0].key == "checkout"
        records = [
            Outgoing(service.source, str(each.key).encode(), each.value, 0, tuple(each.headers.items()))
            for each in messages
        ]
        alerts, status = await judged(service, records, 4)
    judge(alerts, status, trace_ids, "/{}")


LIGHTHOUSE = """\
version: 1
sources: {lighthouse: {topic: calls-topic, format: lighthouse, out_of_orderness: 0s, idle_after: 1h}}
surfaces: {admin: {source: lighthouse, group_by: [url, {field: form_factor, as: who}], owners: ["@on-call"]}}
alerts:
  Failing: {surface: admin, when: error_ratio > 20%, window: 1h, min_samples: 1, severity: ticket}
"""


async def test_reports_of_lighthouse_are_runs_that_failed_or_did_not(kafka: Cluster, tmp_path: Path) -> None:
    first, other = "https://admin.example.com/", "https://admin.example.com/reports"
    error = {
        "code": "NO_FCP",
        "message": "The page did not paint any content.",
        "errorStack": "LighthouseError: NO_FCP",
    }
    reports = [
        lighthouse_report(first, START_US),
        lighthouse_report(first, START_US + 1_000_000, None, runtimeError=error),
        lighthouse_report(first, START_US + 2_000_000, 0),
        lighthouse_report(other, START_US + 3_000_000),
        lighthouse_report(other, START_US + 4_000_000, runtimeError={"code": "NO_ERROR", "message": ""}),
        lighthouse_report(other, START_US + 60 * MINUTE_US),
    ]
    async with Service(kafka, tmp_path, rules=LIGHTHOUSE, topic="calls-topic", partitions=1).running() as service:
        records = [Outgoing(service.source, None, json.dumps(each).encode(), 0) for each in reports]
        (alert,), status = await judged(service, records, 2)
    assert alert["labels"] == {
        "alertname": "Failing", "severity": "ticket", "surface": "admin", "url": first, "who": "mobile",
    }  # fmt: skip
    assert alert["evidence"]["failing"] == [{"trace_id": "", "time": rfc3339(START_US + 1_000_000), "latency": None}]
    found = {each["labels"]["url"]: [(window["n"], window["bad"]) for window in each["windows"]] for each in status}
    assert found == {first: [(3, 1)], other: [(2, 0)]}


@pytest.mark.parametrize("name", ["drift", "heartbeat", "registry", "vercel"])
async def test_what_replay_makes_of_an_example_a_service_makes_of_it(name: str, kafka: Cluster, tmp_path: Path) -> None:
    """Down to its windows and evidence. Its own records move the time past the last alert, no clock does."""
    rules = (EXAMPLES / name / "config.yaml").read_text().replace("config/examples", str(EXAMPLES))
    rules = re.sub(r"(\n +)topic: \S+", rf"\1topic: {TOPIC}\1idle_after: 1h", rules)
    files = partitions(name)
    async with Service(kafka, tmp_path, rules=rules, partitions=len(files)).running() as service:
        records = [
            Outgoing(service.source, each.key, each.value, index, each.headers, each.timestamp)
            for index, file in enumerate(files) for each in lines(file)
        ]  # fmt: skip
        process = service.start()
        await service.log.append(records)
        await consumed(service, process)
        await service.until(len(expected(name)), process)
        assert await service.metric(process, "evaluator_rejected_total") == 0
        await stopped(process)
        assert [compared(alert) for alert in await service.alerts()] == expected(name)

"""Dialects of JSON logs: the line that a service writes when a request is over, as its logger writes it."""

from __future__ import annotations

import typing
from dataclasses import replace
from typing import Any

import pytest
from support.decoded import NOON, Event, Seen, record, seen, source_of

from evaluator.wire.config.matcher import Matcher
from evaluator.wire.preset import PRESETS, PresetName

ISO = "2026-01-28T12:00:00.000Z"
UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"
MASKED = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"

API = {
    "timestamp": ISO, "level": "info", "service": "easymo-api", "trace_id": UUID, "request_id": "r-1",
    "event": "http.request.completed", "method": "GET", "path": "/webhook?hub.verify_token=secret", "status_code": 200,
    "duration_ms": 12.5, "target": "api-router", "message": "http.request.completed",
}  # fmt: skip
ADMIN = {
    "timestamp": ISO, "level": "info", "event": "admin.users.list.success", "status": "ok",
    "details": {"duration_ms": 12.5}, "tags": {"request_id": "r-1"},
}  # fmt: skip
PINO = {
    "level": 30, "time": NOON, "pid": 7, "hostname": "h", "req": {"id": "r-1", "method": "GET", "url": "/x?token=s"},
    "res": {"statusCode": 200, "headers": {}}, "responseTime": 12.5, "msg": "request completed",
}  # fmt: skip
AGENT = {
    "level": "INFO", "time": ISO, "service": "agent-core", "requestId": "r-1", "statusCode": 200, "durationMs": 12.5,
    "msg": "request.completed",
}  # fmt: skip
EDGE = {
    "level": "info", "service": "wa-webhook", "requestId": MASKED, "environment": "production", "timestamp": ISO,
    "event": "edge.request.complete", "payload": {"status": 200, "durationMs": 12.5},
}  # fmt: skip
EVENT = Event(latency=12_500, trace_id="r-1")

LINES = [
    ("easymo-api", API, replace(EVENT, trace_id=UUID)),
    ("easymo-admin", ADMIN, EVENT),
    ("pino-http", PINO, EVENT),
    ("agent-core", AGENT, EVENT),
    ("edge-functions", EDGE, replace(EVENT, trace_id=MASKED)),
]


def of(preset: str, *lines: object, **more: Any) -> Seen:
    """What the preset makes of a line a record."""
    return seen(
        {"format": "json", "preset": preset, **more}, *(record(offset, line) for offset, line in enumerate(lines))
    )


@pytest.mark.parametrize(("preset", "line", "event"), LINES)
def test_the_line_of_a_finished_request_is_an_event(preset: str, line: object, event: Event) -> None:
    assert of(preset, line) == Seen([event])


def test_every_preset_has_a_line_here() -> None:
    assert {preset for preset, _, _ in LINES} == set(typing.get_args(PresetName)) == set(PRESETS)


@pytest.mark.parametrize(
    ("preset", "line", "outcome"),
    [
        ("easymo-api", {**API, "status_code": 500}, "failed"),
        ("easymo-api", {**API, "status_code": "503"}, "failed"),
        ("easymo-api", {**API, "status_code": 499}, "good"),
        ("easymo-api", {**API, "level": "error"}, "good"),
        ("easymo-api", {**API, "status_code": None}, "unknown"),
        ("easymo-admin", {**ADMIN, "event": "admin.users.list.error", "status": "error"}, "failed"),
        ("easymo-admin", {**ADMIN, "status": "degraded"}, "failed"),
        ("easymo-admin", {**ADMIN, "status": None}, "unknown"),
        ("pino-http", {**PINO, "res": {"statusCode": 500}}, "failed"),
        ("pino-http", {**PINO, "level": 50}, "good"),
        ("agent-core", {**AGENT, "statusCode": 502}, "failed"),
        ("edge-functions", {**EDGE, "payload": {"status": 500, "durationMs": 12.5}}, "failed"),
        ("edge-functions", {**EDGE, "event": "edge.request.error", "payload": {"durationMs": 12.5}}, "failed"),
        ("edge-functions", {**EDGE, "payload": {"status": 404, "durationMs": 12.5}}, "good"),
    ],
)
def test_a_failure_is_what_the_service_answered_and_not_the_level(preset: str, line: object, outcome: str) -> None:
    (event,) = of(preset, line).events
    assert (event.outcome, event.latency) == (outcome, 12_500)


@pytest.mark.parametrize(
    ("preset", "line"),
    [
        ("easymo-api", {**API, "event": "http.request.started"}),
        ("easymo-api", {"timestamp": ISO, "message": "up"}),
        ("easymo-admin", {**ADMIN, "event": "admin.users.list.start"}),
        ("easymo-admin", {**ADMIN, "event": "admin.users.success.later"}),
        ("pino-http", {"level": 30, "time": NOON, "msg": "listening"}),
        ("agent-core", {**AGENT, "msg": "request.started"}),
        ("edge-functions", {**EDGE, "event": "edge.request.start"}),
        ("edge-functions", {**EDGE, "event": "console.log"}),
        ("edge-functions", {**EDGE, "event": "edge.request.completed"}),
    ],
)
def test_other_lines_are_skipped(preset: str, line: object) -> None:
    assert of(preset, line) == Seen([], skipped=1)


def test_what_the_config_says_goes_before_the_preset() -> None:
    stdout = {**API, "time": ISO, "timestamp": None, "level": "INFO"}
    assert of("easymo-api", stdout, fields={"time": "time"}) == Seen([replace(EVENT, trace_id=UUID)])
    assert of("easymo-api", {**API, "event": "other"}, where={"event": "other"}).skipped == 0
    source = source_of({"format": "json", "preset": "easymo-api", "fields": {"failed": {"status_code": ">= 400"}}})
    assert source.fields == replace(PRESETS["easymo-api"].fields, failed=Matcher.of({"status_code": ">= 400"}))


def test_a_masked_id_tells_nobody_apart_so_it_is_no_duplicate() -> None:
    found = of("edge-functions", EDGE, EDGE, {**EDGE, "requestId": UUID}, {**EDGE, "requestId": UUID}, dedup=10)
    assert (len(found.events), found.duplicates) == (3, 1)

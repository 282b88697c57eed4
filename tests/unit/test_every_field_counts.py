"""A flip of any field that a format reads changes the event, or rejects or skips it: nothing is read for show.

A rule about deploys stands by wherever the format knows of deploys, so that scores, deploys and contexts are read too.
"""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest
from support.decoded import DEPLOYS, NOON, Seen, record, seen, source_of
from support.payloads import ODD_VALUES
from support.spans import NOON_NS, attributes, request, span
from unit import test_format_checks as checks
from unit import test_format_cloudevents as cloudevents
from unit import test_format_lighthouse as lighthouse
from unit import test_format_registry as registry
from unit import test_format_supabase as supabase
from unit import test_format_vercel as vercel
from unit import test_presets as presets

from evaluator.wire import formats
from evaluator.wire.preset import PRESETS

RESOURCE = ("resourceSpans", 0, "resource", "attributes", 0)
SCOPE = ("resourceSpans", 0, "scopeSpans", 0)
SPAN = (*SCOPE, "spans", 0)
OTLP = request(
    span(traceState="ot=th:8", status={"code": 0}, attributes=attributes(http__response__status_code=200))
)  # fmt: skip

Place = tuple[str | int, ...]
SAMPLES: dict[str, tuple[dict[str, Any], list[str], Any, dict[Place, Any]]] = {
    "otlp_json": (
        {"format": "otlp_json"}, ["service.name", "scope.name"], OTLP,
        {
            (*SPAN, "traceId"): "0" * 31 + "1", (*SPAN, "kind"): 3, (*SPAN, "startTimeUnixNano"): str(NOON_NS - 1),
            (*SPAN, "endTimeUnixNano"): str(NOON_NS + 1_000), (*SPAN, "traceState"): "ot=th:c",
            (*SPAN, "status", "code"): 2, (*SPAN, "attributes", 0, "value", "intValue"): "500",
            (*RESOURCE, "value", "stringValue"): "cart", (*RESOURCE, "key"): "service.names",
            (*SCOPE, "scope", "name"): "grpc", (*SCOPE, "spans"): [],
        },
    ),
    "supabase": (
        supabase.SOURCE, supabase.GROUPS, [supabase.edge_log()],
        {
            (0, "id"): "x", (0, "timestamp"): NOON * 1000, (0, "metadata", "execution_time_ms"): 133,
            (0, "metadata", "function_id"): None, (0, "metadata", "request", "method"): "GET",
            (0, "metadata", "version"): "8",
            (0, "metadata", "response", "status_code"): 500,
        },
    ),
    "vercel": (
        vercel.SOURCE, [], [vercel.line()],
        {
            (0, "timestamp"): NOON + 1, (0, "requestId"): "x", (0, "statusCode"): -1, (0, "proxy"): None,
            (0, "proxy", "statusCode"): -1, (0, "deploymentId"): "dpl_2",
        },
    ),
    "cloudevents": (
        cloudevents.SOURCE, cloudevents.GROUPS, {**cloudevents.attributes(), "data": cloudevents.DATA},
        {
            ("id",): "2", ("source",): "/other", ("type",): "other", ("subject",): None, ("time",): None,
            ("specversion",): "2.0", ("data", "took", "ms"): 13, ("data", "status"): 500, ("data", "route"): "/",
            ("data",): None,
        },
    ),
    "lighthouse": (
        lighthouse.SOURCE, lighthouse.GROUPS,
        lighthouse.report(context="pr", commit="4f2a9c1", runtimeError={"code": "NO_ERROR"}),
        {
            ("requestedUrl",): "https://x", ("fetchTime",): "2026-01-28T12:00:01Z", ("context",): None,
            ("configSettings", "formFactor"): "desktop", ("runtimeError", "code"): "NO_FCP",
            ("categories", "performance", "score"): 0.1, ("commit",): "77aa01b",
        },
    ),
    "drift": (
        checks.DRIFT, ["surface"], checks.drift(),
        {("kind",): "x", ("surface",): "x", ("time",): None, ("status",): "drift", ("commit",): "77aa01b"},
    ),
    "heartbeat": (
        checks.HEARTBEAT, ["surface"], {"kind": "heartbeat", "surface": "supabase", "time": checks.TIME},
        {("kind",): "x", ("surface",): "x", ("time",): None},
    ),
    "easymo-api": (
        {"format": "json", "preset": "easymo-api"}, [], presets.API,
        {("timestamp",): None, ("trace_id",): "x", ("event",): "x", ("status_code",): 500, ("duration_ms",): 13},
    ),
    "easymo-admin": (
        {"format": "json", "preset": "easymo-admin"}, [], presets.ADMIN,
        {
            ("timestamp",): None, ("event",): "x", ("status",): "degraded", ("details", "duration_ms"): 13,
            ("tags", "request_id"): "x",
        },
    ),
    "pino-http": (
        {"format": "json", "preset": "pino-http"}, [], presets.PINO,
        {("time",): NOON + 1, ("req", "id"): "x", ("res", "statusCode"): 500, ("responseTime",): 13},
    ),
    "agent-core": (
        {"format": "json", "preset": "agent-core"}, [], presets.AGENT,
        {("time",): None, ("requestId",): "x", ("statusCode",): 500, ("durationMs",): 13, ("msg",): "x"},
    ),
    "registry": (
        registry.SOURCE, ["route"], {"time": NOON, "route": "/pay", "status": 200, "took": {"ms": 12.5}},
        {("time",): NOON + 1, ("route",): "/", ("status",): 500, ("took", "ms"): 13},
    ),
    "edge-functions": (
        {"format": "json", "preset": "edge-functions"}, [], presets.EDGE,
        {
            ("timestamp",): None, ("requestId",): "x", ("event",): "edge.request.error", ("payload", "status"): 500,
            ("payload", "durationMs"): 13,
        },
    ),
}  # fmt: skip


FLIPS = [(name, place) for name, (*_, flips) in SAMPLES.items() for place in flips]
TRIES = 60


def read_of(name: str, sample: object) -> Seen:
    """What becomes of a sample of a format or preset."""
    source, groups, *_ = SAMPLES[name]
    frame = registry.framed(3, b"") if name == "registry" else b""  # its third schema is JSON
    value = sample if isinstance(sample, bytes) else json.dumps(sample).encode()
    alerts = DEPLOYS if source_of(source).fields.deploy else {}
    return seen(source, record(0, frame + value), group_by=groups, alerts=alerts)


def with_value(name: str, place: Place, value: object) -> Any:
    """The sample with another value at a place."""
    changed = copy.deepcopy(SAMPLES[name][2])
    node: Any = changed
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    return changed


@pytest.mark.parametrize(("name", "place"), FLIPS)
def test_a_flip_changes_what_becomes_of_the_record(name: str, place: Place) -> None:
    _, _, sample, flips = SAMPLES[name]
    before = read_of(name, sample)
    assert len(before.events) == 1
    assert read_of(name, with_value(name, place, flips[place])) != before


@pytest.mark.parametrize(("name", "place"), FLIPS)
def test_whatever_stands_in_a_field_gives_an_event_a_reject_or_a_skip(name: str, place: Place) -> None:
    """Values that no JSON library would write too. One that is read as before is another way to write the same."""
    rng = random.Random(f"{name} {place}")
    before = read_of(name, SAMPLES[name][2])
    hole = with_value(name, place, "\ue000")
    text = json.dumps(hole, ensure_ascii=False)
    changed = 0
    for _ in range(TRIES):
        token = rng.choice(ODD_VALUES)
        after = read_of(name, text.replace('"\ue000"', token).encode("utf-8", "surrogatepass"))
        assert len(after.events) + len(after.rejections) + after.skipped >= 1, token
        changed += after != before
    assert changed >= TRIES // 10


def test_every_format_and_preset_is_here() -> None:
    """The other two of otlp read the same messages; json reads what the config names."""
    assert SAMPLES.keys() == {*formats.known(), *PRESETS} - {"otlp", "otlp_proto", "json"}

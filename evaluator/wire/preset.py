"""Presets: what the JSON logs of well-known loggers look like.

A preset fills in `where` and `fields` of a source of the format `json`, nothing else; what the config writes itself
goes before it. Each takes the one line that a service writes when a request is over.

`level` is in none of them: these services log completions with status 500 at `info`. Nor is a path: it holds ids and
secrets. EasyMO's logger writes `timestamp` to its drain, `time` to stdout; the presets read the drain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from evaluator.wire.config.matcher import Matcher
from evaluator.wire.config.model import FieldsConfig, SourceDefaults

if TYPE_CHECKING:
    from collections.abc import Mapping

PresetName = Literal["easymo-api", "easymo-admin", "pino-http", "agent-core", "edge-functions"]

PRESETS: Mapping[PresetName, SourceDefaults] = {
    "easymo-api": SourceDefaults(
        FieldsConfig(
            time="timestamp",
            latency="duration_ms",
            latency_unit="ms",
            failed=Matcher.of({"status_code": ">= 500"}),
            trace_id="trace_id",
            id="request_id",
        ),
        where=Matcher.of({"event": "http.request.completed"}),
    ),
    "easymo-admin": SourceDefaults(
        FieldsConfig(
            time="timestamp",
            latency="details.duration_ms",
            latency_unit="ms",
            failed=Matcher.of({"status": "!= ok"}),
            trace_id="tags.request_id",
            id="tags.request_id",
        ),
        where=Matcher.of({"event": r"~ \.(success|error)$"}),
    ),
    "pino-http": SourceDefaults(
        FieldsConfig(
            time="time",
            latency="responseTime",
            latency_unit="ms",
            failed=Matcher.of({"res.statusCode": ">= 500"}),
            trace_id="req.id",
            id="req.id",
        ),
        where=Matcher.of({"res.statusCode": "*"}),
    ),
    "agent-core": SourceDefaults(
        FieldsConfig(
            time="time",
            latency="durationMs",
            latency_unit="ms",
            failed=Matcher.of({"statusCode": ">= 500"}),
            trace_id="requestId",
            id="requestId",
        ),
        where=Matcher.of({"msg": "request.completed"}),
    ),
    "edge-functions": SourceDefaults(
        FieldsConfig(
            time="timestamp",
            latency="payload.durationMs",
            latency_unit="ms",
            failed=Matcher.of({"event": r"~ \.error$"}, {"payload.status": ">= 500"}),
            trace_id="requestId",
            id="requestId",
        ),
        where=Matcher.of({"event": r"~ ^edge\.request\.(complete|error)$"}),
    ),
}

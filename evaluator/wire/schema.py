"""The JSON Schema of the alert record: what subscribers may rely on. Additive changes only."""

from __future__ import annotations

from typing import Any

from evaluator.core.streak import Reason
from evaluator.core.verdict import Verdict

_TEXT = {"type": "string"}
_TIME = {"type": "string", "format": "date-time"}
_MAYBE_TIME = {"type": ["string", "null"], "format": "date-time"}
_COUNT = {"type": "integer", "minimum": 0}
_TEXTS = {"type": "object", "additionalProperties": _TEXT}


def _record(properties: dict[str, Any], *optional: str) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def alert_schema() -> dict[str, Any]:
    """The schema of a record of the alerts topic. Durations are in seconds, ratios 0 to 1."""
    evidence = _record({"trace_id": _TEXT, "time": _TIME, "latency": {"type": ["number", "null"]}})
    window = _record(
        {
            "start": _TIME,
            "end": _TIME,
            "verdict": {"enum": [verdict.value for verdict in Verdict]},
            "breached": _list(_TEXT),
            "values": {"type": "object", "additionalProperties": {"type": ["number", "null"]}},
            "estimate": _list(_TEXT),
            "n": _COUNT,
            "bad": _COUNT,
            "count": {"type": "integer", "minimum": 2},
            "until": _TIME,
            "deploy": _TEXT,
            "context": _TEXT,
        },
        "count",
        "until",
        "deploy",
        "context",
    )
    rule = _record(
        {
            "when": _list(_TEXT),
            "window": _TEXT,
            "every": _TEXT,
            "consecutive": {"type": "integer", "minimum": 1},
            "m_of_n": {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 2, "maxItems": 2},
            "runs": {"type": "integer", "minimum": 1},
            "settle": _TEXT,
            "contexts": _list(_TEXT),
        },
        "consecutive",
        "m_of_n",
        "runs",
        "settle",
        "contexts",
    )
    inputs = _record({"topic": _TEXT, "partition": _COUNT, "from": _COUNT, "to": _COUNT})
    properties = {
        "id": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
        "status": {"enum": ["firing", "resolved"]},
        "reason": {"enum": [reason.value for reason in Reason]},
        "alertname": _TEXT,
        "surface": _TEXT,
        "slo": {"type": ["string", "null"]},
        "severity": _TEXT,
        "labels": _TEXTS,
        "annotations": _TEXTS,
        "startsAt": _TIME,
        "firedAt": _TIME,
        "endsAt": _MAYBE_TIME,
        "generatorURL": {"type": "string", "format": "uri"},
        "fingerprint": {"type": "string", "pattern": "^[0-9a-f]{16}$"},
        "episode": {"type": "string", "pattern": "^[0-9a-f]{16}--?[0-9]+$"},
        "key": _TEXT,
        "rule": rule,
        "windows": {"type": "array", "items": window, "maxItems": 20},
        "owners": _list(_TEXT),
        "owner_source": {"type": ["string", "null"]},
        "evidence": _record({"failing": _list(evidence), "slowest": _list(evidence)}),
        "budget": {"type": ["object", "null"]},
        "provenance": _record({"config": _TEXT, "version": _TEXT, "inputs": _list(inputs)}),
        "evaluated_late": {"type": "boolean"},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://slo-evaluator.dev/schema/alert.v1.json",
        "title": "An alert fired or resolved",
        **_record(properties),
    }

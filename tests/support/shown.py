"""Status and alert records as the log holds them, and a clock that stands still, for tests of what is shown."""

from __future__ import annotations

from typing import Any

import orjson

from evaluator.core.alert import fingerprint
from evaluator.core.event import MINUTE, EpochUs
from evaluator.wire.instant import instant
from evaluator.wire.text import rfc3339

NOON = EpochUs(instant("2026-01-28T12:00:00Z", "us"))


class FixedClock:
    """It is noon, until a test says otherwise."""

    is_simulated = False

    def __init__(self, at: EpochUs = NOON) -> None:
        self.at = at

    def now(self) -> EpochUs:
        """The time that was set."""
        return self.at

    def monotonic(self) -> float:
        """The same in seconds."""
        return self.at / 1e6

    async def sleep(self, seconds: float) -> None:
        """Be there at once."""
        self.at = EpochUs(self.at + round(seconds * 1e6))


def minutes_before_noon(minutes: float) -> str:
    """A time as records write it."""
    return rfc3339(NOON - round(minutes * MINUTE))


def window(verdict: str, ended: float, /, **changes: Any) -> dict[str, Any]:
    """A decided window of a minute that ended so many minutes before noon."""
    plain = {
        "start": minutes_before_noon(ended + 1), "end": minutes_before_noon(ended), "verdict": verdict,
        "breached": [], "values": {"error_ratio": None}, "estimate": [], "n": 0, "bad": 0,
    }  # fmt: skip
    return plain | changes


def breach(ended: float) -> dict[str, Any]:
    """27 of 1402 failed."""
    return window(
        "BREACH", ended, breached=["error_ratio > 0%"], values={"error_ratio": 0.019258}, n=1402, bad=27
    )  # fmt: skip


def status(group: dict[str, str] | None = None, /, **changes: Any) -> tuple[bytes, bytes]:
    """Key and value of the status record of alert `A` on surface `api`: quiet, last window a minute ago."""
    group = group or {}
    name = changes.get("alertname", "A")
    surface = changes.get("surface", "api")
    inner = ",".join(f'{label}="{_escaped(value)}"' for label, value in group.items())
    plain = {
        "key": f"{surface}/{name}" + (f"{{{inner}}}" if group else ""), "alertname": name, "surface": surface,
        "slo": None, "severity": "page", "labels": {"alertname": name, "severity": "page", "surface": surface, **group},
        "phase": "inactive", "streak": 0, "required": 3, "startsAt": None, "firedAt": None, "data": "ok",
        "windows": [window("OK", 1, values={"error_ratio": 0.001}, n=1000, bad=1)], "budget": None,
        "rule": {"when": ["error_ratio > 0%"], "window": "1m", "every": "1m", "consecutive": 3},
        "source": "events", "watermark": minutes_before_noon(0.5), "updatedAt": minutes_before_noon(0.5),
        "owners": ["@owner"], "annotations": {}, "events": {"good": 999, "bad": 1, "unknown": 0},
    }  # fmt: skip
    record = plain | changes
    return str(record["key"]).encode(), orjson.dumps(record)


def firing(group: dict[str, str] | None = None, /, **changes: Any) -> tuple[bytes, bytes]:
    """The status record of an alert that fires since two minutes before noon."""
    return status(group, **{
        "phase": "firing", "streak": 3, "startsAt": minutes_before_noon(5), "firedAt": minutes_before_noon(2),
        "windows": [breach(4), breach(3), breach(2), breach(1)], **changes,
    })  # fmt: skip


def alert(number: int, group: dict[str, str] | None = None, /, **changes: Any) -> bytes:
    """The alert record `number`: it fired so many seconds after 11:00."""
    key, _ = status(group)
    labels = {"alertname": "A", "severity": "page", "surface": "api", **(group or {})}
    plain = {
        "id": f"{number:032x}", "status": "firing", "reason": "breached", "alertname": "A", "surface": "api",
        "severity": "page", "labels": labels, "annotations": {"summary": f"summary {number}"},
        "startsAt": minutes_before_noon(65), "firedAt": minutes_before_noon(60 - number / 60), "endsAt": None,
        "fingerprint": fingerprint(labels), "episode": "e", "key": key.decode(),
        "evidence": {"failing": [{"trace_id": f"trace-{number}", "time": minutes_before_noon(61), "latency": None}],
                     "slowest": []},
    }  # fmt: skip
    return orjson.dumps(plain | changes)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

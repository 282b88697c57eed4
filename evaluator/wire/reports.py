"""What `evaluator publish` makes of the reports of other programs: records of the formats lighthouse, drift, heartbeat.

What is kept of a Lighthouse report says to the format the same as all of it; what is left out are lists of audits,
screenshots and texts, a megabyte and more.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluator.wire.formats.json import parse
from evaluator.wire.formats.lighthouse import url_of
from evaluator.wire.instant import NOT_A_TIME, instant
from evaluator.wire.rejection import Fault, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

LIMIT = 256 * 1024
"""Of a record. A reduced report has some kilobytes; Kafka takes no more than a megabyte by default."""

_WHOLE = (
    "lighthouseVersion", "requestedUrl", "mainDocumentUrl", "finalDisplayedUrl", "finalUrl", "fetchTime",
    "runtimeError", "environment", "commit", "branch", "context",
)  # fmt: skip
"""Kept as they are; the last three are there where a report was reduced before."""

_OF_CATEGORY = ("id", "title", "score")
_OF_AUDIT = ("id", "score", "scoreDisplayMode", "numericValue", "numericUnit", "displayValue", "errorMessage")

_METRICS = (
    "first-contentful-paint", "largest-contentful-paint", "total-blocking-time", "cumulative-layout-shift",
    "speed-index", "interactive", "interaction-to-next-paint", "max-potential-fid", "server-response-time",
)  # fmt: skip
"""The audits that measure something."""


class Reduced(NamedTuple):
    """A Lighthouse report as a record: what it is about, and its value."""

    url: str
    value: bytes


def reduced(report: bytes, about: Mapping[str, str]) -> Reduced | Fault:
    """A report without what no rule reads. `about` are `commit`, `branch` and `context` of the run, as far as known."""
    whole = parse(report) if report.strip() else Fault(Reason.NOT_JSON, "it is empty")
    if isinstance(whole, Fault):
        return whole
    if not isinstance(whole, dict):
        return Fault(Reason.WRONG_SHAPE, "it is no object")
    fault = _wrong(whole)
    if fault is not None:
        return Fault(Reason.WRONG_SHAPE, fault)
    try:
        value = json.dumps({**_kept(whole), **about}, separators=(",", ":"), allow_nan=False).encode()
    except ValueError:
        return Fault(Reason.BAD_VALUE, "a number in it is too large for JSON")
    if len(value) > LIMIT:
        return Fault(Reason.TOO_LARGE, f"{len(value)} bytes are left of it, and a record has {LIMIT} at most")
    return Reduced(url_of(whole), value)


def _wrong(report: dict[str, Any]) -> str | None:
    """Why that is no Lighthouse report, if it is none."""
    if not isinstance(report.get("lighthouseVersion"), str):
        return "lighthouseVersion is missing"
    if instant(report.get("fetchTime"), "auto") == NOT_A_TIME:
        return "fetchTime is no time"
    if not url_of(report):
        return "requestedUrl is missing"
    for name in ("categories", "configSettings", "audits"):
        if not isinstance(report.get(name) or {}, dict):
            return f"{name} is no object"
    odd = [name for name, each in (report.get("categories") or {}).items() if not isinstance(each or {}, dict)]
    return f"category {odd[0]} is no object" if odd else None


def _kept(report: dict[str, Any]) -> dict[str, Any]:
    kept = {name: report[name] for name in _WHOLE if report.get(name) is not None}
    settings = _only(report.get("configSettings"), ("formFactor",))
    categories = {name: _only(each, _OF_CATEGORY) for name, each in (report.get("categories") or {}).items()}
    audits = report.get("audits") or {}
    metrics = {name: _only(audits[name], _OF_AUDIT) for name in _METRICS if name in audits}
    sections = {"configSettings": settings, "categories": categories, "audits": metrics}
    return {**kept, **{name: section for name, section in sections.items() if section}}


def _only(section: Any, names: tuple[str, ...]) -> dict[str, Any]:  # noqa: ANN401  # JSON
    return {name: section[name] for name in names if name in section} if isinstance(section, dict) else {}


_DRIFT = "Supabase reported drift between remote database and migrations."
_SKIPPED = "Remote drift check skipped"
_CLEAN = ("Remote schema matches migrations", "Assuming no drift.")
SPELLINGS = (_DRIFT, _SKIPPED, *_CLEAN)
"""What the reports of drift say, one of them in each."""


def drift(report: str, surface: str, time: str, commit: str | None) -> bytes | None:
    """The record of a drift check; None where its report says none of `SPELLINGS`.

    Drift counts before a skipped check, and that before a clean one: a report that says both is not clean.
    """
    lines = report.splitlines()
    found = next((number for number, line in enumerate(lines) if _DRIFT in line), None)
    if found is None and not any(spelling in report for spelling in SPELLINGS):
        return None
    status = "drift" if found is not None else "skipped" if _SKIPPED in report else "clean"
    sql = [] if found is None else [line for line in lines[found + 1 :] if line.strip()]
    return _check(surface, time, status, len(sql), commit)


def failed(surface: str, time: str, commit: str | None) -> bytes:
    """The record of a drift check that did not come to its end, and so has no report."""
    return _check(surface, time, "failed", 0, commit)


def _check(surface: str, time: str, status: str, lines: int, commit: str | None) -> bytes:
    record = {"kind": "drift", "surface": surface, "time": time, "status": status, "lines": lines}
    return json.dumps(record if commit is None else {**record, "commit": commit}, separators=(",", ":")).encode()


def heartbeat(surface: str, time: str) -> bytes:
    """The record that something is alive."""
    return json.dumps({"kind": "heartbeat", "surface": surface, "time": time}, separators=(",", ":")).encode()

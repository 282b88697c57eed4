"""Records of checks: drift of a database, and heartbeats."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.decoded import Event, Seen, events, record, seen

DRIFT, HEARTBEAT = {"format": "drift"}, {"format": "heartbeat"}
TIME = "2026-01-28T12:00:00Z"
EVENT = Event(group=("supabase",))


def drift(**changes: Any) -> dict[str, Any]:
    return {
        "kind": "drift", "surface": "supabase", "time": TIME, "status": "clean", "lines": 0, "commit": "4f2a9c1",
        **changes,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        ("clean", "good"), ("drift", "failed"), ("failed", "failed"), ("skipped", "unknown"), (None, "unknown"),
        ("Drift", "unknown"), ("ok", "unknown"), (1, "unknown"), (["drift", "x"], "unknown"), ({}, "unknown"),
    ],
)  # fmt: skip
def test_a_check_that_did_not_run_is_neither_clean_nor_a_failure(status: object, outcome: str) -> None:
    assert events(DRIFT, drift(status=status), group_by=["surface"]) == [replace(EVENT, outcome=outcome)]


def test_a_heartbeat_has_nothing_that_can_fail() -> None:
    beat = {"kind": "heartbeat", "surface": "supabase", "time": TIME}
    assert (
        events(HEARTBEAT, beat, {**beat, "status": "failed"}, group_by=["surface"])
        == [replace(EVENT, outcome="unknown")] * 2
    )


@pytest.mark.parametrize("source", [DRIFT, HEARTBEAT])
def test_records_of_another_kind_are_skipped(source: dict[str, str]) -> None:
    others = [drift(kind=kind) for kind in ("deploy", None, 5)]
    assert seen(source, *(record(n, each) for n, each in enumerate(others))) == Seen([], skipped=3)
    both = seen(source, record(0, drift()), record(1, drift(kind="heartbeat")))
    assert (len(both.events), both.skipped) == (1, 1)


@pytest.mark.parametrize("source", [DRIFT, HEARTBEAT])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"time": None}, "missing_time"),
        ({"time": "2026-01-28T12:00:00"}, "bad_value"),
    ],
)
def test_a_record_without_a_time_is_rejected(source: dict[str, str], value: dict[str, Any], reason: str) -> None:
    bad = {**drift(kind=source["format"]), **value}
    assert seen(source, record(0, bad), record(1, "{")) == Seen([], [(0, 0, reason), (1, 0, "not_json")])

"""What `evaluator publish` makes of reports, and that the formats read of it what they read of the whole."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.decoded import Event, events, record, seen

from evaluator.wire import formats
from evaluator.wire.records import Records
from evaluator.wire.rejection import Fault
from evaluator.wire.reports import LIMIT, Reduced, drift, heartbeat, reduced

URL = "https://admin.example.com/dashboard"
FIELDS = ("url", "form_factor", "run.failed", "run.score", "context", "commit", "fetchTime")
AUDIT = {"id": "x", "score": 0.5, "numericValue": 1.5, "details": {"items": [{"url": "y" * 90}] * 20}}


def report(**changes: Any) -> dict[str, Any]:
    """A report of some hundred kilobytes; None leaves a member out."""
    audits = {f"audit-{n}": AUDIT for n in range(100)}
    found = {
        "lighthouseVersion": "12.6.0", "requestedUrl": URL, "finalDisplayedUrl": f"{URL}?x", "finalUrl": f"{URL}?y",
        "fetchTime": "2026-01-28T12:00:00.000Z", "environment": {"benchmarkIndex": 1532.5},
        "configSettings": {"formFactor": "mobile", "locale": "en-US"}, "i18n": {"text": "z" * 10_000},
        "categories": {"performance": {"id": "performance", "title": "Performance", "score": 0.82,
                                       "auditRefs": [{"id": f"audit-{n}"} for n in range(100)]}},
        "audits": {**audits, "largest-contentful-paint": {**AUDIT, "id": "largest-contentful-paint"}}, **changes,
    }  # fmt: skip
    return {name: value for name, value in found.items() if value is not None}


def read(value: bytes) -> list[object]:
    """What the format finds in a record."""
    reader = formats.get("lighthouse").reader(None, FIELDS)  # type: ignore[arg-type]  # it does not look at it
    found = reader([value], Records.of([record(0, value)]))
    assert found.count == 1
    return [column[0] for column in found.columns]


def test_of_a_report_what_is_read_and_the_metrics_are_left() -> None:
    found = reduced(json.dumps(report()).encode(), {"commit": "4f2a9c1", "branch": "topic", "context": "pr"})
    assert isinstance(found, Reduced)
    assert found.url == URL
    assert json.loads(found.value) == {
        "lighthouseVersion": "12.6.0", "requestedUrl": URL, "finalDisplayedUrl": f"{URL}?x", "finalUrl": f"{URL}?y",
        "fetchTime": "2026-01-28T12:00:00.000Z", "environment": {"benchmarkIndex": 1532.5},
        "configSettings": {"formFactor": "mobile"},
        "categories": {"performance": {"id": "performance", "title": "Performance", "score": 0.82}},
        "audits": {"largest-contentful-paint": {"id": "largest-contentful-paint", "score": 0.5, "numericValue": 1.5}},
        "commit": "4f2a9c1", "branch": "topic", "context": "pr",
    }  # fmt: skip


URLS = st.none() | st.sampled_from([URL, "https://example.com/é", "a\ud800b"])
SCORES = st.none() | st.floats(0, 1) | st.integers(-(2**70), 2**70) | st.sampled_from(["0.82", True, [], {}])
SHAPES = st.fixed_dictionaries({}, optional={
    "requestedUrl": URLS, "finalDisplayedUrl": URLS, "finalUrl": URLS,
    "runtimeError": st.none() | st.fixed_dictionaries({}, optional={"code": st.sampled_from(["NO_ERROR", "NO_FCP"])}),
    "categories": st.none() | st.dictionaries(
        st.sampled_from(["performance", "seo"]), st.none() | st.fixed_dictionaries({}, optional={"score": SCORES})),
    "configSettings": st.none() | st.fixed_dictionaries({}, optional={"formFactor": st.none() | st.text(max_size=5)}),
    "context": st.none() | st.sampled_from(["main", "pr", ""]), "commit": st.none() | st.text(max_size=5),
    "fetchTime": st.sampled_from(["2026-01-28T12:00:00.000Z", "2026-01-28T13:00:00+01:00", 1_769_601_600_000, "noon"]),
})  # fmt: skip


def test_the_format_reads_of_what_is_left_what_it_reads_of_the_whole() -> None:
    examples, reached = 0, 0

    @given(SHAPES)
    def law(changes: dict[str, Any]) -> None:
        nonlocal examples, reached
        examples += 1
        whole = json.dumps(report(**changes)).encode()
        found = reduced(whole, {})
        if isinstance(found, Fault):
            return
        reached += 1
        assert repr(read(found.value)) == repr(read(whole))
        assert read(found.value)[0] == found.url
        assert reduced(found.value, {}) == found  # what is reduced stays as it is

    law()
    assert reached * 2 > examples


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        (b"<html>", "Expecting value"),
        (b"[]", "it is no object"),
        (json.dumps(report(lighthouseVersion=None)).encode(), "lighthouseVersion is missing"),
        (json.dumps(report(fetchTime="noon")).encode(), "fetchTime is no time"),
        (json.dumps(report(requestedUrl="", finalDisplayedUrl=None, finalUrl="")).encode(), "requestedUrl is missing"),
        (json.dumps(report(categories=[1, 2])).encode(), "categories is no object"),
        (json.dumps(report(categories={"performance": [0.5]})).encode(), "category performance is no object"),
        (json.dumps(report(environment={"x": "y" * LIMIT})).encode(), "a record has 262144 at most"),
        (json.dumps(report(environment=0.5)).replace("0.5", "1e999").encode(), "too large for JSON"),
    ],
)  # fmt: skip
def test_what_is_no_report_is_told(value: bytes, detail: str) -> None:
    found = reduced(value, {})
    assert isinstance(found, Fault)
    assert detail in found.detail


DRIFTED = """Connecting
Supabase reported drift between remote database and migrations.

alter table a add column b text;
drop table c;
"""


@pytest.mark.parametrize(
    ("text", "status", "lines", "outcome"),
    [
        ("Remote schema matches migrations\n", "clean", 0, "good"),
        ("diff is empty. Assuming no drift.", "clean", 0, "good"),
        ("Remote drift check skipped: no token", "skipped", 0, "unknown"),
        ("Remote drift check skipped. Assuming no drift.", "skipped", 0, "unknown"),
        (DRIFTED, "drift", 2, "failed"),
        (DRIFTED.replace("\n", "\r\n"), "drift", 2, "failed"),
        (DRIFTED + "-- Remote schema matches migrations", "drift", 3, "failed"),
    ],
)
def test_a_drift_report_says_what_the_format_reads(text: str, status: str, lines: int, outcome: str) -> None:
    value = drift(text, "db", "2026-01-28T12:00:00Z", "4f2a9c1")
    assert json.loads(value or b"") == {
        "kind": "drift", "surface": "db", "time": "2026-01-28T12:00:00Z", "status": status, "lines": lines,
        "commit": "4f2a9c1",
    }  # fmt: skip
    assert events({"format": "drift"}, value) == [Event(outcome=outcome)]


@pytest.mark.parametrize("text", ["", "panic: connection refused", "remote SCHEMA matches migrations"])
def test_a_report_of_something_else_is_not_clean(text: str) -> None:
    assert drift(text, "db", "2026-01-28T12:00:00Z", None) is None


def test_a_heartbeat_is_one() -> None:
    value = heartbeat("db", "2026-01-28T12:00:00Z")
    assert json.loads(value) == {"kind": "heartbeat", "surface": "db", "time": "2026-01-28T12:00:00Z"}
    assert seen({"format": "heartbeat"}, record(0, value)).skipped == 0

"""Lighthouse reports, whole or reduced: what a run was about, when it was, and that a failed one has no score."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.decoded import DEPLOYS, NOON, Event, Run, Seen, config_of, events, record, seen, source_of
from support.exported import REPORT, lighthouse_report

from evaluator.core.event import MINUTE
from evaluator.wire import formats
from evaluator.wire.records import Record, Records
from evaluator.wire.reports import Reduced, reduced

SOURCE = {"format": "lighthouse"}
GROUPS = ["url", "form_factor", "context"]
URL = "https://admin.example.com/dashboard"
LOGIN = "https://admin.example.com/login?next=%2Fdashboard"


def report(**changes: Any) -> dict[str, Any]:
    """A report of Lighthouse 12, with what is read here and something of the rest; None leaves a member out."""
    found = {
        "lighthouseVersion": "12.6.0", "requestedUrl": URL, "mainDocumentUrl": URL, "finalDisplayedUrl": URL,
        "finalUrl": URL, "fetchTime": "2026-01-28T12:00:00.000Z", "gatherMode": "navigation", "runWarnings": [],
        "userAgent": "Mozilla/5.0", "environment": {"networkUserAgent": "Mozilla/5.0", "benchmarkIndex": 1532.5},
        "configSettings": {"formFactor": "mobile", "throttlingMethod": "simulate", "locale": "en-US"},
        "categories": {"performance": {"id": "performance", "title": "Performance", "score": 0.82, "auditRefs": []}},
        "audits": {"largest-contentful-paint": {"id": "largest-contentful-paint", "score": 0.7, "numericValue": 2890}},
        "timing": {"total": 15000}, **changes,
    }  # fmt: skip
    return {name: value for name, value in found.items() if value is not None}


def performance(score: object) -> dict[str, Any]:
    return {"performance": {"score": score}}


EVENT = Event(group=(URL, "mobile", "main"))


def test_a_run_is_an_event_at_the_time_it_was_made() -> None:
    assert events(SOURCE, report(), group_by=GROUPS) == [EVENT]
    late = report(fetchTime="2026-01-28T11:48:00.000Z")
    assert events(SOURCE, late, group_by=GROUPS) == [replace(EVENT, after_noon=-12 * MINUTE)]


REAL_MS = 1_795_823_951_415
"""2026-11-27T23:59:11.415Z"""
REAL_URL = "http://localhost:8123/"


def test_a_report_that_lighthouse_made_is_the_run_that_it_tells_of() -> None:
    """Whole or reduced: the score is that of performance, not one of the three others."""
    real = REPORT.read_bytes()
    less = reduced(real, {"commit": "4f2a9c1"})
    assert isinstance(less, Reduced)
    records = [Record(offset, REAL_MS, None, value) for offset, value in enumerate([real, less.value])]
    run = Event((REAL_MS - NOON) * 1000, group=(REAL_URL, "mobile", "main", "2471.5"))
    groups = [*GROUPS, "environment.benchmarkIndex"]
    assert seen(SOURCE, *records, group_by=groups, alerts=DEPLOYS) == Seen(
        [replace(run, run=Run(600_000, deploy, "main")) for deploy in ("", "4f2a9c1")]
    )


def test_its_page_is_the_one_that_was_asked_for() -> None:
    assert events(SOURCE, lighthouse_report(URL, NOON * 1000), group_by=GROUPS) == [EVENT]


def test_the_reduced_form_says_where_the_run_belongs() -> None:
    reduced = report(audits=None, commit="4f2a9c1", branch="feature", context="pr", timing=None)
    assert events(SOURCE, reduced, group_by=[*GROUPS, "commit"]) == [
        replace(EVENT, group=(URL, "mobile", "pr", "4f2a9c1"))
    ]


@pytest.mark.parametrize(
    ("changes", "url"),
    [
        ({"finalDisplayedUrl": LOGIN, "finalUrl": LOGIN}, URL),
        ({"requestedUrl": None, "finalUrl": LOGIN}, URL),
        ({"requestedUrl": "", "finalUrl": LOGIN}, URL),
        ({"requestedUrl": None, "finalDisplayedUrl": None, "finalUrl": LOGIN}, LOGIN),
        ({"requestedUrl": None, "finalDisplayedUrl": None, "finalUrl": None}, ""),
    ],
)
def test_a_redirect_makes_no_new_series(changes: dict[str, Any], url: str) -> None:
    assert events(SOURCE, report(**changes), group_by=["url"]) == [replace(EVENT, group=(url,))]


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({}, "good"),
        ({"runtimeError": {"code": "NO_ERROR", "message": ""}}, "good"),
        ({"runtimeError": {}}, "good"),
        ({"runtimeError": {"message": "a report with a score ran"}}, "good"),
        ({"categories": performance(0)}, "good"),
        ({"categories": performance("0.82")}, "good"),
        ({"runtimeError": {"code": "ERRORED_DOCUMENT_REQUEST", "message": "404"}}, "failed"),
        ({"runtimeError": {"code": "NO_FCP"}, "categories": performance(None)}, "failed"),
        ({"runtimeError": {"code": ["odd", 1]}}, "failed"),
        ({"categories": performance(None)}, "failed"),
        ({"categories": {}}, "failed"),
        ({"categories": None}, "failed"),
    ],
)
def test_a_run_without_a_score_failed_and_one_with_the_score_0_did_not(changes: dict[str, Any], outcome: str) -> None:
    assert events(SOURCE, report(**changes), group_by=GROUPS) == [replace(EVENT, outcome=outcome)]


@pytest.mark.parametrize(
    ("changes", "score", "context"),
    [
        ({}, 0.82, "main"),
        ({"context": "pr"}, 0.82, "pr"),
        ({"context": ""}, 0.82, "main"),
        ({"categories": performance(0)}, 0, "main"),
        ({"categories": performance(None)}, None, "main"),
        ({"runtimeError": {"code": "NO_FCP"}}, None, "main"),
    ],
)
def test_the_fields_of_run_groups_are_there(changes: dict[str, Any], score: object, context: str) -> None:
    source = source_of(SOURCE)
    fields = source.fields
    paths = (fields.score or "", fields.context or "", fields.deploy or "")
    one = record(0, report(commit="4f2a9c1", **changes))
    read = formats.get("lighthouse").reader(source, paths)([one.value or b""], Records.of([one]))
    assert [list(column) for column in read.columns] == [[score], [context], ["4f2a9c1"]]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (report(fetchTime=None), "missing_time"),
        (report(fetchTime="yesterday"), "bad_value"),
        (report(fetchTime="2026-01-28T12:00:00"), "bad_value"),
        ([report()], "wrong_shape"),
        ("<html>", "not_json"),
    ],
)
def test_what_is_no_report_is_rejected(value: object, reason: str) -> None:
    assert seen(SOURCE, record(0, value)) == Seen([], [(0, 0, reason)])


def test_a_whole_report_of_two_megabytes_fits() -> None:
    audits = {
        f"audit-{n}": {"details": {"items": [{"url": "x" * 100, "node": {"path": [n]}}] * 10}} for n in range(1300)
    }
    assert events(SOURCE, report(audits=audits), group_by=GROUPS) == [EVENT]


def test_reports_come_late_so_their_source_waits_longer() -> None:
    config = config_of(SOURCE)
    assert config.rules.sources["events"].out_of_orderness == config.sources["events"].out_of_orderness == 15 * MINUTE
    assert config_of({**SOURCE, "out_of_orderness": "30s"}).sources["events"].out_of_orderness == MINUTE // 2

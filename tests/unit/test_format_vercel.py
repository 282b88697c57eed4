"""Vercel's log drain: of the lines of a request the first one with `proxy` counts, and -1 means two things."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from support.decoded import DEPLOYS, NOON, Event, Run, Seen, events, record, seen

SOURCE = {"format": "vercel"}
REQUEST = "643af4e3-975a-4cc7-9e7a-1eda11539d90"


def line(proxy: object = (), **changes: Any) -> dict[str, Any]:
    """A line of a request that a function answered with 200; `proxy` changes its part, None leaves it out."""
    about_proxy = {
        "timestamp": NOON - 20, "method": "GET", "host": "admin.example.com", "path": "/api/users?token=secret",
        "statusCode": 200, "region": "cdg1", "scheme": "https", "userAgent": ["Mozilla/5.0"],
    }  # fmt: skip
    found = {
        "id": "1573817187330377061717300000", "deploymentId": "dpl_233NRGRjVZX1caZrXWtz5g1TAksD", "source": "lambda",
        "host": "admin-git-main.vercel.app", "timestamp": NOON, "projectId": "gdufoJxB6b9b1fEqr1jUtFkyavUU",
        "level": "info", "message": "", "path": "/api/users", "statusCode": 200, "requestId": REQUEST,
        "environment": "production", "proxy": {**about_proxy, **dict(proxy or ())}, **changes,
    }  # fmt: skip
    if proxy is None:
        del found["proxy"]
    return found


EVENT = Event(trace_id=REQUEST)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param([line()], id="an_array"),
        pytest.param(line(), id="one_object"),
        pytest.param(json.dumps(line()), id="one_line"),
        pytest.param(json.dumps(line()) + "\n\n", id="one_line_and_blank_ones"),
        pytest.param([line(timestamp=str(NOON))], id="timestamp_as_text"),
        pytest.param([line(statusCode=None)], id="no_status_but_the_proxys"),
        pytest.param([line(statusCode="200")], id="status_as_text"),
        pytest.param([line(proxy={"statusCode": None})], id="no_status_of_the_proxy"),
        pytest.param([line(level="error", message="<script>alert(1)</script>")], id="the_level_says_nothing"),
    ],
)
def test_a_request_is_an_event_without_a_duration(value: object) -> None:
    assert events(SOURCE, value) == [EVENT]


def test_ndjson_and_arrays_hold_many() -> None:
    a, b, c, d, e = (line(requestId=each, statusCode=500 if each == "b" else 200) for each in "abcde")
    good = [replace(EVENT, trace_id=each) for each in "acde"]
    failed = Event(outcome="failed", trace_id="b")
    assert events(SOURCE, "\n".join(map(json.dumps, [a, b, c])), [d, e]) == [good[0], failed, *good[1:]]


def test_of_the_lines_of_a_request_the_one_with_proxy_counts() -> None:
    lines = [line(None, message="START"), line(None, message="query took 3 ms", level="warning"), line(), line(None)]
    assert seen(SOURCE, record(0, lines)) == Seen([EVENT], skipped=3)
    assert seen(SOURCE, record(0, [line(None, source="build", requestId=None)])) == Seen([], skipped=1)


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"statusCode": -1}, "failed"),
        ({"statusCode": "-1"}, "failed"),
        ({"statusCode": -1, "proxy": {"statusCode": 502}}, "failed"),
        ({"statusCode": 500}, "failed"),
        ({"statusCode": None, "proxy": {"statusCode": 504}}, "failed"),
        ({"statusCode": 499}, "good"),
        ({"statusCode": 404, "proxy": {"statusCode": 404}}, "good"),
        ({"statusCode": None, "proxy": {"statusCode": None}}, "unknown"),
    ],
)
def test_a_crash_and_a_5xx_are_failures(changes: dict[str, Any], outcome: str) -> None:
    assert events(SOURCE, [line(**changes)]) == [replace(EVENT, outcome=outcome)]


@pytest.mark.parametrize("status", [-1, "-1", -1.0])
def test_a_revalidation_in_the_background_is_skipped(status: object) -> None:
    """Nor does it take the place of the request that it was made for."""
    assert seen(SOURCE, record(0, [line({"statusCode": status}), line()])) == Seen([EVENT], skipped=1)


def test_a_bad_line_rejects_itself() -> None:
    other = line(requestId="b")
    text = "\n".join([json.dumps(line()), "{", json.dumps(line(timestamp="now")), json.dumps(other)])
    expected = [EVENT, replace(EVENT, trace_id="b")]
    assert seen(SOURCE, record(2, text)) == Seen(expected, [(2, 1, "not_json"), (2, 2, "bad_value")])


def test_a_path_is_no_field_of_its_own_but_may_be_asked_for() -> None:
    assert events(SOURCE, [line()], group_by=["proxy.method", "environment"]) == [
        replace(EVENT, group=("GET", "production"))
    ]


@pytest.mark.parametrize(
    ("deployment", "deploy"), [("dpl_233NRGRjVZX1caZrXWtz5g1TAksD",) * 2, (None, ""), ("", ""), (7, "7")]
)
def test_the_deployment_is_the_deploy(deployment: object, deploy: str) -> None:
    found = seen(SOURCE, record(0, [line(deploymentId=deployment)]), alerts=DEPLOYS)
    assert found == Seen([replace(EVENT, run=Run(None, deploy, "main"))])


PRINTED = line(id="2", type="stdout", message="user 7 saved")
EDGE = line(id="3", source="edge", type="middleware-invocation")


@pytest.mark.parametrize(
    ("source", "values", "expected"),
    [
        pytest.param({}, [[line(), PRINTED, EDGE]], Seen([EVENT], duplicates=2), id="lines_of_a_batch"),
        pytest.param({}, [[line()], [PRINTED], [EDGE]], Seen([EVENT], duplicates=2), id="lines_of_several_batches"),
        pytest.param({}, [[line()], [line()]], Seen([EVENT], duplicates=1), id="a_delivery_that_is_repeated"),
        pytest.param({}, [[line(requestId=None)] * 2], Seen([Event()] * 2), id="lines_that_name_no_request"),
        pytest.param({"dedup": 0}, [[line(), PRINTED]], Seen([EVENT] * 2), id="each_line_where_the_source_says_so"),
    ],
)
def test_all_lines_with_proxy_of_a_request_are_one(source: dict[str, Any], values: list[Any], expected: Seen) -> None:
    assert seen({**SOURCE, **source}, *(record(n, value) for n, value in enumerate(values))) == expected


def test_lines_of_a_request_are_one_over_500_records() -> None:
    found = [seen(SOURCE, record(0, [line()]), record(offset, [PRINTED])).duplicates for offset in (500, 501)]
    assert found == [1, 0]


def test_what_a_function_prints_is_no_request_whatever_the_config_filters_by() -> None:
    source = {**SOURCE, "where": {"environment": "production"}}
    lines = [line(proxy=None, message="console.log"), line(environment="preview"), line()]
    assert seen(source, record(0, lines)) == Seen([EVENT], skipped=2)

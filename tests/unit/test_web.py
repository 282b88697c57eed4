"""The page, the API and the endpoints of a daemon, asked over HTTP."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from fractions import Fraction
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any, cast

import pytest
from aiohttp.test_utils import TestClient, TestServer
from support.rules import absence, rule, rules
from support.shown import NOON, FixedClock, alert, breach, firing, minutes_before_noon, status, window

from evaluator.cli.status import status as status_command
from evaluator.cli.words import Output
from evaluator.core.alert import fingerprint
from evaluator.core.event import MINUTE, SECOND, EpochUs
from evaluator.runtime.fleet import Work
from evaluator.runtime.intake import MAX_REJECTED
from evaluator.runtime.log.port import Partition
from evaluator.runtime.metrics import Metrics
from evaluator.runtime.task import TaskState
from evaluator.runtime.view import View
from evaluator.runtime.web import page
from evaluator.runtime.web.app import make_app
from evaluator.runtime.web.work import SHOWN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from aiohttp import ClientResponse, web

    from evaluator.core.rule import RuleSet
    from evaluator.runtime.task import Task

    Client = TestClient[web.Request, web.Application]
    Visit = Callable[..., Awaitable[Client]]

TestClient.__test__ = False  # pytest would collect it by its name


class Healthy:
    """As well as it is told to be."""

    def __init__(self, *, is_well: bool = True) -> None:
        self.is_well = is_well

    def healthy(self) -> tuple[bool, str]:
        return self.is_well, "last turn 0.1 s ago"

    def ready(self) -> tuple[bool, str]:
        return self.is_well, "3 tasks run"


class Reading:
    """Where a stage stands, as far as it is shown."""

    next_offset, lag = 1_234, 5_678


class OurTask:
    """A task, as far as it is shown."""

    stage, state = Reading(), TaskState.RUNNING
    committed_at, restored_in_s = EpochUs(NOON - 3 * SECOND), 0.257


class Shared:
    """Two replicas: this one reads a partition and has yet to take a shard over, the other has the rest."""

    name = "evaluator-here-7"

    def __init__(self, extra: int = 0) -> None:
        here, there = (self.name, None), ("evaluator-<b>-8", "10.0.0.8")
        ours = cast("Task", OurTask())
        self.rows = [
            Work("aggregate", Partition("t", 0), *here, EpochUs(NOON - 30 * SECOND), ours, "sha256:test"),
            Work("aggregate", Partition("t", 1), *there, EpochUs(NOON - 90 * SECOND), None, "sha256:of-others"),
            *(Work("evaluate", Partition("p", number), *there, None, None) for number in range(1 + extra)),
        ]

    def work(self) -> list[Work]:
        return self.rows


@pytest.fixture
async def visit() -> AsyncIterator[Visit]:
    clients: list[Client] = []

    async def start(
        *records: tuple[bytes, bytes],
        alerts: tuple[bytes, ...] = (),
        is_well: bool = True,
        shared: Shared | None = None,
        judged: RuleSet | None = None,
        read: dict[tuple[str, ...], int] | None = None,
        max_rejected: Fraction = MAX_REJECTED,
    ) -> Client:
        view = View(judged or rules(rule(), group_by=("zone",)), FixedClock(), max_rejected)
        view.count(read or {})
        for key, value in records:
            view.apply(key, value)
        for value in alerts:
            view.alert(value)
        metrics = Metrics(view)
        metrics.restored(0.25)
        metrics.restored(0.75)
        client = TestClient(TestServer(make_app(view, metrics, Healthy(is_well=is_well), shared or Shared())))
        await client.start_server()
        clients.append(client)
        return client

    yield start
    for client in clients:
        await client.close()


async def text_of(client: Client, path: str, expected: int = 200) -> str:
    async with client.get(path) as response:
        assert response.status == expected
        return await response.text()


async def json_of(client: Client, path: str) -> Any:
    async with client.get(path) as response:
        return await response.json()


class Words(HTMLParser):
    """The text of a page, and what it would run or load."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.tags, self.handlers, self.links = "", [""], [""], [""]
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.text += " " if tag in {"td", "th", "span"} else ""
        self.handlers += [name for name, _ in attrs if name.startswith("on") or name == "style"]
        self.links += [value or "" for name, value in attrs if name in {"href", "src", "action"}]

    def handle_data(self, data: str) -> None:
        self.text += data


def words(html: str) -> str:
    return " ".join(Words(html).text.split())


# -- the page -----------------------------------------------------------------------------------------------


async def test_the_page_shows_value_threshold_streak_owner_and_delay(visit: Visit) -> None:
    html = await text_of(await visit(firing({"zone": "eu"})), "/")
    text = words(html)
    assert "Firing for 2 min A api zone=eu error_ratio 1.93% breach > 0%" in text
    assert "3 of 3 breaches · window 1m measured 27 of 1,402 failed page · @owner watermark 30 s behind" in text
    assert html.count('class="dot breach"') == 4 + 1  # and the legend's


async def test_the_title_says_what_fires(visit: Visit) -> None:
    assert "<title>(1 firing) SLO evaluator</title>" in await text_of(await visit(firing()), "/")


async def test_nothing_happened_and_we_cannot_see_read_differently(visit: Visit) -> None:
    client = await visit(
        status({"zone": "silent"}, data="no_data", windows=[window("NO_DATA", 1)]),
        status({"zone": "hidden"}, watermark=minutes_before_noon(10), windows=[window("OK", 11)]),
    )
    text = words(await text_of(client, "/"))
    assert "nothing happened: the last window had no events" in text
    assert "we cannot see: nothing decided since 11:51" in text


async def test_a_window_is_told_by_shape_mark_and_words(visit: Visit) -> None:
    windows = [
        window("NO_DATA", 40, count=30, until=minutes_before_noon(11)),
        window("OK", 4, values={"error_ratio": 0.001}, n=1000, bad=1),
        window("INSUFFICIENT", 3, n=1, bad=1),
        breach(1),
    ]
    html = await text_of(await visit(status(windows=windows)), "/")
    assert 'title="11:19 to 11:49: no events (30 windows)">30</i>' in html
    assert 'title="11:55 to 11:56: ok; error_ratio 0.1%, 1 of 1,000 failed"></i>' in html
    assert '<i class="dot few" title="11:56 to 11:57: too few events to judge; 1 of 1 failed">~</i>' in html
    assert 'aria-label="last windows: 30 no events, 1 ok, 1 too few events to judge, 1 breach"' in html


async def test_an_absence_is_told_by_when_something_came_last(visit: Visit) -> None:
    judged = rules(absence("A", 2 * MINUTE), group_by=("zone",))
    asked = {"when": ["expect_every 120000000us"], "window": "1m", "every": "1m", "consecutive": 1}
    last = window("BREACH", 1, breached=["expect_every 120000000us"], values={"last_event": 1769601360.5})
    client = await visit(status(rule=asked, windows=[last], phase="firing"), judged=judged)
    text = words(await text_of(client, "/"))
    assert "last_event 2026-01-28T11:56:00.500Z breach after 120000000us" in text


async def test_an_absence_that_waits_for_its_first_window_has_no_labels_of_series(visit: Visit) -> None:
    client = await visit(judged=rules(absence("Silent", 2 * MINUTE), group_by=("zone",)))
    (shown,) = (await json_of(client, "/api/v1/status"))["data"]["series"]
    assert (shown["key"], shown["labels"]) == (
        "api/Silent", {"alertname": "Silent", "severity": "page", "surface": "api"},
    )  # fmt: skip


async def test_a_deploy_is_told_by_its_name_and_its_scores(visit: Visit) -> None:
    group = {"deploy": "4f2a<b>", "context": "main", "n": 3, "breached": ["score_drop > 10%"],
             "values": {"score": 0.725, "score_drop": 0.1149}}  # fmt: skip
    said = {"when": ["score < 0.7", "score_drop > 10%"], "window": "deploy", "every": "deploy", "consecutive": 1}
    html = await text_of(await visit(status(windows=[window("BREACH", 1, **group)], rule=said)), "/")
    assert "window deploy" in words(html)
    assert "4f2a&lt;b&gt; (main), 11:58 to 11:59: breach; score 0.725, score_drop 11.49%, 0 of 3 failed" in html


async def test_the_page_needs_no_script_and_looks_again_by_itself(visit: Visit) -> None:
    html = await text_of(await visit(firing()), "/")
    seen = Words(html)
    assert '<meta http-equiv="refresh" content="5">' in html
    assert ("script" in seen.tags, seen.handlers) == (False, [""])
    assert "refresh" not in await text_of(await visit(firing()), "/?pause")


async def test_an_empty_page_says_what_to_do(visit: Visit) -> None:
    text = words(await text_of(await visit(), "/"))
    assert "Waiting for the first event 1 alert is configured and no event was judged yet. Send events to t" in text
    assert "no events yet" in text


async def test_a_filter_keeps_what_holds_every_word(visit: Visit) -> None:
    client = await visit(firing({"zone": "eu"}), status({"zone": "us"}), status({"zone": "eu-2"}))
    text = words(await text_of(client, "/?q=EU+firing"))
    assert "1 of 3 match" in text
    assert ("zone=eu" in text, "zone=us" in text) == (True, False)


async def test_a_filter_that_finds_nothing_says_so_and_runs_nothing(visit: Visit) -> None:
    html = await text_of(await visit(firing()), '/?q="><script>alert(1)</script>')
    assert "Nothing matches" in html
    assert "script" not in Words(html).tags


async def test_ten_thousand_series_show_the_firing_ones_and_a_note(visit: Visit) -> None:
    many = [status({"zone": f"z{number:05d}"}, windows=[]) for number in range(10_000)]
    html = await text_of(await visit(*many, firing({"zone": "zz"})), "/")
    assert html.count('<li class="row') == page.ROWS_SHOWN
    assert "zone=<b>zz</b>" in html
    assert "The first 500 of 10001 are shown" in words(html)


async def test_the_page_says_which_replica_works_on_what(visit: Visit) -> None:
    text = words(await text_of(await visit(), "/"))
    assert "evaluator-here-7 1 of 2 source partitions, 0 of 1 shards · this one; 2 taken over since its start" in text
    assert (
        "since its start, each in 0.50 s evaluator-<b>-8 1 of 2 source partitions, 1 of 1 shards · at 10.0.0.8" in text
    )
    assert "source partition t/0 evaluator-here-7 running 5,678 30 s behind 3 s ago in 0.26 s" in text
    assert "source partition t/1 evaluator-<b>-8 – – 1 min behind – –" in text  # noqa: RUF001  # dashes


async def test_of_very_many_partitions_the_page_shows_some_and_says_so(visit: Visit) -> None:
    html = await text_of(await visit(shared=Shared(extra=10_000)), "/")
    assert html.count('<tr class="theirs">') == SHOWN - 1
    assert "9747 more are there; evaluator status shows all." in words(html)


def tallies(ok: int, skipped: int = 0, **reasons: int) -> dict[tuple[str, ...], int]:
    """What the stages counted of the source `events`."""
    return {
        ("records", "events", "ok"): ok, ("records", "events", "skipped"): skipped,
        ("records", "events", "rejected"): sum(reasons.values()),
        **{("rejected", "events", reason): count for reason, count in reasons.items()},
    }  # fmt: skip


async def test_a_source_of_which_too_much_is_rejected_is_flagged_in_words_with_what_to_do(visit: Visit) -> None:
    html = await text_of(await visit(firing(), read=tallies(3_288, not_json=12, future=100)), "/")
    assert (
        "events: more than 1% rejected. 112 of 3,400 (3.29%) that this replica read in the last 10 min, most often as "
        "future. No alert sees these events; evaluator dlq list --source-topic t shows them."
    ) in words(html)
    assert (
        "events t 112 of 3,400 (3.29%) ! more than 1% rejected most often future; see evaluator dlq list 30 s behind"
    ) in words(html)
    assert (html.count('class="notice rejects"'), html.count('class="badge rejects"')) == (1, 1)


@pytest.mark.parametrize(
    ("read", "said"),
    [
        pytest.param({}, "no events to judge", id="nothing_read"),
        pytest.param(tallies(0, skipped=7), "no events to judge", id="skipped_only"),
        pytest.param(tallies(3_400), "none of 3,400", id="nothing_rejected"),
        pytest.param(tallies(3_388, future=12), "12 of 3,400 (0.35%)", id="fewer_than_the_limit"),
        pytest.param(tallies(999_999, future=1), "1 of 1,000,000 (below 0.01%)", id="too_few_for_two_decimals"),
    ],
)
async def test_a_source_of_which_little_is_rejected_says_how_much_and_is_not_flagged(
    visit: Visit, read: dict[tuple[str, ...], int], said: str
) -> None:
    html = await text_of(await visit(firing(), read=read), "/")
    assert f"source rejected here, last 10 min watermark events t {said} 30 s behind" in words(html)
    assert "rejects" not in html
    assert "Others may read other partitions" in html


async def test_a_source_of_which_everything_is_rejected_is_flagged_by_any_limit(visit: Visit) -> None:
    client = await visit(read=tallies(0, wrong_shape=1), max_rejected=Fraction(1))
    text = words(await text_of(client, "/"))
    assert "events: everything rejected. 1 of 1 (100%) that this replica read in the last 10 min, most often as" in text
    assert "Waiting for the first event 1 alert is configured and no event was judged yet." in text


EVIL = "<script>alert(1)</script>\"'&<img src=x onerror=alert(1)>"


async def test_a_limit_is_shown_as_it_was_set(visit: Visit) -> None:
    client = await visit(read=tallies(9_999, future=1), max_rejected=Fraction(5, 100_000))
    assert "events: more than 0.005% rejected. 1 of 10,000 (0.01%)" in words(await text_of(client, "/"))


async def test_names_of_sources_and_topics_are_never_markup(visit: Visit) -> None:
    evil = rules(rule())
    judged = replace(evil, sources={EVIL: replace(evil.sources["events"], name=EVIL, topic=EVIL)})
    read = {("records", EVIL, "rejected"): 1, ("rejected", EVIL, "future"): 1}
    seen = Words(await text_of(await visit(judged=judged, read=read), "/"))
    assert not {"script", "img"} & set(seen.tags)
    assert (seen.handlers, seen.text.count(EVIL)) == ([""], 5)


async def test_text_of_payloads_is_never_markup(visit: Visit) -> None:
    annotations = {"summary": EVIL, EVIL: "javascript:alert(1)", "runbook_url": 'https://x/"onclick="alert(1)'}
    evidence = {"failing": [{"trace_id": EVIL, "time": "", "latency": None}]}
    client = await visit(
        firing({"zone": EVIL}, annotations=annotations, owners=[EVIL]),
        alerts=(alert(1, {"zone": EVIL}, annotations=annotations, evidence=evidence),),
    )
    index = await text_of(client, "/")
    found = re.search("/alerts/([0-9a-f]{16})", index)
    assert found is not None
    for html in (index, await text_of(client, found[0])):
        seen = Words(html)
        assert not {"script", "img"} & set(seen.tags)
        assert seen.handlers == [""]
        assert not any(link.startswith("javascript") for link in seen.links)
        assert EVIL in seen.text


async def test_an_alert_has_a_page_with_its_windows_and_transitions(visit: Visit) -> None:
    client = await visit(firing(annotations={"runbook_url": "https://example.com/r"}), alerts=(alert(1),))
    found = re.search("/alerts/([0-9a-f]{16})", await text_of(client, "/"))
    assert found is not None
    html = await text_of(client, found[0])
    assert '<a href="https://example.com/r" rel="noreferrer">' in html
    assert "11:58 to 11:59 breach: error_ratio > 0% error_ratio 1.93% 27 1402" in words(html)
    assert "failing traces: trace-1" in words(html)


async def test_a_forgotten_series_still_has_a_page_while_its_transitions_are_kept(visit: Visit) -> None:
    client = await visit(alerts=(alert(1, {"zone": "gone"}),))
    labels = {"alertname": "A", "severity": "page", "surface": "api", "zone": "gone"}
    assert "it fell silent and was forgotten" in await text_of(client, f"/alerts/{fingerprint(labels)}")


async def test_an_unknown_fingerprint_is_not_found(visit: Visit) -> None:
    html = await text_of(await visit(), "/alerts/%3Cscript%3E", 404)
    assert "No alert has the fingerprint <script>" in words(html)
    assert "script" not in Words(html).tags


# -- endpoints ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/-/healthy", "/healthz", "/-/ready", "/readyz"])
async def test_health_is_said_by_status_and_in_words(visit: Visit, path: str) -> None:
    assert (await text_of(await visit(), path)).startswith("OK: ")
    assert (await text_of(await visit(is_well=False), path, 503)).startswith("NOT OK: ")


async def test_metrics_are_text_or_openmetrics(visit: Visit) -> None:
    client = await visit(firing())
    async with client.get("/metrics") as response:
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert 'slo_alert_firing{alertname="A",severity="page",surface="api"} 1.0' in await response.text()
    async with client.get("/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"}) as response:
        assert response.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
        assert (await response.text()).endswith("# EOF\n")


@pytest.mark.parametrize("path", ["/", "/metrics", "/api/v1/status", "/nowhere", "/static/page.css", "/alerts/x"])
async def test_every_answer_forbids_what_it_does_not_need(visit: Visit, path: str) -> None:
    async with (await visit()).get(path) as response:
        headers = response.headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["Server"] == "evaluator"


async def test_the_style_sheet_comes_with_the_package(visit: Visit) -> None:
    async with (await visit()).get("/static/page.css") as response:
        assert (response.status, response.content_type) == (200, "text/css")
        assert "prefers-color-scheme: dark" in await response.text()


# -- the API ------------------------------------------------------------------------------------------------


async def test_alerts_have_prometheus_shape(visit: Visit) -> None:
    client = await visit(
        firing(annotations={"runbook_url": "https://example.com/r"}), status({"zone": "quiet"}),
        alerts=(alert(1, startsAt=minutes_before_noon(5)),),
    )  # fmt: skip
    assert await json_of(client, "/api/v1/alerts") == {
        "status": "success",
        "data": {
            "alerts": [
                {
                    "labels": {"alertname": "A", "severity": "page", "surface": "api"},
                    "annotations": {"summary": "summary 1", "runbook_url": "https://example.com/r"},
                    "state": "firing",
                    "activeAt": "2026-01-28T11:55:00Z",
                    "value": "1.9258e-02",
                }
            ]
        },
    }


async def test_the_status_has_every_series_and_source(visit: Visit) -> None:
    data = (await json_of(await visit(firing({"zone": "a"}), status({"zone": "b"})), "/api/v1/status"))["data"]
    assert [(one["key"], one["phase"], one["data"]) for one in data["series"]] == [
        ('api/A{zone="a"}', "firing", "ok"),
        ('api/A{zone="b"}', "inactive", "ok"),
    ]
    assert data["series"][0]["startsAt"] == "2026-01-28T11:55:00Z"
    assert data["sources"] == [
        {
            "name": "events", "watermark": "2026-01-28T11:59:30Z", "behindSeconds": 30.0, "blind": False,
            "rejects": {"overSeconds": 600, "rejected": 0, "events": 0, "ratio": None, "maxRatio": 0.01,
                        "reason": None, "flagged": False},
        }
    ]  # fmt: skip


async def test_the_status_says_how_much_of_a_source_was_rejected(visit: Visit) -> None:
    (source,) = (await json_of(await visit(read=tallies(96, bad_value=3, future=1)), "/api/v1/status"))["data"][
        "sources"
    ]
    assert source["rejects"] == {
        "overSeconds": 600, "rejected": 4, "events": 100, "ratio": 0.04, "maxRatio": 0.01, "reason": "bad_value",
        "flagged": True,
    }  # fmt: skip


async def test_the_command_says_which_sources_are_flagged(visit: Visit, capsys: pytest.CaptureFixture[str]) -> None:
    async def said(read: dict[tuple[str, ...], int]) -> str:
        client = await visit(firing(), read=read)
        assert await asyncio.to_thread(status_command, url=str(client.make_url("")), output=Output.TEXT) == 0
        return next(line for line in capsys.readouterr().out.splitlines() if line.startswith("source"))

    assert (await said(tallies(96, bad_value=4))).endswith(
        "11:59:30Z, rejected 4 of 100 in 10 min: TOO MANY, most often bad_value; see evaluator dlq list"
    )
    assert (await said(tallies(999, bad_value=1))).endswith("11:59:30Z, rejected 1 of 1000 in 10 min")


async def test_the_status_says_who_works_on_what_and_what_only_the_owner_knows_is_null(visit: Visit) -> None:
    data = (await json_of(await visit(), "/api/v1/status"))["data"]
    assert (data["replica"], data["restores"]) == ("evaluator-here-7", {"count": 2, "seconds": 1.0})
    ours, theirs, _ = data["tasks"]
    assert ours == {
        "stage": "aggregate", "topic": "t", "partition": 0, "owner": "evaluator-here-7", "host": None,
        "rules": "sha256:test", "state": "running", "offset": 1_234, "lag": 5_678, "watermark": "2026-01-28T11:59:30Z",
        "committedAt": "2026-01-28T11:59:57Z", "restoreSeconds": 0.257,
    }  # fmt: skip
    assert theirs == {
        **dict.fromkeys(ours), "stage": "aggregate", "topic": "t", "partition": 1, "owner": "evaluator-<b>-8",
        "host": "10.0.0.8", "watermark": "2026-01-28T11:58:30Z", "rules": "sha256:of-others",
    }  # fmt: skip


async def test_the_page_names_who_judges_by_other_rules(visit: Visit) -> None:
    said = await text_of(await visit(), "/")
    assert "judges by other rules</b>, <code>sha256:of-others</code>" in said
    assert said.count("judges by other rules") == 1


@pytest.mark.parametrize(
    ("method", "path", "expected", "error_type"),
    [("GET", "/api/v1/nothing", 404, "not_found"), ("POST", "/api/v1/alerts", 405, "bad_data")],
)
async def test_errors_of_the_api_are_json(visit: Visit, method: str, path: str, expected: int, error_type: str) -> None:
    client = await visit()
    response: ClientResponse
    async with client.request(method, path) as response:
        body = await response.json()
        assert response.status == expected
        assert (body["status"], body["errorType"]) == ("error", error_type)
        assert body["error"]


@pytest.mark.parametrize(
    ("micros", "text"),
    [(0, "0 s"), (-5, "0 s"), (59_900_000, "59 s"), (3_599_000_000, "59 min"), (7_500_000_000, "2 h 5 min"),
     (200_000_000_000, "2 d 7 h"), (86_400_000_000 * 12, "12 d")],
)  # fmt: skip
def test_spans_of_time_are_short(micros: int, text: str) -> None:
    assert page.ago(micros) == text

"""The exposition: the contract's names, no duplicates, nothing that a scraper would refuse."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from math import inf
from typing import TYPE_CHECKING, NamedTuple

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from support.rules import DAY, rule, rules
from support.shown import FixedClock, alert, breach, firing, status, window

from evaluator.core.event import MINUTE, DurationUs, EpochUs
from evaluator.core.rule import Slo, Surface
from evaluator.runtime.exposition import encode, gauge
from evaluator.runtime.histogram import Histogram
from evaluator.runtime.intake import MAX_REJECTED, Rejects
from evaluator.runtime.log.memory import MemoryLog
from evaluator.runtime.log.port import Outgoing, TopicSpec
from evaluator.runtime.metrics import Metrics, exposition
from evaluator.runtime.service import World, build, prepare
from evaluator.runtime.topics import Topics
from evaluator.runtime.view import View
from evaluator.runtime.worker import Pace, Worker
from evaluator.wire.config.load import load_rules
from evaluator.wire.rejection import Reason

if TYPE_CHECKING:
    from pathlib import Path

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


def metrics_of(*records: tuple[bytes, bytes | None]) -> Metrics:
    plain = rules(rule())
    surface = Surface("api", "events", team="Team", owners=("@a", "@b"))
    slo = Slo("api-success", "api", Fraction(995, 1000), DurationUs(30 * DAY))
    view = View(replace(plain, surfaces={"api": surface}, slos={"api-success": slo}), FixedClock(), MAX_REJECTED)
    for key, value in records:
        view.apply(key, value)
    view.alert(alert(1))
    return Metrics(view)


def text_of(metrics: Metrics, accept: str = "") -> str:
    return exposition(metrics.look(), accept)[0].decode()


def lines(metrics: Metrics, name: str) -> list[str]:
    return [line for line in text_of(metrics).splitlines() if line.startswith((f"{name}{{", f"{name} "))]


def test_an_alert_that_fires_is_one() -> None:
    metrics = metrics_of(firing({"zone": "a"}), status({"zone": "b"}, phase="pending", streak=2))
    assert lines(metrics, "slo_alert_firing") == [
        'slo_alert_firing{alertname="A",severity="page",surface="api",zone="a"} 1.0',
        'slo_alert_firing{alertname="A",severity="page",surface="api",zone="b"} 0.0',
    ]
    assert lines(metrics, "slo_alert_pending")[1].endswith(" 1.0")
    assert lines(metrics, "slo_alert_consecutive_breaches") == [
        'slo_alert_consecutive_breaches{alertname="A",surface="api",zone="a"} 3.0',
        'slo_alert_consecutive_breaches{alertname="A",surface="api",zone="b"} 2.0',
    ]


def test_an_alert_that_saw_nothing_yet_is_there_at_zero() -> None:
    assert lines(metrics_of(), "slo_alert_firing") == [
        'slo_alert_firing{alertname="A",severity="page",surface="api"} 0.0'
    ]


def test_before_what_was_published_is_read_nothing_is_said_of_an_unknown_series() -> None:
    metrics = metrics_of()
    metrics._view.is_read = False  # noqa: SLF001  # the view that the helper made
    assert lines(metrics, "slo_alert_firing") == []


def test_the_last_decided_window_is_shown_in_seconds_and_ratios() -> None:
    values = {"error_ratio": 0.5, "median": 0.312, "p99.9": 1.5, "max": 2.0, "slow_ratio(500ms)": 0.25, "mean": None}
    metrics = metrics_of(status(windows=[breach(2), window("OK", 1, values=values, n=10, bad=5)]))
    assert lines(metrics, "slo_window_error_ratio") == ['slo_window_error_ratio{alertname="A",surface="api"} 0.5']
    assert lines(metrics, "slo_window_requests") == ['slo_window_requests{alertname="A",surface="api"} 10.0']
    assert lines(metrics, "slo_window_latency_seconds") == [
        'slo_window_latency_seconds{alertname="A",stat="p50",surface="api"} 0.312',
        'slo_window_latency_seconds{alertname="A",stat="p99.9",surface="api"} 1.5',
        'slo_window_latency_seconds{alertname="A",stat="max",surface="api"} 2.0',
    ]


def test_a_window_without_data_has_no_ratio_rather_than_a_zero() -> None:
    metrics = metrics_of(status(data="no_data", windows=[window("NO_DATA", 1)]))
    assert lines(metrics, "slo_window_error_ratio") == []
    assert lines(metrics, "slo_window_requests") == ['slo_window_requests{alertname="A",surface="api"} 0.0']


def test_events_of_a_series_count_once_however_many_alerts_watch_it() -> None:
    older = status({"zone": "a"}, events={"good": 5, "bad": 1, "unknown": 0})
    newer = status({"zone": "a"}, alertname="B", events={"good": 7, "bad": 2, "unknown": 1})
    assert lines(metrics_of(older, newer), "slo_events_total") == [
        'slo_events_total{outcome="good",surface="api",zone="a"} 7.0',
        'slo_events_total{outcome="bad",surface="api",zone="a"} 2.0',
        'slo_events_total{outcome="unknown",surface="api",zone="a"} 1.0',
    ]


def test_a_failing_trace_is_the_exemplar_of_bad_events_in_openmetrics() -> None:
    text = text_of(metrics_of(firing()), OPENMETRICS)
    assert 'slo_events_total{outcome="bad",surface="api"} 1.0 # {trace_id="trace-1"} 1.0' in text


def test_a_trace_id_that_is_too_long_is_no_exemplar() -> None:
    metrics = metrics_of(firing())
    evidence = {"failing": [{"trace_id": "x" * 256, "time": "", "latency": None}]}
    metrics._view.alert(alert(2, evidence=evidence))  # noqa: SLF001  # the view that the helper made
    assert "x" * 129 not in text_of(metrics, OPENMETRICS)


def test_a_group_label_cannot_take_one_of_our_names() -> None:
    metrics = metrics_of(status({"outcome": "o", "le": "1", "quantile": "q", "__name__": "n", "stat": "s"}))
    assert lines(metrics, "slo_events_total")[0] == (
        'slo_events_total{exported___name__="n",exported_le="1",exported_outcome="o",exported_quantile="q",'
        'exported_stat="s",outcome="good",surface="api"} 999.0'
    )


@pytest.mark.parametrize("value", ['say "no"', "a\\b", "two\nlines", "häßlich 🙂", "\x00\x7f", "{}", " ", "a" * 1024])
def test_any_text_survives_as_a_label_value(value: str) -> None:
    text = text_of(metrics_of(firing({"zone": value})))
    (sample,) = next(f for f in parse_text(text) if f.name == "slo_alert_firing").samples
    assert sample.labels["zone"] == value


def test_half_of_a_surrogate_pair_becomes_a_question_mark_and_no_duplicate() -> None:
    family = gauge("g", "A gauge.")
    family.add({"zone": "x\ud800"}, 1)
    family.add({"zone": "x\udfff"}, 2)
    body, _ = encode([family], "")
    assert body.decode().splitlines()[2:] == ['g{zone="x?"} 2.0']


def test_series_with_the_same_labels_are_combined() -> None:
    #  the same labels under two keys, as two shards' overflow series would have
    one, two = firing({"zone": "a"}), status({"zone": "a"}, windows=[window("OK", 1, n=7)])
    metrics = metrics_of((b"1", one[1]), (b"2", two[1]))
    assert lines(metrics, "slo_alert_firing") == [
        'slo_alert_firing{alertname="A",severity="page",surface="api",zone="a"} 1.0'
    ]
    assert lines(metrics, "slo_window_requests") == ['slo_window_requests{alertname="A",surface="api",zone="a"} 1409.0']


def test_objectives_and_their_owners() -> None:
    metrics = metrics_of()
    assert lines(metrics, "slo_objective_ratio") == ['slo_objective_ratio{slo="api-success",surface="api"} 0.995']
    assert lines(metrics, "slo_info") == ['slo_info{owner="@a,@b",slo="api-success",surface="api",team="Team"} 1.0']


def test_what_the_stages_count_is_shown_beside_what_the_tasks_count() -> None:
    metrics = metrics_of()
    tallies = Counter({("records", "events", "ok"): 5, ("rejected", "events", "future"): 2, ("unknown_tally",): 9})
    metrics._counted.append(tallies)  # noqa: SLF001  # `attach` without a worker
    metrics.committed("aggregate", 0.02)
    metrics.retried("aggregate")
    metrics.fenced()
    metrics.restored(1.5)
    assert 'evaluator_records_total{result="ok",source="events"} 5.0' in lines(metrics, "evaluator_records_total")
    assert 'evaluator_rejected_total{reason="future",source="events"} 2.0' in lines(metrics, "evaluator_rejected_total")
    assert 'evaluator_commits_total{result="ok",stage="aggregate"} 1.0' in lines(metrics, "evaluator_commits_total")
    assert 'evaluator_commits_total{result="retried",stage="aggregate"} 1.0' in lines(
        metrics, "evaluator_commits_total"
    )
    assert lines(metrics, "evaluator_fenced_total") == ["evaluator_fenced_total 1.0"]
    assert lines(metrics, "evaluator_restore_duration_seconds_sum") == ["evaluator_restore_duration_seconds_sum 1.5"]
    assert "unknown_tally" not in text_of(metrics)


def test_counters_are_there_before_the_first_increment() -> None:
    assert lines(metrics_of(), "evaluator_late_events_total") == ['evaluator_late_events_total{surface="api"} 0.0']


def test_a_blind_source_is_one() -> None:
    metrics = metrics_of(status(watermark="2026-01-28T11:00:00Z"))
    assert lines(metrics, "evaluator_blind") == ['evaluator_blind{source="events"} 1.0']
    assert lines(metrics, "evaluator_source_watermark_timestamp_seconds") == [
        'evaluator_source_watermark_timestamp_seconds{source="events"} 1.769598e+09'
    ]


def test_a_histogram_counts_up_to_and_including_its_bounds() -> None:
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.1, 0.5, 1.0, 7.0, -3.0):
        histogram.observe(seconds)
    assert (histogram.cumulative(), histogram.sum) == ([(0.1, 2), (1.0, 4), (inf, 5)], 8.6)


async def look_once(metrics: Metrics) -> None:
    """Let the event loop be looked at one time, a quarter of a second late."""

    class Late(FixedClock):
        looks = 0

        async def sleep(self, seconds: float) -> None:
            self.looks += 1
            if self.looks > 1:
                raise TimeoutError
            await super().sleep(seconds + 0.25)

    with pytest.raises(TimeoutError):
        await metrics.watch_loop(Late())


async def test_the_loop_is_looked_at_by_the_given_clock() -> None:
    metrics = metrics_of()
    await look_once(metrics)
    assert metrics.loop_lag_s == pytest.approx(0.25, abs=1e-6)


# -- what others accept -----------------------------------------------------------------------------------------

FULL = (
    firing({"zone": 'a"b\\c\nd'}),
    status({"zone": "b", "le": "x"}, windows=[window("OK", 1, values={"p95": 0.2, "error_ratio": 0.1}, n=3)]),
    status({}, alertname="B"),
)


def test_openmetrics_is_given_to_who_asks_for_it_and_parses() -> None:
    metrics = metrics_of(*FULL)
    body, content_type = exposition(metrics.look(), OPENMETRICS)
    families = {family.name: family.type for family in parse_openmetrics(body.decode())}
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert (families["slo_events"], families["slo"], families["evaluator_build"]) == ("counter", "info", "info")
    assert body.endswith(b"# EOF\n")


def test_text_is_the_default_and_has_no_created_series() -> None:
    body, content_type = exposition(metrics_of(*FULL).look())
    assert content_type.startswith("text/plain; version=0.0.4")
    assert b"_created" not in body


def test_no_sample_is_there_twice_and_no_gauge_has_a_label_of_a_summary() -> None:
    families = list(parse_text(text_of(metrics_of(*FULL))))
    samples = [(s.name, tuple(sorted(s.labels.items()))) for family in families for s in family.samples]
    gauges = [s for family in families if family.type == "gauge" for s in family.samples]
    assert len(samples) == len(set(samples))
    assert not any({"le", "quantile"} & s.labels.keys() for s in gauges)


def test_the_names_are_the_contracts() -> None:
    text = text_of(metrics_of(*FULL))
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert names >= {
        "slo_alert_firing", "slo_alert_pending", "slo_alert_consecutive_breaches", "slo_events_total",
        "slo_window_error_ratio", "slo_window_requests", "slo_window_latency_seconds", "slo_objective_ratio",
        "slo_info", "evaluator_build_info", "evaluator_records_total", "evaluator_rejected_total",
        "evaluator_late_events_total", "evaluator_unmatched_events_total", "evaluator_overflow_series_total",
        "evaluator_duplicate_events_total", "evaluator_bad_latency_total", "evaluator_decoder_bugs_total",
        "evaluator_source_watermark_timestamp_seconds", "evaluator_source_lag_records", "evaluator_blind",
        "evaluator_alerts_published_total", "evaluator_commit_delay_seconds", "evaluator_alert_delay_seconds",
        "evaluator_commits_total", "evaluator_commit_duration_seconds", "evaluator_restores_total",
        "evaluator_restore_duration_seconds", "evaluator_fenced_total", "evaluator_tasks",
        "evaluator_loop_lag_seconds", "evaluator_ready", "evaluator_config_conflict",
        "evaluator_config_last_reload_successful",
        "evaluator_config_last_reload_success_timestamp_seconds", "evaluator_config_hash_info",
    }  # fmt: skip


def test_promtool_has_nothing_to_say() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        assert os.environ.get("CI") != "true", "promtool is needed in CI: apt-get install prometheus"
        pytest.skip("promtool is not here; `apt-get install prometheus` brings it")
    body, _ = exposition(metrics_of(*FULL).look())
    said = subprocess.run([promtool, "check", "metrics"], input=body, capture_output=True, check=False)
    assert (said.returncode, said.stdout + said.stderr) == (0, b"")


class Working(NamedTuple):
    """A worker on an in-memory log, and who looks at it."""

    log: MemoryLog
    clock: FixedClock
    worker: Worker
    view: View
    metrics: Metrics


async def working(tmp_path: Path) -> Working:
    file = tmp_path / "rules.yaml"
    file.write_text(
        "version: 1\n"
        "sources: {events: {topic: t, format: json, fields: {time: t, failed: {f: true}}}}\n"
        "surfaces: {api: {source: events, owners: ['@o']}}\n"
        "alerts: {A: {surface: api, when: error_ratio > 10%, window: 1m, severity: page, min_samples: 1}}\n"
    )
    config, clock, topics = load_rules([file]), FixedClock(), Topics("app")
    log = MemoryLog(clock=clock)
    await log.create([TopicSpec("t", 1)])
    view = View(config.rules, clock, MAX_REJECTED)
    metrics = Metrics(view)
    service = build(
        log, config, topics, clock, World(shards=1, pace=Pace(poll_s=0)), await prepare(log, config, topics, 1),
        observer=metrics,
    )  # fmt: skip
    metrics.attach(service.worker, service.tallies)
    await service.worker.start()
    return Working(log, clock, service.worker, view, metrics)


async def test_a_worker_shows_its_tasks_lag_and_watermark_and_gives_up_its_alert_delays(tmp_path: Path) -> None:
    log, _, worker, _, metrics = await working(tmp_path)
    events = [b'{"t":"2026-01-28T11:50:00Z","f":true}', b'{"t":"2026-01-28T11:59:30Z","f":false}']
    await log.append([Outgoing("t", None, event, 0) for event in events])
    await worker.drain()
    assert 'evaluator_tasks{stage="evaluate",state="running"} 1.0' in lines(metrics, "evaluator_tasks")
    assert lines(metrics, "evaluator_source_lag_records") == [
        'evaluator_source_lag_records{partition="0",source="events"} 0.0'
    ]
    assert lines(metrics, "evaluator_source_watermark_timestamp_seconds")[0].endswith(" 1.76960154e+09")
    assert lines(metrics, "evaluator_alerts_published_total")[0].endswith('{status="firing"} 1.0')
    assert lines(metrics, "evaluator_alert_delay_seconds_count")[0].endswith(" 1.0")
    assert [list(stage.alert_delays) for stage in worker.shard_stages()] == [[]]


async def test_what_a_worker_rejects_is_seen_by_the_view_whether_or_not_somebody_asks(tmp_path: Path) -> None:
    log, clock, worker, view, metrics = await working(tmp_path)
    good, bad = b'{"t":"2026-01-28T11:59:30Z","f":false}', (b'{"f":true}', b"{", b"[", b'{"t":"2026-01-28T11:59:31Z"')
    await log.append([Outgoing("t", None, event, 0) for event in (*[good] * 6, *bad)])
    await worker.drain()
    assert [source.rejects for source in view.sources()] == [Rejects()]
    await look_once(metrics)
    assert [(source.rejects, source.is_flagged) for source in view.sources()] == [
        (Rejects(4, 10, Reason.NOT_JSON), True)
    ]
    clock.at = EpochUs(clock.at + 10 * MINUTE)
    await log.append([Outgoing("t", None, good, 0)])
    await worker.drain()
    metrics.refresh()
    assert [(source.rejects, source.is_flagged) for source in view.sources()] == [(Rejects(0, 1), False)]


@pytest.mark.parametrize("scheme", ["allow-utf-8", "underscores", "dots", "values"])
@pytest.mark.parametrize("accept", ["text/plain;version=1.0.0", "application/openmetrics-text;version=1.0.0"])
def test_names_stay_as_they_are_whatever_escaping_a_reader_prefers(accept: str, scheme: str) -> None:
    thing = gauge("slo_thing", "What it is.")
    thing.add({"api": "a"}, 1)
    plain, _ = encode([thing], accept)
    escaped, content_type = encode([thing], f"{accept};escaping={scheme},text/plain;q=0.1")
    assert (escaped, "escaping=underscores" in content_type) == (plain, True)
    assert b"# TYPE slo_thing gauge\nslo_thing{" in plain

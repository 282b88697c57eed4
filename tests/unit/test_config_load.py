"""What a valid configuration means: defaults, labels, order, and the hashes over it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from evaluator.core.rule import Deploys, GroupField, Policy, Rule
from evaluator.wire.config.load import Config, load_rules
from evaluator.wire.config.model import LatencySpan

RULES = """\
version: 1
sources:
  events:
    topic: t
    format: json
    fields: {time: t, latency: ms, latency_unit: ms, failed: {status: ">= 500"}, id: id}
surfaces:
  api: {source: events, match: {app: api}, owners: ["@x"], team: Voice squad}
slos:
  good: {surface: api, sli: availability, objective: 99.5%, period: 30d}
alerts:
  A: {surface: api, when: error_ratio > 1%, window: 5m, severity: page}
"""
MINUTE, HOUR, DAY = 60_000_000, 3_600_000_000, 86_400_000_000
EXAMPLE = Path(__file__).parents[2] / "config" / "evaluator.yaml"


class Files:
    """Writes rules files and loads them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, *texts: str) -> Config:
        paths = []
        for number, text in enumerate(texts):
            paths.append(self._folder / f"{number}.yaml")
            paths[-1].write_text(text)
        return load_rules(paths)

    def rule(self, more: str = "", *edits: tuple[str, str]) -> Rule:
        """The rule A with more keys."""
        text = RULES.replace("severity: page", f"severity: page{', ' if more else ''}{more}")
        for old, new in edits:
            assert old in text
            text = text.replace(old, new)
        return self.load(text).rules.rules["A"]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_an_alert_without_more_keys_has_the_documented_defaults(files: Files) -> None:
    rule = files.rule()
    assert (rule.window, rule.every) == (5 * MINUTE, 5 * MINUTE)
    assert (rule.required, rule.among, rule.resolve_after, rule.max_gap) == (1, None, 1, 1)
    assert (rule.expire_after, rule.forget_after) == (DAY, 7 * DAY)
    assert (rule.min_samples, rule.min_bad) == (None, 1)
    assert (rule.no_data, rule.low_traffic) == (Policy.HOLD, Policy.HOLD)


def test_a_source_without_more_keys_has_the_documented_defaults(files: Files) -> None:
    config = files.load(RULES)
    source, decoding = config.rules.sources["events"], config.sources["events"]
    assert (source.out_of_orderness, source.idle_after, source.max_future) == (30_000_000,) * 3
    assert (decoding.batch, decoding.max_record_bytes, decoding.dedup, decoding.start) == ("one", 2**22, 0, "earliest")
    assert config.surfaces["api"].max_series == 1000
    assert (config.rules.revision, config.rules.blind_after, config.rules.max_replay_age) == (0, 5 * MINUTE, HOUR)


DEPLOYS = (("window: 5m", "window: deploy"), ("id: id", "id: id, deploy: version, score: points"))


def test_deploys_without_more_keys_have_the_documented_defaults(files: Files) -> None:
    rule = files.rule("", *DEPLOYS)
    assert rule.deploys == Deploys(
        settle=15 * MINUTE, runs=None, baseline=5, contexts=("main",), baseline_context="main"
    )
    assert (rule.grid, rule.required, rule.max_gap, rule.forget_after) == (None, 1, 1, 30 * DAY)


def test_deploys_end_as_they_are_told_to(files: Files) -> None:
    more = "runs: 3, settle: 1h, baseline: 2, contexts: [main, pr], baseline_context: release, forget_after: 7d"
    rule = files.rule(more, *DEPLOYS)
    assert rule.deploys == Deploys(settle=HOUR, runs=3, baseline=2, contexts=("main", "pr"), baseline_context="release")
    assert rule.forget_after == 7 * DAY


def test_only_surfaces_that_are_judged_by_deploys_have_their_runs_read(files: Files) -> None:
    text = RULES
    for old, new in DEPLOYS:
        text = text.replace(old, new)
    assert files.load(text).sources["events"].deploying == ("api",)
    assert files.load(RULES).sources["events"].deploying == ()
    assert files.load(RULES).rules.grids_of("events") == {5 * MINUTE}
    assert files.load(text).rules.grids_of("events") == frozenset()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("deploy: version", "deploy: release"),
        ("deploy: version", "deploy: version, context: branch"),
        ("score: points", "score: performance"),
        ("status: ", "code: "),
        ("severity: page", "severity: page, runs: 3"),
        ("severity: page", "severity: page, settle: 16m"),
        ("severity: page", "severity: page, baseline: 4"),
        ("severity: page", "severity: page, contexts: [pr]"),
        ("severity: page", "severity: page, baseline_context: pr"),
    ],
)
def test_the_definition_of_a_rule_about_deploys_changes_with_all_that_it_reads(
    files: Files, old: str, new: str
) -> None:
    before = (*DEPLOYS, ("error_ratio > 1%", "score_drop > 10%"))
    assert files.rule("", *before, (old, new)).definition != files.rule("", *before).definition


@pytest.mark.parametrize(
    ("more", "required", "among", "max_gap"),
    [
        ("consecutive: 3", 3, None, 3),
        ("for: 30m", 6, None, 6),
        ("for: 10m, every: 1m", 10, None, 10),
        ("m_of_n: [2, 4]", 2, 4, 4),
        ("consecutive: 3, max_gap: 0", 3, None, 0),
    ],
)
def test_how_many_windows_fire(files: Files, more: str, required: int, among: int | None, max_gap: int) -> None:
    rule = files.rule(more)
    assert (rule.required, rule.among, rule.max_gap) == (required, among, max_gap)


def test_a_long_window_expires_after_two_of_them_and_is_forgotten_no_sooner(files: Files) -> None:
    rule = files.rule("", ("window: 5m", "window: 4d"))
    assert (rule.expire_after, rule.forget_after) == (8 * DAY, 8 * DAY)
    assert files.rule("expire_after: 10d").forget_after == 10 * DAY


def test_ratios_and_objectives_are_exact(files: Files) -> None:
    config = files.load(RULES.replace("99.5%", "0.995"))
    assert config.rules.slos["good"].objective == Fraction(995, 1000)
    assert config.rules.rules["A"].conditions[0].threshold == Fraction(1, 100)


def test_group_by_fields_become_label_names(files: Files) -> None:
    group_by = "group_by: [metadata.function_id, 9-x, 'header:x-tenant', {field: m.region, as: region}]"
    config = files.load(RULES.replace("match: {app: api}", group_by))
    expected = (
        GroupField("metadata.function_id", "metadata_function_id"),
        GroupField("9-x", "_9_x"),
        GroupField("header:x-tenant", "header_x_tenant"),
        GroupField("m.region", "region"),
    )
    assert config.rules.surfaces["api"].group_by == config.surfaces["api"].group_by == expected


def test_an_own_label_that_is_empty_is_left_out(files: Files) -> None:
    assert files.rule("labels: {tier: gold, zone: ''}").labels == {"tier": "gold"}


def test_a_latency_may_be_the_difference_of_two_times(files: Files) -> None:
    span = 'latency: {from: "header:x-produced-at", to: record.timestamp}'
    config = files.load(RULES.replace("latency: ms, latency_unit: ms", span))
    assert config.sources["events"].fields.latency == LatencySpan("header:x-produced-at", "record.timestamp")


def test_several_files_are_one_config_and_surfaces_keep_their_order(files: Files) -> None:
    second = "version: 1\nsurfaces:\n  rest: {source: events}\n  late: {source: events}\n"
    config = files.load(RULES, second)
    assert [surface.name for surface in config.sources["events"].surfaces] == ["api", "rest", "late"]
    assert list(config.surfaces) == list(config.rules.surfaces) == ["api", "rest", "late"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("window: 5m", "window: 300s"),
        ("error_ratio > 1%", "error_ratio>0.01"),
        ("severity: page", "severity: page, annotations: {summary: x}"),
        ("severity: page", "severity: page, consecutive: 1, expire_after: 24h"),
        ('owners: ["@x"]', 'owners: ["@y"]'),
        ("topic: t", "topic: t # the drain"),
        ("topic: t", "topic: t\n    idle_after: 5m"),
        ("latency: ms", "latency: duration"),
        (", id: id", ", id: request_id, trace_id: trace"),
        ("30d", "7d"),
    ],
)
def test_a_definition_is_the_same_where_no_verdict_and_no_label_can_change(files: Files, old: str, new: str) -> None:
    assert files.load(RULES.replace(old, new)).rules.rules["A"].definition == files.rule().definition


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("window: 5m", "window: 10m"),
        ("error_ratio > 1%", "error_ratio >= 1%"),
        ("error_ratio > 1%", "[error_ratio > 1%, max > 5s]"),
        ("severity: page", "severity: ticket"),
        ("severity: page", "severity: page, slo: good"),
        ("severity: page", "severity: page, labels: {tier: gold}"),
        ("severity: page", "severity: page, min_samples: 5"),
        ("match: {app: api}", "match: {app: web}"),
        ("match: {app: api}", "match: {app: api}, group_by: [region]"),
        ("team: Voice squad", "team: Other squad"),
        ('">= 500"', '">= 400"'),
        ("time: t,", "time: t, weight: w,"),
        ("topic: t", "topic: t\n    out_of_orderness: 1m"),
        ("topic: t", "topic: t\n    where: {kind: end}"),
        ("topic: t", "topic: t\n    dedup: 100"),
        ("topic: t", "topic: t\n    batch: auto"),
    ],
)
def test_a_definition_changes_with_all_that_may_change_a_verdict_or_a_label(files: Files, old: str, new: str) -> None:
    assert old in RULES
    assert files.load(RULES.replace(old, new)).rules.rules["A"].definition != files.rule().definition


def test_an_objective_is_part_of_the_definition_of_the_alerts_that_name_it(files: Files) -> None:
    with_slo = RULES.replace("severity: page", "severity: page, slo: good")
    definitions = {files.load(with_slo.replace("99.5%", each)).rules.rules["A"].definition for each in ("99.5%", "99%")}
    assert len(definitions) == 2


def test_the_hash_of_a_config_ignores_comments_and_layout(files: Files) -> None:
    block = (
        RULES.replace('owners: ["@x"]', "owners: ['@x']")
        .replace("slos:", "# objectives\nslos:")
        .replace("window: 5m", "window:   300s")
    )
    assert files.load(block).rules.hash == files.load(RULES).rules.hash
    assert files.load(RULES).rules.hash.startswith("sha256:")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("@x", "@y"),
        ("severity: page", "severity: page, annotations: {summary: x}"),
        ("version: 1", "version: 1\nrevision: 1"),
        ("latency: ms", "latency: duration"),
    ],
)
def test_the_hash_of_a_config_changes_with_everything_it_says(files: Files, old: str, new: str) -> None:
    assert files.load(RULES.replace(old, new)).rules.hash != files.load(RULES).rules.hash


def test_the_hash_knows_which_surface_is_asked_first(files: Files) -> None:
    first, second = "  one: {source: events, match: {a: 1}}\n", "  two: {source: events, match: {b: 1}}\n"
    hashes = {
        files.load(RULES.replace("surfaces:\n", f"surfaces:\n{order}")).rules.hash
        for order in (first + second, second + first)
    }
    assert len(hashes) == 2


def test_the_example_config_loads_without_a_finding() -> None:
    config = load_rules([EXAMPLE])
    assert config.warnings == ()
    assert list(config.rules.surfaces) == ["voice-api", "supabase-functions", "broker-orchestrator", "admin-router"]
    assert list(config.rules.rules) == [
        "VoiceApiDegraded", "FunctionFailures", "BrokerSlow", "AdminRouterScore", "AdminRouterRegressed",
        "LighthouseMissing",
    ]  # fmt: skip
    assert config.rules.rules["FunctionFailures"].required == 6

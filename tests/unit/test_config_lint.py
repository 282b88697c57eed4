"""What is allowed and probably not meant draws a warning that says what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from evaluator.wire.config.load import load_rules

if TYPE_CHECKING:
    from pathlib import Path

RULES = """\
version: 1
sources:
  events: {topic: t, format: json, fields: {time: t, latency: ms, latency_unit: ms, failed: {status: ">= 500"},
    deploy: version, score: points}}
surfaces:
  api: {source: events, owners: ["@x"]}
slos:
  good: {surface: api, sli: availability, objective: 99%, period: 7d}
  fast: {surface: api, sli: latency <= 500ms, objective: 95%, period: 7d}
alerts:
  A: {surface: api, when: error_ratio > 1%, window: 5m, severity: page}
"""


def warnings(folder: Path, *edits: tuple[str, str]) -> list[str]:
    text = RULES
    for old, new in edits:
        assert old in text
        text = text.replace(old, new, 1)
    path = folder / "rules.yaml"
    path.write_text(text)
    return [str(finding).removeprefix(f"{path}:") for finding in load_rules([path]).warnings]


def test_a_config_without_doubts_has_no_warning(tmp_path: Path) -> None:
    assert warnings(tmp_path) == []


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        pytest.param(
            (', owners: ["@x"]', ""),
            '6:3: warning[W101] surfaces.api: nobody owns this surface; add owners, for example owners: ["@team"]',
            id="unowned",
        ),
        pytest.param(
            ("slos:", "  web: {source: events, owners: ['@x']}\nslos:"),
            "7:3: warning[W102] surfaces.web: no alert is about this surface",
            id="a_surface_without_alerts",
        ),
        pytest.param(
            ("window: 5m", "window: 7d, consecutive: 2, slo: good"),
            "11:53: warning[W103] alerts.A.window: the window is as long as the period of good, so 2 of them are 14d; "
            "a shorter window tells in time, for example 1h",
            id="a_window_as_long_as_the_period",
        ),
        pytest.param(
            ("window: 5m", "window: 5m, min_samples: 5"),
            "11:27: warning[W104] alerts.A.when: one single event can make this alert fire; "
            "min_samples: 100 would prevent that",
            id="one_event_of_few",
        ),
        pytest.param(
            ("format: json", "format: json, max_future: 1m"),
            "3:3: warning[W105] sources.events: max_future: 1m is longer than out_of_orderness: 30s; one fast clock "
            "could make all others late. Set max_future to at most 30s",
            id="a_future_beyond_the_lateness",
        ),
        pytest.param(
            ("error_ratio > 1%", "error_ratio > 2%, slo: good"),
            "11:27: warning[W106] alerts.A.when: looser than the objective of good: that allows 1% of failures, "
            "this alert is silent beyond it (error_ratio > 2%)",
            id="looser_than_the_objective",
        ),
        pytest.param(
            ("error_ratio > 1%", "p90 > 500ms, slo: fast"),
            "11:27: warning[W106] alerts.A.when: looser than the objective of fast: that allows 5% of events slower "
            "than 500ms, this alert is silent beyond it (p90 > 500ms)",
            id="a_quantile_looser_than_the_objective",
        ),
        pytest.param(
            ("error_ratio > 1%", "error_ratio > 100%"),
            "11:27: warning[W107] alerts.A.when: error_ratio > 100% can never be true",
            id="never_true",
        ),
        pytest.param(
            ("error_ratio > 1%", "error_count >= 0"),
            "11:27: warning[W107] alerts.A.when: error_count >= 0 is always true",
            id="always_true",
        ),
        pytest.param(
            ('">= 500"', '">=500"'),
            '3:102: warning[W108] sources.events.fields.failed.status: ">=500" is compared as a text; '
            "an operator is followed by a space",
            id="an_operator_without_space",
        ),
        pytest.param(
            ("error_ratio > 1%", "error_count > 5, min_bad: 2"),
            "11:53: warning[W110] alerts.A.min_bad: min_bad counts for ratios only, and this alert has none; "
            "leave it out",
            id="min_bad_without_a_ratio",
        ),
        pytest.param(
            ("when: error_ratio > 1%, window: 5m", "expect_every: 26h, no_data: breach"),
            "11:49: warning[W110] alerts.A.no_data: no_data does not count for expect_every; leave it out",
            id="a_policy_for_what_absence_does_not_have",
        ),
        pytest.param(
            ("window: 5m", "window: deploy, baseline: 3"),
            "11:71: warning[W110] alerts.A.baseline: baseline counts for score_drop only, and this alert has none; "
            "leave it out",
            id="a_baseline_without_a_drop",
        ),
        pytest.param(
            ("error_ratio > 1%, window: 5m", "score_drop > 100%, window: deploy"),
            "11:27: warning[W107] alerts.A.when: score_drop > 100% can never be true",
            id="a_drop_below_nothing",
        ),
        pytest.param(
            ("error_ratio > 1%, window: 5m", "score >= 0, window: deploy"),
            "11:27: warning[W107] alerts.A.when: score >= 0 is always true",
            id="a_score_of_anything",
        ),
    ],
)
def test_a_doubt_is_one_line_that_says_what_to_do(edit: tuple[str, str], expected: str, tmp_path: Path) -> None:
    assert warnings(tmp_path, edit) == [expected]


def test_a_password_over_http_draws_a_warning(tmp_path: Path) -> None:
    registry = "format: registry, schemas: {{url: '{}://registry:8081', username: x, password_file: /x}}"
    found = warnings(tmp_path, ("format: json", registry.format("http")))
    assert [each.partition("sources")[2] for each in found] == [
        ".events.schemas.url: the password goes over the network as it is; use https"
    ]
    assert warnings(tmp_path, ("format: json", registry.format("https"))) == []


def test_an_objective_that_nothing_measures_draws_a_warning(tmp_path: Path) -> None:
    assert warnings(tmp_path, ("latency: ms, latency_unit: ms, ", "")) == [
        "9:3: warning[W109] slos.fast: the source events has no fields.latency, so this objective is never measured"
    ]


@pytest.mark.parametrize(
    ("when", "more", "alone"),
    [
        ("error_ratio > 1%", "", False),
        ("error_ratio > 1%", ", min_samples: 99", True),
        ("error_ratio > 1%", ", min_samples: 100", False),
        ("error_ratio >= 1%", ", min_samples: 100", True),
        ("error_ratio >= 1%", ", min_samples: 101", False),
        ("error_ratio > 1%", ", min_samples: 1, min_bad: 2", False),
        ("error_ratio > 1%", ", min_samples: 1, consecutive: 2", False),
        ("error_ratio > 1%", ", min_samples: 1, consecutive: 5, every: 1m", True),
        ("error_ratio > 1%", ", min_samples: 1, consecutive: 6, every: 1m", False),
        ("error_ratio > 0%", "", True),
        ("error_count > 0", "", True),
        ("error_count >= 2", "", False),
        ("request_count > 0", "", False),
        ("max > 1s", "", True),
        ("mean > 1s", "", True),
        ("mean > 1s", ", min_samples: 20", False),
        ("p95 > 1s", "", False),
        ("p95 > 1s", ", min_samples: 19", True),
        ("p95 > 1s", ", min_samples: 20", False),
        ("median > 1s", ", min_samples: 1", True),
        ("p95 < 1s", "", False),
    ],
)
def test_a_single_event_that_can_fire_is_noticed(when: str, more: str, alone: bool, tmp_path: Path) -> None:  # noqa: FBT001  # a parameter of the table
    found = warnings(tmp_path, ("when: error_ratio > 1%, window: 5m", f"when: {when}, window: 5m{more}"))
    assert any("W104" in line for line in found) is alone


@pytest.mark.parametrize(
    ("source", "field", "is_private"),
    [
        ("format: json, preset: easymo-api", "path", True),
        ("format: json, preset: easymo-api", "event", False),
        ("format: json, preset: pino-http", "req.url", True),
        ("format: vercel", "proxy.path", True),
        ("format: vercel", "host", False),
        ("format: supabase", "event_message", True),
        ("format: json, fields: {failed: {status: 500}}", "path", False),
    ],
)
def test_what_callers_write_is_no_label(tmp_path: Path, source: str, field: str, *, is_private: bool) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        f"version: 1\nsources: {{events: {{topic: t, {source}}}}}\n"
        f'surfaces:\n  api: {{source: events, owners: ["@x"], group_by: [{{field: {field}, as: label}}]}}\n'
        "alerts:\n  A: {surface: api, when: error_ratio > 1%, window: 5m, severity: page}\n"
    )
    message = (
        f"{rules}:4:52: warning[W112] surfaces.api.group_by[0]: {field} holds ids and secrets of callers, "
        "and all can see labels; leave it out"
    )
    assert [str(finding) for finding in load_rules([rules]).warnings] == ([message] if is_private else [])

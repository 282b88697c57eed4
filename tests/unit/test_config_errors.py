"""Every mistake in a rules file is one line that says where, what, and what to write instead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from evaluator.errors import ConfigError
from evaluator.wire import formats
from evaluator.wire.config.load import load_rules

if TYPE_CHECKING:
    from pathlib import Path

RULES = """\
version: 1
sources:
  api-events:
    topic: easymo.events
    format: json
    fields:
      time: timestamp
      latency: duration_ms
      latency_unit: ms
      failed: {status_code: ">= 500"}
surfaces:
  voice-api:
    source: api-events
    match: {target: api-router}
    owners: ["@jeanbosco"]
slos:
  voice: {surface: voice-api, sli: availability, objective: 99.5%, period: 30d}
alerts:
  Degraded:
    surface: voice-api
    slo: voice
    when: error_ratio > 0.5%
    window: 1h
    consecutive: 3
    severity: page
"""

DEPLOYS = (("window: 1h", "window: deploy"), ("      failed: ", "      deploy: version\n      failed: "))
"""Windows of deploys, of a source that has them; what follows stands a line further down."""

ALERT_KEYS = (
    "surface, slo, severity, when, expect_every, window, every, consecutive, for, m_of_n, resolve_after, max_gap, "
    "min_samples, min_bad, no_data, low_traffic, expire_after, forget_after, runs, settle, baseline, contexts, "
    "baseline_context, labels, annotations"
)
TOP_KEYS = "version, revision, blind_after, max_replay_age, max_skew, sources, surfaces, slos, alerts"
FORMATS = ", ".join(sorted(formats.known()))
INDICATORS = (
    "error_ratio, error_count, request_count, mean, max, score, score_drop, median, p50, p95, p99, p99.9, slow_ratio"
)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def findings(folder: Path, text: str | bytes, name: str = "rules.yaml") -> list[str]:
    """The lines of the error, without the file's name."""
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigError) as caught:
        load_rules([name])
    return [line.removeprefix(f"{name}:") for line in str(caught.value).splitlines()]


def edited(*edits: tuple[str, str]) -> str:
    text = RULES
    for old, new in edits:
        assert old in text
        text = text.replace(old, new, 1)
    return text


MISTAKES = [
    pytest.param(
        [("window: 1h", "windw: 1h")],
        (f'23:5: error[E012] alerts.Degraded.windw: unknown key; did you mean "window"? Known keys here: {ALERT_KEYS}'),
        id="a_key_with_a_typo",
    ),
    pytest.param(
        [("window: 1h", "Window: 1h")],
        (
            '23:5: error[E012] alerts.Degraded.Window: unknown key; did you mean "window"? Known keys here: '
            f"{ALERT_KEYS}"
        ),
        id="a_key_in_another_case",
    ),
    pytest.param(
        [("severity: page", "severity: page\n    topic: x")],
        (
            "26:5: error[E012] alerts.Degraded.topic: unknown key; it belongs under sources.NAME. Known keys here: "
            f"{ALERT_KEYS}"
        ),
        id="a_key_of_another_entry",
    ),
    pytest.param(
        [("severity: page", "severity: page\n    zzz: 1")],
        f"26:5: error[E012] alerts.Degraded.zzz: unknown key; known keys here: {ALERT_KEYS}",
        id="a_key_that_nobody_knows",
    ),
    pytest.param(
        [("window: 1h", "window: 1h\n    window: 5m")],
        '24:5: error[E003] alerts.Degraded: the key "window" is here twice; first on line 23',
        id="a_key_twice",
    ),
    pytest.param(
        [("slos:", "  voice-api: {source: api-events}\nslos:")],
        '16:3: error[E003] surfaces: the key "voice-api" is here twice; first on line 12',
        id="an_entry_twice",
    ),
    pytest.param(
        [("    severity: page\n", "")],
        '19:3: error[E011] alerts.Degraded: missing key "severity", for example severity: page',
        id="a_missing_key",
    ),
    pytest.param(
        [("window: 1h", "window:")],
        ("23:12: error[E013] alerts.Degraded.window: expected a value, found nothing; write one, or leave the key out"),
        id="a_key_without_a_value",
    ),
    pytest.param(
        [("window: 1h", "window: 60")],
        "23:13: error[E015] alerts.Degraded.window: a duration needs a unit, found the number 60; write 60s or 60m",
        id="a_bare_number_as_duration",
    ),
    pytest.param(
        [("window: 1h", "window: 1M")],
        (
            '23:13: error[E015] alerts.Degraded.window: "1M" is not a duration: there is no unit M; write m for '
            "minutes or 30d for a month"
        ),
        id="a_duration_in_months",
    ),
    pytest.param(
        [("window: 1h", "window: 1.5h")],
        (
            '23:13: error[E015] alerts.Degraded.window: a duration has whole numbers only, found "1.5h"; write 1h30m '
            "instead of 1.5h"
        ),
        id="a_duration_with_a_fraction",
    ),
    pytest.param(
        [("window: 1h", "window: 30m1h")],
        (
            '23:13: error[E015] alerts.Degraded.window: "30m1h" is not a duration; expected whole numbers with units '
            "in the order y, w, d, h, m, s, ms, as in 1h30m"
        ),
        id="a_duration_out_of_order",
    ),
    pytest.param(
        [("window: 1h", "window: 100ms")],
        '23:13: error[E015] alerts.Degraded.window: expected whole seconds, at least 1s, found "100ms"',
        id="a_window_below_a_second",
    ),
    pytest.param(
        [("window: 1h", "window: 1:30")],
        (
            "23:13: error[E004] alerts.Degraded.window: 1:30 is a base-60 number to some YAML readers; write a "
            'duration such as 90s, or "1:30" in quotes'
        ),
        id="a_base_60_number",
    ),
    pytest.param(
        [("window: 1h", "window: on")],
        (
            "23:13: error[E004] alerts.Degraded.window: on is a boolean to some YAML readers and text to others; "
            'write true, or "on" in quotes'
        ),
        id="a_yaml_1_1_boolean",
    ),
    pytest.param(
        [("consecutive: 3", "consecutive: 010")],
        (
            '24:18: error[E004] alerts.Degraded.consecutive: 010 is octal to some YAML readers; write 10, or "010" '
            "in quotes"
        ),
        id="an_octal",
    ),
    pytest.param(
        [("consecutive: 3", "consecutive: 1_000")],
        (
            "24:18: error[E004] alerts.Degraded.consecutive: 1_000 is a number to some YAML readers; write 1000, or "
            '"1_000" in quotes'
        ),
        id="underscores_in_a_number",
    ),
    pytest.param(
        [("window: 1h", "window:\u00a01h")],
        (
            "23:12: error[E005] holds no-break space (U+00A0), which does not read as a space; type the space again, "
            "or use quotes"
        ),
        id="a_no_break_space",
    ),
    pytest.param(
        [("error_ratio > 0.5%", '"error_ratio\u00a0> 0.5%"')],
        (
            "22:11: error[E017] alerts.Degraded.when: \"error_ratio\u00a0> 0.5%\" holds the character '\\xa0' "
            "(U+00A0); expected a condition such as error_ratio > 0.5% or p95 > 500ms"
        ),
        id="a_no_break_space_in_quotes",
    ),
    pytest.param(
        [("    window: 1h", "\twindow: 1h")],
        "23:1: error[E002] not YAML: a tab stands here; YAML takes only spaces for indentation",
        id="a_tab",
    ),
    pytest.param(
        [("severity: page", "severity: 1")],
        "25:15: error[E013] alerts.Degraded.severity: expected text, found the number 1; put it in quotes",
        id="a_number_as_text",
    ),
    pytest.param(
        [("consecutive: 3", "consecutive: three")],
        '24:18: error[E013] alerts.Degraded.consecutive: expected a whole number, found "three"',
        id="text_as_a_number",
    ),
    pytest.param(
        [("consecutive: 3", "consecutive: 0")],
        "24:18: error[E014] alerts.Degraded.consecutive: expected a whole number from 1 to 1000000000, found 0",
        id="a_number_too_small",
    ),
    pytest.param(
        [("consecutive: 3", "no_data: holt")],
        (
            '24:14: error[E014] alerts.Degraded.no_data: expected one of hold, ok, breach; found "holt"; did you '
            'mean "hold"?'
        ),
        id="a_choice_with_a_typo",
    ),
    pytest.param(
        [("error_ratio >", "eror_ratio >")],
        (
            '22:11: error[E017] alerts.Degraded.when: unknown indicator "eror_ratio"; did you mean "error_ratio"? '
            f"Known indicators: {INDICATORS}"
        ),
        id="an_indicator_with_a_typo",
    ),
    pytest.param(
        [("> 0.5%", "== 0.5%")],
        "22:11: error[E017] alerts.Degraded.when: == is not an operator of conditions; write one of >, >=, <, <=",
        id="an_operator_of_programming",
    ),
    pytest.param(
        [("error_ratio > 0.5%", '"error_ratio > 0.5% or median > 500ms"')],
        (
            '22:11: error[E017] alerts.Degraded.when: "error_ratio > 0.5% or median > 500ms" holds more than one '
            "comparison; write a list, of which any one suffices"
        ),
        id="two_conditions_in_one",
    ),
    pytest.param(
        [("error_ratio > 0.5%", "p95 > 500")],
        '22:11: error[E015] alerts.Degraded.when: a duration needs a unit, found "500"; write 500ms or 500s',
        id="a_latency_without_unit",
    ),
    pytest.param(
        [("> 0.5%", "> 5")],
        (
            "22:11: error[E016] alerts.Degraded.when: 5 is more than the whole; a ratio lies between 0% and 100%; "
            "write 5%"
        ),
        id="a_ratio_above_one",
    ),
    pytest.param(
        [("error_ratio > 0.5%", "error_count > 0.5")],
        '22:11: error[E017] alerts.Degraded.when: error_count is compared with a whole number, found "0.5"',
        id="a_count_that_is_none",
    ),
    pytest.param(
        [("error_ratio > 0.5%", "p100 > 1s")],
        (
            "22:11: error[E017] alerts.Degraded.when: p100 is not a quantile; p lies strictly between 0 and 100 (max "
            "is the largest latency)"
        ),
        id="p100",
    ),
    pytest.param(
        [("99.5%", "100%")],
        (
            "17:61: error[E016] slos.voice.objective: an objective of 100% leaves no error budget; write one "
            "strictly between 0% and 100%"
        ),
        id="an_objective_that_leaves_nothing",
    ),
    pytest.param(
        [("99.5%", "99.5")],
        (
            "17:61: error[E016] slos.voice.objective: 99.5 is more than the whole; a ratio lies between 0% and 100%; "
            "write 99.5%"
        ),
        id="an_objective_without_percent",
    ),
    pytest.param(
        [("sli: availability", "sli: latency < 500ms")],
        "17:36: error[E014] slos.voice.sli: an SLO's latency is compared with <=, found <",
        id="an_sli_that_is_none",
    ),
    pytest.param(
        [("target: api-router", 'target: "~ (a)\\\\1"')],
        (
            '14:21: error[E018] surfaces.voice-api.match.target: "(a)\\1" is not a regular expression that RE2 '
            "knows: invalid escape sequence: \\1"
        ),
        id="a_regular_expression_that_backtracks",
    ),
    pytest.param(
        [('">= 500"', '">= high"')],
        (
            '10:29: error[E018] sources.api-events.fields.failed.status_code: ">=" compares numbers, found "high"; '
            "expected for example >= 500"
        ),
        id="a_comparison_with_text",
    ),
    pytest.param(
        [("{target: api-router}", "{tags: {target: api-router}}")],
        (
            "14:19: error[E018] surfaces.voice-api.match.tags: expected a value, found a mapping; name a nested "
            "field by its dotted path, as in request.method: GET"
        ),
        id="a_nested_matcher",
    ),
    pytest.param(
        [("{target: api-router}", "{}")],
        (
            "14:12: error[E014] surfaces.voice-api.match: expected at least one entry, found none; leave the key out "
            "instead"
        ),
        id="a_matcher_of_nothing",
    ),
    pytest.param(
        [('">= 500"', "!= 500")],
        (
            '10:29: error[E004] sources.api-events.fields.failed.status_code: a text that starts with "!" needs '
            'quotes, as in "!= start" (YAML reads a tag here)'
        ),
        id="a_plain_operator_that_yaml_eats",
    ),
    pytest.param(
        [('["@jeanbosco"]', '"@jeanbosco"')],
        '15:13: error[E013] surfaces.voice-api.owners: expected a list, found "@jeanbosco"',
        id="owners_that_are_one_text",
    ),
    pytest.param(
        [('["@jeanbosco"]', "[@jeanbosco]")],
        "15:14: error[E002] not YAML: a text cannot start with this character; put it in quotes",
        id="an_unquoted_at",
    ),
    pytest.param(
        [("surfaces:\n", "  API: {topic: x, format: json}\nsurfaces:\n")],
        '11:3: error[E019] sources.API: "API" is not a source\'s name; use a-z, 0-9 and -',
        id="a_source_in_capitals",
    ),
    pytest.param(
        [("  Degraded:", "  Voice degraded:")],
        '19:3: error[E019] alerts.Voice degraded: "Voice degraded" is not a name; use letters, digits, _ . -',
        id="a_name_with_a_space",
    ),
    pytest.param(
        [("easymo.events", "easymo/events")],
        (
            '4:12: error[E019] sources.api-events.topic: "easymo/events" is not a topic; Kafka allows letters, '
            "digits, . _ -"
        ),
        id="a_topic_that_kafka_refuses",
    ),
    pytest.param(
        [("    surface: voice-api\n    slo", "    surface: voice-ap\n    slo")],
        (
            '20:14: error[E021] alerts.Degraded.surface: no surface has the name "voice-ap"; did you mean '
            '"voice-api"? Known surfaces: voice-api'
        ),
        id="a_surface_that_does_not_exist",
    ),
    pytest.param(
        [("slos:", "  other: {source: api-events}\nslos:"), ("surface: voice-api, sli", "surface: other, sli")],
        (
            "22:10: error[E022] alerts.Degraded.slo: the SLO voice is about the surface other, this alert about "
            "voice-api"
        ),
        id="an_slo_of_another_surface",
    ),
    pytest.param(
        [("consecutive: 3", "consecutive: 3\n    for: 3h")],
        (
            "25:5: error[E025] alerts.Degraded.for: consecutive and for both say how many windows it takes; keep one "
            "of them"
        ),
        id="two_ways_to_say_how_many",
    ),
    pytest.param(
        [("consecutive: 3", "for: 90m")],
        "24:10: error[E024] alerts.Degraded.for: 1h30m is not a multiple of window: 1h",
        id="a_for_that_is_no_multiple",
    ),
    pytest.param(
        [("consecutive: 3", "every: 25m")],
        "23:13: error[E024] alerts.Degraded.window: 1h is not a multiple of every: 25m",
        id="a_window_that_is_no_multiple",
    ),
    pytest.param(
        [("consecutive: 3", "m_of_n: [5, 3]")],
        "24:13: error[E014] alerts.Degraded.m_of_n: expected [M, N] with 1 <= M <= N, as in [3, 5], found [5, 3]",
        id="m_above_n",
    ),
    pytest.param(
        [("consecutive: 3", "forget_after: 1h")],
        (
            "24:19: error[E027] alerts.Degraded.forget_after: 1h is shorter than expire_after: 1d (its default); a "
            "firing alert would be forgotten before it can expire"
        ),
        id="forgetting_before_expiring",
    ),
    pytest.param(
        [("consecutive: 3", "labels: {surface: x}")],
        (
            "24:14: error[E026] alerts.Degraded.labels.surface: every alert has a label surface already; name yours "
            "differently"
        ),
        id="an_own_label_that_is_built_in",
    ),
    pytest.param(
        [("owners:", "group_by: [a-b, a.b]\n    owners:")],
        (
            "15:21: error[E026] surfaces.voice-api.group_by[1]: the fields a-b and a.b would both become the label "
            "a_b; name another one: {field: a.b, as: a_b_2}"
        ),
        id="two_fields_with_one_label",
    ),
    pytest.param(
        [("owners:", "group_by: [severity]\n    owners:")],
        (
            "15:16: error[E026] surfaces.voice-api.group_by[0]: the field severity would become the label severity, "
            "which every alert has; name another one: {field: severity, as: my_severity}"
        ),
        id="a_field_with_a_built_in_label",
    ),
    pytest.param(
        [("owners:", "group_by: [region]\n    owners:"), ("consecutive: 3", "labels: {region: x}")],
        (
            "25:14: error[E026] alerts.Degraded.labels.region: a group_by field of voice-api is the label region "
            "already; name yours differently"
        ),
        id="an_own_label_that_is_grouped_by",
    ),
    pytest.param(
        [("      latency_unit: ms\n", "")],
        (
            '8:7: error[E030] sources.api-events.fields.latency: missing key "latency_unit": say what unit the '
            "latency is in, for example latency_unit: ms"
        ),
        id="a_latency_without_its_unit",
    ),
    pytest.param(
        [("      latency: duration_ms\n      latency_unit: ms\n", ""), ("error_ratio > 0.5%", "p95 > 1s")],
        "20:11: error[E028] alerts.Degraded.when: p95 needs a latency; add fields.latency to the source api-events",
        id="a_latency_alert_without_latency",
    ),
    pytest.param(
        [('      failed: {status_code: ">= 500"}\n', "")],
        (
            "21:11: error[E029] alerts.Degraded.when: error_ratio needs to know what failed; add fields.failed to "
            "the source api-events"
        ),
        id="an_error_alert_without_failed",
    ),
    pytest.param(
        [("format: json", "format: json\n    dedup: 100")],
        (
            "6:5: error[E030] sources.api-events.dedup: dedup needs a field that holds an id; add fields.id, or "
            "leave dedup out"
        ),
        id="dedup_without_an_id",
    ),
    pytest.param(
        [("format: json", "format: registry")],
        (
            '3:3: error[E011] sources.api-events: missing key "schemas": a folder or {url: ...}, for example schemas: '
            "/etc/evaluator/schemas"
        ),
        id="a_registry_without_schemas",
    ),
    pytest.param(
        [("format: json", "format: registry\n    schemas: nowhere")],
        ("6:14: error[E014] sources.api-events.schemas: cannot read the folder nowhere: no such file or directory"),
        id="schemas_that_are_not_there",
    ),
    pytest.param(
        [("format: json", "format: registry\n    schemas: {url: 'https://user:secret@registry'}")],
        (
            "6:20: error[E014] sources.api-events.schemas.url: expected an address such as https://registry:8081; a "
            "name and a password have keys of their own"
        ),
        id="a_password_in_an_address",
    ),
    pytest.param(
        [("format: json", "format: registry\n    schemas: {url: 'https://registry', username: reader}")],
        ("6:5: error[E030] sources.api-events.schemas: username and password_file go together; write both, or none"),
        id="a_name_without_a_password",
    ),
    pytest.param(
        [("format: json", "format: registry\n    schemas: {username: reader}")],
        ('6:5: error[E011] sources.api-events.schemas: missing key "url", for example url: http://registry:8081'),
        id="a_registry_without_an_address",
    ),
    pytest.param(
        [("format: json", "format: json\n    schemas: somewhere")],
        (
            "6:5: error[E025] sources.api-events.schemas: schemas are for the format registry; the format json needs "
            "none"
        ),
        id="schemas_that_nobody_needs",
    ),
    pytest.param(
        [("format: json", "format: jsno")],
        (
            '5:13: error[E014] sources.api-events.format: unknown format "jsno"; did you mean "json"? Known formats: '
            f"{FORMATS}"
        ),
        id="a_format_with_a_typo",
    ),
    pytest.param(
        [("format: json", "format: pino-http")],
        (
            '5:13: error[E014] sources.api-events.format: "pino-http" is a preset of the format json; say '
            "format: json, preset: pino-http"
        ),
        id="a_preset_for_a_format",
    ),
    pytest.param(
        [("format: json", "format: otlp_json\n    batch: array")],
        (
            "6:5: error[E025] sources.api-events.batch: the format otlp_json says by itself how many events a record "
            "holds; leave batch out"
        ),
        id="a_batch_of_a_format_that_has_its_own",
    ),
    pytest.param(
        [("format: json", "format: otlp_json\n    preset: easymo-api")],
        (
            "6:5: error[E025] sources.api-events.preset: presets are dialects of the format json; the format otlp_json "
            "has fields of its own"
        ),
        id="a_preset_of_another_format",
    ),
    pytest.param(
        [("format: json", "format: json\n    preset: easymo")],
        (
            "6:13: error[E014] sources.api-events.preset: expected one of easymo-api, easymo-admin, pino-http, "
            'agent-core, edge-functions; found "easymo"; did you mean "easymo-api"?'
        ),
        id="a_preset_with_a_typo",
    ),
    pytest.param(
        [("format: json", "format: json\n    tail_sampled: true")],
        (
            "23:11: error[E032] alerts.Degraded.when: error_ratio is wrong on the source api-events, which is "
            "tail_sampled: what failed or was slow is kept more often; read a topic from before the sampling, or use a "
            "count"
        ),
        id="a_ratio_of_sampled_events",
    ),
    pytest.param(
        [("format: json", "format: json\n    tail_sampled: true"), ("error_ratio > 0.5%", "p95 > 1s")],
        (
            "23:11: error[E032] alerts.Degraded.when: p95 is wrong on the source api-events, which is tail_sampled: "
            "what failed or was slow is kept more often; read a topic from before the sampling, or use a count"
        ),
        id="a_quantile_of_sampled_events",
    ),
    pytest.param(
        [
            ("format: json", "format: json\n    tail_sampled: true"),
            ("when: error_ratio > 0.5%", "when: [error_count > 5, mean > 1s]"),
        ],
        (
            "23:29: error[E032] alerts.Degraded.when[1]: mean is wrong on the source api-events, which is "
            "tail_sampled: what failed or was slow is kept more often; read a topic from before the sampling, or use a "
            "count"
        ),
        id="a_mean_of_sampled_events",
    ),
    pytest.param(
        [("surfaces:\n", "  again: {topic: easymo.events, format: json}\nsurfaces:\n")],
        (
            '11:18: error[E023] sources.again.topic: the topic easymo.events is read by source "api-events" already; '
            "tell its events apart by surfaces"
        ),
        id="a_topic_twice",
    ),
    pytest.param(
        [("format: json", "format: json\n    max_record_bytes: 4000000")],
        (
            "6:23: error[E014] sources.api-events.max_record_bytes: expected a size such as 4MiB (B, KiB, MiB or "
            "GiB), found the number 4000000"
        ),
        id="a_size_without_unit",
    ),
    pytest.param(
        [("window: 1h", "window: deploy")],
        (
            "23:13: error[E035] alerts.Degraded.window: window: deploy needs a deploy; add fields.deploy to the source "
            "api-events"
        ),
        id="deploys_of_a_source_without_any",
    ),
    pytest.param(
        [*DEPLOYS, ("consecutive: 3", "every: 1h")],
        "25:5: error[E025] alerts.Degraded.every: window: deploy excludes every: the windows of deploys have no step",
        id="deploys_on_a_grid",
    ),
    pytest.param(
        [*DEPLOYS, ("consecutive: 3", "for: 3h")],
        (
            "25:5: error[E025] alerts.Degraded.for: window: deploy excludes for: the windows of deploys have no "
            "length; say how many it takes with consecutive"
        ),
        id="deploys_for_a_while",
    ),
    pytest.param(
        [*DEPLOYS, ("consecutive: 3", "expire_after: 3d")],
        (
            "25:5: error[E025] alerts.Degraded.expire_after: window: deploy excludes expire_after: the windows of "
            "deploys end with their last event; say how long a series may be silent with forget_after"
        ),
        id="deploys_that_expire",
    ),
    pytest.param(
        [*DEPLOYS, ("consecutive: 3", "settle: 1h\n    forget_after: 30m")],
        "26:19: error[E027] alerts.Degraded.forget_after: 30m is shorter than settle: 1h",
        id="forgetting_before_a_deploy_settles",
    ),
    pytest.param(
        [("consecutive: 3", "settle: 5m")],
        ("24:5: error[E030] alerts.Degraded.settle: settle is about deploys; write window: deploy, or leave it out"),
        id="settling_in_windows_of_time",
    ),
    pytest.param(
        [*DEPLOYS, ("consecutive: 3", "contexts: []")],
        (
            "25:15: error[E014] alerts.Degraded.contexts: expected at least one entry, found none; leave the key out "
            "instead"
        ),
        id="deploys_of_no_context",
    ),
    pytest.param(
        [*DEPLOYS, ("error_ratio > 0.5%", "score < 0.75")],
        ("23:11: error[E034] alerts.Degraded.when: score needs a score; add fields.score to the source api-events"),
        id="a_score_that_nobody_says",
    ),
    pytest.param(
        [("error_ratio > 0.5%", "score_drop > 10%")],
        ("22:11: error[E030] alerts.Degraded.when: score_drop is about the runs of a deploy; it needs window: deploy"),
        id="a_score_in_windows_of_time",
    ),
    pytest.param(
        [*DEPLOYS, ("error_ratio > 0.5%", "score < 75")],
        (
            "23:11: error[E016] alerts.Degraded.when: 75 is more than the whole; a ratio lies between 0% and 100%; "
            "write 75%"
        ),
        id="a_score_above_one",
    ),
    pytest.param(
        [("error_ratio > 0.5%", "burn_rate(voice) > 10")],
        "22:11: error[E010] alerts.Degraded.when: the indicator burn_rate is not supported yet",
        id="a_burn_rate",
    ),
    pytest.param(
        [("when: error_ratio > 0.5%", "expect_every: 26h")],
        (
            "23:5: error[E025] alerts.Degraded.window: expect_every looks at the newest event, whenever that was; "
            "leave window out"
        ),
        id="an_absence_over_a_window",
    ),
    pytest.param(
        [("window: 1h", "expect_every: 26h")],
        "23:5: error[E025] alerts.Degraded.expect_every: when and expect_every are two alerts; keep one of them here",
        id="an_absence_with_a_condition",
    ),
    pytest.param(
        [("window: 1h", "every: 1h")],
        '19:3: error[E011] alerts.Degraded: missing key "window", for example window: 5m',
        id="a_condition_without_a_window",
    ),
    pytest.param(
        [("    when: error_ratio > 0.5%\n", "")],
        '19:3: error[E011] alerts.Degraded: missing key "when", for example when: error_ratio > 0.5%',
        id="nothing_that_is_asked",
    ),
    pytest.param(
        [("when: error_ratio > 0.5%\n    window: 1h\n    consecutive: 3", "expect_every: 26h\n    for: 90s")],
        "23:10: error[E024] alerts.Degraded.for: 1m30s is not a multiple of every: 1m",
        id="an_absence_for_a_part_of_a_step",
    ),
    pytest.param(
        [('owners: ["@jeanbosco"]', "codeowners: apps/api/")],
        "15:5: error[E010] surfaces.voice-api.codeowners: not supported yet",
        id="code_owners",
    ),
    pytest.param(
        [("version: 1", "version: 2")],
        "1:10: error[E014] version: this program reads version 1 of the rules, found the number 2",
        id="another_version",
    ),
    pytest.param(
        [("version: 1\n", "")],
        '1:1: error[E011] missing key "version", for example version: 1',
        id="no_version",
    ),
    pytest.param(
        [("version: 1", "version: 1\nrevison: 7")],
        f'2:1: error[E012] revison: unknown key; did you mean "revision"? Known keys here: {TOP_KEYS}',
        id="a_setting_with_a_typo",
    ),
    pytest.param(
        [("slos:\n  voice: {", "slos:\n  - {")],
        "17:3: error[E013] slos: expected a mapping, found a list",
        id="a_section_that_is_a_list",
    ),
]


@pytest.mark.parametrize(("edits", "expected"), MISTAKES)
def test_a_mistake_is_one_line_that_says_where_what_and_what_to_do(
    edits: list[tuple[str, str]], expected: str, tmp_path: Path
) -> None:
    assert findings(tmp_path, edited(*edits)) == [expected]


BROKEN_FILES = [
    pytest.param(b"", "1:1: error[E007] the file is empty; a rules file begins with version: 1", id="empty"),
    pytest.param(
        b"# later\n", "1:1: error[E007] the file is empty; a rules file begins with version: 1", id="comments"
    ),
    pytest.param(b"\xff\xfev\0", "1:1: error[E001] the file is UTF-16; save it as UTF-8", id="utf_16"),
    pytest.param(
        b"version: 1\nx: \xe9\n", "2:4: error[E001] the byte 0xe9 is not UTF-8; save the file as UTF-8", id="latin_1"
    ),
    pytest.param(b"- version\n", f"1:1: error[E007] expected a mapping with {TOP_KEYS}; found a list", id="a_list"),
    pytest.param(b"version", f'1:1: error[E007] expected a mapping with {TOP_KEYS}; found "version"', id="a_word"),
    pytest.param(
        b"[" * 100_000, "1:33: error[E006] nested more than 32 levels deep; a rules file needs 8", id="nested_for_ever"
    ),
    pytest.param(
        b"version: 1\nsources: [a\n",
        "3:1: error[E002] not YAML: a list in brackets is not closed, or a comma is missing",
        id="unclosed",
    ),
    pytest.param(
        b"version: 1\x07\n",
        "1:11: error[E005] holds the control character U+0007; delete it, or write an escape in quotes",
        id="a_control_character",
    ),
    pytest.param(
        b"version: 1\n---\nversion: 1\n",
        "2:1: error[E002] a second document begins here; a rules file is one document",
        id="two_documents",
    ),
    pytest.param(
        b"version: &a [*a]\n",
        "1:14: error[E002] version[0]: *a stands for nothing so far; "
        'to test that a field is present, write "*" in quotes',
        id="an_alias_inside_itself",
    ),
    pytest.param(
        b"version: 1\n<<: {slos: {}}\n",
        "2:1: error[E004] merge keys (<<) are not part of YAML 1.2; repeat the keys",
        id="a_merge_key",
    ),
    pytest.param(
        b"version: 1\n? [a]\n: b\n",
        "2:3: error[E002] a key must be text, found a list or a mapping; quote it",
        id="a_key",
    ),
    pytest.param(
        b'version: 1\nsources: {"\\ud800": {}}\n',
        "2:11: error[E005] sources: holds half of a surrogate pair, which is no text",
        id="half_a_surrogate_pair",
    ),
    pytest.param(
        b"version: 1\n",
        "1:1: error[E031] no sources, so there is nothing to read; add one under sources",
        id="no_sources",
    ),
]


@pytest.mark.parametrize(("raw", "expected"), BROKEN_FILES)
def test_a_file_that_is_no_rules_file_is_one_line(raw: bytes, expected: str, tmp_path: Path) -> None:
    assert findings(tmp_path, raw) == [expected]


def test_aliases_that_multiply_are_refused_before_they_fill_the_memory(tmp_path: Path) -> None:
    laughs = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    laughs += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert findings(tmp_path, "\n".join(laughs)) == [
        "1:34: error[E006] more values than any rules file needs; do its aliases multiply each other?"
    ]


def test_an_alias_repeats_a_value(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(edited(("1h", "&hour 1h"), ("consecutive: 3", "every: *hour")))
    assert load_rules(["rules.yaml"]).rules.rules["Degraded"].every == 3600 * 10**6


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_bytes(b"\xef\xbb\xbf" + RULES.encode())
    assert list(load_rules(["rules.yaml"]).rules.rules) == ["Degraded"]


def test_a_missing_file_is_one_line() -> None:
    with pytest.raises(ConfigError) as caught:
        load_rules(["nowhere.yaml"])
    assert str(caught.value) == "nowhere.yaml:1:1: error[E001] cannot read the rules file: no such file or directory"


def test_a_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    with pytest.raises(ConfigError, match=r"rules:1:1: error.E001. cannot read the rules file: is a directory"):
        load_rules(["rules"])


def test_no_file_at_all_is_one_line() -> None:
    with pytest.raises(ConfigError, match="no rules file given"):
        load_rules([])


def test_all_mistakes_are_reported_at_once_from_top_to_bottom(tmp_path: Path) -> None:
    text = edited(("topic: easymo.events", "topic: a b"), ("99.5%", "99.5"), ("window: 1h", "windw: 1h"))
    text += "  Other: {surface: nowhere, when: p95 > 5s, window: 5m, every: 2m, severity: page}\n"
    assert [line.split("] ")[0] for line in findings(tmp_path, text)] == [
        "4:12: error[E019",
        "17:61: error[E016",
        "23:5: error[E012",
        "26:20: error[E021",
        "26:53: error[E024",
    ]


def test_a_broken_entry_keeps_its_name_for_those_who_refer_to_it(tmp_path: Path) -> None:
    found = findings(tmp_path, edited(("    owners", "    max_series: many\n    owners")))
    assert found == [
        '15:17: error[E013] surfaces.voice-api.max_series: expected a whole number, found "many"',
    ]


def test_a_name_in_two_files_is_an_error_that_names_both(tmp_path: Path) -> None:
    (tmp_path / "first.yaml").write_text(RULES)
    (tmp_path / "second.yaml").write_text("version: 1\nrevision: 2\nsurfaces:\n  voice-api: {source: api-events}\n")
    with pytest.raises(ConfigError) as caught:
        load_rules(["first.yaml", "second.yaml"])
    assert str(caught.value) == (
        "second.yaml:4:3: error[E020] surfaces.voice-api: this name is taken; first in first.yaml:12"
    )


def test_a_setting_in_two_files_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "first.yaml").write_text(edited(("version: 1", "version: 1\nrevision: 7")))
    (tmp_path / "second.yaml").write_text("version: 1\nrevision: 7\n")
    with pytest.raises(ConfigError) as caught:
        load_rules(["first.yaml", "second.yaml"])
    assert str(caught.value) == "second.yaml:2:1: error[E020] revision: this name is taken; first in first.yaml:2"


@pytest.mark.parametrize("name", ["<all>", "[key]", "<one>"])
def test_a_name_that_looks_like_our_own_marks_is_a_mistake_like_any_other(name: str, tmp_path: Path) -> None:
    found = findings(tmp_path, edited(("  Degraded:", f'  "{name}":')))
    assert found == [f'19:3: error[E019] alerts.{name}: "{name}" is not a name; use letters, digits, _ . -']
    found = findings(tmp_path, edited(("{target: api-router}", f'{{"{name}": {{}}}}')))
    assert len(found) == 1

"""The JSON Schema for editors follows the rules that the loader applies."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from evaluator.wire.config.schema import json_schema
from evaluator.wire.config.yaml12 import parse

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "schema" / "rules.v1.json"
MINIMAL = "version: 1\nsources: {s: {topic: t, format: json}}\n"


def errors(text: str) -> list[str]:
    value = parse(text, "rules.yaml").value
    return [error.json_path for error in jsonschema.Draft202012Validator(json_schema()).iter_errors(value)]


def test_the_committed_schema_is_current() -> None:
    written = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    assert COMMITTED.read_text() == written, "run: evaluator schema rules > schema/rules.v1.json"


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


def test_the_example_config_fits_the_schema() -> None:
    assert errors((ROOT / "config" / "evaluator.yaml").read_text()) == []


@pytest.mark.parametrize(
    ("more", "path"),
    [
        ("alerts: {A: {surface: s, severity: page, when: max > 1s, window: 5}}", "$.alerts.A.window"),
        ("alerts: {A: {surface: s, severity: page, when: max > 1s, window: 5m, slo: }}", "$.alerts.A.slo"),
        ("alerts: {A: {surface: s, severity: page, when: max ~ 1s, window: 5m}}", "$.alerts.A.when"),
        ("alerts: {A B: {surface: s, severity: page, when: max > 1s, window: 5m}}", "$.alerts"),
        ("slos: {x: {surface: s, sli: avail, objective: 99%, period: 30d}}", "$.slos.x.sli"),
        ("surfaces: {x: {source: s, match: {a: {b: c}}}}", "$.surfaces.x.match"),
        ("revison: 5", "$"),
    ],
)
def test_an_editor_sees_a_mistake(more: str, path: str) -> None:
    assert errors(f"{MINIMAL}{more}\n") == [path]


def test_every_key_of_the_rules_is_described() -> None:
    undescribed = [
        f"{name}.{key}"
        for name, entry in json_schema()["$defs"].items()
        for key, schema in entry["properties"].items()
        if "description" not in schema
    ]
    assert undescribed == []

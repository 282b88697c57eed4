"""What is needed to deploy: the image's recipe, the chart, the documented settings."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import jsonschema
import pytest
import yaml

from evaluator.runtime.settings import Settings, load

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm"


def test_the_documented_settings_are_the_defaults_and_all_of_them() -> None:
    file = ROOT / "config" / "settings.yaml"
    assert load(file, environ={}).model_dump() == load(environ={}).model_dump()
    written = yaml.safe_load(file.read_text())
    for name, field in Settings.model_fields.items():
        assert name in written
        inner = getattr(field.annotation, "model_fields", {})
        if inner:
            assert set(written[name]) == set(inner), name


def test_the_chart_has_the_version_of_the_package() -> None:
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == package


def test_the_charts_values_follow_its_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.validate(yaml.safe_load((CHART / "values.yaml").read_text()), schema)


def test_every_value_that_a_template_uses_has_a_default() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for template in (CHART / "templates").iterdir():
        for path in re.findall(r"\.Values\.([A-Za-z.]+)", template.read_text()):
            found = values
            for part in path.split("."):
                assert part in found, f"{template.name}: .Values.{path}"
                found = found[part]


def test_pods_have_longer_to_end_than_the_last_commits_may_take() -> None:
    daemon = (ROOT / "evaluator" / "runtime" / "daemon.py").read_text()
    limit = float(re.search(r"^SHUT_DOWN_S = ([0-9.]+)", daemon, re.MULTILINE)[1])  # type: ignore[index]
    assert yaml.safe_load((CHART / "values.yaml").read_text())["terminationGracePeriodSeconds"] > limit


def test_the_image_copies_what_there_is_and_lets_it_through_the_ignore_file() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    recipe = (ROOT / "Dockerfile").read_text()
    for line in re.findall(r"^COPY (?!--from)(.*)$", recipe, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert source.removeprefix("./").split("/")[0] in allowed, source
    assert re.search(r"^USER [1-9][0-9]*$", recipe, re.MULTILINE)


def test_the_image_installs_what_the_tests_ran_with() -> None:
    def pinned(name: str) -> set[str]:
        return set(re.findall(r"^([a-z0-9._-]+==[^ ;]+)", (ROOT / name).read_text(), re.MULTILINE))

    assert pinned("requirements-run.lock") <= pinned("requirements.lock")


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_chart_renders_where_helm_is_installed(replicas: int) -> None:
    helm = shutil.which("helm")
    if helm is None:
        pytest.skip("helm is not installed; the tests above hold what can be held without it")
    command = [helm, "template", "x", str(CHART), "--set", f"replicas={replicas}", "--set", "secretName=s"]
    rendered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    kinds = sorted(document["kind"] for document in yaml.safe_load_all(rendered))
    assert kinds == sorted(["ConfigMap", "Deployment", "Service", *(["PodDisruptionBudget"] if replicas > 1 else [])])

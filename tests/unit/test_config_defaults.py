"""What a format or a preset knows by itself, and how a rules file says otherwise."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from support.decoded import bare, config_of, source_of

from evaluator.errors import ConfigError
from evaluator.wire import formats
from evaluator.wire.config.matcher import Matcher
from evaluator.wire.config.model import FieldsConfig, LatencySpan

if TYPE_CHECKING:
    from pathlib import Path

OWN = FieldsConfig(time="t", time_unit="ns", latency="d", latency_unit="ms", id="id", trace_id="trace")


@pytest.mark.parametrize(
    ("configured", "expected"),
    [
        pytest.param(FieldsConfig(), OWN, id="nothing"),
        pytest.param(FieldsConfig(id="x"), replace(OWN, id="x"), id="one_field"),
        pytest.param(FieldsConfig(time="x"), replace(OWN, time="x", time_unit="auto"), id="another_time"),
        pytest.param(FieldsConfig(time="t"), OWN, id="the_same_time"),
        pytest.param(FieldsConfig(time_unit="s"), replace(OWN, time_unit="s"), id="another_unit_of_the_time"),
        pytest.param(FieldsConfig(latency="x"), replace(OWN, latency="x", latency_unit=None), id="another_latency"),
        pytest.param(FieldsConfig(latency="d"), OWN, id="the_same_latency"),
        pytest.param(FieldsConfig(latency_unit="s"), replace(OWN, latency_unit="s"), id="another_unit"),
        pytest.param(
            FieldsConfig(latency=LatencySpan("a", "b")),
            replace(OWN, latency=LatencySpan("a", "b"), latency_unit=None),
            id="a_span",
        ),
    ],
)
def test_what_is_configured_goes_before_what_the_format_knows(configured: FieldsConfig, expected: FieldsConfig) -> None:
    assert configured.or_else(OWN) == expected


@pytest.mark.parametrize("name", sorted(formats.known()))
def test_the_defaults_of_a_format_are_those_of_a_source_that_says_nothing(name: str) -> None:
    format_ = formats.get(name)
    source = source_of(bare(name))
    assert (source.fields, source.where) == (format_.defaults.fields, format_.only or format_.defaults.where)
    assert source.out_of_orderness == format_.defaults.out_of_orderness
    assert source.dedup == format_.defaults.dedup
    assert source.batch == (format_.batch or "one")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"latency_unit": "ms"}, "span.duration is in ns; leave latency_unit out, or name a latency of your own"),
        ({"latency": "span.duration", "latency_unit": "s"}, "span.duration is in ns; leave latency_unit out"),
        ({"time_unit": "ms"}, "span.end is in ns; leave time_unit out, or name a time of your own"),
        ({"time": "span.end", "time_unit": "auto"}, "span.end is in ns; leave time_unit out"),
    ],
)
def test_a_unit_that_the_format_knows_cannot_be_another(fields: dict[str, str], message: str) -> None:
    """Latencies would be a million times what they are."""
    with pytest.raises(ConfigError, match=message):
        source_of({"format": "otlp_json", "fields": fields})


@pytest.mark.parametrize(
    "fields",
    [
        {"latency": "took", "latency_unit": "ms"},
        {"latency_unit": "ns", "time_unit": "ns"},
        {"time": "at", "time_unit": "s"},
        {"time": "at", "time_unit": "auto"},
    ],
)
def test_a_field_of_ones_own_has_a_unit_of_its_own(fields: dict[str, str]) -> None:
    found = source_of({"format": "otlp_json", "fields": fields}).fields
    assert {name: getattr(found, name) for name in fields} == fields


def test_a_filter_of_the_config_takes_the_place_of_the_formats() -> None:
    source = source_of(
        {"format": "otlp_json", "where": {"span.kind": "*"}, "fields": {"failed": {"span.status": "ok"}}}
    )
    assert source.where == Matcher.of({"span.kind": "*"})
    assert source.fields.failed == Matcher.of({"span.status": "ok"})
    assert source.fields.time == "span.end"


@pytest.mark.parametrize("name", [name for name in sorted(formats.known()) if formats.get(name).only is not None])
def test_no_filter_of_the_config_makes_events_of_what_a_format_is_not_about(name: str) -> None:
    """Else `where: {environment: production}` would count each line that a function prints as a request."""
    source = source_of({**bare(name), "where": [{"a": 1}, {"b": 2}]})
    only = formats.get(name).only
    assert only is not None
    more = Matcher.of({"a": 1}, {"b": 2})
    assert source.where == Matcher(tuple((*case, *other) for case in only.cases for other in more.cases))


def test_the_core_waits_as_long_as_the_decoder_says() -> None:
    for written in ({}, {"out_of_orderness": "2m"}):
        config = config_of({"format": "json", **written})
        assert config.rules.sources["events"].out_of_orderness == config.sources["events"].out_of_orderness


@pytest.mark.parametrize(("written", "dedup"), [({}, 500), ({"dedup": 0}, 0), ({"dedup": 7}, 7)])
def test_the_core_remembers_as_many_offsets_as_the_decoder(written: dict[str, int], dedup: int) -> None:
    config = config_of({"format": "vercel", **written})
    assert config.rules.sources["events"].dedup == config.sources["events"].dedup == dedup


@pytest.mark.parametrize("when", ["error_count > 5", "max > 1s"])
def test_what_tail_sampling_keeps_may_be_asked_for(when: str) -> None:
    """The failures and the slowest."""
    alert = {"surface": "surface", "when": when, "window": "5m", "severity": "page"}
    fields = {"failed": {"status": 500}, "latency": "ms", "latency_unit": "ms"}
    source = {"format": "json", "tail_sampled": True, "fields": fields}
    assert config_of(source, alerts={"A": alert}).rules.rules["A"].name == "A"


BLOCKED = """
import sys
for name in sys.argv[1].split(","):
    sys.modules[name] = None
from evaluator.cli import main
sys.argv = ["evaluator", "check-config", sys.argv[2]]
main()
"""


@pytest.mark.parametrize(
    ("name", "extra", "packages"),
    [
        ("otlp", "otlp", "opentelemetry"),
        ("otlp_proto", "otlp", "google.protobuf"),
        ("registry", "registry", "fastavro"),
    ],
)
def test_a_format_whose_libraries_are_missing_says_what_to_install(
    name: str, extra: str, packages: str, tmp_path: Path
) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(f"version: 1\nsources: {{s: {{topic: t, format: {name}}}}}\n")
    command = [sys.executable, "-c", BLOCKED, packages, str(rules)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert (
        f"error[E033] sources.s.format: the format {name} needs the extra {extra}; install it: "
        f"pip install 'evaluator[{extra}]'"
    ) in ran.stdout + ran.stderr


def test_a_format_without_libraries_of_its_own_needs_none() -> None:
    assert formats.get("otlp_json").is_installed

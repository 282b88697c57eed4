"""The examples of config/examples, one for each format and preset: what their pages show is what comes out."""

from __future__ import annotations

import base64
import json
import re
import struct
import subprocess
import sys
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
import yaml
from support.cases import replayed
from support.examples import EXAMPLES, compared, expected, partitions

from evaluator.runtime.replay import Outcome, Request
from evaluator.wire import formats
from evaluator.wire.config.load import load_rules
from evaluator.wire.preset import PresetName

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "formats"
NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/p0.ndjson"))
WANTED = sorted({*formats.known(), *typing.get_args(PresetName)})


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples name files as somebody sees them who tries them: from the root of the repository."""
    monkeypatch.chdir(ROOT)


def page_of(name: str) -> Path:
    """The three formats of spans are one page."""
    return PAGES / f"{'otlp' if name.startswith('otlp') else name}.md"


def run(name: str, files: list[Path]) -> Outcome:
    config = load_rules([EXAMPLES / name / "config.yaml"])
    (source,) = config.rules.sources
    return replayed(config, Request({source: files}, envelope=True, shards=4))


def test_every_format_and_preset_has_an_example_and_a_page() -> None:
    assert NAMES == WANTED
    assert sorted(page.name for page in PAGES.iterdir()) == sorted({page_of(name).name for name in WANTED})
    index = (ROOT / "docs" / "formats.md").read_text()
    assert {page_of(name).name for name in WANTED} <= set(re.findall(r"\]\(formats/([^)#]+)", index))


@pytest.mark.parametrize("name", NAMES)
def test_an_example_gives_its_alerts(name: str) -> None:
    assert [compared(orjson.loads(line)) for line in run(name, partitions(name)).alerts] == expected(name)


@pytest.mark.parametrize("name", NAMES)
def test_an_example_fires_once_and_resolves(name: str) -> None:
    assert [(each["status"], each["reason"]) for each in expected(name)] == [
        ("firing", "breached"), ("resolved", "recovered"),
    ]  # fmt: skip


def test_the_command_of_the_pages_prints_the_same() -> None:
    words = ["replay", "--config", "config/examples/supabase/config.yaml", "--envelope", "-o", "json"]
    command = [str(Path(sys.executable).with_name("evaluator")), *words, "config/examples/supabase/p0.ndjson"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    assert [compared(orjson.loads(line)) for line in done.stdout.splitlines()] == expected("supabase")


@pytest.mark.parametrize("name", NAMES)
def test_the_rules_of_an_example_are_what_its_page_shows_and_without_warnings(name: str) -> None:
    config = EXAMPLES / name / "config.yaml"
    found = {str(warning.code) for warning in load_rules([config]).warnings}
    assert found == ({"W104"} if name == "drift" else set())  # one check that found something is to be told
    assert re.sub("otlp_(json|proto)", "otlp", config.read_text()) in _blocks(page_of(name), "yaml")


@pytest.mark.parametrize("name", [name for name in NAMES if name not in {"otlp", "otlp_proto", "registry"}])
def test_the_record_that_a_page_shows_is_one_of_the_example(name: str) -> None:
    shown = [json.loads(text) for text in _blocks(page_of(name), "json")]
    values = [json.loads(line)["value"] for line in partitions(name)[0].read_text().splitlines()]
    events = [event for value in values for event in (value if isinstance(value, list) else [value])]
    assert shown
    assert all(record in events for record in shown)


@pytest.mark.parametrize("name", NAMES)
def test_a_page_shows_the_line_that_its_alert_prints(name: str) -> None:
    firing, resolved = (each["annotations"]["summary"] for each in expected(name))
    assert firing in page_of(name).read_text()
    assert resolved in page_of(name).read_text()


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


# -- a changed value changes the alert -----------------------------------------------------------------------

BETTER: Sequence[tuple[str, Sequence[tuple[str | bytes, str | bytes]]]] = [
    ("easymo-api", [('"status_code": 503', '"status_code": 499')]),
    ("easymo-admin", [('"status": "error"', '"status": "ok"')]),
    ("pino-http", [('"res": {"statusCode": 503', '"res": {"statusCode": 404')]),
    ("agent-core", [('"statusCode": 502', '"statusCode": 200')]),
    ("edge-functions", [('"status": 500', '"status": 404')]),
    ("json", [('"status": "failed"', '"status": "sent"')]),
    ("otlp_json", [('{"intValue": "503"}', '{"intValue": "404"}'), ('{"code": 2, "message"', '{"code": 1, "message"')]),
    ("otlp_proto", [(b"\x18\xf7\x03", b"\x18\x94\x03"), (b"timed out\x18\x02", b"timed out\x18\x01")]),
    ("otlp", [('{"intValue": "503"}', '{"intValue": "404"}'), ('{"code": 2, "message"', '{"code": 1, "message"')]),
    ("cloudevents", [('"outcome": "error"', '"outcome": "declined"')]),
    ("registry", [(b"/v1/orders\xee\x07", b"/v1/orders\x90\x03")]),
    ("lighthouse", [('"performance": {"score": 0.77', '"performance": {"score": 0.87')]),
    ("supabase", [('"status_code": 500', '"status_code": 499')]),
    ("vercel", [('"statusCode": 500, "pro', '"statusCode": 200, "pro'), ('"statusCode": 502', '"statusCode": 200')]),
    ("drift", [('"status": "drift"', '"status": "clean"')]),
    ("heartbeat", [('"billing-cron", "time": "2026-01-28T12:20:20Z"', '"reconcile", "time": "2026-01-28T12:20:20Z"')]),
    ("easymo-api", [('"duration_ms": 1410.5', '"duration_ms": 999.5')]),
    ("easymo-admin", [('"duration_ms": 1410.5', '"duration_ms": 999.5')]),
    ("pino-http", [('"responseTime": 1410', '"responseTime": 999')]),
    ("agent-core", [('"durationMs": 1410.5', '"durationMs": 999.5')]),
    ("edge-functions", [('"durationMs": 1410.5', '"durationMs": 999.5')]),
    ("cloudevents", [('"duration_ms": 1410.5', '"duration_ms": 999.5')]),
    ("registry", [(struct.pack("<d", 1410.5), struct.pack("<d", 999.5))]),
    ("supabase", [('"execution_time_ms": 1410', '"execution_time_ms": 999')]),
]  # fmt: skip
"""Of one request out of ten, check or beat: the text that made it bad, and what it is instead."""


@pytest.mark.parametrize(("name", "changes"), BETTER)
def test_with_one_bad_value_less_nothing_fires(
    name: str, changes: Sequence[tuple[str | bytes, str | bytes]], tmp_path: Path
) -> None:
    files = [tmp_path / path.name for path in partitions(name)]
    lines = [path.read_text().splitlines() for path in partitions(name)]
    for old, new in changes:
        assert _change_first(lines, _bytes(old), _bytes(new)), old
    for file, of_file in zip(files, lines, strict=True):
        file.write_text("\n".join(of_file) + "\n")
    outcome = run(name, files)
    assert outcome.alerts == []
    assert sum(count for key, count in outcome.tallies.items() if key[0] == "rejected") == 0


def _change_first(files: list[list[str]], old: bytes, new: bytes) -> bool:
    """Change the first value that holds `old`; it says whether there is one."""
    for lines in files:
        for number, line in enumerate(lines):
            envelope = json.loads(line)
            value = _value(envelope)
            if old in value:
                changed = base64.b64encode(value.replace(old, new, 1)).decode()
                lines[number] = json.dumps({**envelope, "encoding": "base64", "value": changed})
                return True
    return False


def _value(envelope: dict[str, Any]) -> bytes:
    value = envelope["value"]
    if envelope.get("encoding") == "base64":
        return base64.b64decode(value)
    return (value if isinstance(value, str) else json.dumps(value)).encode()


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def test_an_alert_shows_the_values_that_the_records_have(tmp_path: Path) -> None:
    """Another latency, and one that failed more: the same alert with another evidence."""
    (lines,) = (path.read_text().splitlines() for path in partitions("supabase"))
    assert _change_first([lines], b'"execution_time_ms": 1410', b'"execution_time_ms": 2000')
    (tmp_path / "p0.ndjson").write_text("\n".join(lines) + "\n")
    before, after = expected("supabase")[0], compared(orjson.loads(run("supabase", [tmp_path / "p0.ndjson"]).alerts[0]))
    assert (after["id"], after["labels"]) == (before["id"], before["labels"])
    assert [each["latency"] for each in before["evidence"]["slowest"][:2]] == [1.65, 1.41]
    assert [each["latency"] for each in after["evidence"]["slowest"][:2]] == [2, 1.65]


# -- programs of others that carry HTTP to Kafka --------------------------------------------------------------

RELAYS = EXAMPLES / "http-to-kafka"


def relay(name: str) -> dict[str, Any]:
    return yaml.safe_load((RELAYS / name).read_text())


def topics_of(*names: str) -> set[str]:
    rules = [load_rules([EXAMPLES / name / "config.yaml"]).rules for name in names]
    return {source.topic for each in rules for source in each.sources.values()}


def test_the_relays_write_the_topics_that_the_examples_read() -> None:
    drains = topics_of("easymo-api", "supabase", "vercel")
    vector, collector = relay("vector.yaml"), relay("collector.yaml")
    assert {sink["topic"] for sink in vector["sinks"].values()} == drains
    assert {output["topics"] for output in relay("fluent-bit.yaml")["pipeline"]["outputs"]} == drains
    assert {exporter["logs"]["topic"] for exporter in collector["exporters"].values()} == drains
    assert {each["traces"]["topic"] for each in relay("collector-spans.yaml")["exporters"].values()} == topics_of(
        "otlp"
    )


def test_what_a_relay_wires_together_is_there() -> None:
    vector = relay("vector.yaml")
    known = {*vector["sources"], *vector["transforms"]}
    routes = {f"by_path.{name}" for name in vector["transforms"]["by_path"]["route"]}
    consumers = [*vector["transforms"].values(), *vector["sinks"].values()]
    assert {name for each in consumers for name in each["inputs"]} <= known | routes
    for file in ("collector.yaml", "collector-spans.yaml"):
        collector = relay(file)
        for kind in ("receivers", "processors", "exporters"):
            pipelines = collector["service"]["pipelines"].values()
            assert {name for each in pipelines for name in each.get(kind, ())} == set(collector.get(kind, ()))

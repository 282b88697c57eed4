"""`evaluator publish` without a broker: which records it would send, and that one wrong file stops all."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from evaluator.cli import run

if TYPE_CHECKING:
    from pathlib import Path

RULES = """
version: 1
sources:
  runs: {topic: perf.runs, format: lighthouse}
  checks: {topic: db.checks, format: drift}
surfaces: {admin: {source: runs}, db: {source: checks}}
"""
URL = "https://admin.example.com/"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with rules and what Lighthouse CI leaves behind."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rules.yaml").write_text(RULES)
    (tmp_path / ".lighthouseci").mkdir()
    for number, page in enumerate(("b", "a")):
        report = {"lighthouseVersion": "12.6.0", "requestedUrl": URL + page, "fetchTime": "2026-01-28T12:00:00.000Z",
                  "categories": {"performance": {"score": 0.8}}, "i18n": {}}  # fmt: skip
        (tmp_path / ".lighthouseci" / f"lhr-{number}.json").write_bytes(orjson.dumps(report))
    (tmp_path / ".lighthouseci" / "links.json").write_text("{}")
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], command: str) -> list[dict[str, Any]]:
    """What a dry run prints."""
    assert run([*command.split(), "--dry-run", "-o", "json"]) == 0
    return [orjson.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.usefixtures("folder")
def test_every_run_of_the_folder_is_a_record_keyed_by_its_url(capsys: pytest.CaptureFixture[str]) -> None:
    command = "publish lighthouse --config rules.yaml --commit 4f2a9c1 --branch topic --context pr"
    value = {"lighthouseVersion": "12.6.0", "fetchTime": "2026-01-28T12:00:00.000Z", "commit": "4f2a9c1",
             "branch": "topic", "context": "pr", "categories": {"performance": {"score": 0.8}}}  # fmt: skip
    assert told(capsys, command) == [
        {"topic": "perf.runs", "partition": None, "offset": None, "key": URL + page,
         "value": {**value, "requestedUrl": URL + page}} for page in ("b", "a")
    ]  # fmt: skip


@pytest.mark.usefixtures("folder")
def test_an_empty_variable_of_a_ci_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["publish", "lighthouse", "--topic", "t", "--commit", "", "--dry-run", "-o", "json"]) == 0
    assert all("commit" not in orjson.loads(line)["value"] for line in capsys.readouterr().out.splitlines())


def test_every_file_that_is_no_report_is_named_and_nothing_is_sent(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("lhr-2.json", "lhr-3.json"):
        (folder / ".lighthouseci" / name).write_text("[]" if name == "lhr-2.json" else "")
    assert run(["publish", "lighthouse", "--topic", "t", "--dry-run"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        ".lighthouseci/lhr-2.json: no Lighthouse report (it is no object)",
        ".lighthouseci/lhr-3.json: no Lighthouse report (it is empty)",
        "nothing was sent",
    ]


def test_a_drift_report_comes_from_standard_input_too(folder: Path) -> None:
    words = "publish drift - --surface db --config rules.yaml --time 2026-01-28T13:00:00+01:00 --dry-run -o json"
    done = subprocess.run(
        [sys.executable, "-m", "evaluator", *words.split()], cwd=folder, capture_output=True, check=False,
        input=b"\xef\xbb\xbfRemote schema matches migrations\n",
    )  # fmt: skip
    record = orjson.loads(done.stdout)
    assert (record["topic"], record["key"]) == ("db.checks", "db")
    assert record["value"] == {
        "kind": "drift", "surface": "db", "time": "2026-01-28T12:00:00Z", "status": "clean", "lines": 0
    }  # fmt: skip


def test_a_heartbeat_has_its_surface_as_key(capsys: pytest.CaptureFixture[str]) -> None:
    (record,) = told(capsys, "publish heartbeat --surface db --topic beats --time 1769601600")
    assert (record["topic"], record["key"]) == ("beats", "db")
    assert record["value"] == {"kind": "heartbeat", "surface": "db", "time": "2026-01-28T12:00:00Z"}


def test_a_check_that_failed_is_told_without_a_report(capsys: pytest.CaptureFixture[str]) -> None:
    (record,) = told(capsys, "publish drift --failed --surface db --topic checks --time 1769601600 --commit 4f2a9c1")
    assert record["value"] == {
        "kind": "drift", "surface": "db", "time": "2026-01-28T12:00:00Z", "status": "failed", "lines": 0,
        "commit": "4f2a9c1",
    }  # fmt: skip


@pytest.mark.parametrize("words", ["", "report.txt --failed"])
def test_a_drift_check_has_a_report_or_failed(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["publish", "drift", *words.split(), "--surface", "db", "--topic", "checks"]) == 2
    assert "--failed" in capsys.readouterr().err

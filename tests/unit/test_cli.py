"""The command line as a person meets it: what it prints, and the exit code (docs/contracts.md, 5)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMAND = str(Path(sys.executable).with_name("evaluator"))
RULES = """
version: 1
sources:
  events: {topic: t, format: json, out_of_orderness: 0s, fields: {time: t, latency: ms, latency_unit: ms,
    failed: {status: ">= 500"}}}
surfaces:
  api: {source: events, match: {app: api}, owners: ["@a"]}
alerts:
  A: {surface: api, when: error_count > 0, window: 1m, severity: page}
"""
GOOD = b'{"t": "2026-01-28T00:00:10Z", "app": "api", "status": 500}\n{"t": "2026-01-28T00:02:00Z", "app": "api"}\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rules.yaml").write_text(RULES)
    (tmp_path / "p0.ndjson").write_bytes(GOOD)
    return tmp_path


def run(folder: Path, *words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in `folder`."""
    environ = {**os.environ, "NO_COLOR": "1", "TERM": "dumb", **(env or {})}
    return subprocess.run([COMMAND, *words], cwd=folder, env=environ, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["check-config", "nope.yaml"], 1, "nope.yaml"),
        (["check-config", "p0.ndjson"], 1, "p0.ndjson"),
        (["replay", "p0.ndjson"], 2, "--config"),
        (["replay", "--config", "rules.yaml"], 2, "no input"),
        (["replay", "--config", "rules.yaml", "nope.ndjson"], 2, "nope.ndjson: cannot be read"),
        (["replay", "--config", "rules.yaml", "."], 2, "cannot be read"),
        (["replay", "--config", "rules.yaml", "--source", "evnts=p0.ndjson"], 2, "one of events"),
        (["replay", "--config", "rules.yaml", "--until", "noon", "p0.ndjson"], 2, "--until noon"),
        (["replay", "--config", "rules.yaml", "--envelope", "p0.ndjson"], 2, "p0.ndjson:1: not an envelope"),
        (
            ["replay", "--config", "rules.yaml", "--decisions", "p0.ndjson", "p0.ndjson"],
            2,
            "p0.ndjson:1: not a decision",
        ),
        (["replay", "--config", "rules.yaml", "-o", "yaml", "p0.ndjson"], 2, "yaml"),
        (["simulate", "--out", "no/such/folder"], 2, "cannot be written"),
    ],
)
def test_a_mistake_is_told_in_words_with_its_exit_code(
    folder: Path, words: Sequence[str], code: int, said: str
) -> None:
    done = run(folder, *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_misspelt_environment_variable_is_named(folder: Path) -> None:
    done = run(folder, "demo", "--for", "0", env={"EVALUATOR_WEB__LISTN": "x"})
    assert (done.returncode, "EVALUATOR_WEB__LISTEN" in done.stderr) == (1, True)


def test_data_is_on_stdout_and_the_summary_on_stderr(folder: Path) -> None:
    done = run(folder, "replay", "--config", "rules.yaml", "-o", "json", "p0.ndjson")
    records = [orjson.loads(line) for line in done.stdout.splitlines()]
    assert [(record["status"], record["firedAt"]) for record in records] == [("firing", "2026-01-28T00:01:00Z")]
    assert done.stderr == "read 2 events; 1 firing, 0 resolved\n"


GARBAGE = [
    b"{", b"[]", b'{"t": null}', b'{"t": "yesterday"}', b'{"t": NaN}', b"\xff\xfe", b"[" * 100_000,
    b'{"t": 1e400}', b'{"t": true}', b'"text"', b'{"t": "2026-01-28T00:00:20"}',
]  # fmt: skip
HARMLESS = [
    (b'{"t": "2026-01-28T00:00:20Z", "app": "nobody"}', "1 unmatched"),
    (b'{"t": "2026-01-28T00:00:20Z", "app": "api", "ms": -1}', "1 bad latency"),
    (b'{"t": "2026-01-28T00:00:20Z", "app": "api", "ms": 9223372036854775808}', "1 bad latency"),
    (b'{"t": "2026-01-28T00:00:20Z", "app": "api", "pad": "' + b"x" * 2**20 + b'"}', "read 3 events"),
    (b"", "1 skipped"),
]


def test_garbage_is_rejected_with_a_reason_and_disturbs_nothing(folder: Path) -> None:
    first, last = GOOD.splitlines()
    (folder / "p0.ndjson").write_bytes(b"\n".join([first, *GARBAGE, last]))
    done = run(folder, "replay", "--config", "rules.yaml", "-o", "json", "p0.ndjson")
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr.startswith(f"read 2 events, {len(GARBAGE)} rejected (")
    first = [line for line in done.stderr.splitlines() if ", first at p0.ndjson line " in line]
    reasons = {line.split(",")[0].strip() for line in first}
    assert len(first) == len(reasons) > 1
    assert "--envelope" not in done.stderr
    (folder / "p0.ndjson").write_bytes(b'{\n  "t": 1\n}\n')
    done = run(folder, "replay", "--config", "rules.yaml", "p0.ndjson")
    assert done.stderr.splitlines()[1:] == [
        (
            "  not_json, first at p0.ndjson line 1: Expecting property name enclosed in double quotes: "
            "line 1 column 2 (char 1)"
        ),
        (
            "every line is a record: a document over several lines, or one that is no text, is to be given as an "
            "envelope (--envelope)"
        ),
    ]


@pytest.mark.parametrize(("line", "said"), HARMLESS)
def test_odd_values_land_where_the_semantics_say(folder: Path, line: bytes, said: str) -> None:
    first, last = GOOD.splitlines()
    (folder / "p0.ndjson").write_bytes(b"\n".join([first, line, last]))
    done = run(folder, "replay", "--config", "rules.yaml", "-o", "json", "p0.ndjson")
    assert len(done.stdout.splitlines()) == 1
    assert said in done.stderr


def test_the_demo_stops_cleanly_when_it_is_asked_to(folder: Path) -> None:
    environ = {**os.environ, "EVALUATOR_WEB__LISTEN": "127.0.0.1:18095"}
    with subprocess.Popen(
        [COMMAND, "demo", "--no-incident"], cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as demo:
        assert demo.stderr is not None
        while not demo.stderr.readline().startswith(b"story"):
            pass
        demo.send_signal(signal.SIGTERM)
        out, err = demo.communicate(timeout=30)
    assert (demo.returncode, out) == (0, b"")
    assert b"Traceback" not in err


def test_a_reload_that_comes_before_the_brokers_answer_does_not_end_a_run(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environ = {**os.environ, "EVALUATOR_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{silent.getsockname()[1]}"}
        command = [COMMAND, "run", "--config", "rules.yaml"]
        with subprocess.Popen(command, cwd=folder, env=environ, stderr=subprocess.PIPE, text=True) as process:
            connection, _ = silent.accept()
            process.send_signal(signal.SIGHUP)
            connection.close()
            _, told = process.communicate(timeout=30)
    assert process.returncode == 4, told
    assert "closed the connection" in told

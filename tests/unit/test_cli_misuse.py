"""Every mistake at the command line ends in one line and its exit code (docs/contracts.md, 5)."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import orjson
import pytest

from evaluator import __version__
from evaluator.cli import run

if TYPE_CHECKING:
    from pathlib import Path

RULES = """
version: 1
sources: {events: {topic: t, format: json, max_future: 10s, fields: {time: t, failed: {s: ">= 500"}}}}
surfaces: {api: {source: events, owners: ["@a"]}}
alerts: {A: {surface: api, when: error_ratio > 20%, window: 1s, min_samples: 2, severity: page}}
"""
COMMAND = [sys.executable, "-c", "from evaluator.cli import main; main()"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, the current one, with rules and a file of 200 failures, a second apart."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rules.yaml").write_text(RULES)
    (tmp_path / "folder").mkdir()
    events = [orjson.dumps({"t": 1_769_601_600 + number, "s": 500}) for number in range(200)]
    (tmp_path / "good").write_bytes(b"\n".join(events))
    for partition, name in ((0, "unknown"), (1, "events"), (-1, "events")):
        decision = {"source": name, "partition": partition, "offset": 0, "future": 0}
        (tmp_path / f"decisions-{name}{partition}").write_bytes(orjson.dumps(decision))
    return tmp_path


REPLAY = "replay -c rules.yaml "


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("nope", 2, "evaluator: no such command 'nope'"),
        ("version more", 2, "see evaluator version --help"),
        ("publish lighthouse --context nightly", 2, "see evaluator publish lighthouse --help"),
        ("dlq list --reason nope", 2, "evaluator dlq list: invalid value for '--reason'"),
        ("publish lighthouse --dry-run", 2, "cannot be read (No such file or directory); run lhci collect before"),
        ("schema", 2, "missing argument"),
        ("schema events", 2, "'events' is not one of 'rules', 'alert'"),
        ("check-config", 2, "missing argument"),
        ("check-config absent", 1, "absent:1:1: error[E001] cannot read"),
        ("check-config folder", 1, "is a directory"),
        ("replay", 2, "missing option '--config' / '-c'"),
        (REPLAY, 2, "no input"),
        (REPLAY + "-o yaml good", 2, "'yaml' is not one of 'text', 'json'"),
        (REPLAY + "--batch 0 good", 2, "--batch"),
        (REPLAY + "absent", 2, "absent: cannot be read"),
        (REPLAY + "folder", 2, "folder: cannot be read"),
        (REPLAY + "--until soon good", 2, "--until soon: expected a time"),
        (REPLAY + "--source other=good", 2, "with NAME one of events"),
        (REPLAY + "--source events=good,,good", 2, "expected NAME=FILE,..."),
        (REPLAY + "--source events=good good", 2, "not both"),
        (REPLAY + "--envelope good", 2, "good:1: not an envelope"),
        (REPLAY + "--decisions good good", 2, "good:1: not a decision"),
        (REPLAY + "--decisions decisions-unknown0 good", 2, "the source unknown; the config has events"),
        (REPLAY + "--decisions decisions-events1 good", 2, "partition 1, but 1 files"),
        (REPLAY + "--decisions decisions-events-1 good", 2, "partition -1, but 1 files"),
        ("simulate --for soon", 2, '--for: "soon" is not a duration'),
        ("simulate --rate inf", 2, "--rate"),
        ("simulate --rate nan", 2, "--rate"),
        ("simulate --start 9999-12-31T23:59:00Z", 2, "after the year 9999"),
        ("simulate --out folder", 2, "folder: cannot be written"),
        ("publish lighthouse", 2, ".lighthouseci: cannot be read"),
        ("publish lighthouse folder --topic t", 2, "folder: holds no lhr-*.json"),
        ("publish lighthouse --context prod good --topic t", 2, "'prod' is not one of 'main', 'pr'"),
        ("publish drift good --surface db --topic t", 2, "good: says nothing of drift, so nothing was sent"),
        ("publish drift absent --surface db --topic t", 2, "absent: cannot be read"),
        ("publish heartbeat --topic t", 2, "missing option '--surface'"),
        ("publish heartbeat --surface a/b --topic t", 2, "--surface a/b: expected a name"),
        ("publish heartbeat --surface a --time noon --topic t", 2, "--time noon: expected a time"),
        ("publish heartbeat --surface a", 2, "--topic: name the topic"),
        ("publish heartbeat --surface a --config rules.yaml", 2, "no topics of the format heartbeat: say --topic"),
        ("dlq show 17", 2, "17: expected PARTITION:OFFSET"),
        ("dlq list --reason bad", 2, "'bad' is not one of"),
        ("dlq list --since noon", 2, "--since noon: expected a time"),
        ("dlq publish", 2, "say which: PARTITION:OFFSET, --reason"),
        ("dlq publish --all --reason future", 2, "say which: PARTITION:OFFSET, --reason"),
        ("demo -o yaml", 2, "'yaml' is not one of 'text', 'json'"),
        ("demo --for -1", 2, "--for"),
        ("demo --dump folder --for 0", 2, "folder: cannot be written"),
    ],
)
def test_a_mistake_is_one_line_and_its_code(
    command: str, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command.split()) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert said in told.err
    assert told.err.count("\n") == 1


@pytest.mark.parametrize("command", ["simulate --for 1h", "replay -c rules.yaml --verdicts -o json good"])
def test_a_reader_that_has_seen_enough_is_no_failure(command: str, folder: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, *command.split()], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
    assert process.returncode == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")  # noqa: PTH110  # evaluated at import
def test_a_full_disk_is_one_line(folder: Path) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123  # a device
        told = subprocess.run(
            [*COMMAND, *(REPLAY + "good --verdicts").split()],
            cwd=folder,
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (told.returncode, told.stderr) == (5, b"cannot go on: No space left on device\n")


def test_closed_streams_are_no_failure(folder: Path) -> None:
    quoted = " ".join(f"'{part}'" for part in [*COMMAND, *(REPLAY + "good").split()])
    assert subprocess.run(f"{quoted} >&- 2>&-", shell=True, cwd=folder, check=False).returncode == 0


@pytest.mark.parametrize("failure", ["KeyError('nobody expected it')", "BaseException('a panic of native code')"])
def test_a_bug_is_one_line_its_traceback_and_exit_code_5(failure: str) -> None:
    told = failing(f"raise {failure}")
    first, second, *traceback = told.stderr.splitlines()
    assert told.returncode == 5
    assert first.startswith(f"internal error: {failure.split('(', maxsplit=1)[0]}: ")
    assert "please report it" in first
    assert "internal.error" in second
    assert traceback[0] == "Traceback (most recent call last):"


def test_a_bug_of_a_running_service_has_its_traceback_in_the_structured_log() -> None:
    told = failing("logs.configure('info', 'json'); {}['']")
    line, logged = told.stderr.splitlines()
    assert (told.returncode, line[:25]) == (5, "internal error: KeyError:")
    event = orjson.loads(logged)
    assert (event["event"], event["level"], event["version"]) == ("internal.error", "critical", __version__)
    assert "KeyError: ''" in event["exception"]


def failing(body: str) -> subprocess.CompletedProcess[str]:
    """The command line with one command more, which does this."""
    code = f"from evaluator import cli\nfrom evaluator.runtime import logs\ndef fail():\n    {body}\n"
    code += "cli.app.command('fail')(fail)\ncli.main()"
    return subprocess.run([sys.executable, "-c", code, "fail"], capture_output=True, text=True, check=False)

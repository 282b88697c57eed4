"""The rights that are needed: one table, in the commands, in JSON and in the documentation."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from evaluator.cli.acls import commands
from evaluator.runtime.acls import creating, needed, useful
from evaluator.runtime.topics import Topics

if TYPE_CHECKING:
    from evaluator.runtime.log.rights import Right

DOCS = Path(__file__).parents[2] / "docs" / "guarantees.md"
TOPICS = Topics("app")
SOURCES = {"calls": "calls-topic"}
RULES = "version: 1\nsources:\n  calls: {topic: calls-topic, format: json, fields: {time: time}}\n"


def test_every_topic_is_in_the_table_and_nothing_that_is_not_ours() -> None:
    topics = {name for right in needed(TOPICS, SOURCES) if right.resource == "topic" for name in right.used}
    assert topics == {"calls-topic", *(spec.name for spec in TOPICS.specs(1, {"calls": 1}))}


def test_no_row_comes_twice() -> None:
    rows = [*needed(TOPICS, SOURCES), *useful(TOPICS), *creating(TOPICS)]
    assert len({(row.resource, row.name, row.operation) for row in rows}) == len(rows)


def test_a_source_is_only_read() -> None:
    rows = [*needed(TOPICS, SOURCES), *useful(TOPICS), *creating(TOPICS)]
    assert [row.operation for row in rows if row.name == "calls-topic"] == ["read"]


def test_each_resource_is_one_command_that_a_shell_takes() -> None:
    lines = list(commands(needed(TOPICS, SOURCES), "User:CN=evaluator, O=us", "b:9092"))
    assert lines[1] == (
        "kafka-acls.sh --bootstrap-server b:9092 --add --allow-principal 'User:CN=evaluator, O=us' --operation Read "
        "--operation Write --topic app.progress. --resource-pattern-type prefixed"
    )
    assert lines[-1].endswith("--operation Write --transactional-id app. --resource-pattern-type prefixed")
    assert all("User:CN=evaluator, O=us" in shlex.split(line) for line in lines)
    assert len(lines) == len({line.split("--operation")[-1].split(maxsplit=1)[1] for line in lines})


def test_what_is_only_useful_says_what_it_is_good_for() -> None:
    lines = list(commands(useful(TOPICS), "User:x", "b:9092"))
    assert lines[0].startswith("#   merged partials stay for ever")
    assert "--operation Delete --operation DescribeConfigs --topic app.partials" in lines[1]


def evaluator(folder: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """`evaluator topics acls`, with rules; no broker is anywhere."""
    (folder / "rules.yaml").write_text(RULES)
    return subprocess.run([sys.executable, "-m", "evaluator", "topics", "acls", "--config", "rules.yaml", *words],
                          cwd=folder, env=environ, capture_output=True, text=True, check=False)  # fmt: skip


def test_the_command_needs_no_broker_and_follows_the_settings(tmp_path: Path) -> None:
    done = evaluator(tmp_path, "--principal", "User:x", EVALUATOR_APP_ID="other", EVALUATOR_TOPICS__ALERTS="pages")
    assert (done.returncode, done.stderr) == (0, "")
    assert "--operation Read --operation Write --topic pages\n" in done.stdout
    assert "--transactional-id other. " in done.stdout
    assert "Create" not in done.stdout
    done = evaluator(tmp_path, "--principal", "User:x", "-o", "json", EVALUATOR_KAFKA__CREATE_TOPICS="true")
    rows = json.loads(done.stdout)
    assert {row["operation"] for row in rows} == {"read", "write", "delete", "alter", "describe_configs", "create"}


def test_a_principal_has_a_type(tmp_path: Path) -> None:
    done = evaluator(tmp_path, "--principal", "x")
    assert done.returncode == 2
    assert "expected TYPE:NAME, such as User:evaluator" in done.stderr


def documented(right: Right) -> str:
    """A row of the page's table."""
    name = f"`{right.name}`{', and all that begin so' if right.is_prefix else ''}"
    return f"| {right.resource} | {name} | {right.operation.upper()} | {right.why} |"


@pytest.mark.parametrize("table", ["needed", "useful", "creating"])
def test_the_documentation_has_the_table(table: str) -> None:
    topics = Topics("<app_id>")
    rows = {
        "needed": needed(topics, {"<source>": "<each source's topic>"}),
        "useful": useful(topics),
        "creating": creating(topics),
    }[table]
    wanted = "\n".join(documented(right) for right in rows)
    assert wanted in DOCS.read_text(), f"expected in {DOCS.name}:\n{wanted}"

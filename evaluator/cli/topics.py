"""`evaluator topics`: the topics that the evaluator needs, made or looked at, and the rights that it needs."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from evaluator.cli import acls
from evaluator.cli.connect import Bootstrap, SettingsFile, settings_of, with_log
from evaluator.runtime.log.port import SAFE_REPLICATION
from evaluator.runtime.preflight import examine
from evaluator.runtime.provision import plan
from evaluator.runtime.topics import Topics
from evaluator.wire.config.load import load_rules

if TYPE_CHECKING:
    from collections.abc import Iterable

    from evaluator.runtime.log.port import Log, TopicSpec
    from evaluator.runtime.preflight import Examined
    from evaluator.runtime.provision import Plan
    from evaluator.runtime.settings import KafkaSettings

app = typer.Typer(help="The topics that the evaluator needs: make them, or look whether they are right.")
app.command("acls")(acls.acls)

ConfigFiles = Annotated[list[Path], typer.Option("--config", metavar="FILE", help="Rules; may be given several times.")]


class Form(StrEnum):
    """How topics are printed. The last two are for others to apply: nothing is created."""

    TEXT = "text"
    JSON = "json"
    TERRAFORM = "terraform"
    KAFKA_TOPICS = "kafka-topics"


_FOR_OTHERS = frozenset({Form.TERRAFORM, Form.KAFKA_TOPICS})


@app.command("create")
def create(
    *,
    config: ConfigFiles,
    settings: SettingsFile = None,
    bootstrap: Bootstrap = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be created.")] = False,
    sources: Annotated[
        int | None,
        typer.Option("--sources", min=1, metavar="N", help="Also create missing source topics, with N partitions."),
    ] = None,
    output: Annotated[
        Form, typer.Option("--output", "-o", help="How to print; with terraform and kafka-topics nothing is created.")
    ] = Form.TEXT,
) -> None:
    """Create what is missing. The sources' topics are the producers' affair, unless --sources is given."""
    chosen, rules = settings_of(settings, bootstrap), load_rules(config)
    creates = not dry_run and output not in _FOR_OTHERS

    async def work(log: Log) -> Plan:
        planned = await plan(log, rules, Topics.of(chosen), chosen.shards, sources)
        if creates:
            await log.create(planned.missing)
        return planned

    planned = with_log(chosen, work)
    for note in planned.notes:
        sys.stderr.write(f"note: {note}\n")
    typer.echo("\n".join(printed(planned, output, chosen.kafka, "created" if creates else "would create")))


@app.command("check")
def check(*, config: ConfigFiles, settings: SettingsFile = None, bootstrap: Bootstrap = None) -> int:
    """Compare the topics with what is needed; exit code 1 where `run` would refuse to start."""
    chosen, rules = settings_of(settings, bootstrap), load_rules(config)

    async def work(log: Log) -> Examined:
        return await examine(log, rules, Topics.of(chosen), chosen.shards)

    found = with_log(chosen, work)
    errors, notes = found.findings
    for note in notes:
        sys.stderr.write(f"note: {note}\n")
    for error in errors:
        sys.stderr.write(f"error: {error}\n")
    if not errors:
        typer.echo(f"SUCCESS: {len(found.specs)} topics are as they have to be")
    return 1 if errors else 0


def printed(planned: Plan, form: Form, kafka: KafkaSettings, verb: str) -> Iterable[str]:
    """The lines of a plan."""
    replication = kafka.replication_factor or SAFE_REPLICATION
    if form is Form.TEXT:
        return (_line(spec, "exists" if spec.name in planned.there else verb) for spec in planned.specs)
    if form is Form.JSON:
        rows = [
            {"name": s.name, "partitions": s.partitions, "config": s.config, "exists": s.name in planned.there}
            for s in planned.specs
        ]
        return [orjson.dumps(rows, option=orjson.OPT_INDENT_2).decode()]
    if form is Form.KAFKA_TOPICS:
        return (_command(spec, kafka.bootstrap_servers, replication) for spec in planned.specs)
    return (_terraform(spec, replication) for spec in planned.specs)


def _line(spec: TopicSpec, done: str) -> str:
    settings = " ".join(f"{name}={value}" for name, value in spec.config.items())
    return f"{done:<12}  {spec.name}  partitions={spec.partitions} {settings}"


def _command(spec: TopicSpec, bootstrap: str, replication: int) -> str:
    settings = " ".join(f"--config {name}={value}" for name, value in spec.config_on(replication).items())
    return (
        f"kafka-topics.sh --bootstrap-server {bootstrap} --create --if-not-exists --topic {spec.name} "
        f"--partitions {spec.partitions} --replication-factor {replication} {settings}"
    )


def _terraform(spec: TopicSpec, replication: int) -> str:
    """A resource of the provider Mongey/kafka."""
    label = spec.name.replace(".", "_").replace("-", "_")
    lines = "\n".join(f'    "{name}" = "{value}"' for name, value in spec.config_on(replication).items())
    return (
        f'resource "kafka_topic" "{label}" {{\n  name               = "{spec.name}"\n'
        f"  partitions         = {spec.partitions}\n  replication_factor = {replication}\n"
        f"  config = {{\n{lines}\n  }}\n}}\n"
    )

"""`evaluator topics`: the topics that the evaluator needs, made or looked at."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from evaluator.cli.connect import Bootstrap, SettingsFile, settings_of, with_log
from evaluator.runtime.log.port import TopicSpec
from evaluator.runtime.preflight import compare, source_partitions
from evaluator.runtime.topics import Topics
from evaluator.wire.config.load import load_rules

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluator.runtime.log.port import Log
    from evaluator.wire.config.load import Config

app = typer.Typer(help="The topics that the evaluator needs: make them, or look whether they are right.")

ConfigFiles = Annotated[list[Path], typer.Option("--config", metavar="FILE", help="Rules; may be given several times.")]


class Form(StrEnum):
    """How topics are printed."""

    TEXT = "text"
    JSON = "json"
    TERRAFORM = "terraform"
    KAFKA_TOPICS = "kafka-topics"


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
    output: Annotated[Form, typer.Option("--output", "-o", help="How to print.")] = Form.TEXT,
) -> None:
    """Create what is missing. The sources' topics are the producers' affair, unless --sources is given."""
    chosen, rules = settings_of(settings, bootstrap), load_rules(config)

    async def work(log: Log) -> tuple[list[TopicSpec], set[str]]:
        missing_sources = await _missing_sources(log, rules) if sources is not None else []
        new = [TopicSpec(topic, sources or 1) for topic in missing_sources]
        if new and not dry_run:
            await log.create(new)
        partitions = {rules.rules.sources[name].topic: name for name in rules.rules.sources}
        counts = (
            {name: sources or 1 for topic, name in partitions.items()}
            if new and dry_run
            else await source_partitions(log, rules)
        )
        specs = [*new, *Topics.of(chosen).specs(chosen.shards, counts)]
        there = set(await log.describe([spec.name for spec in specs])) - {spec.name for spec in new}
        if not dry_run:
            await log.create(specs)
        return specs, there

    specs, there = with_log(chosen, work)
    verb = "would create" if dry_run else "created"
    _print(specs, there, output, verb, chosen.kafka.bootstrap_servers)


async def _missing_sources(log: Log, config: Config) -> list[str]:
    wanted = sorted({source.topic for source in config.rules.sources.values()})
    there = await log.describe(wanted)
    return [topic for topic in wanted if topic not in there]


@app.command("check")
def check(*, config: ConfigFiles, settings: SettingsFile = None, bootstrap: Bootstrap = None) -> int:
    """Compare the topics with what is needed; exit code 1 where `run` would refuse to start."""
    chosen, rules = settings_of(settings, bootstrap), load_rules(config)

    async def work(log: Log) -> tuple[list[str], list[str], int]:
        specs = Topics.of(chosen).specs(chosen.shards, await source_partitions(log, rules))
        return (*compare(specs, await log.describe([spec.name for spec in specs])), len(specs))

    errors, notes, count = with_log(chosen, work)
    for note in notes:
        sys.stderr.write(f"note: {note}\n")
    for error in errors:
        sys.stderr.write(f"error: {error}\n")
    if not errors:
        typer.echo(f"SUCCESS: {count} topics are as they have to be")
    return 1 if errors else 0


def _print(specs: Sequence[TopicSpec], there: set[str], form: Form, verb: str, bootstrap: str) -> None:
    if form is Form.TEXT:
        for spec in specs:
            done = "exists" if spec.name in there else verb
            settings = " ".join(f"{name}={value}" for name, value in spec.config.items())
            typer.echo(f"{done:<12}  {spec.name}  partitions={spec.partitions} {settings}")
    elif form is Form.JSON:
        rows = [
            {"name": s.name, "partitions": s.partitions, "config": s.config, "exists": s.name in there} for s in specs
        ]
        typer.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2).decode())
    elif form is Form.KAFKA_TOPICS:
        for spec in specs:
            settings = " ".join(f"--config {name}={value}" for name, value in spec.config.items())
            typer.echo(
                f"kafka-topics.sh --bootstrap-server {bootstrap} --create --if-not-exists --topic {spec.name} "
                f"--partitions {spec.partitions} --replication-factor 3 --config min.insync.replicas=2 {settings}"
            )
    else:
        typer.echo("\n".join(_terraform(spec) for spec in specs))


def _terraform(spec: TopicSpec) -> str:
    """A resource of the provider Mongey/kafka."""
    label = spec.name.replace(".", "_").replace("-", "_")
    settings = {"min.insync.replicas": "2", **spec.config}
    lines = "\n".join(f'    "{name}" = "{value}"' for name, value in settings.items())
    return (
        f'resource "kafka_topic" "{label}" {{\n  name               = "{spec.name}"\n'
        f"  partitions         = {spec.partitions}\n  replication_factor = 3\n  config = {{\n{lines}\n  }}\n}}\n"
    )

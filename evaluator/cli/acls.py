"""`evaluator topics acls`: what to grant, without asking any broker."""

from __future__ import annotations

import re
import shlex
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from evaluator.cli.connect import Bootstrap, SettingsFile, settings_of
from evaluator.runtime.acls import creating, needed, useful
from evaluator.runtime.log.rights import Operation, Resource
from evaluator.runtime.topics import Topics
from evaluator.wire.config.load import load_rules

if TYPE_CHECKING:
    from collections.abc import Iterable

    from evaluator.runtime.log.rights import Right


class Form(StrEnum):
    """How rights are printed."""

    KAFKA_ACLS = "kafka-acls"
    JSON = "json"


_OPTIONS = {
    Resource.TOPIC: "--topic",
    Resource.GROUP: "--group",
    Resource.TRANSACTIONAL_ID: "--transactional-id",
}


def acls(
    *,
    config: Annotated[list[Path], typer.Option("--config", metavar="FILE", help="Rules; may be given several times.")],
    principal: Annotated[str, typer.Option("--principal", metavar="TYPE:NAME", help="Whom to grant them to.")],
    settings: SettingsFile = None,
    bootstrap: Bootstrap = None,
    output: Annotated[Form, typer.Option("--output", "-o", help="How to print.")] = Form.KAFKA_ACLS,
) -> None:
    """Print the rights that `run` needs on brokers with access control. Nothing is granted, no broker is asked."""
    if not re.fullmatch(r"[A-Za-z]+:.+", principal):
        message = f"--principal {principal}: expected TYPE:NAME, such as User:evaluator"
        raise typer.BadParameter(message)
    chosen, rules = settings_of(settings, bootstrap), load_rules(config)
    topics = Topics.of(chosen)
    must = needed(topics, {name: source.topic for name, source in rules.rules.sources.items()})
    may = [*useful(topics), *(creating(topics) if chosen.kafka.create_topics else ())]
    if output is Form.JSON:
        typer.echo(
            orjson.dumps([_row(right, principal) for right in (*must, *may)], option=orjson.OPT_INDENT_2).decode()
        )
        return
    for title, rights in (("needed", must), ("useful; without them", may)):
        typer.echo(f"# {title}")
        typer.echo("\n".join(commands(rights, principal, chosen.kafka.bootstrap_servers)))


def commands(rights: Iterable[Right], principal: str, bootstrap: str) -> Iterable[str]:
    """A command of Kafka's for each resource, after a comment for what is not needed."""
    grouped: dict[tuple[Resource, str, bool], list[Right]] = {}
    for right in rights:
        grouped.setdefault((right.resource, right.name, right.is_prefix), []).append(right)
    for (resource, name, is_prefix), rows in grouped.items():
        if reasons := [right.why for right in rows if not right.is_needed]:
            yield f"#   {'; '.join(reasons)}"
        operations = " ".join(f"--operation {_camel(right.operation)}" for right in rows)
        pattern = " --resource-pattern-type prefixed" if is_prefix else ""
        yield (
            f"kafka-acls.sh --bootstrap-server {bootstrap} --add --allow-principal {shlex.quote(principal)} "
            f"{operations} {_OPTIONS[resource]} {name}{pattern}"
        )


def _camel(operation: Operation) -> str:
    """As `kafka-acls` writes it: `DescribeConfigs`."""
    return operation.title().replace(" ", "")


def _row(right: Right, principal: str) -> dict[str, object]:
    return {
        "principal": principal,
        "resource": right.resource.replace(" ", "_"),
        "pattern": "prefixed" if right.is_prefix else "literal",
        "name": right.name,
        "operation": right.operation.replace(" ", "_"),
        "needed": right.is_needed,
        "without": right.why,
    }

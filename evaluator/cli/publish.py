"""`evaluator publish`: reports of other programs, as records that the formats of the same names read."""

from __future__ import annotations

import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import orjson
import typer

from evaluator.cli.connect import Bootstrap, SettingsFile, settings_of, with_log
from evaluator.cli.printable import printable
from evaluator.cli.words import Output, moment
from evaluator.errors import UsageError
from evaluator.runtime.clock import SystemClock
from evaluator.runtime.log.port import Outgoing
from evaluator.wire import reports
from evaluator.wire.config.load import load_rules
from evaluator.wire.rejection import Fault
from evaluator.wire.text import rfc3339

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluator.runtime.log.port import Log, Partition

app = typer.Typer(help="Write reports of other programs to a topic, as the formats of the same names read them.")

FOLDER = Path(".lighthouseci")
REPORTS = "lhr-*.json"
_SURFACE = re.compile(r"[A-Za-z0-9_.-]+")


class Context(StrEnum):
    """What a Lighthouse run was made for."""

    MAIN = "main"
    PR = "pr"


class Target(NamedTuple):
    """Where records go, and how that is told."""

    topic: str | None
    config: list[Path]
    dry_run: bool
    output: Output
    settings: Path | None
    bootstrap: str | None


Topic = Annotated[str | None, typer.Option("--topic", help="The source's topic.")]
ConfigFiles = Annotated[
    list[Path] | None,
    typer.Option("--config", metavar="FILE", help="Rules, for the topic of their only source of this format."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the records and send nothing.")]
Form = Annotated[Output, typer.Option("--output", "-o", help="json: the records, and where each of them went.")]
Surface = Annotated[str, typer.Option("--surface", metavar="NAME", help="What it is about.")]
Commit = Annotated[str | None, typer.Option("--commit", help="The commit that it is about.")]
Time = Annotated[str | None, typer.Option("--time", metavar="TIME", help="When it was; else now.")]


@app.command("lighthouse")
def lighthouse(
    files: Annotated[
        list[Path] | None, typer.Argument(help=f"Reports, or folders of {REPORTS}. Default: {FOLDER}.")
    ] = None,
    *,
    commit: Commit = None,
    branch: Annotated[str | None, typer.Option("--branch", help="The branch of that commit.")] = None,
    context: Annotated[Context | None, typer.Option("--context", help="What the runs were for; else main.")] = None,
    topic: Topic = None,
    config: ConfigFiles = None,
    dry_run: DryRun = False,
    output: Form = Output.TEXT,
    settings: SettingsFile = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Write Lighthouse reports without their lists of audits, a record a run, keyed by its url."""
    about = {"commit": commit, "branch": branch, "context": context and context.value}
    known = {name: value for name, value in about.items() if value}
    found = {path: reports.reduced(_read(path), known) for path in _reports(files or [FOLDER])}
    wrong = [
        f"{path}: no Lighthouse report ({fault.detail})" for path, fault in found.items() if isinstance(fault, Fault)
    ]
    if wrong:
        raise UsageError("\n".join([*wrong, "nothing was sent"]))
    records = [(report.url, report.value) for report in found.values() if isinstance(report, reports.Reduced)]
    _publish("lighthouse", records, Target(topic, config or [], dry_run, output, settings, bootstrap))


@app.command("drift")
def drift(
    report: Annotated[Path | None, typer.Argument(help="The report as text; - is standard input.")] = None,
    *,
    surface: Surface,
    failed: Annotated[bool, typer.Option("--failed", help="The check itself failed: there is no report.")] = False,
    commit: Commit = None,
    time: Time = None,
    topic: Topic = None,
    config: ConfigFiles = None,
    dry_run: DryRun = False,
    output: Form = Output.TEXT,
    settings: SettingsFile = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Write what the report of a drift check says (clean, drift or skipped), or that the check failed."""
    if failed == (report is not None):
        message = (
            "expected REPORT, or --failed where the check left none"
            if report is None
            else f"{report}: a check that failed has no report; leave out the report or --failed"
        )
        raise UsageError(message)
    about = _surface(surface), _time(time), commit or None
    value = reports.failed(*about) if report is None else _said(report, about)
    _publish("drift", [(surface, value)], Target(topic, config or [], dry_run, output, settings, bootstrap))


def _said(report: Path, about: tuple[str, str, str | None]) -> bytes:
    raw = sys.stdin.buffer.read() if str(report) == "-" else _read(report)
    value = reports.drift(raw.decode("utf-8-sig", "replace"), *about)
    if value is None:
        expected = ", ".join(f'"{spelling}"' for spelling in reports.SPELLINGS)
        message = f"{report}: says nothing of drift, so nothing was sent; expected one of {expected}"
        raise UsageError(message)
    return value


@app.command("heartbeat")
def heartbeat(
    *,
    surface: Surface,
    time: Time = None,
    topic: Topic = None,
    config: ConfigFiles = None,
    dry_run: DryRun = False,
    output: Form = Output.TEXT,
    settings: SettingsFile = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Write that something is alive."""
    records = [(_surface(surface), reports.heartbeat(surface, _time(time)))]
    _publish("heartbeat", records, Target(topic, config or [], dry_run, output, settings, bootstrap))


def _reports(paths: Sequence[Path]) -> list[Path]:
    """The files that are meant, each once. Raises `UsageError` where a folder holds none."""
    found: dict[Path, None] = {}
    for path in paths:
        files = sorted(path.glob(REPORTS)) if path.is_dir() else [path]
        if not files:
            message = f"{path}: holds no {REPORTS}; name the reports"
            raise UsageError(message)
        found |= dict.fromkeys(files)
    return list(found)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        remedy = "run lhci collect before, or name the reports; " if path == FOLDER else ""
        message = f"{path}: cannot be read ({error.strerror}); {remedy}nothing was sent"
        raise UsageError(message) from error


def _surface(name: str) -> str:
    if not _SURFACE.fullmatch(name):
        message = f"--surface {name}: expected a name of letters, digits, _ . and -"
        raise UsageError(message)
    return name


def _time(written: str | None) -> str:
    return rfc3339(SystemClock().now() if written is None else moment("--time", written))


def _topic(target: Target, format_name: str) -> str:
    if target.topic is not None:
        return target.topic
    if not target.config:
        message = f"--topic: name the topic of the source, or --config with one source of the format {format_name}"
        raise UsageError(message)
    sources = load_rules(target.config).sources.values()
    topics = {source.topic for source in sources if source.format == format_name}
    if len(topics) != 1:
        message = f"--config has {len(topics) or 'no'} topics of the format {format_name}: say --topic"
        raise UsageError(message)
    return topics.pop()


def _publish(format_name: str, records: Sequence[tuple[str, bytes]], target: Target) -> None:
    """Send records by their keys to one topic, and say where they are."""
    topic = _topic(target, format_name)
    if target.dry_run:
        for key, value in records:
            _tell(topic, key, value, None, target.output)
        return

    async def work(log: Log) -> Sequence[tuple[Partition, int]]:
        await log.partitions(topic)  # a broker may create a misspelt topic as soon as somebody writes to it
        return await log.append([Outgoing(topic, key.encode(), value) for key, value in records])

    places = with_log(settings_of(target.settings, target.bootstrap), work)
    for (key, value), place in zip(records, places, strict=True):
        _tell(topic, key, value, place, target.output)


def _tell(topic: str, key: str, value: bytes, place: tuple[Partition, int] | None, output: Output) -> None:
    if output is Output.JSON:
        where = (None, None) if place is None else (place[0].index, place[1])
        said: dict[str, Any] = {"topic": topic, "partition": where[0], "offset": where[1], "key": key}
        typer.echo(orjson.dumps({**said, "value": orjson.Fragment(value)}).decode())
    elif place is None:
        typer.echo(f"would send  {topic}  {printable(key)}  {printable(value.decode())}")
    else:
        typer.echo(f"sent  {topic}/{place[0].index} offset {place[1]}  {printable(key)}")

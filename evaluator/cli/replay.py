"""`evaluator replay`: recorded events through the same two stages, judged exactly."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from evaluator.cli.printable import printable
from evaluator.cli.words import Output, alert_line, moment
from evaluator.errors import UsageError
from evaluator.runtime.clock import VirtualLoop
from evaluator.runtime.collector import prefer_throughput
from evaluator.runtime.replay import Outcome, Request
from evaluator.runtime.replay import replay as run_replay
from evaluator.wire.config.load import load_rules
from evaluator.wire.envelope import read_decisions

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping, Sequence

    from evaluator.core.partial import ClockDecision
    from evaluator.wire.config.load import Config

    Decisions = dict[tuple[str, int], list[ClockDecision]]


NOT_AS_USUAL = {
    "late": "late",
    "unmatched": "unmatched",
    "duplicates": "duplicates",
    "bad_latency": "bad latency",
    "overflow_series": "in overflow series",
}
"""How the summary calls what was counted: events, not series."""


def replay(
    files: Annotated[list[Path] | None, typer.Argument(help="Files of the only source, one a partition.")] = None,
    *,
    config: Annotated[list[Path], typer.Option("--config", "-c", help="Rules file; may be repeated.")],
    source: Annotated[
        list[str] | None, typer.Option("--source", metavar="NAME=FILE,...", help="The files of one source.")
    ] = None,
    envelope: Annotated[
        bool, typer.Option("--envelope", help="Lines are envelopes with timestamp, key, headers and value.")
    ] = False,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="Let time pass up to TIME at the end of the input.")
    ] = None,
    decisions: Annotated[
        Path | None, typer.Option("--decisions", metavar="FILE", help="Recorded clock decisions to apply.")
    ] = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="json: NDJSON alert records.")] = Output.TEXT,
    verdicts: Annotated[bool, typer.Option("--verdicts", help="Print every decided window as well.")] = False,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Records read at once; changes no result.")] = 40_000,
) -> None:
    """Judge recorded events exactly as the daemon would."""
    rules = load_rules(config)
    inputs = _files(rules, files or [], source or [])
    request = Request(
        files=inputs,
        envelope=envelope,
        until=None if until is None else moment("--until", until),
        decisions=_decisions(decisions, rules, inputs) if decisions is not None else {},
        verdicts=verdicts,
        batch=batch,
    )
    prefer_throughput()
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        outcome = runner.run(run_replay(rules, request, runner.get_loop()))
    _print(outcome, output)
    _summarise(outcome.tallies)
    _explain(outcome, {rules.rules.sources[name].topic: paths for name, paths in inputs.items()}, envelope=envelope)


def _files(config: Config, positional: list[Path], named: list[str]) -> dict[str, list[Path]]:
    """The files of each source. Raises `UsageError` where it is not clear which belong to which."""
    sources = list(config.rules.sources)
    if positional and named:
        message = "give the files either as arguments or with --source, not both"
        raise UsageError(message)
    if positional:
        if len(sources) != 1:
            message = f"the config has {len(sources)} sources ({', '.join(sources)}): say --source NAME=FILE,..."
            raise UsageError(message)
        return {sources[0]: positional}
    if not named:
        message = "no input: give the files of the source, or --source NAME=FILE,..."
        raise UsageError(message)
    found: dict[str, list[Path]] = {}
    for item in named:
        name, _, paths = item.partition("=")
        if name not in config.rules.sources or not all(paths.split(",")):
            message = f"--source {item}: expected NAME=FILE,... with NAME one of {', '.join(sources)}"
            raise UsageError(message)
        found.setdefault(name, []).extend(Path(path) for path in paths.split(","))
    return found


def _decisions(path: Path, config: Config, files: dict[str, list[Path]]) -> Decisions:
    """The decisions of the sources that are replayed. Raises `UsageError` where one belongs to another input."""
    try:
        with path.open("rb") as lines:
            decisions = read_decisions(lines, str(path))
    except OSError as error:
        message = f"{path}: cannot be read ({error.strerror})"
        raise UsageError(message) from error
    for source, partition in decisions:
        if source not in config.rules.sources:
            message = f"{path}: decisions about the source {source}; the config has {', '.join(config.rules.sources)}"
            raise UsageError(message)
        if source in files and not 0 <= partition < len(files[source]):
            message = (
                f"{path}: decisions about {source} partition {partition}, but {len(files[source])} files were given"
            )
            raise UsageError(message)
    return decisions


def _print(outcome: Outcome, output: Output) -> None:
    if output is Output.JSON:
        for line in (*outcome.alerts, *outcome.verdicts):
            sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()
        return
    for line in outcome.alerts:
        alert = orjson.loads(line)
        typer.echo(alert_line(alert, alert["status"]))
    for line in outcome.verdicts:
        window = orjson.loads(line)
        typer.echo(f"{window['end']}  {window['verdict']:<12}  {window['key']}  n={window['n']} bad={window['bad']}")


def _explain(outcome: Outcome, files: Mapping[str, Sequence[Path]], *, envelope: bool) -> None:
    """Where the first reject of each reason stood, and what was wrong with it; `files` are by topic."""
    for letter in outcome.rejects.values():
        place = f"offset {letter.offset}" if envelope else f"line {letter.offset + 1}"
        where = f"{files[letter.topic][letter.partition]} {place}"
        sys.stderr.write(f"  {letter.reason}, first at {where}: {printable(letter.detail)}\n")
    if outcome.rejects and not envelope and not _records(outcome.tallies, "ok"):
        sys.stderr.write("every line is a record: a document over several lines, or one that is no text, is to be "
                         "given as an envelope (--envelope)\n")  # fmt: skip


def _records(tallies: Counter[tuple[str, ...]], result: str) -> int:
    """How many records and events, of all sources, came to that."""
    return sum(count for key, count in tallies.items() if key[0] == "records" and key[2] == result)


def _summarise(tallies: Counter[tuple[str, ...]]) -> None:
    """What was read and what was not judged, in one line on stderr."""

    def summed(*prefix: str) -> int:
        return sum(count for key, count in tallies.items() if key[: len(prefix)] == prefix)

    parts = [f"{_records(tallies, 'ok')} events"]
    parts += [f"{count} {result}" for result in ("skipped", "rejected") if (count := _records(tallies, result))]
    parts += [f"{count} {words}" for name, words in NOT_AS_USUAL.items() if (count := summed(name))]
    reasons = ", ".join(f"{key[2]} {n}" for key, n in sorted(tallies.items()) if key[0] == "rejected" and n)
    alerts = f"{tallies['alerts', 'firing']} firing, {tallies['alerts', 'resolved']} resolved"
    sys.stderr.write(f"read {', '.join(parts)}{f' ({reasons})' if reasons else ''}; {alerts}\n")

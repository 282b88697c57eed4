"""`evaluator simulate`: synthetic events with an incident."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evaluator.cli.connect import Bootstrap, SettingsFile, settings_of, with_log
from evaluator.cli.words import moment
from evaluator.core.event import DurationUs, EpochUs
from evaluator.errors import UsageError
from evaluator.runtime.clock import SystemClock
from evaluator.runtime.traffic import Scenario, send
from evaluator.wire.config.duration import parse_duration
from evaluator.wire.instant import LAST
from evaluator.wire.text import rfc3339

if TYPE_CHECKING:
    from typing import BinaryIO

DEFAULT_START = "2026-01-28T00:00:00Z"


def simulate(
    *,
    out: Annotated[Path | None, typer.Option("--out", help="Write to a file instead of stdout.")] = None,
    length: Annotated[str, typer.Option("--for", metavar="DURATION", help="Event time to cover.")] = "20m",
    rate: Annotated[float, typer.Option("--rate", min=0.001, max=1e6, help="Events a second of event time.")] = 20.0,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same events.")] = 1,
    start: Annotated[
        str | None,
        typer.Option("--start", metavar="TIME", help="A time; with --topic so that the last event is now."),
    ] = None,
    incident: Annotated[bool, typer.Option("--incident/--no-incident", help="Break the voice API.")] = True,
    topic: Annotated[
        str | None, typer.Option("--topic", help="Write to this topic, with the events' times, to end now.")
    ] = None,
    settings: SettingsFile = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Write synthetic events with an incident in them, one JSON object a line, or to a topic."""
    if topic is not None and out is not None:
        message = "give either --topic or --out"
        raise UsageError(message)
    covered = _duration("--for", length)
    begin = _begin(start, covered, is_live=topic is not None)
    if begin + covered > LAST:
        message = f"--start {start or DEFAULT_START} --for {length}: ends after the year 9999; start earlier"
        raise UsageError(message)
    scenario = Scenario(begin, seed, rate)
    if not incident:
        scenario = Scenario(begin, seed, rate, incident_for=DurationUs(0))
    count = round(covered * rate / 1e6)
    if topic is None:
        _write(scenario, count, out)
        return
    with_log(settings_of(settings, bootstrap), lambda log: send(log, topic, scenario, count))
    first, last = rfc3339(begin), rfc3339(EpochUs(begin + covered))
    sys.stderr.write(f"{count} events of {first} to {last} in topic {topic}\n")


def _begin(start: str | None, covered: DurationUs, *, is_live: bool) -> EpochUs:
    if start is not None:
        return moment("--start", start)
    return EpochUs(SystemClock().now() - covered) if is_live else moment("--start", DEFAULT_START)


def _duration(option: str, written: str) -> DurationUs:
    try:
        return parse_duration(written)
    except ValueError as error:
        message = f"{option}: {error}"
        raise UsageError(message) from None


def _write(scenario: Scenario, count: int, out: Path | None) -> None:
    def lines(stream: BinaryIO) -> None:
        stream.writelines(event + b"\n" for _, event in islice(scenario.events(), count))

    if out is None:
        lines(sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    try:
        with out.open("wb") as stream:
            lines(stream)
    except OSError as error:
        message = f"{out}: cannot be written ({error.strerror})"
        raise UsageError(message) from error
    sys.stderr.write(f"{count} events in {out}\n")

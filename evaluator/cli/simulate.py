"""`evaluator simulate`: synthetic events with an incident."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evaluator.cli.words import moment
from evaluator.core.event import DurationUs
from evaluator.errors import UsageError
from evaluator.runtime.traffic import Scenario
from evaluator.wire.config.duration import parse_duration
from evaluator.wire.instant import LAST

if TYPE_CHECKING:
    from typing import BinaryIO


def simulate(
    *,
    out: Annotated[Path | None, typer.Option("--out", help="Write to a file instead of stdout.")] = None,
    length: Annotated[str, typer.Option("--for", metavar="DURATION", help="Event time to cover.")] = "20m",
    rate: Annotated[float, typer.Option("--rate", min=0.001, max=1e6, help="Events a second of event time.")] = 20.0,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same events.")] = 1,
    start: Annotated[str, typer.Option("--start", metavar="TIME")] = "2026-01-28T00:00:00Z",
    incident: Annotated[bool, typer.Option("--incident/--no-incident", help="Break the voice API.")] = True,
) -> None:
    """Write synthetic events with an incident in them, one JSON object a line."""
    begin = moment("--start", start)
    covered = _duration(length)
    if begin + covered > LAST:
        message = f"--start {start} --for {length}: ends after the year 9999; start earlier"
        raise UsageError(message)
    scenario = Scenario(begin, seed, rate)
    if not incident:
        scenario = Scenario(begin, seed, rate, incident_for=DurationUs(0))
    _write(scenario, round(covered * rate / 1e6), out)


def _duration(written: str) -> DurationUs:
    try:
        return parse_duration(written)
    except ValueError as error:
        message = f"--for: {error}"
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

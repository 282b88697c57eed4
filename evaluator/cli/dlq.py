"""`evaluator dlq`: what could not be judged, and after a fix once more to where it came from."""

from __future__ import annotations

import asyncio
import base64
import re
import signal
import sys
from collections import Counter
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from evaluator.cli.connect import Bootstrap, SettingsFile, held, settings_of, with_log
from evaluator.cli.printable import lines_of, printable
from evaluator.cli.words import Output, moment
from evaluator.core.event import EpochUs
from evaluator.errors import UsageError
from evaluator.runtime.clock import SystemClock
from evaluator.runtime.dead_letters import Found, Position, Wanted, newest, one
from evaluator.runtime.republish import Fate, Insist, Republisher, transactional_id
from evaluator.wire.config.duration import parse_duration
from evaluator.wire.dead_letter import letter_of
from evaluator.wire.instant import LAST
from evaluator.wire.rejection import Reason
from evaluator.wire.text import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from evaluator.runtime.dead_letters import History, Listing
    from evaluator.runtime.log.port import Log
    from evaluator.runtime.republish import Outcome
    from evaluator.wire.dead_letter import Letter
    from evaluator.wire.records import Record

app = typer.Typer(help="Dead letters: what could not be judged, why, and where it stood. List, show, re-publish.")

Reasons = Annotated[list[Reason] | None, typer.Option("--reason", help="Only these; may be given several times.")]
Sources = Annotated[
    list[str] | None, typer.Option("--source-topic", metavar="TOPIC", help="Only of records of these topics.")
]
Since = Annotated[
    str | None, typer.Option("--since", metavar="TIME|DURATION", help="Rejected since then, or in the last 2h.")
]
Form = Annotated[Output, typer.Option("--output", "-o", help="json: an object a letter.")]


@app.command("list")
def list_(
    *,
    last: Annotated[int, typer.Option("--last", "-n", min=1, help="So many, the newest.")] = 20,
    reason: Reasons = None,
    source_topic: Sources = None,
    since: Since = None,
    output: Form = Output.TEXT,
    settings: SettingsFile = None,
    bootstrap: Bootstrap = None,
) -> None:
    """List dead letters, the newest first."""
    chosen = settings_of(settings, bootstrap)
    topic, wanted = chosen.topics.dlq, _wanted(reason, source_topic, since)
    listing = with_log(chosen, lambda log: newest(log, topic, wanted, last, held()))
    for line in json_lines(listing) if output is Output.JSON else table(listing):
        typer.echo(line)
    others = listing.history.others
    odd = f"; {others} records there are no dead letters" if others else ""
    sys.stderr.write(f"{len(listing.newest)} of {listing.total} dead letters in {topic}{odd}\n")


@app.command("show")
def show(
    place: Annotated[str, typer.Argument(metavar="PARTITION:OFFSET", help="Where it is, as `list` says.")],
    *,
    raw: Annotated[bool, typer.Option("--raw", help="Nothing but the value's bytes, for a file.")] = False,
    output: Form = Output.TEXT,
    settings: SettingsFile = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Show a dead letter: why, where it stood, its headers, its bytes."""
    chosen, position = settings_of(settings, bootstrap), _position(place)
    record, history = with_log(chosen, lambda log: one(log, chosen.topics.dlq, position, held()))
    if raw:
        sys.stdout.buffer.write(record.value or b"")
        sys.stdout.buffer.flush()
        return
    letter = letter_of(record)
    if output is Output.JSON:
        about = {} if letter is None else _about(Found(position, record.timestamp or 0, letter), history)
        typer.echo(orjson.dumps({**about, **_content(record, letter)}).decode())
        return
    for line in shown(position, record, letter, history):
        typer.echo(line)


@app.command("publish")
def publish(
    places: Annotated[list[str] | None, typer.Argument(metavar="PARTITION:OFFSET", help="Only these.")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Every dead letter that is kept.")] = False,
    reason: Reasons = None,
    source_topic: Sources = None,
    since: Since = None,
    again: Annotated[bool, typer.Option("--again", help="Also what was re-published before.")] = False,
    whole: Annotated[
        bool, typer.Option("--whole", help="Also records of which other events were judged: those count twice.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be sent.")] = False,
    output: Form = Output.TEXT,
    settings: SettingsFile = None,
    bootstrap: Bootstrap = None,
) -> int:
    """Send records to their topics once more, after a fix. Look with --dry-run first.

    A copy comes at the end of its partition: of a window that is decided it is late, counted, and changes no verdict.
    Whoever else reads the topic gets it a second time. Exit code 1 where one could not be sent.
    """
    chosen = settings_of(settings, bootstrap)
    wanted = _wanted(reason, source_topic, since, places or [])
    if everything == (wanted != Wanted()):
        message = "say which: PARTITION:OFFSET, --reason, --source-topic, --since, or --all alone"
        raise UsageError(message)

    topic, counted = chosen.topics.dlq, Counter[Fate]()

    async def work(log: Log) -> None:
        end_by_sigterm()
        producer = None if dry_run else log.producer(transactional_id(topic))
        republisher = Republisher(log, topic, producer, SystemClock(), held())
        try:
            async with aclosing(republisher.run(wanted, Insist(again, whole))) as outcomes:
                async for outcome in outcomes:
                    counted[outcome.fate] += 1
                    _tell(outcome, output, sent="would be sent" if dry_run else "sent")
        finally:
            if producer is not None:
                await producer.stop()

    try:
        with_log(chosen, work)
    except asyncio.CancelledError:  # by SIGTERM: of Ctrl-C a KeyboardInterrupt is made
        return 128 + signal.SIGTERM
    sys.stderr.write(_summary(counted, is_dry=dry_run))
    return 1 if counted[Fate.IMPOSSIBLE] else 0


def end_by_sigterm() -> None:
    """As Ctrl-C does: by cancelling, so that no transaction is left open."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


def _wanted(
    reasons: list[Reason] | None, topics: list[str] | None, since: str | None, places: Sequence[str] = ()
) -> Wanted:
    return Wanted(
        frozenset(reason.value for reason in reasons or ()),
        frozenset(topics or ()),
        None if since is None else _since(since) // 1000,
        frozenset(map(_position, places)),
    )


def _since(written: str) -> EpochUs:
    try:
        return EpochUs(max(0, SystemClock().now() - parse_duration(written)))
    except ValueError:
        return moment("--since", written)


def _position(written: str) -> Position:
    if not re.fullmatch("[0-9]{1,9}:[0-9]{1,18}", written):
        message = f"{written}: expected PARTITION:OFFSET, such as 0:17"
        raise UsageError(message)
    partition, _, offset = written.partition(":")
    return Position(int(partition), int(offset))


def _time(at_ms: int) -> str:
    """What a producer gave as its time can be any number."""
    if at_ms <= 0:
        return "-"
    return rfc3339(at_ms * 1000) if at_ms * 1000 <= LAST else str(at_ms)


HEAD = ("PLACE", "TIME", "REASON", "FROM", "BAD", "GOOD", "STATE", "DETAIL")


def table(listing: Listing) -> Iterator[str]:
    """The listing as columns, for a person."""
    if not listing.newest:
        return
    rows = [HEAD, *(_row(found, listing.history) for found in listing.newest)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _row(found: Found, history: History) -> tuple[str, ...]:
    letter = found.letter
    return (
        str(found.position), _time(found.at), printable(letter.reason), letter.source, str(letter.events),
        str(letter.accepted), history.of(found.position, letter), printable(letter.detail),
    )  # fmt: skip


def json_lines(listing: Listing) -> Iterator[str]:
    """The listing as an object a line."""
    for found in listing.newest:
        yield orjson.dumps(_about(found, listing.history)).decode()


def _about(found: Found, history: History) -> dict[str, Any]:
    """A letter without what it holds."""
    letter, position = found.letter, found.position
    by = history.went_by(position, letter)
    again = history.returned(by)
    return {
        "partition": position.partition, "offset": position.offset, "time": _time(found.at), "reason": letter.reason,
        "detail": letter.detail,
        "source": {"topic": letter.topic, "partition": letter.partition, "offset": letter.offset},
        "index": letter.index, "events": letter.events, "accepted": letter.accepted, "size": letter.size,
        "truncated": letter.is_cut, "copyOf": letter.copy_of, "republished": by is not None,
        "rejectedAgain": None if again is None else str(again),
    }  # fmt: skip


def _content(record: Record, letter: Letter | None) -> dict[str, Any]:
    headers = record.headers if letter is None else letter.headers
    named = [{"name": name, **_data("value", data)} for name, data in headers]
    return {**_data("key", record.key), "headers": named, **_data("value", record.value)}


def _data(name: str, raw: bytes | None) -> dict[str, str | None]:
    """Bytes as JSON has them: text, or what no text is in base64."""
    try:
        return {name: None if raw is None else raw.decode()}
    except UnicodeDecodeError:
        return {f"{name}Base64": base64.b64encode(raw or b"").decode()}


def shown(position: Position, record: Record, letter: Letter | None, history: History) -> Iterator[str]:
    """Everything of a record there, for a person; `letter` is None where it is no dead letter."""
    state = "-" if letter is None else history.of(position, letter)
    yield f"letter    {position}  {_time(record.timestamp or 0)}  {state}"
    if letter is None:
        yield "reason    none: this is no dead letter"
    else:
        yield f"reason    {printable(letter.reason)}: {printable(letter.detail)}"
        yield f"from      {letter.source}  {_time(letter.timestamp or 0)}"
        yield f"events    {letter.events} rejected, the first is number {letter.index}; {letter.accepted} judged"
        if letter.copy_of is not None:
            yield f"copy of   {printable(letter.copy_of)}"
    yield f"key       {_text(record.key)}"
    for name, data in record.headers if letter is None else letter.headers:
        yield f"header    {printable(name)}: {_text(data)}"
    size = len(record.value or b"")
    cut = f" of {letter.size}, it was cut" if letter is not None and letter.is_cut else ""
    yield f"value     {'null' if record.value is None else f'{size} bytes{cut}'}"
    for line in lines_of(record.value) if record.value else ():
        yield f"  {line}"


def _text(raw: bytes | None) -> str:
    return "-" if raw is None else printable(raw.decode("utf-8", "backslashreplace"))


def _tell(outcome: Outcome, output: Output, sent: str) -> None:
    found, fate = outcome.found, outcome.fate
    done = sent if fate is Fate.SENT else "skipped" if fate is Fate.SKIPPED else "impossible"
    letter = found.letter
    if output is Output.JSON:
        said: dict[str, Any] = {"partition": found.position.partition, "offset": found.position.offset}
        said |= {"done": done, "to": {"topic": letter.topic, "partition": letter.partition}, "why": outcome.why or None}
        typer.echo(orjson.dumps(said).decode())
        return
    why = outcome.why or f"to {letter.topic}/{letter.partition}, {letter.reason}: {letter.detail}"
    typer.echo(f"{done:<13}  {found.position!s:<10}  {printable(why)}")
    sys.stdout.flush()


def _summary(counted: Counter[Fate], *, is_dry: bool) -> str:
    sent, skipped, impossible = counted[Fate.SENT], counted[Fate.SKIPPED], counted[Fate.IMPOSSIBLE]
    lines = [
        f"{sent} {'would be re-published' if is_dry else 're-published'}, {skipped} skipped, {impossible} impossible"
    ]
    if sent:
        lines.append(
            "copies come at the end of their partitions: where their windows are decided they are late, counted in "
            "evaluator_late_events_total, and change no verdict"
        )
    return "\n".join(lines) + "\n"

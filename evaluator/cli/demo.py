"""`evaluator demo`: a simulated incident through the whole service, without a broker or on one."""

from __future__ import annotations

import asyncio
import sys
from contextlib import ExitStack
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from evaluator.cli.connect import settings_of, with_log
from evaluator.cli.words import Output, alert_line
from evaluator.errors import UsageError
from evaluator.runtime import logs
from evaluator.runtime.clock import SystemClock
from evaluator.runtime.settings import load
from evaluator.runtime.topics import Topics
from evaluator.wire.config.load import load_rules

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from evaluator.runtime.log.port import Log
    from evaluator.wire.config.load import Config


def demo(
    *,
    incident: Annotated[bool, typer.Option("--incident/--no-incident", help="Break the voice API for a while.")] = True,
    dump: Annotated[
        Path | None, typer.Option("--dump", metavar="FILE", help="Write every record, for replay --envelope.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--for", metavar="SECONDS", min=0, help="Stop by itself. Default: at Ctrl-C.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Other traffic.")] = 1,
    output: Annotated[Output, typer.Option("--output", "-o", help="json: NDJSON alert records.")] = Output.TEXT,
    kafka: Annotated[
        str | None, typer.Option("--kafka", metavar="HOST:PORT", help="On this broker, in topics of its own.")
    ] = None,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the demo's rules and exit.")] = False,
) -> None:
    """Play a simulated incident through the whole service, faster than real time, with its page."""
    # The web server takes half a second to import: no other command waits for it.
    from evaluator.runtime.demo import Play, play  # noqa: PLC0415  # see above
    from evaluator.runtime.live import Address  # noqa: PLC0415  # see above

    with resources.as_file(resources.files("evaluator.cli") / "demo.yaml") as rules, ExitStack() as opened:
        if print_config:
            typer.echo(rules.read_text(), nl=False)
            return
        settings = load()
        logs.configure("warning", settings.log.format)
        config = load_rules([rules])
        try:
            stream = None if dump is None else opened.enter_context(dump.open("wb"))
        except OSError as error:
            message = f"{dump}: cannot be written ({error.strerror})"
            raise UsageError(message) from error
        wish = Play(
            Address(*settings.web.address), settings.url, settings.web.max_rejected, incident, seconds, seed, stream,
        )  # fmt: skip
        say, tell = _say(incident=incident), _json if output is Output.JSON else _text
        if kafka is None:
            asyncio.run(play(config, wish, say, tell))
        else:
            _on_kafka(kafka, rules, lambda own, log, topics: play(own, wish._replace(kafka=(log, topics)), say, tell))
    if dump is not None:
        sys.stderr.write(
            f"\nreplay it:  evaluator demo --print-config > demo.yaml\n"
            f"            evaluator replay --config demo.yaml --envelope {dump}\n"
        )


def _on_kafka(bootstrap: str, rules: Path, work: Callable[[Config, Log, Topics], Awaitable[None]]) -> None:
    """Play on a broker: every topic carries the name of this one demo, so that nothing else is touched."""
    name = f"demo-{SystemClock().now() // 1_000_000}"
    topics = Topics(name, f"{name}.alerts", f"{name}.status", f"{name}.verdicts", f"{name}.dlq", f"{name}.control")
    with TemporaryDirectory() as folder:
        own = Path(folder) / "demo.yaml"
        own.write_text(rules.read_text().replace("topic: demo.events", f"topic: {name}.events"))
        config = load_rules([own])
    sys.stderr.write(f"topics   {name}.* on {bootstrap}; they stay until you delete them\n")
    with_log(settings_of(None, bootstrap), lambda log: work(config, log, topics))


def _say(*, incident: bool) -> Callable[[str], None]:
    def say(text: str) -> None:
        sys.stderr.write(f"{text}\n")
        story = "the voice API breaks in about 4 seconds" if incident else "nothing will happen"
        sys.stderr.write(f"story    {story}; Ctrl-C stops\n\n")
        sys.stderr.flush()

    return say


def _text(record: bytes) -> None:
    alert = orjson.loads(record)
    typer.echo(alert_line(alert, alert["status"].upper()))
    sys.stdout.flush()


def _json(record: bytes) -> None:
    typer.echo(record.decode())
    sys.stdout.flush()

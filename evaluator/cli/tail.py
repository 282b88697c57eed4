"""`evaluator tail`: what was published, as it is published."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from evaluator.cli.connect import Bootstrap, SettingsFile, settings_of, with_log
from evaluator.cli.printable import printable
from evaluator.cli.words import Output, alert_line
from evaluator.runtime.tail import follow

if TYPE_CHECKING:
    from evaluator.runtime.log.port import Log
    from evaluator.runtime.settings import Settings
    from evaluator.wire.records import Record

NAMES = ("alerts", "status", "verdicts", "dlq")


def tail(
    topic: Annotated[str, typer.Argument(help="alerts, status, verdicts, dlq, or the name of a topic.")] = "alerts",
    *,
    last: Annotated[int, typer.Option("--last", "-n", min=0, help="Begin with the last N of each partition.")] = 0,
    beginning: Annotated[bool, typer.Option("--from-beginning", help="Begin with everything that is kept.")] = False,
    count: Annotated[int | None, typer.Option("--count", min=1, help="Stop after so many records.")] = None,
    seconds: Annotated[float | None, typer.Option("--for", metavar="SECONDS", min=0, help="Stop after this.")] = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="json: the records as they are.")] = Output.TEXT,
    settings: SettingsFile = None,
    bootstrap: Bootstrap = None,
) -> int:
    """Follow a topic of committed records, until Ctrl-C."""
    chosen = settings_of(settings, bootstrap)
    name = getattr(chosen.topics, topic) if topic in NAMES else topic
    shown = _json if output is Output.JSON else _alert if topic == "alerts" else _text

    async def work(log: Log) -> int:
        stopped: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, _stop, stopped, 128 + number)
        printing = asyncio.create_task(_print(log, name))
        waiting: list[asyncio.Future[Any]] = [printing, stopped]
        done, _ = await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        printing.cancel()
        await asyncio.wait([printing])
        if printing in done:
            printing.result()
        return stopped.result() if stopped.done() else 0

    async def _print(log: Log, topic: str) -> None:
        left = count
        async with aclosing(follow(log, topic, None if beginning else last)) as records:
            async for record in records:
                typer.echo(shown(record))
                sys.stdout.flush()
                left = None if left is None else left - 1
                if left == 0:
                    return

    sys.stderr.write(f"following {name} on {_brokers(chosen)}; Ctrl-C stops\n")
    return with_log(chosen, work)


def _brokers(settings: Settings) -> str:
    return settings.kafka.bootstrap_servers


def _stop(stopped: asyncio.Future[int], code: int) -> None:
    if not stopped.done():
        stopped.set_result(code)


def _json(record: Record) -> str:
    return (record.value or b"null").decode("utf-8", "replace")


def _text(record: Record) -> str:
    return printable(f"{(record.key or b'').decode('utf-8', 'replace')}  {_json(record)}")


def _alert(record: Record) -> str:
    alert = orjson.loads(record.value or b"{}")
    return alert_line(alert, alert["status"].upper())

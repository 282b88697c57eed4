"""What the commands that talk to Kafka share."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from evaluator.runtime.clock import SystemClock
from evaluator.runtime.dump import Held
from evaluator.runtime.settings import load

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from evaluator.runtime.log.port import Log
    from evaluator.runtime.settings import Settings

T = TypeVar("T")

SettingsFile = Annotated["Path | None", typer.Option("--settings", metavar="FILE", help="Where things are.")]
Bootstrap = Annotated[
    "str | None", typer.Option("--bootstrap", metavar="HOST:PORT,...", help="The brokers, instead of the setting.")
]


def settings_of(file: Path | None, bootstrap: str | None) -> Settings:
    """The settings of this command. Raises `ConfigError`."""
    return load(file, overrides={} if bootstrap is None else {"kafka": {"bootstrap_servers": bootstrap}})


def held() -> Held:
    """Who tells on stderr that a read waits behind an open transaction."""
    return Held(SystemClock(), sys.stderr.write)


def with_log(settings: Settings, use: Callable[[Log], Awaitable[T]]) -> T:
    """What `use` makes of a connection to the brokers, which is closed after it. Raises `KafkaUnreachable`."""
    # The client takes a quarter of a second to import: commands that need no broker do not wait for it.
    from evaluator.runtime.log.kafka import KafkaLog  # noqa: PLC0415  # see above

    async def main() -> T:
        log = KafkaLog(settings.kafka)
        try:
            await log.start()
            return await use(log)
        finally:
            await log.close()

    return asyncio.run(main())

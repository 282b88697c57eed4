"""`evaluator dump`: a topic as files for `replay`."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evaluator.cli.connect import Bootstrap, SettingsFile, held, settings_of, with_log
from evaluator.errors import UsageError
from evaluator.runtime.dump import Range, dump_decisions, dump_partition, offset_of
from evaluator.runtime.log.port import Partition
from evaluator.runtime.topics import Topics

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from evaluator.runtime.log.port import Log
    from evaluator.runtime.settings import Settings


def dump(
    topic: Annotated[str | None, typer.Argument(help="The topic, usually a source's.")] = None,
    *,
    decisions: Annotated[
        bool, typer.Option("--decisions", help="Write the recorded clock decisions instead, for replay --decisions.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="PATH", help="A folder, or a file with --decisions; else stdout.")
    ] = None,
    partition: Annotated[list[int] | None, typer.Option("--partition", min=0, help="Only these partitions.")] = None,
    start: Annotated[str | None, typer.Option("--from", metavar="OFFSET|TIME")] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="OFFSET|TIME", help="Exclusive.")] = None,
    settings: SettingsFile = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Write the records of a topic as envelopes, one file a partition, for replay --envelope."""
    chosen = settings_of(settings, bootstrap)
    if decisions:
        if topic is not None:
            message = "--decisions are those of the app: they are not in a topic of yours; leave the topic out"
            raise UsageError(message)
        _decisions(chosen, out)
    elif topic is None:
        message = "name the topic, or say --decisions"
        raise UsageError(message)
    else:
        _topic(chosen, topic, out, partition or [], (start, end))


def _decisions(settings: Settings, out: Path | None) -> None:
    with _opened(out) as stream:
        count = with_log(settings, lambda log: dump_decisions(log, Topics.of(settings).partials, stream, held()))
    sys.stderr.write(f"{count} decisions{'' if out is None else f' in {out}'}\n")


def _topic(
    settings: Settings, topic: str, out: Path | None, wanted: list[int], span: tuple[str | None, str | None]
) -> None:
    async def work(log: Log) -> None:
        there = await log.partitions(topic)
        indexes = wanted or list(range(there))
        unknown = [index for index in indexes if index >= there]
        if unknown:
            message = f"{topic} has {there} partitions; there is no partition {unknown[0]}"
            raise UsageError(message)
        if out is None and len(indexes) > 1:
            message = f"{topic} has {there} partitions and replay wants a file each: say --out FOLDER, or --partition N"
            raise UsageError(message)
        for index in indexes:
            place = Partition(topic, index)
            bounds = Range(await offset_of(log, place, span[0], "--from"), await offset_of(log, place, span[1], "--to"))
            file = None if out is None else out / f"{topic}-{index}.ndjson"
            with _opened(file) as stream:
                count = await dump_partition(log, place, bounds, stream, held())
            sys.stderr.write(f"{count} records of {topic}/{index}{'' if file is None else f' in {file}'}\n")

    with_log(settings, work)


@contextmanager
def _opened(path: Path | None) -> Iterator[BinaryIO]:
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("wb")
    except OSError as error:
        message = f"{path}: cannot be written ({error.strerror})"
        raise UsageError(message) from error
    with stream:
        yield stream

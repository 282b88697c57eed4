"""Formats: from the bytes of a record to columns of values. A further format is one new module in this package.

A module exports `FORMATS`, a tuple of `Format`. What a format does not do is written once in
`evaluator/wire/decode.py`: fields about the record itself, `where`, times, latencies, the future guard,
duplicates, surfaces and series. So a reader only finds the values of the fields it is asked for.

    paths     ("time", "status", "a.b")                     asked for once, when the reader is made
    row       (1769601600000, 200, None)                    the values of one event, in that order; None: absent
    columns   [[1769601600000, ...], [200, ...], [None, ...]]   the values of many
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Protocol

from evaluator.errors import ConfigError
from evaluator.wire.column import Column, Kinds
from evaluator.wire.config.matcher import Matcher
from evaluator.wire.config.model import Batch, SourceConfig, SourceDefaults
from evaluator.wire.rejection import Fault, Faults, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from evaluator.wire.records import Records

Row = tuple[object, ...]
"""JSON values; strings hold no half surrogates."""

EVENTS_AT_ONCE = 16_384
"""What is made of so many fits into a turn of the event loop, and the arrays of columns are worth their while."""


@dataclass(slots=True)
class Read:
    """The events of a run of records, in log order: `count` of them, and a column for each path.

    `position` and `index` say for each event which of the records it came from, and which event of it
    it is; both are None where every record gave exactly one. `faults` holds what gave no event, with its position and
    index; of a record with many, one stands for several. `skipped` counts records and events that carry nothing to
    judge. `kinds` are types of which the values of each column are, some perhaps of none of its values; None where
    nobody knows. `until`: how many of the records were read, where that was not all of them.
    """

    columns: list[Column]
    count: int
    position: list[int] | None = None
    index: list[int] | None = None
    faults: list[tuple[int, int, Fault]] = field(default_factory=list)
    skipped: int = 0
    kinds: list[Kinds] | None = None
    until: int | None = None


class Reader(Protocol):
    """A format, compiled for one source."""

    def __call__(self, values: Sequence[bytes], records: Records) -> Read:
        """Read `values`, which are the values of `records` (none of them None). Total: no bytes make it raise.

        But where they name schemas: those have to be known, else it raises `SchemasMissing`.

        Events that the source's `where` keeps out may be left out, and count as skipped then.

        Where records hold many events it stops behind the one with which there are `EVENTS_AT_ONCE`, faults and empty
        records among them. A record of more events than the source takes is one fault, before anything is made of them,
        and counts as so many.

        Which events there are, and which are faults, does not depend on the paths: those that nobody needs yet are
        asked for later, of the events that were found. (Of Protobuf only what is asked for is looked at: fewer paths
        make no good record bad.) With the batch form "one" a record has one event at most.
        """


@dataclass(frozen=True, slots=True)
class Format:
    """A format by its name in the config.

    `reader(source, paths)` makes a reader of the values at `paths`. `defaults` are what the format itself knows (its
    own time, latency, filter), where the config says nothing. `batch` is how many events its records hold; None where
    the config says it. `needs` are modules of the optional `extra` without which it cannot read anything. `only` is
    what the format is about: anything else in its topic is skipped, whatever filter the config has beside it.
    `schema_of` gives the id of the schema that a value names, None where it names none. `of_values`: its reader looks
    at the values alone, so that nothing else of the records has to be kept for what is read later.
    """

    name: str
    reader: Callable[[SourceConfig, tuple[str, ...]], Reader]
    defaults: SourceDefaults = SourceDefaults()
    batch: Batch | None = None
    extra: str | None = None
    needs: tuple[str, ...] = ()
    only: Matcher | None = None
    schema_of: Callable[[bytes], int | None] | None = None
    of_values: bool = False

    @property
    def is_installed(self) -> bool:
        """Whether the libraries are there with which it reads."""
        return all(map(_is_there, self.needs))


def _is_there(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


def known() -> frozenset[str]:
    """The names of all formats."""
    return frozenset(_formats())


def get(name: str) -> Format:
    """The format of that name."""
    try:
        return _formats()[name]
    except KeyError:
        message = f"unknown format {name!r}; known are {', '.join(sorted(known()))}"
        raise ConfigError(message) from None


@cache
def _formats() -> Mapping[str, Format]:
    modules = (importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__))
    return {each.name: each for module in modules for each in module.FORMATS}


def too_many(most: int) -> Fault:
    """What a record with more than `most` events is."""
    return Fault(Reason.TOO_LARGE, f"more than {most} events, which is max_record_events")


def read_each(values: Iterable[bytes], width: int, events: Callable[[bytes], Sequence[Row | Fault]]) -> Read:
    """The events of records that hold any number of them each, as rows of `width`. A record without any is skipped."""
    until = None
    rows: list[Row] = []
    looked_at = 0
    faults = Faults()
    position_of, index_of, skipped = [], [], 0
    for position, value in enumerate(values):
        if looked_at >= EVENTS_AT_ONCE:
            until = position
            break
        found = events(value)
        looked_at += len(found) or 1
        skipped += not found
        for index, event in enumerate(found):
            if isinstance(event, Fault):
                faults.add(position, index, event)
                looked_at += EVENTS_AT_ONCE if event.reason is Reason.TOO_LARGE else 0
            else:
                rows.append(event)
                position_of.append(position)
                index_of.append(index)
    columns: list[Column] = [*zip(*rows, strict=True)] if rows else [()] * width
    return Read(columns, len(rows), position_of, index_of, faults.kept(), skipped, until=until)


def reading_each(width: int, events: Callable[[bytes], Sequence[Row | Fault]]) -> Reader:
    """A reader that asks for the events of one value after the other, and looks at nothing else of a record."""

    def read(values: Sequence[bytes], records: Records) -> Read:  # noqa: ARG001  # a Reader
        return read_each(values, width, events)

    return read


def read_within(inner: Reader, payloads: Sequence[bytes | Fault], records: Records) -> Read:
    """The events of what records hold in a wrapping. A payload is a fault where it cannot be had."""
    kept = [position for position, payload in enumerate(payloads) if isinstance(payload, bytes)]
    read = inner([payload for payload in payloads if isinstance(payload, bytes)], records.only(kept))
    if read.until is not None:
        read.until = kept[read.until]
        payloads = payloads[: read.until]
    read.faults = [(kept[position], index, fault) for position, index, fault in read.faults]
    read.faults += [(position, 0, fault) for position, fault in enumerate(payloads) if isinstance(fault, Fault)]
    read.position = [kept[position] for position in (range(read.count) if read.position is None else read.position)]
    read.index = [0] * read.count if read.index is None else read.index
    return read


@dataclass(frozen=True, slots=True)
class Made:
    """A field that a format makes of the values at `paths`, each None where it is absent."""

    paths: tuple[str, ...]
    make: Callable[..., object]


class MadeReader:
    """Reads what `inner` makes a reader for, and the fields that are made of it, by their names."""

    def __init__(
        self, paths: Sequence[str], made: Mapping[str, Made], inner: Callable[[tuple[str, ...]], Reader]
    ) -> None:
        sources = {path: made[path].paths if path in made else (path,) for path in paths}
        needed = tuple(dict.fromkeys(each for of_path in sources.values() for each in of_path))
        places = {path: place for place, path in enumerate(needed)}
        self._inner = inner(needed)
        self._fields = [
            (made[path].make if path in made else None, [places[each] for each in of_path])
            for path, of_path in sources.items()
        ]

    def __call__(self, values: Sequence[bytes], records: Records) -> Read:
        """Read the events, and make of each what is made."""
        read = self._inner(values, records)
        read.columns = [
            read.columns[places[0]] if make is None else list(map(make, *(read.columns[place] for place in places)))
            for make, places in self._fields
        ]
        read.kinds = None
        return read

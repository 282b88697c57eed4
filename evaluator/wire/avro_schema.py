"""Schemas of Avro: from bytes to the JSON value that they hold, all of it.

Logical types are left out: a timestamp stays the number that it is written as, whose unit the magnitude tells.
The library (the extra `registry`) is imported when a schema needs it.
"""

from __future__ import annotations

import importlib
import io
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluator.wire.rejection import MAX_DETAIL, Fault, Reason, shown
from evaluator.wire.schemas import MOST_MEMORY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evaluator.wire.schemas import Schema


_WRAPPING = "EvaluatorPayload"
"""A record of one field is on the wire what its field is. The library takes a union, a list or a name for a schema of
its own, which may refer to no other; of a record it knows what was parsed with it. The name has no namespace, so that
names within it keep theirs."""

_MALFORMED = (KeyError, TypeError, AttributeError, RecursionError)


def avro(schema: str | bytes, named: Sequence[str | bytes] = ()) -> Schema:
    """The schema of this text; `named` are those that it refers to. Raises `ValueError` where it cannot be used."""
    parsed, extent = parse(schema, named)
    read = importlib.import_module("fastavro").schemaless_reader

    def decode(payload: bytes) -> object:
        most = extent.most(len(payload))
        if most > MOST_MEMORY:
            return Fault(Reason.TOO_LARGE, f"its values may take {most >> 20} MiB of memory")
        stream = io.BytesIO(payload)
        try:
            found = read(stream, parsed, None)
        except (EOFError, IndexError, ValueError, OverflowError, *_MALFORMED) as bad:
            return Fault(Reason.WRONG_SHAPE, f"not of its Avro schema: {type(bad).__name__} {bad}"[:MAX_DETAIL])
        rest = len(payload) - stream.tell()
        if rest:
            return Fault(Reason.WRONG_SHAPE, f"not of its Avro schema: {rest} bytes are left")
        value: object = found["value"]
        return value

    return lambda _: decode


def parse(schema: str | bytes, named: Sequence[str | bytes] = ()) -> tuple[Any, Extent]:
    """A schema as the library has it, and what its values may be. Raises `ValueError` as `avro` does."""
    library, schemas = importlib.import_module("fastavro"), importlib.import_module("fastavro.schema")
    names: dict[str, Any] = {}
    try:
        for each in named:
            library.parse_schema(_without_logical_types(json.loads(each)), names)
        whole = {"name": "value", "type": _without_logical_types(json.loads(schema))}
        parsed = library.parse_schema({"type": "record", "name": _WRAPPING, "fields": [whole]}, names)
        extent = _Extents(names).of(parsed, ())
    except (schemas.SchemaParseException, schemas.UnknownType, *_MALFORMED) as bad:
        message = f"{type(bad).__name__}: {bad}"
        raise ValueError(message) from None
    return parsed, extent


def _without_logical_types(node: Any) -> Any:  # noqa: ANN401  # any JSON
    if isinstance(node, dict):
        return {key: _without_logical_types(value) for key, value in node.items() if key != "logicalType"}
    return [_without_logical_types(each) for each in node] if isinstance(node, list) else node


MOST_VALUES = 10_000
"""Of a record or an item, without what is in its lists. The widest schemas known have two thousand fields. More would
let a schema of a few lines, in which each type has the next one twice, take memory of any size."""

DEEPEST = 64
"""Levels of records, lists, maps and unions: the library has no limit but the stack."""

_RECORD, _FIELD, _LIST, _ITEM, _MAP_ITEM = 200, 34, 90, 16, 150
"""Bytes of memory, on 64 bits, for what Python keeps them in (tests/unit/test_format_registry.py measures it)."""

_SCALAR_A_BYTE = 32
"""Bytes of memory for each byte of a string or a number beyond the shortest, which there is once for all."""


class Extent(NamedTuple):
    """How much a value of a schema may be.

    It is so many `values` at most, without the items of its lists. In a payload it has `size` bytes or more. For these
    it takes `memory` bytes or less, and for each one more `most_a_byte` or less.

    Memory is told before a payload is decoded, from its length and its schema: a record of 98 nulls and a boolean is a
    byte and some kilobytes. A limit of values a byte instead of it would have to be so low that lists of such records,
    which are fine as long as they are short, could not be read at all; one of values a record does not tell a number
    from a record of one number, which takes thirty times as much. Lists of records of three fields or more are read up
    to 4 MiB, the default for the largest record; of one field up to 2 MiB.
    """

    values: int
    memory: int
    size: int
    depth: int = 1
    most_a_byte: int = _SCALAR_A_BYTE

    def most(self, size: int) -> int:
        """Bytes of memory for a payload of this size."""
        return self.memory + size * self.most_a_byte


class _Extents:
    """Finds what would let a few bytes exhaust the stack or the memory of the library, which knows no limits.

    Each named type is looked at once, however often it is used: a chain of types of which each uses the next one twice
    is short to write.
    """

    def __init__(self, names: Mapping[str, Any]) -> None:
        self._names = names
        self._known: dict[str, Extent] = {}

    def of(self, schema: Any, within: tuple[str, ...]) -> Extent:  # noqa: ANN401  # a schema of Avro
        """The extent of a schema within these records. Raises `ValueError` where it is without bounds."""
        match schema:
            case str() if schema in self._names:
                extent = self.of(self._names[schema], within)
            case str():
                extent = _SCALARS.get(schema, Extent(1, 0, 1))
            case list():
                extent = _of_union([self.of(each, within) for each in schema])
            case {"type": "record" | "error", "name": str(name), "fields": fields}:
                extent = self._of_record(name, fields, within)
            case {"type": "array", "items": items}:
                extent = _of_list(self.of(items, within), _ITEM)
            case {"type": "map", "values": each}:
                value = self.of(each, within)
                extent = _of_list(value._replace(size=1 + value.size), _MAP_ITEM)  # a key takes a byte
            case {"type": "fixed", "size": size}:
                extent = _of_fixed(size)
            case _:
                extent = self.of(schema["type"], within)
        if extent.depth > DEEPEST:
            message = f"it is more than {DEEPEST} levels deep"
            raise ValueError(message)
        if extent.values > MOST_VALUES:
            message = f"it may hold more than {MOST_VALUES} values beside those of lists"
            raise ValueError(message)
        return extent

    def _of_record(self, name: str, fields: Sequence[Any], within: tuple[str, ...]) -> Extent:
        if name in within:
            message = f"{name} contains itself, so that a record could be nested without end"
            raise ValueError(message)
        if name not in self._known:
            own = Extent(1, _RECORD + _FIELD * len(fields), 0)
            extents = [own, *(self.of(field["type"], (*within, name)) for field in fields)]
            values, memory, sizes, depths, most = zip(*extents, strict=True)
            self._known[name] = Extent(sum(values), sum(memory), sum(sizes), 1 + max(depths), max(most))
        return self._known[name]


def _of_union(kinds: Sequence[Extent]) -> Extent:
    """As short as the shortest kind; what another one is more, its bytes bring with them."""
    values, _, sizes, depths, most = zip(*kinds, strict=True)
    size = min(sizes)
    memory = max(kind.memory for kind in kinds if kind.size == size)
    more = [_rate(kind.memory - memory, kind.size - size) for kind in kinds if kind.size > size]
    return Extent(max(values), memory, 1 + size, 1 + max(depths), max((*most, *more)))


def _rate(memory: int, size: int) -> int:
    return -(-memory // size)


def _of_list(item: Extent, place: int) -> Extent:
    if not item.size:
        message = "it has a list of items that take no bytes, so that a record could hold any number of them"
        raise ValueError(message)
    return Extent(1, _LIST, 1, 1 + item.depth, max(item.most_a_byte, _rate(place + item.memory, item.size)))


def _of_fixed(size: object) -> Extent:
    if type(size) is not int or size < 0:
        message = f"a fixed of the size {shown(size)}"
        raise ValueError(message)
    return Extent(1, _BYTES + size, size)


_BYTES = 50
"""Of memory, for any number of bytes."""

_SCALARS = {"null": Extent(1, 0, 0), "float": Extent(1, 24, 4), "double": Extent(1, 24, 8)}
"""What does not take a byte at least, of which the shortest there is once for all."""

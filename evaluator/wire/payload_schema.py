"""Schemas of payloads: from bytes of Avro, Protobuf or JSON to the JSON value that they hold.

Avro's logical types are left out: a timestamp stays the number that it is written as, whose unit the magnitude tells.
The libraries (the extra `registry`) are imported when a schema needs them.
"""

from __future__ import annotations

import importlib
import io
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluator.wire.rejection import MAX_DETAIL, Fault, Reason, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evaluator.wire.schemas import Decode

EXTRA = "registry"
NEEDS = ("fastavro", "google.protobuf")


# -- Avro ----------------------------------------------------------------------------------------------------


_WRAPPING = "EvaluatorPayload"
"""A record of one field is on the wire what its field is. The library takes a union, a list or a name for a schema of
its own, which may refer to no other; of a record it knows what was parsed with it. The name has no namespace, so that
names within it keep theirs."""

_MALFORMED = (KeyError, TypeError, AttributeError, RecursionError)


def avro(schema: str | bytes, named: Sequence[str | bytes] = ()) -> Decode:
    """The decoder of an Avro schema; `named` are those that it refers to. Raises `ValueError` where it has none."""
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
    if extent.values > MOST_VALUES:
        message = f"one record of it may hold more than {MOST_VALUES} values beside those of lists"
        raise ValueError(message)

    def decode(payload: bytes) -> object:
        stream = io.BytesIO(payload)
        try:
            found = library.schemaless_reader(stream, parsed, None)
        except (EOFError, IndexError, ValueError, OverflowError, *_MALFORMED) as bad:
            return Fault(Reason.WRONG_SHAPE, f"not of its Avro schema: {type(bad).__name__} {bad}"[:MAX_DETAIL])
        rest = len(payload) - stream.tell()
        if rest:
            return Fault(Reason.WRONG_SHAPE, f"not of its Avro schema: {rest} bytes are left")
        value: object = found["value"]
        return value

    return decode


def _without_logical_types(node: Any) -> Any:  # noqa: ANN401  # any JSON
    if isinstance(node, dict):
        return {key: _without_logical_types(value) for key, value in node.items() if key != "logicalType"}
    return [_without_logical_types(each) for each in node] if isinstance(node, list) else node


MOST_VALUES = 10_000
"""Of one record, without what is in lists. The widest schemas known have two thousand fields."""

VALUES_PER_BYTE = 100
"""Of an item of a list or map. Fields without bytes (null, a fixed of 0) are for nothing, so that nobody has many."""

DEEPEST = 64
"""Levels of records, lists, maps and unions: the library has no limit but the stack."""


class _Extent(NamedTuple):
    """Of one value of a schema: how many values it is at most, without those in lists, in how many bytes at least."""

    values: int
    size: int
    depth: int = 1


class _Extents:
    """Finds what would let a few bytes exhaust the stack or the memory of the library, which knows no limits.

    Each named type is looked at once, however often it is used: a chain of types of which each uses the next one twice
    is short to write.
    """

    def __init__(self, names: Mapping[str, Any]) -> None:
        self._names = names
        self._known: dict[str, _Extent] = {}

    def of(self, schema: Any, within: tuple[str, ...]) -> _Extent:  # noqa: ANN401  # a schema of Avro
        """The extent of a schema within these records. Raises `ValueError` where it is without bounds."""
        match schema:
            case str() if schema in self._names:
                extent = self.of(self._names[schema], within)
            case str():
                extent = _Extent(1, _SIZES.get(schema, 1))
            case list():
                values, sizes, depths = zip(*(self.of(each, within) for each in schema), strict=True)
                extent = _Extent(max(values), 1 + min(sizes), 1 + max(depths))
            case {"type": "record" | "error", "name": str(name), "fields": fields}:
                extent = self._of_record(name, fields, within)
            case {"type": "array", "items": items}:
                extent = _of_list(self.of(items, within))
            case {"type": "map", "values": each}:
                value = self.of(each, within)
                extent = _of_list(value._replace(size=1 + value.size))  # a key takes a byte
            case {"type": "fixed", "size": size}:
                extent = _of_fixed(size)
            case _:
                extent = self.of(schema["type"], within)
        if extent.depth > DEEPEST:
            message = f"it is more than {DEEPEST} levels deep"
            raise ValueError(message)
        return extent

    def _of_record(self, name: str, fields: Sequence[Any], within: tuple[str, ...]) -> _Extent:
        if name in within:
            message = f"{name} contains itself, so that a record could be nested without end"
            raise ValueError(message)
        if name not in self._known:
            extents = [_Extent(1, 0), *(self.of(field["type"], (*within, name)) for field in fields)]
            values, sizes, depths = zip(*extents, strict=True)
            self._known[name] = _Extent(sum(values), sum(sizes), 1 + max(depths))
        return self._known[name]


def _of_list(item: _Extent) -> _Extent:
    if not item.size:
        message = "it has a list of items that take no bytes, so that a record could hold any number of them"
        raise ValueError(message)
    if item.values > VALUES_PER_BYTE * item.size:
        message = f"it has a list whose items may be {item.values} values in {item.size} bytes"
        raise ValueError(message)
    return _Extent(1, 1, 1 + item.depth)


def _of_fixed(size: object) -> _Extent:
    if type(size) is not int or size < 0:
        message = f"a fixed of the size {shown(size)}"
        raise ValueError(message)
    return _Extent(1, size)


_SIZES = {"null": 0, "float": 4, "double": 8}
"""Bytes of what is not one at least."""


# -- Protobuf ------------------------------------------------------------------------------------------------


def protobuf(files: Sequence[bytes]) -> Decode:
    """The decoder of the last of these FileDescriptorProtos, each behind what it imports. Raises `ValueError`."""
    pool = importlib.import_module("google.protobuf.descriptor_pool").DescriptorPool()
    schema = importlib.import_module("google.protobuf.descriptor_pb2").FileDescriptorProto
    factory = importlib.import_module("google.protobuf.message_factory")
    broken = importlib.import_module("google.protobuf.message").DecodeError
    as_json = importlib.import_module("google.protobuf.json_format")
    try:
        opaque = [_opaque(schema.FromString(file)) for file in files]
        added = [pool.AddSerializedFile(file.SerializeToString()) for file in opaque]
        messages = list(added[-1].message_types_by_name.values())
    except (broken, TypeError, KeyError, IndexError, AttributeError) as bad:
        message = f"no descriptor of a file with all that it imports: {bad}"
        raise ValueError(message) from None

    def decode(payload: bytes) -> object:
        found = _indexes(payload)
        descriptor = None if found is None else _message(messages, found[0])
        if found is None or descriptor is None:
            return Fault(Reason.WRONG_SHAPE, "the message of the schema that it names is not there")
        try:
            message = factory.GetMessageClass(descriptor).FromString(payload[found[1] :])
            value: object = as_json.MessageToDict(
                message,
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
                descriptor_pool=pool,
            )
        except (broken, as_json.Error, TypeError, ValueError, RecursionError) as bad:
            return Fault(Reason.WRONG_SHAPE, f"not of its Protobuf schema: {bad}"[:MAX_DETAIL])
        return value

    return decode


_PACKAGE, _ANY, _OPAQUE = "google.protobuf", "Any", "Opaque"


def _opaque(file: Any) -> Any:  # noqa: ANN401  # a FileDescriptorProto
    """A file where an Any is what it is on the wire, a `type_url` and bytes.

    As JSON it would be what it wraps, of a type that happens to be known or not, and which may be an Any again, as deep
    as somebody likes.
    """
    for message in file.message_type:
        _without_any(message)
        if (file.package, message.name) == (_PACKAGE, _ANY):
            message.name = _OPAQUE
    file.ClearField("service")  # nobody calls one, and its types may be Any
    return file


def _without_any(message: Any) -> None:  # noqa: ANN401  # a DescriptorProto
    for inner in message.nested_type:
        _without_any(inner)
    for field in message.field:
        if field.type_name == f".{_PACKAGE}.{_ANY}":
            field.type_name = f".{_PACKAGE}.{_OPAQUE}"


_DEEP = 32
"""Messages within messages that a schema id may name. Deeper ones nobody writes; more digits could be any number."""


def _indexes(payload: bytes) -> tuple[list[int], int] | None:
    """Which message of the file it is, by the numbers of messages within messages, and where it begins."""
    stream = io.BytesIO(payload)
    count = _zigzag(stream)
    if count == 0:
        return [0], stream.tell()
    if count is None or not 0 < count <= _DEEP:
        return None
    numbers = [number for _ in range(count) if (number := _zigzag(stream)) is not None]
    return (numbers, stream.tell()) if len(numbers) == count else None


def _zigzag(stream: io.BytesIO) -> int | None:
    value = shift = 0
    for byte in iter(lambda: stream.read(1), b""):
        value |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:  # noqa: PLR2004  # the bit that says that another byte follows
            return (value >> 1) ^ -(value & 1)
        if shift > _DEEP:
            return None
    return None


def _message(messages: list[Any], numbers: list[int]) -> Any:  # noqa: ANN401  # a descriptor of protobuf
    """The message that the numbers lead to; None where they lead nowhere."""
    found = None
    for number in numbers:
        if not 0 <= number < len(messages):
            return None
        found = messages[number]
        messages = list(found.nested_types)
    return found

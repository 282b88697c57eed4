"""Schemas of payloads: from bytes of Avro, Protobuf or JSON to the JSON value that they hold.

Avro's logical types are left out: a timestamp stays the number that it is written as, whose unit the magnitude tells.
The libraries (the extra `registry`) are imported when a schema needs them.
"""

from __future__ import annotations

import base64
import importlib
import io
import json
import math
from typing import TYPE_CHECKING, Any

from evaluator.wire.rejection import MAX_DETAIL, Fault, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from evaluator.wire.schemas import Decode

EXTRA = "registry"
NEEDS = ("fastavro", "google.protobuf")


# -- Avro ----------------------------------------------------------------------------------------------------


def avro(schema: str | bytes, named: Sequence[str | bytes] = ()) -> Decode:
    """The decoder of an Avro schema; `named` are those that it refers to. Raises `ValueError` where it has none."""
    library, schemas = importlib.import_module("fastavro"), importlib.import_module("fastavro.schema")
    names: dict[str, Any] = {}
    try:
        parsed = [library.parse_schema(_without_logical_types(json.loads(each)), names) for each in (*named, schema)]
        problem = next(_traps(parsed[-1], (), names), None)
    except (schemas.SchemaParseException, schemas.UnknownType, KeyError, TypeError, RecursionError) as bad:
        message = f"{type(bad).__name__}: {bad}"
        raise ValueError(message) from None
    if problem is not None:
        raise ValueError(problem)

    def decode(payload: bytes) -> object:
        stream = io.BytesIO(payload)
        try:
            value = library.schemaless_reader(stream, parsed[-1], None)
        except (EOFError, IndexError, ValueError, OverflowError) as bad:
            return Fault(Reason.WRONG_SHAPE, f"not of its Avro schema: {type(bad).__name__} {bad}"[:MAX_DETAIL])
        rest = len(payload) - stream.tell()
        return Fault(Reason.WRONG_SHAPE, f"not of its Avro schema: {rest} bytes are left") if rest else value

    return decode


def _without_logical_types(node: Any) -> Any:  # noqa: ANN401  # any JSON
    if isinstance(node, dict):
        return {key: _without_logical_types(value) for key, value in node.items() if key != "logicalType"}
    return [_without_logical_types(each) for each in node] if isinstance(node, list) else node


def _traps(schema: Any, within: tuple[str, ...], names: Mapping[str, Any]) -> Iterator[str]:  # noqa: ANN401  # of Avro
    """What lets a few bytes exhaust the stack or the memory of the library, which knows no limits."""
    match schema:
        case str() if schema in within:
            yield f"{schema} contains itself, so that a record could be nested without end"
        case str() if schema in names:
            yield from _traps(names[schema], within, names)
        case list():
            for each in schema:
                yield from _traps(each, within, names)
        case {"type": "record" | "error", "name": str(name), "fields": fields}:
            for field in fields:
                yield from _traps(field["type"], (*within, name), names)
        case {"type": "array", "items": items}:
            if _is_empty(items, names):
                yield "it has a list of items that take no bytes, so that a record could hold any number of them"
            yield from _traps(items, within, names)
        case {"type": "map", "values": values}:
            yield from _traps(values, within, names)


def _is_empty(schema: Any, names: Mapping[str, Any]) -> bool:  # noqa: ANN401  # a schema of Avro
    match schema:
        case "null" | {"type": "null"} | {"type": "fixed", "size": 0}:
            return True
        case str() if schema in names:
            return _is_empty(names[schema], names)
        case {"type": "record" | "error", "fields": fields}:
            return all(_is_empty(field["type"], names) for field in fields)
    return False


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


# -- JSON ----------------------------------------------------------------------------------------------------


def plain(value: object) -> object:
    """A value of Avro as JSON: bytes in base64, numbers that JSON does not have as text."""
    match value:
        case bytes():
            return base64.b64encode(value).decode()
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case dict():
            return {key: plain(each) for key, each in value.items()}
        case list():
            return [plain(each) for each in value]
    return value

"""Schemas by id, as files: what the payload behind a schema id means.

    42.avsc     Avro, as JSON
    43.desc     Protobuf, a FileDescriptorSet: protoc --include_imports --descriptor_set_out=43.desc order.proto
    44.json     JSON Schema; the payload is JSON already, so all that counts is that there is one

Avro's logical types are left out: a timestamp stays the number that it is written as, whose unit the magnitude tells.
The libraries (the extra `registry`) are imported when a schema needs them.
"""

from __future__ import annotations

import base64
import importlib
import io
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluator.wire.config.finding import Code, Refused
from evaluator.wire.formats.json import parse
from evaluator.wire.rejection import MAX_DETAIL, Fault, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Decode = Callable[[bytes], object]
    """From a payload to the JSON value that it holds, or the fault that it holds none."""

EXTRA = "registry"
NEEDS = ("fastavro", "google.protobuf")


def load(folder: str) -> Mapping[int, Decode]:
    """The schemas of a folder. Raises `Refused` where one cannot be used."""
    found: dict[int, Decode] = {}
    try:
        paths = sorted(Path(folder).iterdir())
    except OSError as bad:
        raise Refused(
            Code.BAD_VALUE, f"cannot read the folder {folder}: {(bad.strerror or str(bad)).lower()}"
        ) from None
    for path in paths:
        make = _KINDS.get(path.suffix)
        if make is None:
            continue
        if not (path.stem.isascii() and path.stem.isdigit()) or int(path.stem) in found:
            raise Refused(Code.BAD_VALUE, f"{path} is not named after a schema id of its own, as in 42{path.suffix}")
        try:
            found[int(path.stem)] = make(path.read_bytes())
        except (OSError, ValueError) as bad:
            raise Refused(Code.BAD_VALUE, f"{path} is no schema that can be used: {bad}"[:MAX_DETAIL]) from None
    if not found:
        raise Refused(Code.BAD_VALUE, f"the folder {folder} holds no schemas; they are files such as 42.avsc")
    return found


# -- Avro ----------------------------------------------------------------------------------------------------


def _avro(raw: bytes) -> Decode:
    library, schemas = importlib.import_module("fastavro"), importlib.import_module("fastavro.schema")
    try:
        schema = library.parse_schema(_without_logical_types(json.loads(raw)))
    except (schemas.SchemaParseException, schemas.UnknownType, KeyError, TypeError) as bad:
        message = f"{type(bad).__name__}: {bad}"
        raise ValueError(message) from None
    for problem in _traps(schema, ()):
        raise ValueError(problem)

    def decode(payload: bytes) -> object:
        stream = io.BytesIO(payload)
        try:
            value = library.schemaless_reader(stream, schema, None)
        except (EOFError, IndexError, ValueError, OverflowError) as bad:
            return Fault(Reason.WRONG_SHAPE, f"not of its Avro schema: {type(bad).__name__} {bad}"[:MAX_DETAIL])
        rest = len(payload) - stream.tell()
        return Fault(Reason.WRONG_SHAPE, f"not of its Avro schema: {rest} bytes are left") if rest else value

    return decode


def _without_logical_types(node: Any) -> Any:  # noqa: ANN401  # any JSON
    if isinstance(node, dict):
        return {key: _without_logical_types(value) for key, value in node.items() if key != "logicalType"}
    return [_without_logical_types(each) for each in node] if isinstance(node, list) else node


def _traps(schema: Any, within: tuple[str, ...]) -> Iterator[str]:  # noqa: ANN401  # a schema of Avro
    """What lets a few bytes exhaust the stack or the memory of the library, which knows no limits."""
    match schema:
        case str() if schema in within:
            yield f"{schema} contains itself, so that a record could be nested without end"
        case list():
            for each in schema:
                yield from _traps(each, within)
        case {"type": "record" | "error", "name": str(name), "fields": fields}:
            for field in fields:
                yield from _traps(field["type"], (*within, name))
        case {"type": "array", "items": items}:
            if _is_empty(items):
                yield "it has a list of items that take no bytes, so that a record could hold any number of them"
            yield from _traps(items, within)
        case {"type": "map", "values": values}:
            yield from _traps(values, within)


def _is_empty(schema: Any) -> bool:  # noqa: ANN401  # a schema of Avro
    match schema:
        case "null" | {"type": "null"} | {"type": "fixed", "size": 0}:
            return True
        case {"type": "record" | "error", "fields": fields}:
            return all(_is_empty(field["type"]) for field in fields)
    return False


# -- Protobuf ------------------------------------------------------------------------------------------------


def _protobuf(raw: bytes) -> Decode:
    pool = importlib.import_module("google.protobuf.descriptor_pool").DescriptorPool()
    descriptors = importlib.import_module("google.protobuf.descriptor_pb2")
    factory = importlib.import_module("google.protobuf.message_factory")
    broken = importlib.import_module("google.protobuf.message").DecodeError
    as_json = importlib.import_module("google.protobuf.json_format")
    try:
        files = descriptors.FileDescriptorSet.FromString(raw).file
        for file in files:
            pool.AddSerializedFile(file.SerializeToString())
        messages = list(pool.FindFileByName(files[-1].name).message_types_by_name.values())
    except (broken, TypeError, KeyError, IndexError) as bad:
        message = f"no FileDescriptorSet with all that it imports: {bad}"
        raise ValueError(message) from None

    def decode(payload: bytes) -> object:
        found = _indexes(payload)
        descriptor = None if found is None else _message(messages, found[0])
        if found is None or descriptor is None:
            return Fault(Reason.WRONG_SHAPE, "the message of the schema that it names is not there")
        try:
            message = factory.GetMessageClass(descriptor).FromString(payload[found[1] :])
            value: object = as_json.MessageToDict(
                message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
            )
        except (broken, as_json.Error, TypeError, ValueError) as bad:
            return Fault(Reason.WRONG_SHAPE, f"not of its Protobuf schema: {bad}"[:MAX_DETAIL])
        return value

    return decode


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


def _json(raw: bytes) -> Decode:
    match parse(raw):
        case Fault(detail=detail):
            raise ValueError(detail)
    return parse


_KINDS: Mapping[str, Callable[[bytes], Decode]] = {".avsc": _avro, ".desc": _protobuf, ".json": _json}


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

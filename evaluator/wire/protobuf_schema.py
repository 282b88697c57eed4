"""Schemas of Protobuf: from bytes to the JSON value that they hold, as far as somebody asks for it.

What nobody asks for is not known to the parser: these bytes are of no type, and become nothing. Else two bytes would be
a message of a hundred fields, each with its default, as often as somebody likes.

    files, paths   ->  the same files, whose messages have only the fields on these paths
    bytes          ->  a message of these, without the lists in which no path goes on
                   ->  the library's own JSON

So what a payload takes follows what is asked for. How much that may be is told before it is parsed.
The library (the extra `registry`) is imported when a schema needs it.
"""

from __future__ import annotations

import importlib
import io
from typing import TYPE_CHECKING, Any

from evaluator.wire.protobuf_asked import PACKAGE, Asked, Extents, is_map, pruned
from evaluator.wire.rejection import MAX_DETAIL, Fault, Reason
from evaluator.wire.schemas import MOST_MEMORY

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from evaluator.wire.protobuf_asked import Extent
    from evaluator.wire.schemas import Decode, Paths, Schema

_INVALID = (TypeError, KeyError, IndexError, AttributeError)
"""What the library raises of files that do not fit together."""


def protobuf(files: Sequence[bytes]) -> Schema:
    """The schema that is the last of these FileDescriptorProtos, each behind what it imports. Raises `ValueError`."""
    try:
        opaque = [_opaque(_library("descriptor_pb2").FileDescriptorProto.FromString(file)) for file in files]
        messages = list(_pool(opaque)[1].message_types_by_name.values())
    except (_library("message").DecodeError, *_INVALID) as bad:
        message = f"no descriptor of a file with all that it imports: {bad}"
        raise ValueError(message) from None
    readers: dict[Paths, _Reader] = {}

    def schema(paths: Paths) -> Decode:
        if paths not in readers:
            readers[paths] = _Reader(opaque, messages, paths)
        return readers[paths]

    return schema


def _library(module: str) -> Any:  # noqa: ANN401  # a module
    return importlib.import_module(f"google.protobuf.{module}")


def _pool(files: Iterable[Any]) -> tuple[Any, Any]:
    """The types of these files, and the last of the files."""
    pool = _library("descriptor_pool").DescriptorPool()
    added = [pool.AddSerializedFile(file.SerializeToString()) for file in files]
    return pool, added[-1]


class _Reader:
    """The decoder for who asks for these paths. What it needs for a message is made when a payload first names it."""

    def __init__(self, files: Sequence[Any], messages: Sequence[Any], paths: Paths) -> None:
        self._files, self._messages, self._paths = files, messages, paths
        self._made: dict[tuple[int, ...], Decode] = {}

    def __call__(self, payload: bytes) -> object:
        found = _indexes(payload)
        decode = None if found is None else self._decoder(found[0])
        if found is None or decode is None:
            return Fault(Reason.WRONG_SHAPE, "the message of the schema that it names is not there")
        return decode(payload[found[1] :])

    def _decoder(self, numbers: tuple[int, ...]) -> Decode | None:
        if numbers not in self._made:
            message = _message(self._messages, numbers)
            if message is None:
                return None
            self._made[numbers] = _decoder(self._files, message, self._paths)
        return self._made[numbers]


def _decoder(files: Sequence[Any], message: Any, paths: Paths) -> Decode:  # noqa: ANN401  # a Descriptor
    asked = Asked()
    for path in paths:
        asked.add(message, path)
    try:
        pool, _ = _pool(pruned(file, asked) for file in files)
        root = pool.FindMessageTypeByName(message.full_name)
        extent = Extents(asked).of(root)
    except (*_INVALID, RecursionError) as bad:
        fault = Fault(Reason.UNSUPPORTED, f"its schema cannot be used: {bad}"[:MAX_DETAIL])
        return lambda _: fault
    return _Projection(pool, root, asked, extent).decode


class _Projection:
    """A message of which only some fields are known."""

    def __init__(self, pool: Any, root: Any, asked: Asked, extent: Extent) -> None:  # noqa: ANN401  # of the library
        self._pool, self._asked, self._extent = pool, asked, extent
        self._class = _library("message_factory").GetMessageClass(root)
        self._print = _library("json_format").MessageToDict
        broken = _library("message").DecodeError, _library("json_format").Error
        self._misfit = (*broken, TypeError, ValueError, RecursionError)

    def decode(self, payload: bytes) -> object:
        most = self._extent.most(len(payload))
        if most > MOST_MEMORY:
            return Fault(Reason.TOO_LARGE, f"what is asked for of it may take {most >> 20} MiB of memory")
        try:
            message = self._class.FromString(payload)
            if self._extent.each:
                self._without_long_lists(message)
            value: object = self._print(
                message,
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
                descriptor_pool=self._pool,
            )
        except self._misfit as bad:
            return Fault(Reason.WRONG_SHAPE, f"not of its Protobuf schema: {bad}"[:MAX_DETAIL])
        return value

    def _without_long_lists(self, message: Any) -> None:  # noqa: ANN401  # a Message
        """A path goes on in a list of one item only, so nobody sees what is in others."""
        for field, value in message.ListFields():
            inner = field.message_type
            if inner is None or self._asked.has_all_of(inner.full_name):
                continue
            if field.has_presence:
                self._without_long_lists(value)
            elif is_map(field):
                for each in value.values() if inner.fields_by_name["value"].message_type else ():
                    self._without_long_lists(each)
            elif len(value) == 1:
                self._without_long_lists(value[0])
            else:
                message.ClearField(field.name)


# -- the files -----------------------------------------------------------------------------------------------

_ANY, _OPAQUE = "Any", "Opaque"


def _opaque(file: Any) -> Any:  # noqa: ANN401  # a FileDescriptorProto
    """A file where an Any is what it is on the wire, a `type_url` and bytes.

    As JSON it would be what it wraps, of a type that happens to be known or not, and which may be an Any again, as deep
    as somebody likes.
    """
    for message in file.message_type:
        _without_any(message)
        if (file.package, message.name) == (PACKAGE, _ANY):
            message.name = _OPAQUE
    file.ClearField("service")  # nobody calls one, and its types may be Any
    return file


def _without_any(message: Any) -> None:  # noqa: ANN401  # a DescriptorProto
    for inner in message.nested_type:
        _without_any(inner)
    for field in message.field:
        if field.type_name.lstrip(".") == f"{PACKAGE}.{_ANY}":  # some write it without the dot before it
            field.type_name = f".{PACKAGE}.{_OPAQUE}"


# -- bytes ---------------------------------------------------------------------------------------------------

_DEEP = 32
"""Messages within messages that a schema id may name. Deeper ones nobody writes; more digits could be any number."""


def _indexes(payload: bytes) -> tuple[tuple[int, ...], int] | None:
    """Which message of the file it is, by the numbers of messages within messages, and where it begins."""
    stream = io.BytesIO(payload)
    count = _zigzag(stream)
    if count == 0:
        return (0,), stream.tell()
    if count is None or not 0 < count <= _DEEP:
        return None
    numbers = tuple(number for _ in range(count) if (number := _zigzag(stream)) is not None)
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


def _message(messages: Sequence[Any], numbers: Sequence[int]) -> Any:  # noqa: ANN401  # a Descriptor
    """The message that the numbers lead to; None where they lead nowhere."""
    found = None
    for number in numbers:
        if not 0 <= number < len(messages):
            return None
        found = messages[number]
        messages = list(found.nested_types)
    return found

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
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluator.wire.rejection import MAX_DETAIL, Fault, Reason
from evaluator.wire.schemas import MOST_MEMORY

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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
    asked = _Asked()
    for path in paths:
        asked.add(message, path)
    try:
        pool, _ = _pool(_pruned(file, asked) for file in files)
        root = pool.FindMessageTypeByName(message.full_name)
        extent = _Extents(asked).of(root)
    except (*_INVALID, RecursionError) as bad:
        fault = Fault(Reason.UNSUPPORTED, f"its schema cannot be used: {bad}"[:MAX_DETAIL])
        return lambda _: fault
    return _Projection(pool, root, asked, extent).decode


class _Projection:
    """A message of which only some fields are known."""

    def __init__(self, pool: Any, root: Any, asked: _Asked, extent: _Extent) -> None:  # noqa: ANN401  # of the library
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
            elif _is_map(field):
                for each in value.values() if inner.fields_by_name["value"].message_type else ():
                    self._without_long_lists(each)
            elif len(value) == 1:
                self._without_long_lists(value[0])
            else:
                message.ClearField(field.name)


def _is_map(field: Any) -> bool:  # noqa: ANN401  # a FieldDescriptor
    return field.message_type is not None and _is_entry(field.message_type)


def _is_entry(message: Any) -> bool:  # noqa: ANN401  # a Descriptor
    return message.has_options and bool(message.GetOptions().map_entry)


# -- the files -----------------------------------------------------------------------------------------------

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


# -- what is asked for ---------------------------------------------------------------------------------------


class _Asked:
    """What lies on paths: the fields, and the messages that are asked for with all that is in them, by full names."""

    def __init__(self) -> None:
        self.fields: set[str] = set()
        self._whole: set[str] = set()

    def has_all_of(self, message: str) -> bool:
        """Whether all fields of a message are needed. In JSON those of the library are other than their fields."""
        return message in self._whole or message.startswith(f"{_PACKAGE}.")

    def add(self, message: Any, path: Sequence[str]) -> None:  # noqa: ANN401  # a Descriptor
        """What of a message lies on a path. It goes on in lists, for one may have a single item."""
        if not path or self.has_all_of(message.full_name):
            self._add_all(message)
            return
        field = message.fields_by_name.get(path[0])
        if field is None:
            return
        # The last of a oneof that is written takes the place of the others.
        siblings = [field] if field.containing_oneof is None else field.containing_oneof.fields
        self.fields.update(each.full_name for each in siblings)
        inner = field.message_type
        if _is_map(field):
            inner = inner.fields_by_name["value"].message_type
            ends = range(min(2, len(path)), len(path) + 1)  # a key may hold dots
        else:
            ends = range(1, 2)
        for end in ends if inner is not None else ():
            self.add(inner, path[end:])

    def _add_all(self, message: Any) -> None:  # noqa: ANN401  # a Descriptor
        more = [message]
        while more:
            each = more.pop()
            if each.full_name not in self._whole:
                self._whole.add(each.full_name)
                more += [field.message_type for field in each.fields if field.message_type is not None]


def _pruned(file: Any, asked: _Asked) -> Any:  # noqa: ANN401  # a FileDescriptorProto
    """The file with what is asked for, and without extensions of it."""
    pruned = type(file)()
    pruned.CopyFrom(file)
    del pruned.extension[:]
    for message in pruned.message_type:
        _prune(message, f"{file.package}.{message.name}" if file.package else message.name, asked)
    return pruned


def _prune(message: Any, name: str, asked: _Asked) -> None:  # noqa: ANN401  # a DescriptorProto
    for inner in message.nested_type:
        _prune(inner, f"{name}.{inner.name}", asked)
    del message.extension[:]
    if message.options.map_entry or asked.has_all_of(name):
        return
    for place in reversed(range(len(message.field))):
        if f"{name}.{message.field[place].name}" not in asked.fields:
            del message.field[place]
    members = [field for field in message.field if field.HasField("oneof_index")]
    oneofs = sorted({field.oneof_index for field in members})
    for field in members:
        field.oneof_index = oneofs.index(field.oneof_index)
    for place in reversed(range(len(message.oneof_decl))):
        if place not in oneofs:
            del message.oneof_decl[place]


# -- how much it may be --------------------------------------------------------------------------------------

_MESSAGE, _FIELD = 250, 140
"""Bytes of memory, on 64 bits: of a message as the library has it and as a dict, each field with its default."""

_SKIPPED, _SKIPPED_FIELD = 60, 16
"""The same of a message in a list that is left out: as the library has it only."""

_VALUE = 200
"""The same of a message of the library itself: a text, or a value of JSON."""

_ENTRY = 150
"""The same of an item of a map. It takes three times as much, but millions of keys have no room in two bytes each."""

_SCALAR_A_BYTE = 90
"""Of an integer of 64 bits, which is a text and has room in a byte."""


class _Extent(NamedTuple):
    """What a message may take: `once`, and `each` for any two bytes, in which a message of a list fits."""

    once: int
    each: int

    def most(self, size: int) -> int:
        """Bytes of memory for a payload of this size."""
        return self.once + size * max(_SCALAR_A_BYTE, -(-self.each // 2))


class _Extents:
    """Finds which messages there may be any number of: in lists and maps, and those that contain themselves."""

    def __init__(self, asked: _Asked) -> None:
        self._asked = asked
        self._known: dict[str, int] = {}
        self._many: list[Any] = []
        self._skipped: list[Any] = []

    def of(self, root: Any) -> _Extent:  # noqa: ANN401  # a Descriptor
        """What a payload of this message may take."""
        once = self._once(root, ())
        many = [_taken(each, _MESSAGE, _FIELD) for each in _within(self._many)]
        skipped = [_taken(each, _SKIPPED, _SKIPPED_FIELD) for each in _within(self._skipped)]
        return _Extent(once, max([*many, *skipped], default=0))

    def _once(self, message: Any, around: tuple[str, ...]) -> int:  # noqa: ANN401  # a Descriptor
        """What a message takes without the others that are in lists of it."""
        name = message.full_name
        if name in around:
            self._many.append(message)
            return 0
        if name not in self._known:
            taken = _taken(message, _MESSAGE, _FIELD)
            for field in message.fields:
                if field.message_type is not None:
                    taken += self._of_field(field, (*around, name))
            self._known[name] = taken
        return self._known[name]

    def _of_field(self, field: Any, around: tuple[str, ...]) -> int:  # noqa: ANN401  # a FieldDescriptor
        inner = field.message_type
        if not field.has_presence and (_is_map(field) or self._asked.has_all_of(inner.full_name)):
            self._many.append(inner)
            return 0
        if not field.has_presence:
            self._skipped.append(inner)  # but a single one is not
        return self._once(inner, around)


def _within(messages: Iterable[Any]) -> list[Any]:
    """These messages and all that are in them, by their types."""
    found: dict[str, Any] = {}
    more = list(messages)
    while more:
        message = more.pop()
        if message.full_name not in found:
            found[message.full_name] = message
            more += [field.message_type for field in message.fields if field.message_type is not None]
    return list(found.values())


def _taken(message: Any, of_message: int, of_field: int) -> int:  # noqa: ANN401  # a Descriptor
    if message.full_name.startswith(f"{_PACKAGE}."):
        return _VALUE
    if _is_entry(message):
        return _ENTRY
    return of_message + of_field * len(message.fields)


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

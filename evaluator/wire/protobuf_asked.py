"""What of a Protobuf schema is asked for, and how much memory a payload of it may take.

The names of fields and messages are full ones. Extensions are not read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PACKAGE = "google.protobuf"
"""Of the messages that the library brings along. In JSON they are other than their fields: a text, or any value."""


def is_map(field: Any) -> bool:  # noqa: ANN401  # a FieldDescriptor
    """Whether a field is a map: on the wire it is a list of messages of a key and a value."""
    return field.message_type is not None and _is_entry(field.message_type)


def _is_entry(message: Any) -> bool:  # noqa: ANN401  # a Descriptor
    return message.has_options and bool(message.GetOptions().map_entry)


class Asked:
    """What lies on paths: the fields, and the messages that are asked for with all that is in them, by full names."""

    def __init__(self) -> None:
        self.fields: set[str] = set()
        self._whole: set[str] = set()

    def has_all_of(self, message: str) -> bool:
        """Whether all fields of a message are needed. In JSON those of the library are other than their fields."""
        return message in self._whole or message.startswith(f"{PACKAGE}.")

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
        if is_map(field):
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


def pruned(file: Any, asked: Asked) -> Any:  # noqa: ANN401  # a FileDescriptorProto
    """The file with what is asked for, and without extensions of it."""
    copy = type(file)()
    copy.CopyFrom(file)
    del copy.extension[:]
    for message in copy.message_type:
        _prune(message, f"{file.package}.{message.name}" if file.package else message.name, asked)
    return copy


def _prune(message: Any, name: str, asked: Asked) -> None:  # noqa: ANN401  # a DescriptorProto
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


class Extent(NamedTuple):
    """What a message may take: `once`, and `each` for any two bytes, in which a message of a list fits."""

    once: int
    each: int

    def most(self, size: int) -> int:
        """Bytes of memory for a payload of this size."""
        return self.once + size * max(_SCALAR_A_BYTE, -(-self.each // 2))


class Extents:
    """Finds which messages there may be any number of: in lists and maps, and those that contain themselves."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._known: dict[str, int] = {}
        self._many: list[Any] = []
        self._skipped: list[Any] = []

    def of(self, root: Any) -> Extent:  # noqa: ANN401  # a Descriptor
        """What a payload of this message may take."""
        once = self._once(root, ())
        many = [_taken(each, _MESSAGE, _FIELD) for each in _within(self._many)]
        skipped = [_taken(each, _SKIPPED, _SKIPPED_FIELD) for each in _within(self._skipped)]
        return Extent(once, max([*many, *skipped], default=0))

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
        if not field.has_presence and (is_map(field) or self._asked.has_all_of(inner.full_name)):
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
    if message.full_name.startswith(f"{PACKAGE}."):
        return _VALUE
    if _is_entry(message):
        return _ENTRY
    return of_message + of_field * len(message.fields)

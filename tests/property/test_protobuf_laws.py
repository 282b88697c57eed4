"""Of a Protobuf payload only what is asked for is read: whatever that is, its values are those of the whole message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import duration_pb2, empty_pb2, field_mask_pb2, struct_pb2, timestamp_pb2, wrappers_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import Error, MessageToDict
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st
from support.payloads import mostly

from evaluator.wire.field import lookup
from evaluator.wire.formats.json import row_of
from evaluator.wire.protobuf_schema import protobuf
from evaluator.wire.rejection import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import Descriptor, FieldDescriptor
    from google.protobuf.message import Message

KNOWN = [each.DESCRIPTOR for each in (duration_pb2, empty_pb2, field_mask_pb2, struct_pb2, timestamp_pb2, wrappers_pb2)]
SCALARS = {
    "text": Field.TYPE_STRING, "raw": Field.TYPE_BYTES, "yes": Field.TYPE_BOOL, "int": Field.TYPE_INT32,
    "long": Field.TYPE_INT64, "unsigned": Field.TYPE_UINT64, "fixed": Field.TYPE_SFIXED32, "single": Field.TYPE_FLOAT,
    "double": Field.TYPE_DOUBLE,
}  # fmt: skip
MESSAGES = {
    "at": "google.protobuf.Timestamp", "took": "google.protobuf.Duration", "empty": "google.protobuf.Empty",
    "mask": "google.protobuf.FieldMask", "free": "google.protobuf.Struct", "any": "google.protobuf.Value",
    "list": "google.protobuf.ListValue", "count": "google.protobuf.Int64Value", "name": "google.protobuf.StringValue",
    "node": "shop.Node", "old": "shop.Old",
}  # fmt: skip
KEYS = ["a", "b.c", "7", "true", ""]


def add(message: DescriptorProto, name: str, kind: Any, **more: Any) -> Field:
    """A field, of a scalar or of the message or enum of that name."""
    field = message.field.add(name=name, number=len(message.field) + 1, label=more.pop("label", Field.LABEL_OPTIONAL),
                              **more)  # fmt: skip
    if isinstance(kind, str):
        field.type_name, kind = f".{kind}", Field.TYPE_ENUM if kind.endswith("Enum") else Field.TYPE_MESSAGE
    field.type = kind
    return field


def add_map(message: DescriptorProto, name: str, key: Any, value: Any) -> None:
    entry = message.nested_type.add(name=f"{name.title()}Entry")
    entry.options.map_entry = True
    add(entry, "key", key)
    add(entry, "value", value)
    add(message, name, f"shop.{message.name}.{entry.name}", label=Field.LABEL_REPEATED)


def node() -> DescriptorProto:
    """A message with fields of all kinds, which contains itself in all the ways there are."""
    message = DescriptorProto(name="Node")
    for name, kind in {**SCALARS, "colour": "shop.Enum", **MESSAGES}.items():
        add(message, name, kind)
        add(message, f"{name}_s", kind, label=Field.LABEL_REPEATED)
    message.field[2].json_name = "elsewhere"
    for name, kind in (("one", Field.TYPE_STRING), ("other", "shop.Node"), ("third", "google.protobuf.Timestamp")):
        add(message, name, kind, oneof_index=0)
    message.oneof_decl.add(name="choice")
    for name, kind in (("perhaps", Field.TYPE_INT64), ("maybe", "shop.Node")):
        add(message, name, kind, oneof_index=len(message.oneof_decl), proto3_optional=True)
        message.oneof_decl.add(name=f"_{name}")
    add_map(message, "tags", Field.TYPE_STRING, Field.TYPE_INT64)
    add_map(message, "nodes", Field.TYPE_STRING, "shop.Node")
    add_map(message, "numbered", Field.TYPE_INT32, "google.protobuf.Duration")
    add_map(message, "judged", Field.TYPE_BOOL, "shop.Node")
    return message


def old() -> FileDescriptorProto:
    """A file of proto2: fields that are known to be there or not, an enum that is closed, a group."""
    file = FileDescriptorProto(name="old.proto", package="shop", syntax="proto2")
    message = file.message_type.add(name="Old")
    add(message, "text", Field.TYPE_STRING, default_value="hello")
    add(message, "long", Field.TYPE_INT64, label=Field.LABEL_REQUIRED)
    group = message.nested_type.add(name="Group")
    add(group, "int", Field.TYPE_INT32)
    add(message, "group", "shop.Old.Group", label=Field.LABEL_REPEATED).type = Field.TYPE_GROUP
    closed = file.enum_type.add(name="ClosedEnum")
    closed.value.add(name="FIRST", number=1)
    add(message, "colour", "shop.ClosedEnum")
    return file


def files() -> list[FileDescriptorProto]:
    file = FileDescriptorProto(name="node.proto", package="shop", syntax="proto3")
    file.dependency.extend([*(each.name for each in KNOWN), "old.proto"])
    file.message_type.append(node())
    colours = file.enum_type.add(name="Enum")
    for number, name in enumerate(("RED", "GREEN")):
        colours.value.add(name=name, number=number)
    return [*(FileDescriptorProto.FromString(each.serialized_pb) for each in KNOWN), old(), file]


FILES = [file.SerializeToString() for file in files()]
POOL = DescriptorPool()
for each in FILES:
    POOL.AddSerializedFile(each)
NODE = POOL.FindMessageTypeByName("shop.Node")
SCHEMA = protobuf(FILES)

VALUES: dict[int, st.SearchStrategy[Any]] = {
    Field.TYPE_STRING: st.text(max_size=3), Field.TYPE_BYTES: st.binary(max_size=3), Field.TYPE_BOOL: st.booleans(),
    Field.TYPE_INT32: st.integers(-9, 9), Field.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    Field.TYPE_UINT64: st.integers(0, 2**64 - 1), Field.TYPE_SFIXED32: st.integers(-9, 9),
    Field.TYPE_FLOAT: st.floats(width=32), Field.TYPE_DOUBLE: st.floats(), Field.TYPE_ENUM: st.integers(0, 2),
}  # fmt: skip
"""Of the enums: the third number has no name in one, the first none in the other."""


def fill(draw: st.DrawFn, message: Message, depth: int) -> None:
    """Some of the fields, the innermost messages without others in them."""
    fields = list(message.DESCRIPTOR.fields)
    # Mostly messages of our own, as far as there may be any: what is in them is what is hard to find.
    inner = [each for each in fields if each.message_type and each.message_type.full_name.startswith("shop.") and depth]
    some = mostly(st.sampled_from(inner or fields), st.sampled_from(fields)) if fields else None
    for field in [] if some is None else draw(st.lists(some, min_size=1, max_size=5, unique_by=lambda f: f.number)):
        if field.message_type is not None and depth == 0:
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            fill_map(draw, getattr(message, field.name), field.message_type, depth)
        elif field.message_type is not None and not field.has_presence:
            for _ in range(draw(mostly(st.just(1), st.sampled_from([0, 2])))):
                fill(draw, getattr(message, field.name).add(), depth - 1)
        elif field.message_type is not None:
            getattr(message, field.name).SetInParent()
            fill(draw, getattr(message, field.name), depth - 1)
        else:
            fill_scalar(draw, message, field)


def fill_map(draw: st.DrawFn, items: Any, entry: Descriptor, depth: int) -> None:
    key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
    for text in draw(st.sets(st.sampled_from(KEYS), max_size=2)):
        as_key = {Field.TYPE_STRING: text, Field.TYPE_INT32: 7, Field.TYPE_BOOL: text == "true"}[key.type]
        if value.message_type is None:
            items[as_key] = draw(VALUES[value.type])
        else:
            fill(draw, items[as_key], depth - 1)


def fill_scalar(draw: st.DrawFn, message: Message, field: FieldDescriptor) -> None:
    values = VALUES[field.type]
    if field.enum_type is not None and field.enum_type.name == "ClosedEnum":
        values = st.just(1)
    if field.full_name.startswith("google.protobuf.Timestamp") or field.full_name.startswith("google.protobuf.Dur"):
        values = mostly(st.integers(0, 10**9 - 1), values)
    if not field.has_presence and hasattr(getattr(message, field.name), "extend"):
        getattr(message, field.name).extend(draw(st.lists(values, max_size=2)))
    else:
        setattr(message, field.name, draw(values))


@st.composite
def payloads(draw: st.DrawFn) -> bytes:
    """Messages in bytes. Sometimes two, which are one then: fields that are there twice, members of a oneof too."""
    parts = []
    for _ in range(draw(mostly(st.just(1), st.just(2)))):
        message = GetMessageClass(NODE)()
        fill(draw, message, 3)
        parts.append(message.SerializePartialToString())
    return b"".join(parts)


def into(value: object) -> Iterator[tuple[str, ...]]:
    """The paths to all that is in a JSON value."""
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    for key, each in value.items() if isinstance(value, dict) else ():
        parts = tuple(key.split("."))
        yield parts
        yield from (parts + rest for rest in into(each))


NAMES = st.sampled_from([*(field.name for field in NODE.fields), *KEYS, "seconds", "value", "elsewhere", "nowhere"])
NAME_LISTS = st.lists(NAMES, min_size=1, max_size=4).map(tuple)


def test_what_is_asked_for_is_what_the_whole_message_has_there() -> None:
    examples, reached = 0, 0

    @settings(max_examples=300)
    @given(payloads(), st.data())
    def law(payload: bytes, data: st.DataObject) -> None:
        nonlocal examples, reached
        try:
            whole = MessageToDict(
                GetMessageClass(NODE).FromString(payload), preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True, descriptor_pool=POOL,
            )  # fmt: skip
        except (Error, ValueError):
            return  # a time that JSON has not: it is a fault only where it is asked for
        examples += 1
        there = [path for path in into(whole) if len(path) < 8]
        deep = [path for path in there if len(path) > 1 and lookup(whole, path) is not None]
        some = mostly(st.sampled_from(deep or there), st.sampled_from(there) | NAME_LISTS)
        paths = tuple(data.draw(st.lists(some, min_size=1, max_size=4, unique=True)))
        found = SCHEMA(paths)(b"\0" + payload)
        assert not isinstance(found, Fault), found
        expected = row_of(whole, paths)
        assert repr(row_of(found, paths)) == repr(expected)
        reached += any(len(path) > 1 and value is not None for path, value in zip(paths, expected, strict=True))

    law()
    assert reached * 2 > examples


def test_the_last_of_a_oneof_is_the_only_one_also_if_nobody_asks_for_it() -> None:
    one, other = (GetMessageClass(NODE)(**{name: value}) for name, value in (("one", "x"), ("other", {"text": "y"})))
    both = b"\0" + one.SerializeToString() + other.SerializeToString()
    read = SCHEMA((("one",), ("tags",)))
    assert row_of(read(both), [("one",)]) == (None,)
    assert row_of(read(both + one.SerializeToString()), [("one",)]) == ("x",)


def test_bytes_of_any_kind_give_a_value_or_a_fault() -> None:
    @given(mostly(payloads(), st.binary(max_size=40)), st.data())
    def law(payload: bytes, data: st.DataObject) -> None:
        cut = data.draw(st.integers(0, len(payload)))
        inserted = data.draw(st.binary(max_size=3))
        paths = tuple(data.draw(st.lists(st.lists(NAMES, min_size=1, max_size=3).map(tuple), max_size=3)))
        found = SCHEMA(paths)(b"\0" + payload[:cut] + inserted + payload[cut:])
        assert isinstance(found, dict | Fault)

    law()


def test_what_is_good_with_a_path_more_is_good_without_it() -> None:
    """A field that is asked for later must not be what makes a record bad."""
    examples, reached = 0, 0

    @given(mostly(payloads(), st.binary(max_size=40)), st.data())
    def law(payload: bytes, data: st.DataObject) -> None:
        nonlocal examples, reached
        paths = tuple(data.draw(st.lists(st.lists(NAMES, min_size=1, max_size=3).map(tuple), min_size=1, max_size=3)))
        both, later = SCHEMA(paths)(b"\0" + payload), SCHEMA(paths[:1])(b"\0" + payload)
        examples += 1
        if not isinstance(both, Fault):
            reached += 1
            assert repr(row_of(later, paths[:1])) == repr(row_of(both, paths[:1]))

    law()
    assert reached * 2 > examples

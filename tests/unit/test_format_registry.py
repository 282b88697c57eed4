"""Confluent's wire format: the schema by its id, the payload by the schema, the object as json."""

from __future__ import annotations

import io
import itertools
import json
import tracemalloc
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import fastavro
import pytest
from google.protobuf import any_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import ParseDict
from google.protobuf.message_factory import GetMessageClass
from support.decoded import NOON, SCHEMAS, Event, Seen, bare, config_of, record, seen

from evaluator.wire import schema_files
from evaluator.wire.avro_schema import DEEPEST, MOST_VALUES, parse
from evaluator.wire.avro_schema import avro as schema_of_avro
from evaluator.wire.config.finding import Refused
from evaluator.wire.decode import SourceDecoder
from evaluator.wire.protobuf_schema import protobuf as schema_of_protobuf
from evaluator.wire.rejection import Fault, Reason
from evaluator.wire.schemas import MOST_MEMORY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SOURCE = {
    **bare("registry"),
    "fields": {"time": "time", "latency": "took.ms", "latency_unit": "ms", "failed": {"status": ">= 500"}},
}
MICROSECONDS = {"latency": "duration_us", "latency_unit": "us"}
AVRO = fastavro.schema.load_schema(SCHEMAS / "1.avsc")
REQUEST = {
    "time": NOON, "route": "/pay", "status": 200, "took": {"ms": 12.5}, "queued": None, "outcome": "OK",
    "id": b"\1\2\3\4", "tags": {"region": "eu"}, "retries": [1.5, float("inf")], "raw": b"\xff",
}  # fmt: skip
EVENT = Event(latency=12_500)


def framed(schema: int, payload: bytes) -> bytes:
    return b"\0" + schema.to_bytes(4, "big") + payload


def avro(**changes: Any) -> bytes:
    """A request of schema 1."""
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, AVRO, {**REQUEST, **changes})
    return framed(1, stream.getvalue())


def protobuf(index: bytes = b"\2\2", name: str = "shop.Request", **fields: Any) -> bytes:
    """A request of schema 2, whose file has it as its second message."""
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString((SCHEMAS / "2.desc").read_bytes()).file:
        pool.AddSerializedFile(file.SerializeToString())
    message = GetMessageClass(pool.FindMessageTypeByName(name))()
    return framed(2, index + ParseDict(fields, message).SerializeToString())


def test_avro_is_read_by_its_schema() -> None:
    paths = ["route", "outcome", "tags.region", "id", "raw", "retries", "queued.ms"]
    assert seen(SOURCE, record(0, avro()), record(1, avro(status=503, queued={"ms": 1.0})), group_by=paths) == Seen([
        replace(EVENT, group=("/pay", "OK", "eu", "AQIDBA==", "/w==", '[1.5,"Infinity"]', "")),
        replace(EVENT, outcome="failed", group=("/pay", "OK", "eu", "AQIDBA==", "/w==", '[1.5,"Infinity"]', "1")),
    ])  # fmt: skip


def test_a_duration_that_is_no_number_costs_the_latency() -> None:
    assert seen(SOURCE, record(0, avro(took={"ms": float("nan")}))) == Seen([Event()], bad_latencies=1)


def test_protobuf_is_read_by_its_schema_with_the_names_of_the_schema() -> None:
    source = {**SOURCE, "fields": {**SOURCE["fields"], **MICROSECONDS, "failed": {"ok": False}}}
    made = protobuf(
        time="2026-01-28T12:00:00Z", route="/pay", duration_us="12500", ok=True, outcome="OUTCOME_ERROR", raw="/w==",
        share=0.5,
    )  # fmt: skip
    found = seen(source, record(0, made), record(1, protobuf(time="2026-01-28T12:00:00Z")),
                 group_by=["route", "outcome", "raw", "share"])  # fmt: skip
    assert found == Seen([
        replace(EVENT, group=("/pay", "OUTCOME_ERROR", "/w==", "0.5")),
        Event(outcome="failed", latency=0, group=("", "OUTCOME_OK", "", "0")),  # what is not written has its default
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("index", "status"), [(b"\2\2", "5"), (b"\4\0\0", "6"), (b"\0", ""), (b"\2\0", "")],
)  # fmt: skip
def test_the_message_is_the_one_that_the_payload_names(index: bytes, status: str) -> None:
    """The first message of the file has no fields, its first inner one a status."""
    inner = index == b"\4\0\0"
    made = protobuf(index, "shop.Other.Inner", status=6) if inner else protobuf(index, status=5)
    source = {**bare("registry"), "fields": {"time": "record.timestamp"}}
    (event,) = seen(source, record(0, made), group_by=["status"]).events
    assert event.group == (status,)


@pytest.mark.parametrize("index", [b"", b"\2", b"\2\x09", b"\1", b"\2\1", b"\4\2\0", b"\4\2", b"\x7e\0", b"\xff" * 10])
def test_a_message_that_is_not_there_rejects_the_record(index: bytes) -> None:
    assert seen(SOURCE, record(0, framed(2, index))) == Seen([], [(0, 0, "wrong_shape")])


def test_json_is_json() -> None:
    made = json.dumps({"time": NOON, "took": {"ms": "12.5"}, "status": 500}).encode()
    assert seen(SOURCE, record(0, framed(3, made))) == Seen([replace(EVENT, outcome="failed")])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "wrong_shape"),
        (b"\0\0\0\0", "wrong_shape"),
        (b"\1" + avro()[1:], "wrong_shape"),
        (b'{"time":1}', "wrong_shape"),
        (framed(9, b"{}"), "unsupported"),
        (framed(2**32 - 1, b""), "unsupported"),
        (framed(1, b""), "wrong_shape"),
        (avro()[:-1], "wrong_shape"),
        (avro() + b"\0", "wrong_shape"),
        (framed(1, b"\0\2\x04\xff\xff"), "wrong_shape"),
        (framed(1, b"\0\x7e"), "wrong_shape"),
        (framed(1, b"\0\2" + b"\xff" * 9 + b"\x7f"), "wrong_shape"),
        (framed(2, b"\2\2\xff"), "wrong_shape"),
        (framed(2, b"\2\2\x0a\1\x08"), "wrong_shape"),
        (framed(3, b""), "not_json"),
        (framed(3, b"[]"), "wrong_shape"),
    ],
)
def test_what_is_not_of_its_schema_is_rejected_and_its_neighbours_are_not(value: bytes, reason: str) -> None:
    assert seen(SOURCE, record(0, avro()), record(1, value), record(2, avro())) == Seen([EVENT] * 2, [(1, 0, reason)])


def doubling(levels: int) -> bytes:
    """Records of which each has the next one twice, the last a null: two to the power of levels in no bytes."""
    kind: object = "null"
    for level in range(levels):
        fields = [{"name": "a", "type": kind}, {"name": "b", "type": f"R{level - 1}" if level else "null"}]
        kind = {"type": "record", "name": f"R{level}", "fields": fields}
    last = {"type": "record", "name": "Last", "fields": [{"name": "x", "type": kind}, {"name": "n", "type": "int"}]}
    return json.dumps(last).encode()


def chain(levels: int) -> bytes:
    """Records side by side, each of which has the one before it, so that each was seen before it is used."""
    fields = [
        {"name": f"f{level}", "type": {"type": "record", "name": f"R{level}", "fields": [
            {"name": "x", "type": f"R{level - 1}" if level else "int"},
        ]}}
        for level in range(levels)
    ]  # fmt: skip
    return json.dumps({"type": "record", "name": "All", "fields": fields}).encode()


def nested(levels: int) -> bytes:
    kind: object = "int"
    for _ in range(levels):
        kind = {"type": "array", "items": kind}
    return json.dumps(kind).encode()


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("1.avsc", b"{", "is no schema that can be used"),
        ("1.avsc", b'{"type": "record"}', "is no schema that can be used"),
        ("1.avsc", b'"unheard_of"', "is no schema that can be used"),
        ("1.avsc", b"[1]", "is no schema that can be used"),
        (
            "1.avsc",
            b'{"type": "record", "name": "N", "fields": [{"name": "next", "type": ["null", "N"]}]}',
            "N contains itself, so that a record could be nested without end",
        ),
        (
            "1.avsc",
            b'{"type": "record", "name": "a.N", "fields": [{"name": "x", "type": {"type": "map", "values": "N"}}]}',
            "a.N contains itself",
        ),
        (
            "1.avsc",
            b'{"type": "array", "items": {"type": "record", "name": "E", "fields": [{"name": "x", "type": "null"}]}}',
            "it has a list of items that take no bytes",
        ),
        ("1.avsc", b'{"type": "fixed", "name": "F", "size": "4"}', "a fixed of the size '4'"),
        ("1.avsc", b'{"type": "array", "items": {"type": "fixed", "name": "F", "size": -1}}', "a fixed of the size -1"),
        ("1.avsc", b'{"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}}', "that take no bytes"),
        ("1.avsc", b'{"type": "record", "name": "N", "fields": 5}', "is no schema that can be used"),
        ("1.avsc", b"[]", "is no schema that can be used"),
        pytest.param("1.avsc", b"[" * 100_000, "is no schema that can be used", id="deep_json"),
        pytest.param("1.avsc", nested(DEEPEST), "levels deep", id="deep"),
        pytest.param("1.avsc", chain(DEEPEST), "levels deep", id="deep_by_name"),
        pytest.param("1.avsc", doubling(14), f"more than {MOST_VALUES} values", id="wide"),
        pytest.param("1.avsc", doubling(60), f"more than {MOST_VALUES} values", id="so_wide_that_it_takes_for_ever"),
        pytest.param(
            "1.avsc", b'{"type":"array","items":%b}' % doubling(14), f"more than {MOST_VALUES} values", id="wide_items"
        ),
        ("2.desc", b"\xff", "is no schema that can be used"),
        ("2.desc", b"", "is no schema that can be used"),
        ("3.json", b"{", "is no schema that can be used"),
        ("order.avsc", b'"int"', "is not named after a schema id of its own, as in 42.avsc"),
        ("2147483648.avsc", b'"int"', "is not named after a schema id of its own, as in 42.avsc"),
        ("01.json", b"{}", ""),
        ("readme.md", b"", "holds no schemas"),
    ],
)
def test_a_folder_of_schemas_is_checked_before_anything_is_read(
    name: str, content: bytes, why: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    if not why:
        assert schema_files.load(str(tmp_path)).known.find(1) is not None
        return
    with pytest.raises(Refused) as caught:
        schema_files.load(str(tmp_path))
    assert why in str(caught.value)


def test_the_files_are_read_once_and_what_they_hold_is_part_of_what_a_rule_means(tmp_path: Path) -> None:
    """Two replicas with other files under one revision would decode differently, and nobody would know."""
    alert = {"surface": "surface", "when": "request_count > 5", "window": "5m", "severity": "page"}
    hashes = []
    for name, content in (("one", '"int"'), ("same", '"int"'), ("other", '"long"')):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "1.avsc").write_text(content)
        config = config_of({"format": "registry", "schemas": str(folder)}, alerts={"A": alert})
        hashes.append((config.rules.hash, config.rules.rules["A"].definition))
        (folder / "1.avsc").unlink()
        SourceDecoder(config.sources["events"])  # a take-over reads no files
    assert hashes[0] == hashes[1]
    assert all(mine != theirs for mine, theirs in zip(hashes[0], hashes[2], strict=True))


@pytest.mark.parametrize(
    ("schema", "payload", "value"),
    [
        ('["null", "shop.Took"]', b"\2\4", {"ms": 2}),
        ('{"type": "array", "items": "shop.Took"}', b"\2\4\0", [{"ms": 2}]),
        ('"shop.Took"', b"\4", {"ms": 2}),
        ('{"type": "record", "name": "R", "fields": [{"name": "t", "type": "shop.Took"}]}', b"\4", {"t": {"ms": 2}}),
        ('{"type": "record", "name": "R", "namespace": "shop", "fields": [{"name": "t", "type": "Took"}]}', b"\4",
         {"t": {"ms": 2}}),
        ('{"type": "map", "values": "Bare"}', b"\2\2k\0\0", {"k": "A"}),
        ('"int"', b"\4", 2),
    ],
)  # fmt: skip
def test_a_schema_of_any_kind_may_refer_to_others(schema: str, payload: bytes, value: object) -> None:
    took = '{"type": "record", "name": "Took", "namespace": "shop", "fields": [{"name": "ms", "type": "int"}]}'
    bare_name = '{"type": "enum", "name": "Bare", "symbols": ["A"]}'
    assert schema_of_avro(schema, [took, bare_name])(())(payload) == value


def test_two_files_of_one_id_are_refused(tmp_path: Path) -> None:
    for name in ("1.avsc", "1.json"):
        (tmp_path / name).write_text('"int"')
    with pytest.raises(Refused, match="is not named after a schema id of its own"):
        schema_files.load(str(tmp_path))


def with_an_any(name: str) -> FileDescriptorSet:
    """A message whose first field is an Any."""
    any_file, ours = FileDescriptorProto(), FileDescriptorProto(name="ours.proto", syntax="proto3")
    any_pb2.DESCRIPTOR.CopyToProto(any_file)
    ours.dependency.append(any_file.name)
    field = ours.message_type.add(name="Request").field.add(
        name="detail", number=1, label=FieldDescriptorProto.LABEL_OPTIONAL, type=FieldDescriptorProto.TYPE_MESSAGE
    )
    field.type_name = name
    return FileDescriptorSet(file=[any_file, ours])


@pytest.mark.parametrize("name", ["google.protobuf.Any", ".google.protobuf.Any"])
@pytest.mark.parametrize("wrapped", ["google.protobuf.Any", "google.protobuf.Duration", "shop.Unheard", ""])
def test_what_an_any_wraps_stays_bytes_whatever_types_this_process_knows(
    wrapped: str, name: str, tmp_path: Path
) -> None:
    (tmp_path / "1.desc").write_bytes(with_an_any(name).SerializeToString())
    source = {"format": "registry", "schemas": str(tmp_path), "fields": {"time": "record.timestamp"}}
    detail = any_pb2.Any(type_url=f"type.googleapis.com/{wrapped}", value=b"\xff")
    for _ in range(500):
        detail = any_pb2.Any(type_url=detail.type_url, value=detail.SerializeToString())
    body = detail.SerializeToString()
    payload = b"\x0a" + varint(len(body)) + body
    (event,) = seen(source, record(0, framed(1, b"\0" + payload)), group_by=["detail.type_url"]).events
    assert event.group == (f"type.googleapis.com/{wrapped}",)


def varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        number, out = number >> 7, out + bytes([number & 0x7F | 0x80])
    return out + bytes([number])


def test_what_nobody_asks_for_of_a_protobuf_payload_is_not_looked_at() -> None:
    """But a trace id, which is read when the event ends as evidence, is: then it is too late to find it broken."""
    value = protobuf(time="2026-01-28T12:00:00Z", status=200) + b"\x12\1\xff"  # a route of no letters
    named = {**SOURCE, "fields": {**SOURCE["fields"], "trace_id": "route"}}
    assert seen(SOURCE, record(0, value)) == Seen([Event()])
    assert seen(SOURCE, record(0, value), group_by=["route"]) == Seen([], [(0, 0, "wrong_shape")])
    assert seen(named, record(0, value)) == Seen([], [(0, 0, "wrong_shape")])


def order() -> tuple[bytes, bytes, bytes]:
    """A schema of orders, each with items of thirty texts; what an item is, and an order's number and its time."""
    file = FileDescriptorProto(name="order.proto", package="shop", syntax="proto3")
    item = file.message_type.add(name="Item")
    for number in range(1, 31):
        item.field.add(name=f"text_{number}", number=number, label=FieldDescriptorProto.LABEL_OPTIONAL,
                       type=FieldDescriptorProto.TYPE_STRING)  # fmt: skip
    message = file.message_type.add(name="Order")
    items = message.field.add(name="items", number=1, label=FieldDescriptorProto.LABEL_REPEATED,
                              type=FieldDescriptorProto.TYPE_MESSAGE)  # fmt: skip
    items.type_name = ".shop.Item"
    message.field.add(name="status", number=2, label=FieldDescriptorProto.LABEL_OPTIONAL,
                      type=FieldDescriptorProto.TYPE_INT32)  # fmt: skip
    return file.SerializeToString(), b"\x0a\0", b"\x10\x07"


@pytest.mark.parametrize("path", ["status", "items.text_1", "items.text_1.more"])
def test_items_of_two_bytes_that_nobody_asks_for_become_no_values(path: str) -> None:
    file, item, status = order()
    decode = schema_of_protobuf([file])((tuple(path.split(".")),))
    payload = b"\2\2" + item * 200_000 + status
    decode(b"\2\2")  # what is made once
    found, peak = measured(lambda: decode(payload))
    assert found == ({"status": 7} if path == "status" else {"items": []})
    assert peak < 2 * len(payload) + 100_000


def test_items_that_are_asked_for_as_they_are_are_refused_before_they_fill_the_memory() -> None:
    file, item, status = order()
    decode = schema_of_protobuf([file])((("items",), ("status",)))
    found = decode(b"\2\2" + item * 2 + status)
    assert found == {"items": [{f"text_{number}": "" for number in range(1, 31)}] * 2, "status": 7}
    refused, peak = measured(lambda: decode(b"\2\2" + item * 2_000_000))
    assert isinstance(refused, Fault)
    assert refused.reason is Reason.TOO_LARGE
    assert peak < 10_000_000


def measured(work: Callable[[], object]) -> tuple[object, int]:
    """What it gives, and the bytes that Python took for it at most."""
    tracemalloc.start()
    try:
        return work(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def nulls(fields: int) -> dict[str, Any]:
    """A record of a byte, and of many values that take none."""
    kinds = [{"name": "b", "type": "boolean"}, *({"name": f"n{n}", "type": "null"} for n in range(fields))]
    return {"type": "record", "name": "R", "fields": kinds}


def of(*kinds: object) -> dict[str, Any]:
    return {"type": "record", "name": "R", "fields": [{"name": f"f{n}", "type": kind} for n, kind in enumerate(kinds)]}


@pytest.mark.parametrize(
    ("items", "item"),
    [
        pytest.param(nulls(98), b"\1", id="nulls"),
        pytest.param(of("boolean"), b"\1", id="one_field"),
        pytest.param(of("boolean", "int", "string"), b"\1\2\0", id="three_fields"),
        pytest.param(of(*[["null", "int"]] * 6), b"\0" * 6, id="six_nullable_fields"),
        pytest.param(of(*["boolean"] * 11), b"\1" * 11, id="eleven_fields"),
        pytest.param(of(*["boolean"] * 43), b"\1" * 43, id="forty_three_fields"),
        pytest.param(["null", of("boolean")], b"\2\1", id="a_record_or_nothing"),
        pytest.param({"type": "array", "items": "int"}, b"\0", id="lists_of_nothing"),
        pytest.param({"type": "map", "values": "int"}, b"\0", id="maps_of_nothing"),
        pytest.param("null_or_int", b"\0", id="nothing"),
        pytest.param("int", b"\xff\x7f", id="two_byte_numbers"),
        pytest.param("long", b"\xff\xff\x7f", id="three_byte_numbers"),
        pytest.param("double", b"\1" * 8, id="doubles"),
        pytest.param("float", b"\1" * 4, id="floats"),
        pytest.param("string", b"\0", id="empty_texts"),
        pytest.param("string", b"\4ab", id="short_texts"),
        pytest.param("string", b"\x08\xc4\x85aa", id="texts_of_other_letters"),
        pytest.param("bytes", b"\4ab", id="short_bytes"),
        pytest.param(["string"], b"\0\4ab", id="unions_of_one"),
        pytest.param({"type": "fixed", "name": "F", "size": 2}, b"ab", id="fixed_bytes"),
    ],
)
def test_memory_is_told_from_the_schema_and_the_length_before_anything_is_decoded(items: Any, item: bytes) -> None:
    """Never less than it is; and not much more, for else good records were refused."""
    items = ["null", "int"] if items == "null_or_int" else items
    schema = json.dumps({"type": "array", "items": items})
    decode, count = schema_of_avro(schema)(()), 20_000
    payload = varint(2 * count) + item * count + b"\0"
    found, peak = measured(lambda: decode(payload))
    assert isinstance(found, list)
    assert len(found) == count
    told = parse(schema)[1].most(len(payload))
    assert peak <= told <= 12 * peak


def test_a_map_of_many_small_items_fits_in_what_is_told() -> None:
    schema, count = json.dumps({"type": "map", "values": "null"}), 20_000
    payload = varint(2 * count) + b"".join(b"\x0a%05d" % number for number in range(count)) + b"\0"
    found, peak = measured(lambda: schema_of_avro(schema)(())(payload))
    assert isinstance(found, dict)
    assert len(found) == count
    assert peak <= parse(schema)[1].most(len(payload))


def test_a_payload_whose_values_might_not_fit_in_memory_is_too_large() -> None:
    """A schema of nulls is no fault as long as the lists are short: it is what the bytes may become that counts."""
    schema = json.dumps({"type": "record", "name": "All", "fields": [
        {"name": "items", "type": {"type": "array", "items": nulls(98)}},
    ]})  # fmt: skip
    decode = schema_of_avro(schema)(())
    found = decode(varint(4) + b"\1\1" + b"\0")
    assert found == {"items": [{"b": True, **{f"n{n}": None for n in range(98)}}] * 2}
    refused, peak = measured(lambda: decode(varint(8_000_000) + b"\1" * 4_000_000 + b"\0"))
    assert isinstance(refused, Fault)
    assert refused.reason is Reason.TOO_LARGE
    assert peak < 10_000_000


@pytest.mark.parametrize(
    "items",
    [
        of("string", "long", "double"),
        of(*[["null", "string"]] * 50),
        of(["null", of("long", "string", "boolean")], ["null", "string"], "int"),
        {"type": "map", "values": of("string", "long", "double")},
        ["null", "string"],
        {"type": "array", "items": "double"},
    ],
)
def test_lists_of_what_people_write_are_read_up_to_the_largest_record(items: Any) -> None:
    _, extent = parse(json.dumps({"type": "array", "items": renamed(items)}))
    assert extent.most(4 << 20) <= MOST_MEMORY


def renamed(kind: Any) -> Any:
    """The same with a name of its own for each record."""
    numbers = itertools.count()

    def walk(node: Any) -> Any:
        if isinstance(node, dict):
            own = {"name": f"R{next(numbers)}"} if node.get("type") == "record" else {}
            return {**{key: walk(each) for key, each in node.items()}, **own}
        return [walk(each) for each in node] if isinstance(node, list) else node

    return walk(kind)


def test_a_descriptor_without_what_it_imports_is_refused(tmp_path: Path) -> None:
    files = FileDescriptorSet.FromString((SCHEMAS / "2.desc").read_bytes()).file
    (tmp_path / "1.desc").write_bytes(FileDescriptorSet(file=files[1:]).SerializeToString())
    with pytest.raises(Refused, match="is no schema that can be used"):
        schema_files.load(str(tmp_path))

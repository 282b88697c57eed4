"""Confluent's wire format: the schema by its id, the payload by the schema, the object as json."""

from __future__ import annotations

import io
import json
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
from evaluator.wire.config.finding import Refused
from evaluator.wire.decode import SourceDecoder
from evaluator.wire.payload_schema import DEEPEST, MOST_VALUES
from evaluator.wire.payload_schema import avro as decoder_of_avro

if TYPE_CHECKING:
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
        (framed(2, b"\2\2\x12\1\xff"), "wrong_shape"),
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
        pytest.param("1.avsc", b'{"type":"array","items":%b}' % doubling(9), "whose items may be", id="wide_items"),
        ("2.desc", b"\xff", "is no schema that can be used"),
        ("2.desc", b"", "is no schema that can be used"),
        ("3.json", b"{", "is no schema that can be used"),
        ("order.avsc", b'"int"', "is not named after a schema id of its own, as in 42.avsc"),
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
    assert decoder_of_avro(schema, [took, bare_name])(payload) == value


def test_two_files_of_one_id_are_refused(tmp_path: Path) -> None:
    for name in ("1.avsc", "1.json"):
        (tmp_path / name).write_text('"int"')
    with pytest.raises(Refused, match="is not named after a schema id of its own"):
        schema_files.load(str(tmp_path))


def with_an_any() -> FileDescriptorSet:
    """A message whose first field is an Any."""
    any_file, ours = FileDescriptorProto(), FileDescriptorProto(name="ours.proto", syntax="proto3")
    any_pb2.DESCRIPTOR.CopyToProto(any_file)
    ours.dependency.append(any_file.name)
    field = ours.message_type.add(name="Request").field.add(
        name="detail", number=1, label=FieldDescriptorProto.LABEL_OPTIONAL, type=FieldDescriptorProto.TYPE_MESSAGE
    )
    field.type_name = ".google.protobuf.Any"
    return FileDescriptorSet(file=[any_file, ours])


@pytest.mark.parametrize("wrapped", ["google.protobuf.Any", "google.protobuf.Duration", "shop.Unheard", ""])
def test_what_an_any_wraps_stays_bytes_whatever_types_this_process_knows(wrapped: str, tmp_path: Path) -> None:
    (tmp_path / "1.desc").write_bytes(with_an_any().SerializeToString())
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


def test_a_descriptor_without_what_it_imports_is_refused(tmp_path: Path) -> None:
    files = FileDescriptorSet.FromString((SCHEMAS / "2.desc").read_bytes()).file
    (tmp_path / "1.desc").write_bytes(FileDescriptorSet(file=files[1:]).SerializeToString())
    with pytest.raises(Refused, match="is no schema that can be used"):
        schema_files.load(str(tmp_path))

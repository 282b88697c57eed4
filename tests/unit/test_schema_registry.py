"""A schema registry over HTTP: each schema is asked for once, and a registry that is away is no fault of the record.

What is decoded depends on what is known, and never on who else reads, or on how a registry says what it says.
"""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from support.decoded import NOON, SCHEMAS, Event, Seen, config_of, record, seen, seen_by, source_of
from unit.test_format_registry import avro, framed, protobuf

from evaluator.core.event import SeriesTable
from evaluator.errors import SchemasMissing, SchemasUnavailable
from evaluator.runtime.clock import VirtualClock, VirtualLoop
from evaluator.runtime.inquiry import Inquiry, connected
from evaluator.runtime.registries import MOST_IDS, Registries, learn_named
from evaluator.wire.config.model import RegistryConfig
from evaluator.wire.decode import SourceDecoder, schemas_missing
from evaluator.wire.schema_registry import MOST_REFERENCES
from evaluator.wire.schemas import AGAIN_S, FEW_ABSENT, MOST_ABSENT, MOST_ID, Schemas, none_under

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from http.client import HTTPConnection
    from pathlib import Path

    from evaluator.wire.config.model import SourceConfig

Answers = dict[str, Any]
EVENT = Event(latency=12_500)


class Registry(ThreadingHTTPServer):
    """Answers by path, and keeps a journal of what it was asked; a path that is not there is unknown."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: Answers = {}
        self.journal: list[str] = []
        self.password: str | None = None
        self.hangs: threading.Event | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Registry

    def do_GET(self) -> None:
        self.server.journal.append(self.path)
        answer = self.server.answers.get(self.path)
        expected = self.server.password
        given = base64.b64decode(self.headers.get("Authorization", "").removeprefix("Basic ")).decode()
        status = 401 if expected is not None and given != expected else 404 if answer is None else 200
        if answer is None:
            answer = {"error_code": 40401 if self.path.startswith("/subjects") else 40403, "message": "not found"}
        if isinstance(answer, int):
            status = answer
        self.send_response(status)
        if status == 302:
            self.send_header("Location", f"{self.server.url}/elsewhere")
        self.end_headers()
        if self.server.hangs is not None:
            self.wfile.write(b" ")
            self.server.hangs.wait()
        self.wfile.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode())

    def log_message(self, *_: object) -> None:
        """Nothing: the journal is enough."""


@pytest.fixture
def registry() -> Iterator[Registry]:
    server = Registry()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def source(registry: Registry, **more: Any) -> dict[str, Any]:
    fields = {"time": "time", "latency": "took.ms", "latency_unit": "ms", "failed": {"status": ">= 500"}}
    return {"format": "registry", "schemas": {"url": registry.url, **more}, "fields": fields}


AVRO = {"schema": (SCHEMAS / "1.avsc").read_text()}


def test_a_schema_is_asked_for_once_and_so_is_one_that_is_not_there(registry: Registry) -> None:
    registry.answers["/schemas/ids/1"] = AVRO
    values = [avro(), framed(9, b""), avro(), framed(9, b""), avro()]
    found = seen(source(registry), *(record(n, value) for n, value in enumerate(values)))
    assert found == Seen([EVENT] * 3, [(1, 0, "unsupported"), (3, 0, "unsupported")])
    assert registry.journal == ["/schemas/ids/1", "/schemas/ids/9"]


def test_a_schema_of_avro_may_refer_to_others(registry: Registry) -> None:
    took = {"type": "record", "name": "Took", "namespace": "shop", "fields": [{"name": "ms", "type": "double"}]}
    types = {"time": "long", "took": "shop.Took", "status": "int"}
    fields = [{"name": name, "type": kind} for name, kind in types.items()]
    request = {"type": "record", "name": "Request", "namespace": "shop", "fields": fields}
    reference = {"name": "shop.Took", "subject": "shop/took", "version": 3}
    registry.answers["/schemas/ids/7"] = {"schema": json.dumps(request), "references": [reference, reference]}
    registry.answers["/subjects/shop%2Ftook/versions/3"] = {"schema": json.dumps(took)}
    payload = zigzag(NOON) + b"\0\0\0\0\0\0\x29\x40" + b"\x90\x03"
    assert seen(source(registry), record(0, framed(7, payload))) == Seen([EVENT])
    assert registry.journal == ["/schemas/ids/7", "/subjects/shop%2Ftook/versions/3"]


def zigzag(number: int) -> bytes:
    number, out = number << 1, b""
    while number > 0x7F:
        number, out = number >> 7, out + bytes([number & 0x7F | 0x80])
    return out + bytes([number])


def test_protobuf_comes_as_a_descriptor_with_what_it_imports(registry: Registry) -> None:
    ours = FileDescriptorSet.FromString((SCHEMAS / "2.desc").read_bytes()).file[-1]
    ours.name = ""
    registry.answers["/schemas/ids/2"] = {"schema": 'syntax = "proto3"; ...', "schemaType": "PROTOBUF"}
    registry.answers["/schemas/ids/2?format=serialized"] = {"schema": encoded(ours), "schemaType": "PROTOBUF"}
    made = protobuf(time="2026-01-28T12:00:00Z", duration_us="12500", status=500)
    fields = {"time": "time", "latency": "duration_us", "latency_unit": "us", "failed": {"status": ">= 500"}}
    found = seen({**source(registry), "fields": fields}, record(0, made), record(1, made))
    assert found == Seen([Event(outcome="failed", latency=12_500)] * 2)
    assert len(registry.journal) == 2


def encoded(file: FileDescriptorProto) -> str:
    return base64.b64encode(file.SerializeToString()).decode()


def test_protobuf_may_refer_to_other_files(registry: Registry) -> None:
    kinds = FieldDescriptorProto
    other = FileDescriptorProto(package="shop", syntax="proto3")
    other.message_type.add(name="Took").field.add(
        name="ms", number=1, label=kinds.LABEL_OPTIONAL, type=kinds.TYPE_DOUBLE
    )
    main = FileDescriptorProto(package="shop", syntax="proto3", dependency=["shop/took.proto"])
    message = main.message_type.add(name="Request")
    took = message.field.add(name="took", number=1, label=kinds.LABEL_OPTIONAL, type=kinds.TYPE_MESSAGE)
    took.type_name = ".shop.Took"
    reference = {"name": "shop/took.proto", "subject": "took", "version": 1}
    answer = {"schema": encoded(main), "schemaType": "PROTOBUF", "references": [reference]}
    registry.answers |= {
        "/schemas/ids/5": answer, "/schemas/ids/5?format=serialized": answer,
        "/subjects/took/versions/1?format=serialized": {"schema": encoded(other)},
    }  # fmt: skip
    payload = b"\0" + b"\x0a\x09\x09\0\0\0\0\0\0\x29\x40"
    fields = {"time": "record.timestamp", "latency": "took.ms", "latency_unit": "ms"}
    found = seen({**source(registry), "fields": fields}, record(0, framed(5, payload)))
    assert found == Seen([Event(outcome="unknown", latency=12_500)])


def test_json_needs_no_schema_but_that_there_is_one(registry: Registry) -> None:
    registry.answers["/schemas/ids/3"] = {"schema": "{}", "schemaType": "JSON"}
    value = framed(3, json.dumps({"time": NOON, "took": {"ms": 12.5}, "status": 200}).encode())
    assert seen(source(registry), record(0, value)) == Seen([EVENT])


@pytest.mark.parametrize(
    "answer",
    [
        {"schema": "{"},
        {"schema": '"unheard_of"'},
        {"schema": '{"type": "record", "name": "N", "fields": [{"name": "n", "type": ["null", "N"]}]}'},
        {"schema": '"int"', "references": [{}]},
        {"schema": '"int"', "references": ["x"]},
        {"schema": '"int"', "references": 5},
        {"schema": "[" * 100_000},
        {"schema": "{}", "schemaType": "XML"},
    ],
)
def test_a_schema_that_cannot_be_used_rejects_its_records_and_is_not_asked_for_again(
    answer: Answers, registry: Registry
) -> None:
    registry.answers["/schemas/ids/4"] = answer
    found = seen(source(registry), record(0, framed(4, b"")), record(1, framed(4, b"")))
    assert found == Seen([], [(0, 0, "unsupported"), (1, 0, "unsupported")])
    assert registry.journal.count("/schemas/ids/4") == 1


@pytest.mark.parametrize(
    "answer",
    [
        500, 503, 429, 404, 302, b"<html>", b"[]", b"{}", {"schema": 5}, pytest.param(b"[" * 100_000, id="deep"),
    ],
)  # fmt: skip
def test_a_registry_that_does_not_answer_is_no_fault_of_the_record(answer: Any, registry: Registry) -> None:
    registry.answers["/schemas/ids/1"] = answer
    with pytest.raises(SchemasUnavailable, match="cannot read http://127"):
        seen(source(registry), record(0, avro()))


def test_a_404_without_a_word_about_the_schema_is_asked_again(registry: Registry) -> None:
    """It may be that of a proxy, of another path, or of a registry that has not read its own topic yet."""
    config = source_of(source(registry))
    registry.answers["/schemas/ids/1"] = 404
    with pytest.raises(SchemasUnavailable, match="status 404"):
        seen_by(config, record(0, avro()))
    registry.answers["/schemas/ids/1"] = AVRO
    assert seen_by(config, record(0, avro())) == Seen([EVENT])


def test_a_password_does_not_follow_to_where_an_answer_points(registry: Registry, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("s3cret")
    registry.answers["/schemas/ids/1"] = 302
    registry.answers["/elsewhere"] = AVRO
    registry.password = "reader:s3cret"
    with pytest.raises(SchemasUnavailable, match="status 302"):
        seen(source(registry, username="reader", password_file=str(file)), record(0, avro()))
    assert registry.journal == ["/schemas/ids/1"]


def test_schemas_that_refer_to_each_other_in_a_circle_cannot_be_used(registry: Registry) -> None:
    registry.answers["/schemas/ids/4"] = {"schema": '"a.A"', "references": [ref("a.A", "a")]}
    registry.answers["/subjects/a/versions/1"] = {"schema": named("A", '"a.B"'), "references": [ref("a.B", "b")]}
    registry.answers["/subjects/b/versions/1"] = {"schema": named("B", '"a.A"'), "references": [ref("a.A", "a")]}
    assert seen(source(registry), record(0, framed(4, b""))) == Seen([], [(0, 0, "unsupported")])
    assert len(registry.journal) == 3


def test_references_without_end_cannot_be_used(registry: Registry) -> None:
    for number in range(MOST_REFERENCES + 5):
        more = {"references": [ref(f"a.R{number + 1}", f"s{number + 1}")]}
        registry.answers[f"/subjects/s{number}/versions/1"] = {"schema": named(f"R{number}", '"int"'), **more}
    registry.answers["/schemas/ids/4"] = {"schema": '"int"', "references": [ref("a.R0", "s0")]}
    assert seen(source(registry), record(0, framed(4, b""))) == Seen([], [(0, 0, "unsupported")])
    assert len(registry.journal) == MOST_REFERENCES + 1


def ref(name: str, subject: str) -> Answers:
    return {"name": name, "subject": subject, "version": 1}


def named(name: str, kind: str) -> str:
    return f'{{"type":"record","name":"{name}","namespace":"a","fields":[{{"name":"x","type":{kind}}}]}}'


@pytest.mark.parametrize(
    ("imported", "reason"),
    [
        ("google/protobuf/type.proto", ""),  # which imports another that imports nothing
        ("google/protobuf/unheard.proto", "unsupported"),
        ("google/protobuf/../../os.proto", "unsupported"),
    ],
)
def test_files_that_protobuf_brings_along_are_there_with_all_that_they_import(
    imported: str, reason: str, registry: Registry
) -> None:
    file = FileDescriptorProto(package="shop", syntax="proto3", dependency=[imported])
    file.message_type.add(name="Request")
    answer = {"schema": encoded(file), "schemaType": "PROTOBUF"}
    registry.answers |= {"/schemas/ids/5": answer, "/schemas/ids/5?format=serialized": answer}
    config = {**source(registry), "fields": {"time": "record.timestamp"}}
    found = seen(config, record(0, framed(5, b"\0")))
    assert found.rejections == ([(0, 0, reason)] if reason else [])


def test_a_decoder_asks_nobody(registry: Registry) -> None:
    """Neither for events nor, at a commit, for their trace ids: it says what is missing before anything is counted."""
    config = source_of({**source(registry), "fields": {"time": "time", "trace_id": "route"}})
    decoder, table = SourceDecoder(config), SeriesTable({"surface": 10})
    records = [record(0, avro()), record(1, framed(9, b"")), record(2, avro())]
    with pytest.raises(SchemasMissing) as caught:
        decoder.check(records)
    assert caught.value.ids == [1, 9]
    registry.answers["/schemas/ids/1"] = AVRO
    learn_named(config, [each.value for each in records])
    decoder.check(records)
    registry.answers.clear()
    batch = decoder.decode(records, table, None).events
    assert batch.trace_ids([0, 1]) == ["/pay", "/pay"]
    assert registry.journal == ["/schemas/ids/1", "/schemas/ids/9"]


def test_ids_of_nothing_are_forgotten_before_they_fill_the_memory() -> None:
    schemas = Schemas()
    for schema in range(MOST_ABSENT + 1):
        schemas.learn(schema, none_under(schema))
    assert schemas.missing([0, 1, MOST_ABSENT]) == [0]


def registries_of(config: SourceConfig, **more: Any) -> tuple[Registries, VirtualLoop]:
    """The registry of one source, and the loop whose time is moved by hand: nothing runs on it."""
    loop = VirtualLoop()
    loop.close()
    return Registries({"events": config}, VirtualClock(loop), **more), loop


async def test_a_schema_that_is_registered_behind_its_first_record_is_found_after_a_minute(registry: Registry) -> None:
    config = source_of(source(registry))
    registries, time = registries_of(config)
    await registries.learn("events", [1])
    registry.answers["/schemas/ids/1"] = AVRO
    assert seen_by(config, record(0, avro())) == Seen([], [(0, 0, "unsupported")])
    time.advance(AGAIN_S - 1)
    assert seen_by(config, record(0, avro())) == Seen([], [(0, 0, "unsupported")])
    assert registry.journal == ["/schemas/ids/1"]
    time.advance(1)
    assert schemas_missing(config, [avro()]) == [1]
    await registries.learn("events", [1])
    assert seen_by(config, record(0, avro())) == Seen([EVENT])
    time.advance(AGAIN_S)
    assert seen_by(config, record(0, avro())) == Seen([EVENT])
    assert registry.journal == ["/schemas/ids/1"] * 2


@pytest.mark.parametrize(
    ("answers", "late"),
    [
        ({"/schemas/ids/1": {**AVRO, "references": [{"name": "x", "subject": "late", "version": 1}]}},
         {"/subjects/late/versions/1": {"schema": '{"type": "fixed", "name": "x", "size": 1}'}}),
        ({"/schemas/ids/1": {"schema": "", "schemaType": "PROTOBUF"}}, {"/schemas/ids/1": AVRO}),
    ],
    ids=["a_reference", "the_descriptor_of_protobuf"],
)  # fmt: skip
async def test_what_a_schema_needs_and_is_not_there_yet_is_asked_for_again_after_a_minute(
    answers: Answers, late: Answers, registry: Registry
) -> None:
    config = source_of(source(registry))
    registries, time = registries_of(config)
    registry.answers |= answers
    await registries.learn("events", [1])
    assert seen_by(config, record(0, avro())) == Seen([], [(0, 0, "unsupported")])
    registry.answers |= late
    time.advance(AGAIN_S)
    await registries.learn("events", schemas_missing(config, [avro()]))
    assert seen_by(config, record(0, avro())) == Seen([EVENT])


def test_what_is_asked_for_again_is_still_absent_for_who_has_looked_already() -> None:
    """Between the look at what is missing and the decoding time may pass; nothing is half decoded for it."""
    schemas, times = Schemas(), [0.0]
    schemas.clock = lambda: times[0]
    schemas.learn(7, none_under(7))
    assert schemas.missing([7]) == []
    times[0] = AGAIN_S
    assert schemas.find(7) == none_under(7)
    assert schemas.missing([7]) == [7]


def test_a_fetch_of_nothing_but_garbage_ends_however_slowly_a_registry_answers() -> None:
    """One id a second: the first ones have not to be asked again before the last are."""
    schemas, now = Schemas(), 0.0
    schemas.clock = lambda: now
    garbage = range(20 * FEW_ABSENT)
    asked = 0
    while missing := schemas.missing(garbage)[:1]:
        asked, now = asked + 1, now + 1
        assert asked <= len(garbage)
        schemas.learn(*missing, none_under(*missing))
    assert asked == len(garbage)
    now += 20 * AGAIN_S
    assert schemas.missing(garbage) == list(garbage)


def test_garbage_of_long_ago_does_not_keep_a_schema_away() -> None:
    schemas, times = Schemas(), [0.0]
    schemas.clock = lambda: times[0]
    for schema in range(1000, 6000):
        schemas.learn(schema, none_under(schema))
    times[0] = 86_400.0
    schemas.learn(7, none_under(7))
    times[0] += AGAIN_S - 1
    assert schemas.missing([7]) == []
    times[0] += 1
    assert schemas.missing([7]) == [7]


@pytest.mark.parametrize("schema", [MOST_ID + 1, 2**32 - 1])
def test_an_id_that_no_registry_can_have_is_nobodys_and_nobody_is_asked(schema: int, registry: Registry) -> None:
    registry.answers["/schemas/ids/1"] = AVRO
    found = seen(source(registry), record(0, avro()), record(1, framed(schema, b"")), record(2, avro()))
    assert found == Seen([EVENT] * 2, [(1, 0, "unsupported")])
    assert registry.journal == ["/schemas/ids/1"]


def test_the_largest_id_is_asked_for(registry: Registry) -> None:
    registry.answers[f"/schemas/ids/{MOST_ID}"] = AVRO
    assert seen(source(registry), record(0, framed(MOST_ID, avro()[5:]))) == Seen([EVENT])


async def test_who_waits_says_for_which_schema_of_which_record(registry: Registry) -> None:
    """The address is wrong or the registry is: a person has to look, and perhaps at the record."""
    config = source_of(source(registry))
    registries, _ = registries_of(config)
    registry.answers |= {"/schemas/ids/1": AVRO, "/schemas/ids/9": 404}
    records = [record(5, avro()), record(6, None), record(7, framed(9, b"")), record(8, framed(9, b""))]
    learn = registries.lesson("events", [1, 9], records)
    await learn()  # of the two it has learned one
    with pytest.raises(SchemasUnavailable) as caught:
        await learn()
    assert (caught.value.schema, caught.value.offset) == (9, 7)
    assert str(caught.value).startswith(f"cannot read {registry.url}/schemas/ids/9: status 404")


async def test_a_reference_that_cannot_be_had_is_told_by_the_schema_that_needs_it(registry: Registry) -> None:
    config = source_of(source(registry))
    registries, _ = registries_of(config)
    registry.answers |= {"/schemas/ids/1": {**AVRO, "references": [ref("x", "x")]}, "/subjects/x/versions/1": 503}
    with pytest.raises(SchemasUnavailable, match="subjects/x/versions/1: status 503") as caught:
        await registries.lesson("events", [1], [record(3, avro())])()
    assert (caught.value.schema, caught.value.offset) == (1, 3)


def test_who_is_told_to_end_while_connecting_asks_nothing(registry: Registry) -> None:
    """Else it would wait for an answer that drips, and with it the process when it ends."""

    def connect(url: str) -> HTTPConnection:
        inquiry.end()
        return connected(url)

    inquiry = Inquiry(RegistryConfig(registry.url), connect)
    with pytest.raises(SchemasUnavailable, match="it took too long"):
        inquiry.run([1])
    assert (registry.journal, inquiry.found) == ([], {})


async def test_partitions_that_wait_for_one_schema_ask_for_it_once(registry: Registry) -> None:
    registry.answers["/schemas/ids/1"] = AVRO
    config = source_of(source(registry))
    registries, _ = registries_of(config)
    await asyncio.gather(*(registries.learn("events", [1]) for _ in range(4)))
    assert registry.journal == ["/schemas/ids/1"]
    assert seen_by(config, record(0, avro())) == Seen([EVENT])


async def test_garbage_is_asked_for_a_few_ids_at_a_time(registry: Registry) -> None:
    config = source_of(source(registry))
    await registries_of(config)[0].learn("events", range(1000))
    assert len(registry.journal) == MOST_IDS


async def test_what_came_before_a_registry_went_away_is_known(registry: Registry) -> None:
    registry.answers |= {"/schemas/ids/1": AVRO, "/schemas/ids/2": 503}
    config = source_of(source(registry))
    registries, _ = registries_of(config)
    await registries.learn("events", [1, 2])
    assert seen_by(config, record(0, avro())) == Seen([EVENT])
    with pytest.raises(SchemasUnavailable, match="status 503"):
        await registries.learn("events", [1, 2])


async def test_a_registry_that_drips_is_given_up_after_a_while(registry: Registry) -> None:
    registry.answers["/schemas/ids/1"] = AVRO
    registry.hangs = threading.Event()
    config = source_of(source(registry))
    try:
        with pytest.raises(SchemasUnavailable, match="no answer within") as caught:
            await registries_of(config, deadline_s=0.05)[0].lesson("events", [1], [record(4, avro())])()
        assert (caught.value.schema, caught.value.offset) == (1, 4)
    finally:
        registry.hangs.set()


class Endless(Inquiry):
    """A conversation that does not end, whoever tells it to, until it is released."""

    def __init__(self, registry: RegistryConfig, journal: list[list[int]], released: threading.Event) -> None:
        super().__init__(registry)
        self.journal, self.released = journal, released

    def run(self, ids: Sequence[int]) -> None:
        self.journal.append(list(ids))
        self.released.wait()
        self.found = {schema: none_under(schema) for schema in ids}


async def test_a_registry_is_asked_by_one_thread_at_a_time_also_if_that_cannot_be_ended(registry: Registry) -> None:
    journal, released = list[list[int]](), threading.Event()
    config = source_of(source(registry))
    registries, _ = registries_of(config, deadline_s=0.2, inquire=lambda each: Endless(each, journal, released))
    try:
        with pytest.raises(SchemasUnavailable, match="no answer within"):
            await registries.learn("events", [1])
        with pytest.raises(SchemasUnavailable, match="has not ended yet") as caught:
            await registries.learn("events", [1])
        assert caught.value.schema == 1
        assert journal == [[1]]
    finally:
        released.set()
    await registries.learn("events", [1])
    assert journal == [[1], [1]]
    assert schemas_missing(config, [avro()]) == []


def test_sources_of_one_registry_share_what_is_known_of_it(registry: Registry) -> None:
    sources = {"other": {"topic": "o", **source(registry)}, "third": {"topic": "p", **source(registry, username="x",
               password_file="/x")}}  # fmt: skip
    config = config_of(source(registry), more_sources=sources)
    events, other, third = (config.sources[name].schemas for name in ("events", "other", "third"))
    assert isinstance(events, RegistryConfig)
    assert events is other
    assert events is not third


def test_a_registry_that_is_not_there_is_no_fault_of_the_record() -> None:
    gone = {"format": "registry", "schemas": {"url": "http://127.0.0.1:1"}}
    with pytest.raises(SchemasUnavailable, match="refused"):
        seen(gone, record(0, avro()))


def test_the_password_is_in_a_file(registry: Registry, tmp_path: Path) -> None:
    registry.answers["/schemas/ids/1"] = AVRO
    registry.password = "reader:s3cret"
    file = tmp_path / "password"
    file.write_text("s3cret\n")
    found = seen(source(registry, username="reader", password_file=str(file)), record(0, avro()))
    assert found == Seen([EVENT])
    for wrong in (source(registry), source(registry, username="reader", password_file=str(tmp_path / "gone"))):
        with pytest.raises(SchemasUnavailable) as caught:
            seen(wrong, record(0, avro()))
        assert "s3cret" not in str(caught.value)

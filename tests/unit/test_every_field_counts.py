"""A flip of any field that a format reads changes the event, or rejects or skips it: nothing is read for show.

A rule about deploys stands by wherever the format knows of deploys, so that scores, deploys and contexts are read too.
And each sample is read a second time behind itself, which tells by what it is known again.
"""

from __future__ import annotations

import base64
import copy
import json
import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support.decoded import DEPLOYS, NOON, Seen, record, seen_by, source_of
from support.payloads import ODD_VALUES
from support.spans import NOON_NS, attributes, request, span
from unit import test_format_checks as checks
from unit import test_format_cloudevents as cloudevents
from unit import test_format_lighthouse as lighthouse
from unit import test_format_registry as registry
from unit import test_format_supabase as supabase
from unit import test_format_vercel as vercel
from unit import test_presets as presets

from evaluator.wire import formats
from evaluator.wire.preset import PRESETS
from evaluator.wire.records import Record

if TYPE_CHECKING:
    from evaluator.wire.config.model import SourceConfig

Place = tuple[str | int, ...]


# -- how a sample becomes a record -----------------------------------------------------------------------------


def text_of(event: Any) -> str:
    return json.dumps(event, ensure_ascii=False)


def as_json(event: Any) -> Record:
    return record(0, text_of(event))


def as_later_json(event: Any) -> Record:
    """With a member that no schema has yet, which is read another way."""
    return record(0, text_of({**event, "later": {}}))


def as_headers(event: Any) -> Record:
    """A CloudEvent in binary mode. A header of None is left out."""
    headers = {name: text for name, text in event["headers"].items() if text is not None}
    return record(0, text_of(event["data"]), headers)


def as_spans(event: Any) -> Record:
    """A request of OTLP in protobuf, of whose JSON it has ids in base64."""
    told = copy.deepcopy(event)
    for each in told["resourceSpans"][0]["scopeSpans"][0]["spans"]:
        each |= {name: base64.b64encode(bytes.fromhex(each[name])).decode() for name in ("traceId", "spanId")}
    return record(0, ParseDict(told, ExportTraceServiceRequest()).SerializeToString())


def as_avro(event: Any) -> Record:
    return record(0, registry.avro(**event))


def as_protobuf(event: Any) -> Record:
    return record(0, registry.protobuf(**event))


def as_framed_json(event: Any) -> Record:
    return record(0, registry.framed(3, text_of(event).encode()))


TEXTS = {as_json, as_later_json, as_headers, as_framed_json}
"""In which anything may stand in a field. The others have types, and lengths before them."""

ENCODINGS: dict[str, set[Callable[[Any], Record]]] = {
    "otlp_json": {as_json, as_later_json},
    "otlp_proto": {as_spans},
    "otlp": {as_json, as_spans},
    "cloudevents": {as_json, as_headers},
    "registry": {as_avro, as_protobuf, as_framed_json},
}
"""Of formats that have another one than JSON, or several."""


# -- the samples -----------------------------------------------------------------------------------------------


class Sample(NamedTuple):
    """An event of a source, and for each place in it that is read another value.

    By what stands in `ids` it is known again. Those in `hidden` nothing else shows.
    """

    source: dict[str, Any]
    groups: list[str]
    event: Any
    flips: dict[Place, Any]
    ids: frozenset[Place] = frozenset()
    hidden: frozenset[Place] = frozenset()
    encode: Callable[[Any], Record] = as_json


def places(*some: Place) -> frozenset[Place]:
    return frozenset(some)


RESOURCE = ("resourceSpans", 0, "resource", "attributes", 0)
SCOPE = ("resourceSpans", 0, "scopeSpans", 0)
SPAN = (*SCOPE, "spans", 0)


def attribute(number: int) -> Place:
    return (*SPAN, "attributes", number, "value")


OTLP_GROUPS = ["service.name", "scope.name", "span.name", "tags", "share", "cached", "user.id", "raw"]
OTLP = request(span(traceState="ot=th:8", status={"code": 0}, attributes=[
    *attributes(http__response__status_code=200, http__status_code=200, tags=["a", "b"], share=0.5, cached=False,
                user={"id": "u1"}),
    {"key": "raw", "value": {"bytesValue": "AQ=="}},
]))  # fmt: skip
OTLP_FLIPS = {
    (*SPAN, "traceId"): "0" * 31 + "1", (*SPAN, "spanId"): "0" * 15 + "1", (*SPAN, "name"): "GET /", (*SPAN, "kind"): 3,
    (*SPAN, "startTimeUnixNano"): str(NOON_NS - 1), (*SPAN, "endTimeUnixNano"): str(NOON_NS + 1_000),
    (*SPAN, "traceState"): "ot=th:c", (*SPAN, "status", "code"): 2,
    (*attribute(0), "intValue"): "500", (*attribute(1), "intValue"): "500",
    (*attribute(2), "arrayValue", "values", 0, "stringValue"): "c", (*attribute(3), "doubleValue"): 0.25,
    (*attribute(4), "boolValue"): True, (*attribute(6), "bytesValue"): "Ag==",
    (*attribute(5), "kvlistValue", "values", 0, "value", "stringValue"): "u2",
    (*attribute(5), "kvlistValue", "values", 0, "key"): "ids",
    (*RESOURCE, "value", "stringValue"): "cart", (*RESOURCE, "key"): "service.names",
    (*SCOPE, "scope", "name"): "grpc", (*SCOPE, "spans"): [],
}  # fmt: skip


def otlp(name: str, encode: Callable[[Any], Record]) -> Sample:
    span_id = places((*SPAN, "spanId"))
    return Sample({"format": name}, OTLP_GROUPS, OTLP, OTLP_FLIPS, span_id, span_id, encode)


JSON = {
    "format": "json", "where": {"kind": "request"},
    "fields": {
        "time": "at", "latency": {"from": "sent", "to": "done"}, "failed": {"status": ">= 500"}, "weight": "count",
        "score": "rating", "deploy": "commit", "context": "made.for", "id": "id", "trace_id": "trace",
    },
}  # fmt: skip
DATA_FLIPS: dict[Place, Any] = {
    ("data", "took", "ms"): 13, ("data", "status"): 500, ("data", "route"): "/", ("data",): None,
}  # fmt: skip
HEADERS = {
    "content-type": "application/json", **{f"ce_{name}": value for name, value in cloudevents.attributes().items()}
}  # fmt: skip


def of_schemas(**fields: Any) -> dict[str, Any]:
    return {**registry.SOURCE, "fields": {**registry.SOURCE["fields"], "id": "id", **fields}}


SAMPLES: dict[str, Sample] = {
    "json": Sample(
        JSON, ["route"],
        {
            "kind": "request", "at": NOON, "sent": NOON - 20, "done": NOON - 5, "status": 200, "count": 2,
            "rating": 0.5, "commit": "4f2a9c1", "made": {"for": "pr"}, "id": "1", "trace": "t-1", "route": "/pay",
        },
        {
            ("kind",): "x", ("at",): NOON + 1, ("sent",): NOON - 21, ("done",): NOON - 4, ("status",): 500,
            ("count",): 3, ("rating",): 0.6, ("commit",): "77aa01b", ("made", "for"): "main", ("id",): "2",
            ("trace",): "t-2", ("route",): "/",
        },
        places(("id",)), places(("id",)),
    ),
    "otlp_json": otlp("otlp_json", as_json),
    "otlp_json of a later schema": otlp("otlp_json", as_later_json),
    "otlp_proto": otlp("otlp_proto", as_spans),
    "otlp as JSON": otlp("otlp", as_json),
    "otlp as protobuf": otlp("otlp", as_spans),
    "supabase": Sample(
        supabase.SOURCE, supabase.GROUPS, [supabase.edge_log()],
        {
            (0, "id"): "x", (0, "timestamp"): NOON * 1000, (0, "metadata", "execution_time_ms"): 133,
            (0, "metadata", "function_id"): None, (0, "metadata", "request", "method"): "GET",
            (0, "metadata", "version"): "8",
            (0, "metadata", "response", "status_code"): 500,
        },
        places((0, "id")),
    ),
    "vercel": Sample(
        vercel.SOURCE, [], [vercel.line()],
        {
            (0, "timestamp"): NOON + 1, (0, "requestId"): "x", (0, "statusCode"): -1, (0, "proxy"): None,
            (0, "proxy", "statusCode"): -1, (0, "proxy", "timestamp"): None, (0, "deploymentId"): "dpl_2",
        },
        places((0, "requestId")),
    ),
    "cloudevents": Sample(
        cloudevents.SOURCE, cloudevents.GROUPS, {**cloudevents.attributes(), "data": cloudevents.DATA},
        {
            ("id",): "2", ("source",): "/other", ("type",): "other", ("subject",): None, ("time",): None,
            ("specversion",): "2.0", **DATA_FLIPS,
        },
        places(("id",), ("source",)),
    ),
    "cloudevents in headers": Sample(
        cloudevents.SOURCE, [*cloudevents.GROUPS, "ce.datacontenttype"], {"headers": HEADERS, "data": cloudevents.DATA},
        {
            ("headers", "ce_id"): "2", ("headers", "ce_source"): "/other", ("headers", "ce_type"): "other",
            ("headers", "ce_subject"): None, ("headers", "ce_time"): None, ("headers", "ce_specversion"): "2.0",
            ("headers", "content-type"): "text/json", **DATA_FLIPS,
        },
        places(("headers", "ce_id"), ("headers", "ce_source")), encode=as_headers,
    ),
    "lighthouse": Sample(
        lighthouse.SOURCE, lighthouse.GROUPS,
        lighthouse.report(context="pr", commit="4f2a9c1", runtimeError={"code": "NO_ERROR"}),
        {
            ("requestedUrl",): "https://x", ("fetchTime",): "2026-01-28T12:00:01Z", ("context",): None,
            ("configSettings", "formFactor"): "desktop", ("runtimeError", "code"): "NO_FCP",
            ("categories", "performance", "score"): 0.1, ("commit",): "77aa01b",
        },
    ),
    "drift": Sample(
        checks.DRIFT, ["surface"], checks.drift(),
        {("kind",): "x", ("surface",): "x", ("time",): None, ("status",): "drift", ("commit",): "77aa01b"},
    ),
    "heartbeat": Sample(
        checks.HEARTBEAT, ["surface"], {"kind": "heartbeat", "surface": "supabase", "time": checks.TIME},
        {("kind",): "x", ("surface",): "x", ("time",): None},
    ),
    "easymo-api": Sample(
        {"format": "json", "preset": "easymo-api"}, [], presets.API,
        {
            ("timestamp",): None, ("trace_id",): "x", ("request_id",): "x", ("event",): "x", ("status_code",): 500,
            ("duration_ms",): 13,
        },
        places(("request_id",)), places(("request_id",)),
    ),
    "easymo-admin": Sample(
        {"format": "json", "preset": "easymo-admin"}, [], presets.ADMIN,
        {
            ("timestamp",): None, ("event",): "x", ("status",): "degraded", ("details", "duration_ms"): 13,
            ("tags", "request_id"): "x",
        },
        places(("tags", "request_id")),
    ),
    "pino-http": Sample(
        {"format": "json", "preset": "pino-http"}, [], presets.PINO,
        {("time",): NOON + 1, ("req", "id"): "x", ("res", "statusCode"): 500, ("responseTime",): 13},
        places(("req", "id")),
    ),
    "agent-core": Sample(
        {"format": "json", "preset": "agent-core"}, [], presets.AGENT,
        {("time",): None, ("requestId",): "x", ("statusCode",): 500, ("durationMs",): 13, ("msg",): "x"},
        places(("requestId",)),
    ),
    "edge-functions": Sample(
        {"format": "json", "preset": "edge-functions"}, [], {**presets.EDGE, "requestId": presets.UUID},
        {
            ("timestamp",): None, ("requestId",): "x", ("event",): "edge.request.error", ("payload", "status"): 500,
            ("payload", "durationMs"): 13,
        },
        places(("requestId",)),
    ),
    "registry as Avro": Sample(
        of_schemas(trace_id="tags.trace"), ["route", "outcome", "tags.region", "raw", "retries", "queued.ms"],
        {**registry.REQUEST, "tags": {"region": "eu", "trace": "t-1"}},
        {
            ("time",): NOON + 1, ("route",): None, ("status",): 500, ("took", "ms"): 13.0, ("queued",): {"ms": 1.0},
            ("outcome",): "ERROR", ("id",): b"\1\2\3\5", ("tags", "region"): "us", ("tags", "trace"): "t-2",
            ("retries", 0): 2.5, ("raw",): b"\xfe",
        },
        places(("id",)), places(("id",)), as_avro,
    ),
    "registry as Protobuf": Sample(
        of_schemas(**registry.MICROSECONDS, id="raw", trace_id="route"), ["ok", "outcome", "share"],
        {
            "time": checks.TIME, "route": "/pay", "status": 200, "duration_us": "12500", "ok": True,
            "outcome": "OUTCOME_OK", "raw": "AQ==", "share": 0.5,
        },
        {
            ("time",): "2026-01-28T12:00:01Z", ("route",): "/", ("status",): 500, ("duration_us",): "13000",
            ("ok",): False, ("outcome",): "OUTCOME_ERROR", ("raw",): "Ag==", ("share",): 0.25,
        },
        places(("raw",)), places(("raw",)), as_protobuf,
    ),
    "registry as JSON": Sample(
        of_schemas(trace_id="trace"), ["route"],
        {"time": NOON, "route": "/pay", "status": 200, "took": {"ms": 12.5}, "id": "1", "trace": "t-1"},
        {
            ("time",): NOON + 1, ("route",): "/", ("status",): 500, ("took", "ms"): 13, ("id",): "2",
            ("trace",): "t-2",
        },
        places(("id",)), places(("id",)), as_framed_json,
    ),
}  # fmt: skip


# -- the laws --------------------------------------------------------------------------------------------------

FLIPS = [
    pytest.param(name, place, id=" ".join(map(str, (name, *place))))
    for name, sample in SAMPLES.items() for place in sample.flips
]  # fmt: skip
IN_TEXTS = [flip for flip in FLIPS if SAMPLES[flip.values[0]].encode in TEXTS]
HOLE = "\ue000"
TRIES = 60


class Became(NamedTuple):
    """What became of a record alone, and whether it was a duplicate behind the sample."""

    alone: Seen
    is_duplicate: bool


@cache
def source(name: str) -> SourceConfig:
    sample = SAMPLES[name]
    plain = source_of(sample.source, sample.groups)
    return source_of(sample.source, sample.groups, alerts=DEPLOYS) if plain.fields.deploy else plain


def read_of(name: str, made: Record) -> Became:
    """What becomes of a record of a format or preset."""
    first = SAMPLES[name].encode(SAMPLES[name].event)
    both = seen_by(replace(source(name), dedup=10), first, made._replace(offset=1))
    return Became(seen_by(source(name), made), both.duplicates > 0)


@cache
def unchanged(name: str) -> Became:
    return read_of(name, SAMPLES[name].encode(SAMPLES[name].event))


def with_value(name: str, place: Place, value: object) -> Record:
    """The sample with another value at a place."""
    changed = copy.deepcopy(SAMPLES[name].event)
    node: Any = changed
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    return SAMPLES[name].encode(changed)


def with_token(made: Record, token: str) -> Record:
    """The record with something in its hole: a value of its JSON, or the text of a header."""
    hole, filling = HOLE.encode(), token.encode("utf-8", "surrogatepass")
    headers = tuple((name, (text or b"").replace(hole, filling)) for name, text in made.headers)
    return made._replace(value=(made.value or b"").replace(b'"%b"' % hole, filling), headers=headers)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_one_event_and_a_duplicate_of_itself_if_it_has_an_id(name: str) -> None:
    became = unchanged(name)
    assert became == Became(replace(became.alone, rejections=[], skipped=0, duplicates=0), bool(SAMPLES[name].ids))
    assert len(became.alone.events) == 1
    assert (source(name).fields.id is not None) == bool(SAMPLES[name].ids)


@pytest.mark.parametrize(("name", "place"), FLIPS)
def test_a_flip_changes_what_becomes_of_the_record(name: str, place: Place) -> None:
    sample, before = SAMPLES[name], unchanged(name)
    after = read_of(name, with_value(name, place, sample.flips[place]))
    assert (after.alone == before.alone) == (place in sample.hidden)
    # Another id is another event; with the same one it is the same, whatever else is said of it.
    is_known_again = place not in sample.ids and bool(after.alone.events)
    assert after.is_duplicate == (before.is_duplicate and is_known_again)


@pytest.mark.parametrize(("name", "place"), IN_TEXTS)
def test_whatever_stands_in_a_field_gives_an_event_a_reject_or_a_skip(name: str, place: Place) -> None:
    """Values that no JSON library would write too. One that is read as before is another way to write the same."""
    rng = random.Random(f"{name} {place}")
    before, hole = unchanged(name), with_value(name, place, HOLE)
    changed = 0
    for _ in range(TRIES):
        token = rng.choice(ODD_VALUES)
        after = read_of(name, with_token(hole, token))
        assert len(after.alone.events) + len(after.alone.rejections) + after.alone.skipped >= 1, token
        changed += after != before
    assert changed >= TRIES // 10


def test_every_format_and_preset_is_here_in_each_of_its_encodings() -> None:
    here = defaultdict[str, set[Any]](set)
    for sample in SAMPLES.values():
        here[sample.source.get("preset", sample.source["format"])].add(sample.encode)
    assert here == {name: ENCODINGS.get(name, {as_json}) for name in {*formats.known(), *PRESETS}}

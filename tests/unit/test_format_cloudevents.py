"""CloudEvents over Kafka: the same event in both modes, and what is none."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from cloudevents.core.bindings.kafka import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from support.decoded import NOON, Event, Seen, record, seen

from evaluator.wire.records import Record

SOURCE = {
    "format": "cloudevents",
    "fields": {"latency": "took.ms", "latency_unit": "ms", "failed": {"status": ">= 500"}},
}
GROUPS = ["ce.type", "ce.subject", "ce.source", "route"]
STRUCTURED = {"content-type": "application/cloudevents+json; charset=UTF-8"}
DATA = {"took": {"ms": 12.5}, "status": 200, "route": "/pay"}
TIME = "2026-01-28T12:00:00.000250Z"
EVENT = Event(250, "good", 12_500, ("shop.paid", "order-1", "/shop"), 1, "1")
GROUPED = replace(EVENT, group=("shop.paid", "order-1", "/shop", "/pay"))


def attributes(**changes: Any) -> dict[str, Any]:
    found = {
        "specversion": "1.0", "id": "1", "source": "/shop", "type": "shop.paid", "subject": "order-1", "time": TIME,
        **changes,
    }  # fmt: skip
    return {name: value for name, value in found.items() if value is not None}


def structured(offset: int = 0, headers: dict[str, str] | None = None, **changes: Any) -> Record:
    """An event in one document; None leaves a member out."""
    return record(offset, attributes(**{"data": DATA, **changes}), STRUCTURED if headers is None else headers)


def binary(offset: int = 0, data: object = DATA, **changes: Any) -> Record:
    """An event whose attributes are headers."""
    headers = {f"ce_{name}": value for name, value in attributes(**changes).items()}
    return record(offset, data, {"content-type": "application/json", **headers})


@pytest.mark.parametrize(("unit", "per_ms"), [("s", 0.001), ("ms", 1), ("us", 1000), ("ns", 1_000_000), ("auto", 1)])
def test_the_records_time_stands_in_whatever_unit_times_have(unit: str, per_ms: float) -> None:
    source = {**SOURCE, "fields": {**SOURCE["fields"], "time_unit": unit}}
    told = structured(1, time=NOON * per_ms if unit == "s" else int(NOON * per_ms))
    assert [event.after_noon for event in seen(source, structured(0, time=None), told).events] == [0, 0]


PLAIN = {"content-type": "text/plain; charset=utf-8"}


def test_data_that_are_said_to_be_no_json_have_no_fields_and_are_no_fault() -> None:
    """Events of all types of an application share a topic; `where` is asked afterwards."""
    ce = {f"ce_{name}": text for name, text in attributes(type="shop.noted").items()}
    binary_text = record(0, b"hello", {**PLAIN, **ce})
    structured_text = structured(1, type="shop.noted", datacontenttype="text/plain", data="hello")
    in_base64 = structured(2, type="shop.noted", datacontenttype="image/png", data=None, data_base64="iVBORw==")
    found = seen({**SOURCE, "where": {"ce.type": "shop.paid"}}, binary_text, structured_text, in_base64, structured(3))
    assert found == Seen([replace(EVENT, group=())], skipped=3)
    # All of one source and id: without deduplication they are three.
    found = seen(SOURCE, binary_text, structured_text, in_base64)
    assert found == Seen([replace(EVENT, outcome="unknown", latency=None, group=())] * 3)


def test_an_object_is_read_whatever_its_type_is_said_to_be() -> None:
    ce = {f"ce_{name}": text for name, text in attributes().items()}
    octets = record(0, DATA, {"content-type": "application/octet-stream", **ce})
    named = structured(1, datacontenttype="application/vnd.shop+json; charset=utf-8")
    assert seen(SOURCE, octets, named) == Seen([replace(EVENT, group=())] * 2)


@pytest.mark.parametrize("kind", [None, "application/json", "text/json", "application/vnd.shop+json"])
def test_data_that_are_said_to_be_json_have_to_be_an_object(kind: str | None) -> None:
    assert seen(SOURCE, structured(datacontenttype=kind, data="hello")) == Seen([], [(0, 0, "wrong_shape")])


@pytest.mark.parametrize("made", [structured(), binary()], ids=["structured", "binary"])
def test_both_modes_give_the_same_event(made: Record) -> None:
    assert seen(SOURCE, made, group_by=GROUPS) == Seen([GROUPED])


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "application/cloudevents"},
        {"content-type": "Application/CloudEvents+JSON"},
        {"Content-Type": "application/cloudevents+json;charset=utf-8"},
        {},
        {"content-type": "application/json"},
        {**STRUCTURED, "ce_id": "9", "ce_source": "/other", "ce_specversion": "1.0", "ce_type": "other"},
        {"ce_id": "9", "ce_source": "/other", "ce_type": "other"},
    ],
)
def test_what_says_so_or_is_not_binary_is_structured(headers: dict[str, str]) -> None:
    assert seen(SOURCE, structured(headers=headers), group_by=GROUPS) == Seen([GROUPED])


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"content-type": "application/cloudevents+avro"}, "unsupported"),
        ({"content-type": "application/cloudevents+protobuf"}, "unsupported"),
        ({"content-type": "application/cloudevents-batch+json"}, "unsupported"),
    ],
)
def test_other_encodings_are_not_supported(headers: dict[str, str], reason: str) -> None:
    assert seen(SOURCE, structured(headers=headers), structured(1)) == Seen(
        [replace(EVENT, group=())], [(0, 0, reason)]
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"data": None, "data_base64": base64.b64encode(json.dumps(DATA).encode()).decode()},
        {"data": DATA, "datacontenttype": "application/json", "dataschema": "https://example.com/s", "ext": [1, {}]},
        {"specversion": "0.3"},
        {"datacontentencoding": "base64"},
        {"specversion": "0.3", "datacontentencoding": "base64"},
        {
            "specversion": "0.3",
            "datacontentencoding": "base64",
            "data": base64.b64encode(json.dumps(DATA).encode()).decode(),
        },
        {"time": "2026-01-28T13:00:00.000250+01:00"},
    ],
)
def test_what_events_vary_in_means_the_same(changes: dict[str, Any]) -> None:
    assert seen(SOURCE, structured(**changes), group_by=GROUPS) == Seen([GROUPED])


def test_an_event_without_data_has_no_fields_of_its_data() -> None:
    without = Event(250, "unknown", None, ("",), 1, "1")
    made = [structured(data=None), structured(1, data_base64="", data=None), binary(2, b"")]
    null = record(3, json.dumps({**attributes(), "data": None}), STRUCTURED)
    assert seen(SOURCE, *made, null, group_by=["route"]) == Seen([without] * 4)


def test_without_a_time_of_its_own_the_records_counts() -> None:
    found = seen(SOURCE, structured(time=None), binary(1, time=None), structured(2, time=None)._replace(timestamp=-1))
    event = replace(EVENT, after_noon=0, group=())
    assert found == Seen([event, event], [(2, 0, "missing_time")])


@pytest.mark.parametrize("time", ["soon", "2026-01-28T12:00:00", 12.5e20, {}])
def test_a_time_that_is_none_rejects_the_event(time: object) -> None:
    assert seen(SOURCE, structured(time=time)) == Seen([], [(0, 0, "bad_value")])


def test_a_tombstone_is_skipped() -> None:
    assert seen(SOURCE, binary(data=None)._replace(value=None)) == Seen([], skipped=1)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "not_json"),
        ("{", "not_json"),
        (b'{"id":"\xff"}', "not_json"),
        ('{"x":' + "[" * 300 + "]" * 300 + "}", "not_json"),
        ("[]", "wrong_shape"),
        ("null", "wrong_shape"),
        ({"\ud800": 1}, "wrong_shape"),
        ({"some": "log line"}, "wrong_shape"),
        (attributes(id=None), "wrong_shape"),
        (attributes(specversion=None), "wrong_shape"),
        (attributes(specversion="2.0"), "unsupported"),
        (attributes(specversion="0.2"), "unsupported"),
        (attributes(specversion=1.0), "unsupported"),
        (attributes(specversion=[1, 2]), "unsupported"),
        ({**attributes(), "data": "text"}, "wrong_shape"),
        ({**attributes(), "data": [1]}, "wrong_shape"),
        ({**attributes(), "data_base64": "!"}, "wrong_shape"),
        ({**attributes(), "data_base64": 5}, "wrong_shape"),
        ({**attributes(), "data_base64": "\u00e9"}, "wrong_shape"),
        ({**attributes(), "data_base64": base64.b64encode(b"\xff").decode()}, "not_json"),
    ],
)
def test_what_is_no_event_is_rejected_and_its_neighbours_are_not(value: object, reason: str) -> None:
    found = seen(SOURCE, structured(), record(1, value, STRUCTURED), binary(2), group_by=GROUPS)
    assert found == Seen([GROUPED, GROUPED], [(1, 0, reason)])


def test_binary_data_that_is_no_json_object_is_rejected() -> None:
    found = seen(SOURCE, binary(0, b"text"), binary(1, b"[1]"), binary(2), group_by=GROUPS)
    assert found == Seen([GROUPED], [(0, 0, "not_json"), (1, 0, "wrong_shape")])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        *(({"specversion": version}, "unsupported") for version in ("0.2", "2.0", "1", "")),
        *(({"time": time}, "bad_value") for time in ("soon", "2026-01-28T12:00:00", "")),
    ],
)
def test_headers_of_another_version_or_without_a_time_reject_their_event(changes: dict[str, str], reason: str) -> None:
    found = seen(SOURCE, binary(), binary(1, **changes), structured(2), group_by=GROUPS)
    assert found == Seen([GROUPED, GROUPED], [(1, 0, reason)])


def test_headers_of_version_0_3_mean_the_same() -> None:
    assert seen(SOURCE, binary(specversion="0.3"), group_by=GROUPS) == Seen([GROUPED])


def test_an_event_is_the_same_if_source_and_id_are() -> None:
    made = [structured(), binary(1), structured(2, id="2"), structured(3, source="/other"), structured(4, id=1)]
    found = seen({**SOURCE, "dedup": 10}, *made)
    assert (len(found.events), found.duplicates) == (3, 2)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"source": "a b", "id": "c"}, {"source": "a", "id": "b c"}),
        ({"source": "/" + "s" * 300, "id": "1"}, {"source": "/" + "s" * 300, "id": "2"}),
        ({"id": "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"}, {"id": "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"}),
    ],
    ids=["where_one_ends", "long_ones", "masked_ones"],
)  # fmt: skip
def test_events_of_another_source_or_id_are_others(one: dict[str, Any], other: dict[str, Any]) -> None:
    found = seen({**SOURCE, "dedup": 10}, structured(0, **one), structured(1, **other))
    assert (len(found.events), found.duplicates) == (2, 0)


def test_a_time_that_is_not_there_is_the_records_for_the_event_only() -> None:
    fields = {"latency": {"from": "ce.time", "to": "record.timestamp"}}
    source = {"format": "cloudevents", "fields": fields}
    assert seen(source, structured(time=None), group_by=["ce.time"]) == Seen([Event(0, "unknown", None, ("",), 1, "1")])


def test_an_event_without_a_content_type_has_none() -> None:
    headers = {f"ce_{name}": value for name, value in attributes().items()}
    made = [record(0, DATA, headers), binary(1)]
    assert seen({**SOURCE, "where": {"ce.datacontenttype": "*"}}, *made).skipped == 1


def test_headers_that_are_null_or_no_text_are_nobodys_attributes() -> None:
    made = structured()
    odd = made._replace(headers=(*made.headers, ("ce_id", None), ("other", b"\xff")))
    assert seen(SOURCE, odd, group_by=GROUPS) == Seen([GROUPED])


def test_a_bare_line_is_a_structured_event() -> None:
    made = structured()._replace(timestamp=None, headers=())
    assert seen(SOURCE, made, group_by=GROUPS) == Seen([GROUPED])


def test_an_extension_is_a_field() -> None:
    made = [structured(tenant="a"), binary(1, tenant="a"), structured(2, tenant={"x": 1})]
    found = seen(SOURCE, *made, group_by=["ce.tenant", "ce.datacontenttype"])
    assert [event.group for event in found.events] == [("a", ""), ("a", "application/json"), ('{"x":1}', "")]


@pytest.mark.parametrize("written", [to_structured_event, to_binary_event])
def test_what_the_sdk_of_cloudevents_writes_is_read(written: Any) -> None:
    about = {
        "id": "1", "source": "/shop", "type": "shop.paid", "specversion": "1.0", "subject": "order-1",
        "time": datetime.fromtimestamp(NOON / 1000, UTC), "datacontenttype": "application/json", "tenant": "a",
    }  # fmt: skip
    message = written(CloudEvent(about, DATA))
    made = Record(0, NOON, None, message.value, tuple(message.headers.items()))
    assert seen(SOURCE, made, group_by=[*GROUPS, "ce.tenant"]) == Seen(
        [replace(GROUPED, after_noon=0, group=("shop.paid", "order-1", "/shop", "/pay", "a"))]
    )

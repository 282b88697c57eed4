"""Supabase's log drain: requests of Edge Functions, however nested, batched and compressed."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from dataclasses import replace
from typing import Any

import pytest
from support.decoded import DEPLOYS, NOON, Event, Run, Seen, events, record, seen, source_of

from evaluator.wire import formats
from evaluator.wire.gunzip import gunzipped
from evaluator.wire.records import Records
from evaluator.wire.rejection import Fault

SOURCE = {"format": "supabase"}
ID = "6d9cd4a1-23e4-4b5d-9c9e-0d8a5e6b7f10"
GROUPS = ["metadata.function_id", "metadata.request.method"]


def edge_log(status: object = 200, **changes: Any) -> dict[str, Any]:
    """A line of `function_edge_logs`, as the drain sends it."""
    return {
        "id": ID,
        "timestamp": NOON * 1000 + 250,
        "event_message": "POST | 200 | https://abc.supabase.co/functions/v1/wa-webhook?hub.verify_token=secret",
        "metadata": {
            "deployment_id": "abc_f1_7",
            "execution_time_ms": 132,
            "function_id": "f1",
            "version": "7",
            "project_ref": "abc",
            "request": {"method": "POST", "pathname": "/functions/v1/wa-webhook"},
            "response": {"status_code": status},
        },
        **changes,
    }


def with_metadata(**changes: Any) -> dict[str, Any]:
    log = edge_log()
    return {**log, "metadata": {**log["metadata"], **changes}}


EVENT = Event(after_noon=250, latency=132_000, trace_id=ID)
GROUPED = replace(EVENT, group=("f1", "POST"))


@pytest.mark.parametrize(
    "value",
    [
        pytest.param([edge_log()], id="an_array"),
        pytest.param(edge_log(), id="one_object"),
        pytest.param(json.dumps(edge_log()) + "\n", id="a_line"),
        pytest.param(gzip.compress(json.dumps([edge_log()]).encode()), id="gzip"),
        pytest.param([{**edge_log(), "metadata": [edge_log()["metadata"]]}], id="metadata_in_a_list_of_one"),
        pytest.param(
            [with_metadata(request=[{"method": "POST"}], response=[{"status_code": 200}])], id="lists_of_one_below"
        ),
        pytest.param([with_metadata(**{"request": None, "request.method": "POST"})], id="partly_flattened"),
        pytest.param(
            [{
                "id": ID, "timestamp": NOON * 1000 + 250, "metadata.function_id": "f1",
                "metadata.execution_time_ms": 132, "metadata.request.method": "POST",
                "metadata.response.status_code": 200,
            }],
            id="flattened",
        ),
        pytest.param([edge_log(timestamp=str(NOON * 1000 + 250))], id="timestamp_as_text"),
        pytest.param([edge_log(timestamp="2026-01-28T12:00:00.000250Z")], id="timestamp_as_iso"),
        pytest.param([with_metadata(execution_time_ms="132")], id="duration_as_text"),
        pytest.param([with_metadata(response={"status_code": "200"})], id="status_as_text"),
    ],
)  # fmt: skip
def test_a_request_of_a_function_is_an_event(value: object) -> None:
    assert events(SOURCE, value, group_by=GROUPS) == [GROUPED]


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (500, "failed"),
        (504, "failed"),
        ("546", "failed"),
        (499, "good"),
        (404, "good"),
        (200, "good"),
        (None, "unknown"),
    ],
)
def test_a_function_fails_with_5xx(status: object, outcome: str) -> None:
    assert events(SOURCE, [edge_log(status)]) == [replace(EVENT, outcome=outcome)]


@pytest.mark.parametrize(
    "log",
    [
        pytest.param(
            with_metadata(request=None, response=None, execution_time_ms=None, level="error", event_type="Log"),
            id="what_a_function_prints",
        ),
        pytest.param(with_metadata(function_id=None), id="the_api_gateway"),
        pytest.param(
            {"id": ID, "timestamp": NOON * 1000, "event_message": "checkpoint", "metadata": []}, id="postgres"
        ),
        pytest.param({"timestamp": "nonsense"}, id="anything_else"),
    ],
)
def test_other_logs_of_the_drain_are_skipped(log: object) -> None:
    assert seen(SOURCE, record(0, [log, edge_log()])) == Seen([EVENT], skipped=1)


def test_a_batch_of_250_is_250_events_and_a_bad_one_rejects_itself() -> None:
    logs: list[object] = [edge_log() for _ in range(250)]
    logs[7], logs[9] = 5, edge_log(timestamp="yesterday")
    assert seen(SOURCE, record(4, gzip.compress(json.dumps(logs).encode()))) == Seen(
        [EVENT] * 248, [(4, 7, "wrong_shape"), (4, 9, "bad_value")]
    )


def test_positions_are_those_of_the_records_where_some_cannot_be_read() -> None:
    values = [b"\x1f\x8bx", edge_log(), gzip.compress(b"{"), edge_log(timestamp=-1), [edge_log(), 1], b"[]"]
    found = seen(SOURCE, *(record(offset, value) for offset, value in enumerate(values)))
    rejected = [(0, 0, "wrong_shape"), (2, 0, "not_json"), (3, 0, "bad_value"), (4, 1, "wrong_shape")]
    assert found == Seen([EVENT, EVENT], rejected, skipped=1)


BOMB = gzip.compress(b"[" + b" " * 50_000_000 + b"]", 9)


def test_a_gzip_bomb_is_too_large_and_is_not_unpacked() -> None:
    assert len(BOMB) < 60_000
    assert seen(SOURCE, record(0, BOMB)) == Seen([], [(0, 0, "too_large")])
    assert seen({**SOURCE, "max_record_bytes": "30KiB"}, record(0, BOMB[:20_000])) == Seen([], [(0, 0, "too_large")])


def test_no_more_is_unpacked_than_a_turn_may_take() -> None:
    """A fetch of a megabyte holds hundreds of records that become a megabyte each."""
    value = gzip.compress(json.dumps([edge_log(event_message="x" * 1_000_000)]).encode())
    records = Records.of([record(offset, value) for offset in range(50)])
    reader = formats.get("supabase").reader(source_of(SOURCE), ("id",))
    tracemalloc.start()
    read = reader([value] * 50, records)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (read.count, read.until) == (3, 3)
    assert peak < 10_000_000


def test_the_limit_is_the_largest_size() -> None:
    value = gzip.compress(b"x" * 30)
    assert gunzipped(value, 30) == b"x" * 30
    assert isinstance(gunzipped(value, 29), Fault)


@pytest.mark.parametrize(
    "value",
    [
        b"\x1f\x8b",
        b"\x1f\x8b" + b"\0" * 30,
        gzip.compress(b"[]")[:-1],
        gzip.compress(b"[]")[:-4] + b"\0\0\0\0",
        gzip.compress(b"[]") + b"\0",
        gzip.compress(b"[") + gzip.compress(b"]"),
    ],
)
def test_damaged_gzip_is_a_fault(value: bytes) -> None:
    assert seen(SOURCE, record(0, value)) == Seen([], [(0, 0, "wrong_shape")])


def test_what_is_not_gzip_is_left_as_it_is() -> None:
    for value in (b"", b"[]", b"\x1f", zlib.compress(b"[]")):
        assert gunzipped(value, 1) == value


@pytest.mark.parametrize(
    ("metadata", "deploy"),
    [({}, "7"), ({"version": 7}, "7"), ({"version": ["7"]}, "7"), ({"version": None}, ""), ({"version": ""}, "")],
)
def test_the_version_of_a_function_is_its_deploy(metadata: dict[str, Any], deploy: str) -> None:
    found = seen(SOURCE, record(0, [with_metadata(**metadata)]), alerts=DEPLOYS)
    assert found == Seen([replace(EVENT, run=Run(None, deploy, "main"))])


def test_a_repeated_delivery_counts_once_with_dedup() -> None:
    found = seen({**SOURCE, "dedup": 10}, record(0, [edge_log(), edge_log()]), record(1, [edge_log()]))
    assert (found.events, found.duplicates) == ([EVENT], 2)


def test_a_duration_of_minus_one_costs_the_latency_and_not_the_failure() -> None:
    log = with_metadata(execution_time_ms=-1, response={"status_code": 500})
    assert seen(SOURCE, record(0, log)) == Seen([replace(EVENT, outcome="failed", latency=None)], bad_latencies=1)


def test_what_a_function_prints_is_no_request_whatever_the_config_filters_by() -> None:
    source = {**SOURCE, "where": {"metadata.project_ref": "abc"}}
    printed = with_metadata(request=None, response=None, execution_time_ms=None, level="info")
    logs = [printed, with_metadata(project_ref="other"), edge_log()]
    assert seen(source, record(0, logs)) == Seen([EVENT], skipped=2)

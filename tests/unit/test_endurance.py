"""What the service must stand: hostile records land where docs/semantics.md 2 says, and disturb nothing else."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from evaluator.runtime.clock import run_virtual
from evaluator.runtime.replay import Outcome, Request, replay
from evaluator.wire import envelope
from evaluator.wire.config.load import load_rules

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

RULES = """
version: 1
sources:
  events:
    {topic: t, format: json, out_of_orderness: 30s,
     fields: {time: t, latency: ms, latency_unit: ms, failed: {s: ">= 500"}}}
surfaces: {api: {source: events, match: {target: api}, group_by: [user], owners: ["@a"]}}
alerts: {A: {surface: api, when: error_ratio > 20%, window: 10s, min_samples: 1, severity: page}}
"""
START = 1_769_601_600


def line(**fields: Any) -> bytes:
    return json.dumps({"t": START, "target": "api", "user": "u", "s": 200, "ms": 10, **fields}).encode()


GOOD = [line(t=START + number // 10, s=500 if 200 <= number < 400 else 200) for number in range(1000)]
"""Ten a second; two windows of ten seconds fail, so that one alert fires and resolves."""


def judged(tmp_path: Path, *files: Sequence[bytes], rules: str = RULES, **wish: Any) -> Outcome:
    (tmp_path / "rules.yaml").write_text(rules)
    paths = [tmp_path / f"partition-{number}" for number in range(len(files))]
    for path, lines in zip(paths, files, strict=True):
        path.write_bytes(b"\n".join(lines))

    async def run() -> Outcome:
        request = Request({"events": paths}, **wish)
        return await replay(load_rules([tmp_path / "rules.yaml"]), request, asyncio.get_running_loop())

    return run_virtual(run())


def bare(outcome: Outcome) -> list[dict[str, Any]]:
    """The alerts without where they were found."""
    alerts = [orjson.loads(alert) for alert in outcome.alerts]
    return [{name: value for name, value in alert.items() if name != "provenance"} for alert in alerts]


def counted(outcome: Outcome) -> dict[str, int]:
    """All that was counted, but for alerts: `result` of records, `reason` of rejections, else the name."""
    named = {"records": 2, "rejected": 2}
    found = {key[named.get(key[0], 0)]: count for key, count in outcome.tallies.items() if count and key[0] != "alerts"}
    return {name: count for name, count in found.items() if name != "ok"}


def rejected(reason: str) -> dict[str, int]:
    return {"rejected": 1, reason: 1}


HOSTILE = [
    (b'{"t":', rejected("not_json")),
    (b"[" * 100_000, rejected("not_json")),
    (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, rejected("not_json")),
    (b'{"t":1769601650,"target":"api","ms":NaN}', rejected("not_json")),
    (b'{"t":1769601650,"target":"api","user":"\xff"}', rejected("not_json")),
    (b'{"t":1769601650,"target":"api","unused":"\xff"}', rejected("not_json")),
    (b"\xef\xbb\xbf" + GOOD[0], rejected("not_json")),
    (b"\x00\x01\x02", rejected("not_json")),
    (b"[1]", rejected("wrong_shape")),
    (b"null", rejected("wrong_shape")),
    (b"3", rejected("wrong_shape")),
    (b"", {"skipped": 1}),
    (b" \t\r", {"skipped": 1}),
    (line(t=None), rejected("missing_time")),
    (b'{"target":"api"}', rejected("missing_time")),
    (line(t="yesterday"), rejected("bad_value")),
    (line(t=True), rejected("bad_value")),
    (line(t=-1), rejected("bad_value")),
    (b'{"t":1e400}', rejected("bad_value")),
    (b'{"t":' + b"1" * 5_000 + b"}", rejected("bad_value")),
    (line(t="1970-01-01T00:00:00Z"), {"late": 1}),
    (line(t=START + 50, ms=-1), {"bad_latency": 1}),
    (line(t=START + 50, ms=2**63), {"bad_latency": 1}),
    (line(t=START + 50, ms="slow"), {"bad_latency": 1}),
    (line(t=START + 50, ms=None), {}),
    (line(t=START + 50, s=None), {}),
    (line(t=START + 50, target="other"), {"unmatched": 1}),
    (line(t=START + 50, target=None), {"unmatched": 1}),
    (line(t=START + 50, user="x" * 100_000), {"oversized_groups": 1}),
    (line(t=START + 50, user='a"b\n\\{}=,\x00'), {}),
    (line(t=START + 50, user="\ud83d"), {}),
    (line(t=START + 50, unused="\ud83d"), {}),
    (line(t=START + 50, pad="x" * 1_000_000), {}),
    (line(t=START + 50, pad="x" * 10_000_000), rejected("too_large")),
    (GOOD[500] + b"\r", {}),
]  # fmt: skip


@pytest.mark.parametrize(("hostile", "expected"), HOSTILE, ids=[f"record{number}" for number in range(len(HOSTILE))])
def test_a_hostile_record_lands_in_its_place_and_disturbs_nothing(
    hostile: bytes, expected: dict[str, int], tmp_path: Path
) -> None:
    calm = judged(tmp_path, GOOD)
    assert [alert["status"] for alert in bare(calm)] == ["firing", "resolved"]
    outcome = judged(tmp_path, [*GOOD[:600], hostile, *GOOD[600:]])
    assert bare(outcome) == bare(calm)
    assert counted(outcome) == expected
    results = {key[2]: count for key, count in outcome.tallies.items() if key[0] == "records"}
    assert sum(results.values()) == len(GOOD) + 1


def test_a_failure_with_a_latency_of_minus_one_is_a_failure(tmp_path: Path) -> None:
    outcome = judged(tmp_path, [line(s=503, ms=-1), line(t=START + 10)])
    assert [alert["status"] for alert in bare(outcome)] == ["firing"]


def test_a_time_in_the_future_is_rejected_where_the_record_has_a_timestamp(tmp_path: Path) -> None:
    def enveloped(value: bytes) -> bytes:
        return envelope.envelope(START * 1000 + 100_000, None, value, ()).rstrip()

    calm = judged(tmp_path, [enveloped(value) for value in GOOD], envelope=True)
    for time in ("9999-12-31T23:59:59Z", START + 131):
        outcome = judged(tmp_path, [enveloped(value) for value in [line(t=time), *GOOD]], envelope=True)
        assert bare(outcome) == bare(calm)
        assert counted(outcome) == rejected("future")


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_batches_and_partitions_change_nothing_about_garbage(batch: int, tmp_path: Path) -> None:
    garbage = [each for each, _ in HOSTILE if len(each) < 1_000]
    mixed = [each for number, good in enumerate(GOOD) for each in (good, *garbage[number % 97 : number % 97 + 1])]
    halves = mixed[::2], mixed[1::2]
    whole = judged(tmp_path, *halves, verdicts=True)
    outcome = judged(tmp_path, *halves, verdicts=True, batch=batch)
    assert (bare(outcome), outcome.verdicts) == (bare(whole), whole.verdicts)
    assert +outcome.tallies == +whole.tallies
    turned = judged(tmp_path, *reversed(halves), verdicts=True, batch=batch)
    assert sorted(turned.verdicts) == sorted(whole.verdicts)
    assert sum(n for key, n in whole.tallies.items() if key[0] == "records") == len(mixed)


DISTINCT = 16 * 10 - 1
"""Ten in each of 16 shards, but that the overflow series takes a place in the shard that its key belongs to."""


def test_more_groups_than_max_series_share_one_and_none_is_lost(tmp_path: Path) -> None:
    rules = RULES.replace("group_by: [user]", "group_by: [user], max_series: 10")
    outcome = judged(tmp_path, [line(user=f"user-{number}") for number in range(100_000)], rules=rules)
    assert outcome.tallies["records", "events", "ok"] == 100_000
    assert outcome.tallies["overflow_series", "api"] == 100_000 - DISTINCT


def test_empty_partitions_and_gaps_of_months_stall_nothing(tmp_path: Path) -> None:
    day = 86_400
    events = [line(t=START + months * 90 * day + second, s=500) for months in range(3) for second in range(5)]
    outcome = judged(tmp_path, [], events, [], rules=RULES.replace("window: 10s", "window: 1s"))
    # A day without events expires the alert, and each burst is an episode of its own.
    assert [alert["status"] for alert in bare(outcome)] == ["firing", "resolved"] * 2 + ["firing"]
    assert counted(outcome) == {}


def test_long_lines_come_in_small_chunks() -> None:
    lines = [b"x" * (envelope.CHUNK_BYTES // 20) + b"\n"] * 100
    columns = [*envelope.bare_columns(lines, 40_000)]
    assert sum(len(chunk.values) for chunk in columns) == 100
    assert max(sum(len(value or b"") for value in chunk.values) for chunk in columns) < 2 * envelope.CHUNK_BYTES
    assert [len(chunk.values) for chunk in envelope.bare_columns([b"{}\n"] * 100, 40)] == [40, 40, 20]

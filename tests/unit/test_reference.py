"""The reference agrees with the worked examples, and its streams reach what they are for."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from reference.decoding import time_of
from reference.model import Arrivals, Idle, RefEvent, RefTransition, RefVerdict, Streak, fingerprint_of, judge
from reference.replay import as_record, judge_files
from reference.streams import BEGIN, SOURCE, Interest, Sample, generate, interest, samples, to_batches
from support.rules import rule, rules

from evaluator.core.event import GOOD, MINUTE, NO_LATENCY, SECOND, UNMATCHED, SeriesTable

if TYPE_CHECKING:
    from collections.abc import Sequence

CASES = sorted(path for path in (Path(__file__).parents[1] / "cases").iterdir() if path.is_dir())
EXAMPLES = 60


def event(second: float, *, offset: int = 0, failed: bool | None = True, partition: int = 0) -> RefEvent:
    """An event of the surface `api`, some seconds after `BEGIN`."""
    return RefEvent(partition, offset, BEGIN + int(second * SECOND), failed, None, 1, ("api", ()))


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_the_reference_gives_what_a_case_expects_in_the_order_of_a_replay(case: Path) -> None:
    words = shlex.split((case / "args").read_text()) if (case / "args").exists() else []
    until = time_of(words[words.index("--until") + 1], "auto") if "--until" in words else None
    files = [path.read_bytes() for path in sorted(case.glob("p*.ndjson"))]
    found = judge_files((case / "config.yaml").read_text(), files, until, envelope="--envelope" in words)
    expected = [json.loads(line) for line in (case / "expected.ndjson").read_text().splitlines()]
    assert [as_record(each) for each in found] == expected


def test_the_fingerprint_is_that_of_a_real_alertmanager() -> None:
    labels = {"alertname": "VoiceApiErrorRate", "severity": "page", "surface": "voice-api"}
    assert fingerprint_of(labels) == "e3ac2da702ecd9b8"
    assert fingerprint_of({}) == "cbf29ce484222325"


@pytest.mark.parametrize(
    ("strip", "changes", "expected"),
    [
        pytest.param("xxx.", {"required": 3}, "  FR", id="fires_on_the_third"),
        pytest.param("xx?x", {"required": 3}, "   F", id="a_held_window_neither_extends_nor_breaks"),
        pytest.param("xx.x", {"required": 3}, "    ", id="an_ok_window_breaks"),
        pytest.param("x??x", {"required": 2, "max_gap": 1}, "    ", id="a_longer_gap_breaks"),
        pytest.param("x?x?", {"required": 2, "max_gap": 1}, "  F ", id="an_allowed_gap_does_not"),
        pytest.param("x.x..", {"resolve_after": 2}, "F   R", id="a_breach_begins_the_clearing_anew"),
        pytest.param("x.?.", {"resolve_after": 2}, "F  R", id="a_held_window_does_not"),
        pytest.param("x.x.x", {"required": 2, "among": 3}, "  FR ", id="resolving_empties_the_memory"),
        pytest.param("x?.?x", {"required": 2, "among": 3}, "    F", id="held_windows_are_not_kept"),
    ],
)
def test_transitions_fall_where_the_strip_says(strip: str, changes: dict[str, Any], expected: str) -> None:
    effects = {"x": "BREACH", ".": "OK", "?": "HELD"}
    streak = Streak(rule(**changes))
    marks = []
    for number, each in enumerate(strip):
        changed = list(streak.step(number * MINUTE, (number + 1) * MINUTE, effects[each], 0))
        marks.append({"firing": "F", "resolved": "R"}[changed[0].status] if changed else " ")
    assert "".join(marks) == expected


def test_an_idle_decision_makes_late_what_comes_at_its_offset_but_not_before() -> None:
    log = [event(10), event(20, offset=1), event(30, offset=2)]
    idle = [Idle(0, 2, BEGIN + MINUTE)]
    arrivals = Arrivals.of(log, idle, 0, None, 0)
    assert [before for _, before in arrivals.events] == [None, BEGIN + 10 * SECOND, BEGIN + MINUTE]
    counted: list[RefVerdict] = []
    assert len(judge(rules(rule(min_bad=2)), SOURCE, [log], idle, verdicts=counted)) == 1
    assert len(judge(rules(rule(min_bad=3)), SOURCE, [log], idle)) == 0
    assert [each.verdict for each in counted] == ["BREACH"]


def test_a_partition_that_was_never_heard_of_holds_everything_back() -> None:
    log = [event(10), event(600, offset=1)]
    assert judge(rules(rule()), SOURCE, [log, []]) == []
    assert len(judge(rules(rule()), SOURCE, [log, []], [Idle(1, 0, BEGIN + MINUTE)])) == 1


@pytest.mark.parametrize(("start", "began"), [(0, [0, 60, 120]), (7, [60, 120])])
def test_windows_from_before_the_coverage_are_not_decided(start: int, began: list[int]) -> None:
    log = [event(second, offset=7 + number) for number, second in enumerate((30, 70, 130, 220))]
    verdicts: list[RefVerdict] = []
    judge(rules(rule(), out_of_orderness=30 * SECOND), SOURCE, [log], starts=[start], verdicts=verdicts)
    # 30 s + 30 s of lateness: covered from 0:01:00; W ends at 0:03:10.
    assert [(each.start - BEGIN) // SECOND for each in verdicts] == began


def test_batches_hold_every_event_once_whatever_the_cuts() -> None:
    log = [event(10), event(11, offset=2, failed=None), event(12, offset=2), replace(event(13, offset=5), series=None)]
    batches = to_batches(log, [3, 2, 9], SeriesTable({"api": 1000}))
    assert [list(batch.offset) for batch in batches] == [[0], [2, 2], [5], []]
    assert batches[2].series[0] == UNMATCHED
    assert batches[0].latency[0] == NO_LATENCY
    assert GOOD not in batches[1].failed
    assert all(batch.weight is None for batch in batches)


def test_at_least_half_of_the_seeded_samples_reach_each_subject() -> None:
    assert_interesting([interest(generate(seed)) for seed in range(EXAMPLES)])


def test_at_least_half_of_the_drawn_samples_reach_each_subject() -> None:
    reached: list[Interest] = []

    @settings(max_examples=EXAMPLES)
    @given(samples())
    def reach(sample: Sample) -> None:
        reached.append(interest(sample))

    reach()
    assert_interesting(reached)


def assert_interesting(reached: Sequence[Interest]) -> None:
    """Half fire, resolve, hold late events and held windows; expiry needs a silence: a quarter."""
    for name, share in (("firings", 2), ("resolves", 2), ("late", 2), ("held", 2), ("expired", 4)):
        assert sum(getattr(each, name) > 0 for each in reached) * share >= len(reached), name


@pytest.mark.parametrize("seed", range(20))
def test_the_order_of_partitions_changes_nothing(seed: int) -> None:
    sample = generate(seed)
    last = len(sample.partitions) - 1
    turned = replace(
        sample,
        partitions=sample.partitions[::-1],
        idle=[each._replace(partition=last - each.partition) for each in sample.idle],
        starts=sample.starts[::-1],
    )
    assert turned.judged() == sample.judged()


@pytest.mark.parametrize("seed", range(20))
def test_firing_and_resolved_alternate_and_ids_are_unique(seed: int) -> None:
    found = generate(seed).judged()
    assert len({each["id"] for each in found}) == len(found)
    alerts: dict[str, list[RefTransition]] = {}
    for each in found:
        alerts.setdefault(each["fingerprint"], []).append(each)
    for row in alerts.values():
        assert [each["status"] for each in row] == (["firing", "resolved"] * len(row))[: len(row)]
        assert all(later["startsAt_us"] >= earlier["startsAt_us"] for earlier, later in pairwise(row))

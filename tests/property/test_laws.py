"""The invariants of docs/ARCHITECTURE.md as laws over streams that exercise them.

Every law counts how many of its examples reach its subject, and fails below half: a law about firings that
never saw one proves nothing.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise, permutations
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fold import Event, Fold
from support.rules import ERRORS, absence, rule, rules

from evaluator.core.alert import fingerprint
from evaluator.core.condition import Condition, Kind, Op
from evaluator.core.event import FAILED, GOOD, MINUTE, NO_LATENCY, NO_SCORE, SECOND, UNKNOWN, SeriesKey
from evaluator.core.packed import pack, unpacked
from evaluator.core.rows import FEW, merged
from evaluator.core.rule import Deploys
from evaluator.core.sums import summed
from evaluator.core.verdict import Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from evaluator.core.packed import Packed
    from evaluator.core.rule import RuleSet

SLOW = Condition("p95 > 100us", "p95", Kind.QUANTILE, Op.GT, Fraction(100), q=Fraction(95, 100))
SCORE = Condition("score < 0.5", "score", Kind.SCORE, Op.LT, Fraction(1, 2))
DROP = Condition("score_drop > 10%", "score_drop", Kind.SCORE_DROP, Op.GT, Fraction(1, 10))
RULES = rules(
    rule("Twice", required=2, min_samples=1),
    rule("Hopping", conditions=(ERRORS, SLOW), window=3 * MINUTE, every=MINUTE, min_samples=2),
    rule("Recent", window=2 * MINUTE, every=2 * MINUTE, required=2, among=3, resolve_after=2, min_samples=1),
    absence("Absent", 3 * MINUTE),
    rule("Deploy", conditions=(SCORE, ERRORS), deploys=Deploys(2 * MINUTE), min_samples=1),
    rule("Dropped", conditions=(DROP,), deploys=Deploys(5 * MINUTE, 3, 2, ("main", "pr")), forget_after=20 * MINUTE),
    out_of_orderness=10 * SECOND,
    group_by=("f",),
)


class Reached:
    """Counts the examples that reach the subject of a law."""

    def __init__(self) -> None:
        self.seen: Counter[bool] = Counter()

    def note(self, *, subject: bool) -> None:
        """One example, and whether it was about something."""
        self.seen[subject] += 1

    def check(self) -> None:
        """At least half of the examples were."""
        assert self.seen[True] >= self.seen[False], f"too few examples reach the subject: {self.seen}"


@pytest.fixture
def reached() -> Iterator[Reached]:
    counter = Reached()
    yield counter
    counter.check()


@st.composite
def streams(draw: st.DrawFn) -> list[list[Event]]:
    """One to three partitions: time advances, with disorder, stragglers, silences, and runs of failures."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    partitions = []
    for _ in range(draw(st.sampled_from([1, 2, 2, 3]))):
        time, events, bad, offset = 0, [], False, 0
        for _ in range(draw(st.integers(20, 60))):
            time += rng.choice([0, SECOND, 7 * SECOND, 20 * SECOND] * 6 + [4 * MINUTE, 30 * MINUTE])
            bad = (not bad) if rng.random() < 0.08 else bad
            late = rng.choice([0, 0, 0, 3 * SECOND, 9 * SECOND, 2 * MINUTE])
            failed = FAILED if bad else rng.choice([GOOD] * 9 + [UNKNOWN])
            latency = rng.choice([NO_LATENCY, 0, 50, 100, 101, 5_000, 10**15])
            series = rng.choice([SeriesKey("api", ("x",))] * 4 + [SeriesKey("api", ("y",)), None])
            offset += rng.choice([0, 1, 1, 1, 2]) if events else 0
            trace_id = f"{rng.randrange(5)}"
            weight = rng.choice([1] * 9 + [7])
            deploy = f"d{(time - late) // (2 * MINUTE) - rng.choice([0, 0, 0, 1])}"
            score = NO_SCORE if failed == FAILED else rng.choice([10**6, 900_000, 800_000, 499_999, 0])
            context = rng.choice(["main", "main", "pr"])
            kept = (failed, latency, series, trace_id, weight, deploy, score, context)
            events.append(Event(offset, max(0, time - late), *kept))
        partitions.append(events)
    return partitions


def whole(judged: RuleSet, partitions: list[list[Event]]) -> Fold:
    """Every partition in one piece."""
    fold = Fold(judged, len(partitions))
    for index, events in enumerate(partitions):
        fold.feed(index, events)
        fold.commit(index)
    fold.finish()
    return fold


def cut(judged: RuleSet, partitions: list[list[Event]], rng: random.Random, shards: int = 1) -> Fold:
    """The same log cut at random between records, partitions interleaved at random, commits now and then.

    With several shards those are restarted now and then too.
    """
    fold = Fold(judged, len(partitions), shards=shards)
    rest = {index: list(events) for index, events in enumerate(partitions)}
    while rest:
        index = rng.choice(sorted(rest))
        events = rest[index]
        size = rng.randrange(1, 8)
        while size < len(events) and events[size].offset == events[size - 1].offset:
            size += 1
        fold.feed(index, events[:size])
        rest[index] = events[size:]
        if not rest[index]:
            del rest[index]
        if rng.random() < 0.5:
            fold.commit(index)
        if shards > 1 and rng.random() < 0.2:
            fold.restart(rng.randrange(shards))
    fold.finish()
    return fold


@settings(max_examples=80)
@given(partitions=streams())
def test_same_calls_give_the_same_bytes(partitions: list[list[Event]]) -> None:
    """Invariant 1."""
    once, again = whole(RULES, partitions), whole(RULES, partitions)
    assert repr(once.transitions) == repr(again.transitions)
    assert repr(once.verdicts) == repr(again.verdicts)


def test_cutting_and_interleaving_change_no_verdict_and_no_id(reached: Reached) -> None:
    """Invariant 2: ids, proofs and evidence too."""

    @settings(max_examples=100)
    @given(partitions=streams(), seed=st.integers(0, 2**32))
    def law(partitions: list[list[Event]], seed: int) -> None:
        one, other = whole(RULES, partitions), cut(RULES, partitions, random.Random(seed))
        reached.note(subject=bool(one.transitions) and len(partitions) > 1)
        assert one.ids() == other.ids()
        assert sorted(map(repr, one.transitions)) == sorted(map(repr, other.transitions))

    law()


def test_shards_and_restarts_change_no_verdict_and_no_id(reached: Reached) -> None:
    """Invariant 2, with what is stored in between."""

    @settings(max_examples=60)
    @given(partitions=streams(), seed=st.integers(0, 2**32))
    def law(partitions: list[list[Event]], seed: int) -> None:
        one, other = whole(RULES, partitions), cut(RULES, partitions, random.Random(seed), shards=4)
        names = {t.rule.name for t in one.transitions}
        reached.note(subject=not names.isdisjoint({"Absent", "Deploy", "Dropped"}))
        assert sorted(map(repr, one.transitions)) == sorted(map(repr, other.transitions))
        groups = [sorted(repr(v) for v in fold.verdicts if v[0].deploys is not None) for fold in (one, other)]
        assert groups[0] == groups[1]

    law()


def test_a_partition_that_is_behind_loses_nothing(reached: Reached) -> None:
    """Invariant 2, the hard half: whichever partition is read to its end first, nothing becomes late."""

    @settings(max_examples=100)
    @given(partitions=streams())
    def law(partitions: list[list[Event]]) -> None:
        reached.note(subject=len(partitions) > 1)
        results = set()
        for order in permutations(range(len(partitions))):
            fold = Fold(RULES, len(partitions))
            for index in order:
                fold.feed(index, partitions[index])
                fold.commit(index)
            fold.finish()
            late = sum(a.tallies["late", "api"] for a in fold.aggregators)
            # The shard itself finds late only what comes of a deploy whose group is closed.
            results.add((tuple(fold.ids()), late, fold.evaluator.tallies["late", "api"]))
        assert len(results) == 1

    law()


def panes_of(partitions: list[list[Event]]) -> dict[tuple[object, ...], list[Packed]]:
    """The panes of each (series, step, slot) as the partitions report them."""
    found: dict[tuple[object, ...], list[Packed]] = {}
    for index, events in enumerate(partitions):
        fold = Fold(RULES, len(partitions))
        for start in range(0, len(events), 9):
            records = [
                event for event in events[start : start + 9] if event.offset >= fold.aggregators[index].next_offset
            ]
            fold.feed(index, records)
            for key, cells in fold.aggregators[index].take().cells:
                for cell in cells:
                    found.setdefault((key, cell.step, cell.slot), []).append(cell.pane)
    return found


def one_by_one(panes: list[Packed]) -> Packed:
    """The same sum by the plain definition."""
    result = unpacked(panes[0])
    for pane in panes[1:]:
        result.merge(unpacked(pane))
    return pack(result)


def test_merging_panes_is_associative_and_commutative_to_the_byte(reached: Reached) -> None:
    """Invariant 3."""

    @settings(max_examples=80)
    @given(partitions=streams(), seed=st.integers(0, 2**32))
    def law(partitions: list[list[Event]], seed: int) -> None:
        rng = random.Random(seed)
        several = [panes for panes in panes_of(partitions).values() if len(panes) > 2]
        reached.note(subject=bool(several))
        for panes in several:
            shuffled = rng.sample(panes, len(panes))
            middle = rng.randrange(1, len(panes))
            # Many at a time: a few are put together in another way.
            halves = merged([shuffled[:middle], shuffled[middle:]] * FEW)[:2]
            assert merged([halves] * FEW) == [one_by_one(panes)] * FEW
            assert merged([halves]) == [one_by_one(panes)]

    law()


def test_a_quantile_verdict_equals_the_verdict_of_the_sorted_values(reached: Reached) -> None:
    """Invariant 4."""

    @settings(max_examples=100)
    @given(
        latencies=st.lists(st.integers(0, 12), min_size=1, max_size=40),
        q=st.sampled_from([Fraction(1, 2), Fraction(95, 100), Fraction(999, 1000), Fraction(1, 10)]),
        op=st.sampled_from(list(Op)),
        threshold=st.integers(0, 12),
    )
    def law(latencies: list[int], q: Fraction, op: Op, threshold: int) -> None:
        condition = Condition("q", "q", Kind.QUANTILE, op, Fraction(threshold), q=q)
        judged = rules(rule(conditions=(condition,), min_samples=1))
        fold = Fold(judged)
        fold.feed(0, [Event(n, 0, latency=latency) for n, latency in enumerate(latencies)])
        ((_, cells),) = fold.aggregators[0].take().cells
        counted = condition.counted()
        assert counted is not None
        window = judge(judged.rules["A"], 0, MINUTE, summed([cells[0].pane.counted]))
        ranked = sorted(latencies)[-(-q.numerator * len(latencies) // q.denominator) - 1]
        holds = {Op.GT: ranked > threshold, Op.GE: ranked >= threshold}.get(op)
        if holds is None:
            holds = ranked < threshold if op is Op.LT else ranked <= threshold
        reached.note(subject=len(set(latencies)) > 1)
        assert (window.verdict is Verdict.BREACH) == holds

    law()


def test_a_watermark_never_goes_back(reached: Reached) -> None:
    """Invariant 5, the first half; the second is in tests/unit/test_aggregate_stage.py."""

    @settings(max_examples=80)
    @given(partitions=streams())
    def law(partitions: list[list[Event]]) -> None:
        reached.note(subject=any(b.time < a.time for events in partitions for a, b in pairwise(events)))
        fold = Fold(RULES, len(partitions))
        highest = {index: fold.aggregators[index].time.watermark for index in range(len(partitions))}
        source = fold.evaluator.sources["events"]
        before = source.time.watermark
        for index, events in enumerate(partitions):
            for event in events:
                if event.offset >= fold.aggregators[index].next_offset:
                    fold.feed(index, [event])
                    assert fold.aggregators[index].time.watermark >= highest[index]
                    highest[index] = fold.aggregators[index].time.watermark
            fold.commit(index)
            assert source.time.watermark >= before
            before = source.time.watermark

    law()


def test_memory_does_not_grow_with_traffic() -> None:
    """Invariant 9: what stage 2 holds after a long stream is what it holds after a short one."""
    held = []
    for minutes in (60, 600):
        fold = Fold(RULES)
        series = SeriesKey("api", ("x",))
        for minute in range(minutes):
            fold.feed(0, [Event(minute * 9 + n, minute * MINUTE + n, latency=n, series=series) for n in range(9)])
            fold.commit(0)
        places = fold.evaluator.changes()
        panes = [place for place in places.panes if fold.evaluator.pane(place) is not None]
        held.append((len(panes), len(fold.aggregators[0].table.keys)))
    assert held[0] == held[1]


def test_a_fingerprint_does_not_depend_on_the_order_of_labels() -> None:
    labels = {"alertname": "VoiceApiErrorRate", "severity": "page", "surface": "voice-api"}
    assert {fingerprint(dict(order)) for order in permutations(labels.items())} == {"e3ac2da702ecd9b8"}


def test_an_empty_label_set_has_the_offset_basis_as_its_fingerprint() -> None:
    assert fingerprint({}) == "cbf29ce484222325"


def test_a_rule_without_evidence_needs_fires_on_less() -> None:
    """One failure of one does not prove 10 %; two of two do, even had eight good ones been missing."""
    tenth = Condition("error_ratio > 10%", "error_ratio", Kind.ERROR_RATIO, Op.GT, Fraction(1, 10))
    verdicts = []
    for failures in (1, 2):
        fold = Fold(rules(replace(rule(), conditions=(tenth,))))
        fold.feed(0, [Event(n, 0, FAILED) for n in range(failures)] + [Event(9, 5 * MINUTE, series=None)])
        fold.commit(0)
        verdicts.append(fold.verdicts[0][2].verdict)
    assert verdicts == [Verdict.INSUFFICIENT, Verdict.BREACH]

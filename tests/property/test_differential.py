"""Our two stages against an independent, plain, per-event reading of docs/semantics.md (tests/reference)."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.streams import SOURCE, generate, interest, samples, to_batch

from evaluator.core.aggregate import Aggregator
from evaluator.core.evaluate import Evaluator
from evaluator.core.event import EpochUs

if TYPE_CHECKING:
    from reference.model import RefEvent
    from reference.streams import Sample

    from evaluator.core.alert import Transition
    from evaluator.core.verdict import Window


class Stages:
    """Both stages over a sample, cut and interleaved at random."""

    def __init__(self, sample: Sample, seed: int) -> None:
        self.transitions: list[Transition] = []
        self.windows: Counter[tuple[str, tuple[str, ...], int, str]] = Counter()
        self._rng, self._sample = random.Random(seed), sample
        source = sample.rules.sources[SOURCE]
        count = len(sample.partitions)
        self._aggregators = [Aggregator(sample.rules, source, p, count, 3, sample.starts[p]) for p in range(count)]
        self._evaluator = Evaluator(sample.rules)
        self._sent: dict[int, int] = {}

    def run(self) -> Stages:
        """Everything, to the end of the sample."""
        rest = {p: list(events) for p, events in enumerate(self._sample.partitions)}
        idle = {p: [step for step in self._sample.idle if step.partition == p] for p in rest}
        while any(rest.values()):
            partition = self._rng.choice([p for p, events in rest.items() if events])
            self._feed(partition, rest[partition], idle[partition])
            if self._rng.random() < 0.4:
                self._commit(partition)
        for partition, aggregator in enumerate(self._aggregators):
            for step in idle[partition]:
                aggregator.idle(EpochUs(step.until_us))
            if self._sample.end is not None:
                aggregator.end(EpochUs(self._sample.end))
            self._commit(partition)
        return self

    def _feed(self, partition: int, events: list[RefEvent], idle: list[object]) -> None:
        aggregator = self._aggregators[partition]
        first = events[0].offset
        while idle and idle[0].offset <= first:
            aggregator.idle(EpochUs(idle.pop(0).until_us))
        limit = idle[0].offset if idle else float("inf")
        size = self._rng.randrange(1, 30)
        size = next((n for n in range(size, len(events)) if events[n].offset != events[n - 1].offset), len(events))
        size = sum(event.offset < limit for event in events[:size]) or 1
        taken, events[:] = events[:size], events[size:]
        aggregator.add(to_batch(taken, aggregator.table), first, taken[-1].offset + 1)

    def _commit(self, partition: int) -> None:
        partial = replace(self._aggregators[partition].take(), sequence=1, prev=self._sent.get(partition))
        self._sent[partition] = partial.end
        self._evaluator.merge(partial)
        decided = self._evaluator.decide()
        self.transitions += decided.transitions
        for rule, series, window in decided.verdicts:
            self._note(rule.name, series.values, rule.every, window)

    def _note(self, rule: str, values: tuple[str, ...], step: int, window: Window) -> None:
        for number in range(window.length):
            self.windows[rule, values, window.end + number * step, window.verdict.value] += 1


def shown(found: list[Transition]) -> Counter[tuple[object, ...]]:
    """Our transitions as the reference tells its own."""
    return Counter(
        (t.id, t.status, t.reason.value, tuple(sorted(t.labels.items())), t.starts_at, t.fired_at, t.at, t.key)
        for t in found
    )


def told(sample: Sample, verdicts: list[object]) -> Counter[tuple[object, ...]]:
    """The reference's transitions."""
    return Counter(
        (
            t["id"], t["status"], t["reason"], tuple(sorted(t["labels"].items())), t["startsAt_us"], t["firedAt_us"],
            t["firedAt_us"] if t["endsAt_us"] is None else t["endsAt_us"], t["key"],
        )
        for t in sample.judged(verdicts)
    )  # fmt: skip


def compare(sample: Sample, seed: int) -> None:
    verdicts: list[object] = []
    expected = told(sample, verdicts)
    stages = Stages(sample, seed).run()
    windows = Counter((v.alertname, v.values, v.end, v.verdict) for v in verdicts)
    assert stages.windows == windows
    assert shown(stages.transitions) == expected


def test_the_stages_agree_with_the_reference_on_streams_that_fire() -> None:
    seen: Counter[bool] = Counter()

    @settings(max_examples=100)
    @given(sample=samples(), seed=st.integers(0, 2**32))
    def law(sample: Sample, seed: int) -> None:
        seen[interest(sample).firings > 0] += 1
        compare(sample, seed)

    law()
    assert seen[True] >= seen[False], seen


@pytest.mark.parametrize("block", range(4))
def test_the_stages_agree_with_the_reference_on_fixed_seeds(block: int) -> None:
    for seed in range(block * 15, block * 15 + 15):
        compare(generate(seed), seed)

"""Which partitions are held back for the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
from support.rules import rule, rules

from evaluator.core.event import MINUTE, EpochUs
from evaluator.core.watermark import BEGINNING
from evaluator.runtime.alignment import HOUR, REASON, Alignment
from evaluator.runtime.log.port import Partition

if TYPE_CHECKING:
    from evaluator.runtime.aggregate_stage import AggregateStage
    from evaluator.runtime.crew import Crew

NOON = 1_769_601_600_000_000


class Holding:
    """Remembers who is held."""

    def __init__(self) -> None:
        self.held: set[int] = set()

    def hold(self, partition: Partition, reason: str) -> None:
        assert reason == REASON
        self.held.add(partition.index)

    def release(self, partition: Partition, reason: str) -> None:
        assert reason == REASON
        self.held.discard(partition.index)


class Reading:
    """A partition, as far as it is looked at: its watermark in minutes after noon, None before its first event."""

    def __init__(self, index: int, watermark: float | None) -> None:
        self.input, self.source = Partition("t", index), rules(rule()).sources["events"]
        self.watermark = BEGINNING if watermark is None else EpochUs(NOON + round(watermark * MINUTE))


@pytest.mark.parametrize(
    ("known", "partitions", "held"),
    [
        pytest.param(0, [60, 61, 0], {1}, id="beyond_the_skew_of_what_the_shards_say"),
        pytest.param(30, [60, 90, 91], {2}, id="the_shards_know_better_than_the_slowest_of_ours"),
        pytest.param(None, [60, 100, 39], {1}, id="without_a_shard_the_slowest_of_ours_counts"),
        pytest.param(None, [64, 600, None], {1}, id="one_without_events_counts_from_where_the_others_stood"),
        pytest.param(None, [None], set(), id="nothing_was_read"),
        pytest.param(None, [], set(), id="nothing_is_ours"),
    ],
)
def test_who_is_held_back(known: float | None, partitions: list[float | None], held: set[int]) -> None:
    crew = Holding()
    decided = BEGINNING if known is None else EpochUs(NOON + round(known * MINUTE))
    alignment = Alignment(cast("Crew", crew), rules(rule()), lambda _source: decided)
    stages = [Reading(index, time) for index, time in enumerate(partitions)]
    alignment.align(cast("list[AggregateStage]", stages))
    assert crew.held == held


def test_who_is_not_ahead_any_more_is_released() -> None:
    crew, decided = Holding(), [EpochUs(NOON)]
    alignment = Alignment(cast("Crew", crew), rules(rule()), lambda _source: decided[0])
    stages = cast("list[AggregateStage]", [Reading(0, 61), Reading(1, 0)])
    alignment.align(stages)
    assert crew.held == {0}
    decided[0] = EpochUs(NOON + HOUR)
    alignment.align(stages)
    assert crew.held == set()


def test_an_added_partition_without_events_holds_nobody_by_what_was_long_ago() -> None:
    crew = Holding()
    alignment = Alignment(cast("Crew", crew), rules(rule()), lambda _source: BEGINNING)
    stages = [Reading(0, 30 * 24 * 60), Reading(1, None)]
    alignment.align(cast("list[AggregateStage]", stages))
    assert crew.held == set()
    stages[0].watermark = EpochUs(stages[0].watermark + HOUR + MINUTE)
    alignment.align(cast("list[AggregateStage]", stages))
    assert crew.held == {0}
    stages[1].watermark = stages[0].watermark
    alignment.align(cast("list[AggregateStage]", stages))
    assert crew.held == set()

"""What was read lately, from tallies that say only how much it was since the start."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import pytest
from support.shown import NOON, FixedClock

from evaluator.core.event import MINUTE, SECOND, EpochUs
from evaluator.runtime.intake import BUCKETS, MAX_REJECTED, OVER_S, Intake, Rejects
from evaluator.wire.rejection import Reason


class Reading:
    """A process that reads the source `events`, beginning at noon."""

    def __init__(self) -> None:
        self.clock, self.tallies = FixedClock(), Counter[tuple[str, ...]]()
        self.intake = Intake(["events", "others"], self.clock)

    def read(self, minute: float, ok: int = 0, source: str = "events", **reasons: int) -> None:
        """So many events more by that minute after noon; the last ones by the reasons of their rejection."""
        self.clock.at = EpochUs(NOON + round(minute * MINUTE))
        self.tallies["records", source, "ok"] += ok
        self.tallies["records", source, "rejected"] += sum(reasons.values())
        for reason, events in reasons.items():
            self.tallies["rejected", source, reason] += events
        self.intake.count(self.tallies)

    def at(self, minute: float) -> Rejects:
        self.clock.at = EpochUs(NOON + round(minute * MINUTE))
        return self.intake.rejects("events")


def test_before_anything_is_read_everything_is_zero() -> None:
    assert Reading().at(0) == Rejects(0, 0, None)


def test_tallies_that_stand_still_are_counted_once() -> None:
    reading = Reading()
    reading.read(0, ok=90, bad_value=10)
    for minute in range(1, 9):
        reading.read(minute)
    assert reading.at(9) == Rejects(10, 100, Reason.BAD_VALUE)


# minute    0    1    2    3    4    5    6    7    8    9   10   11   12
# read      A         B
# at 9.99   [--------------------- ten buckets ----------]
# at 10          [--------------------- ten buckets ----------]              A is forgotten
# at 12                    [--------------------- ten buckets ----------]    B too


@pytest.mark.parametrize(
    ("minute", "expected"),
    [
        pytest.param(9.99, Rejects(3, 7, Reason.FUTURE), id="the_last_moment_of_the_tenth_bucket"),
        pytest.param(10, Rejects(1, 4, Reason.FUTURE), id="the_first_moment_of_the_eleventh"),
        pytest.param(11.99, Rejects(1, 4, Reason.FUTURE), id="as_long_as_the_second"),
        pytest.param(12, Rejects(), id="all_is_over"),
    ],
)
def test_what_is_over_is_forgotten_also_while_nobody_counts(minute: float, expected: Rejects) -> None:
    reading = Reading()
    reading.read(0, ok=1, future=2)
    reading.read(2, ok=3, future=1)
    assert reading.at(minute) == expected


def test_what_comes_after_a_long_silence_is_alone() -> None:
    reading = Reading()
    reading.read(0, ok=100, future=100)
    reading.read(1_000, ok=1)
    assert reading.at(1_000) == Rejects(0, 1, None)


def test_what_is_counted_within_a_bucket_is_added_up() -> None:
    reading = Reading()
    for second in range(120):
        reading.read(second / 60, ok=9, not_json=1)
    assert reading.at(2) == Rejects(120, 1_200, Reason.NOT_JSON)


def test_a_new_process_knows_nothing_of_the_one_before() -> None:
    before, after = Reading(), Reading()
    before.read(0, ok=5, future=5)
    after.read(1, ok=2)
    assert after.at(1) == Rejects(0, 2, None)


def test_sources_are_counted_apart_and_skipped_records_not_at_all() -> None:
    reading = Reading()
    reading.read(0, ok=1, source="others", future=1)
    reading.tallies["records", "events", "skipped"] += 1_000
    reading.read(0, ok=99, bad_value=1)
    assert reading.at(0) == Rejects(1, 100, Reason.BAD_VALUE)


def test_the_reason_is_the_commonest_of_late_and_of_equal_ones_the_same_each_time() -> None:
    reading = Reading()
    reading.read(0, future=100)
    reading.read(10, bad_value=2, wrong_shape=2, missing_time=1)
    assert reading.at(9.99).reason is Reason.FUTURE
    assert reading.at(10).reason is Reason.WRONG_SHAPE


def test_memory_is_the_same_after_a_day() -> None:
    reading = Reading()
    for minute in range(24 * 60):
        reading.read(minute, ok=1, future=1)
    buckets = reading.intake._buckets  # noqa: SLF001  # what is kept is the subject
    assert (len(buckets), {len(counts) for _, counts in buckets}) == (BUCKETS, {2 * (2 + len(Reason))})
    assert reading.at(24 * 60 - 1) == Rejects(10, 20, Reason.FUTURE)


def test_it_looks_back_ten_minutes() -> None:
    assert OVER_S * SECOND == 10 * MINUTE


@pytest.mark.parametrize(
    ("rejected", "events", "limit", "expected"),
    [
        pytest.param(0, 0, MAX_REJECTED, False, id="nothing_was_read"),
        pytest.param(0, 100, Fraction(0), False, id="none_is_not_more_than_none"),
        pytest.param(1, 100, MAX_REJECTED, False, id="exactly_the_share"),
        pytest.param(2, 199, MAX_REJECTED, True, id="a_little_more"),
        pytest.param(1, 5, MAX_REJECTED, True, id="one_of_few"),
        pytest.param(1, 10**6, Fraction(0), True, id="none_is_allowed"),
        pytest.param(99, 100, Fraction(1), False, id="any_share_is_allowed"),
        pytest.param(3, 3, Fraction(1), True, id="everything_never_is"),
    ],
)
def test_what_exceeds_a_share(rejected: int, events: int, limit: Fraction, expected: bool) -> None:  # noqa: FBT001  # a parameter of the test
    assert Rejects(rejected, events).exceed(limit) is expected


def test_the_ratio_of_nothing_is_none() -> None:
    assert (Rejects().ratio, Rejects(1, 4).ratio) == (None, Fraction(1, 4))

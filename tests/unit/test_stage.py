"""When a partition commits, and whose rules may go on where others stopped."""

from __future__ import annotations

import pytest
from support.rules import rule, rules

from evaluator.core.event import SECOND, EpochUs
from evaluator.errors import StateRefused, Superseded
from evaluator.runtime.log.port import Partition
from evaluator.runtime.stage import check_revision, has_passed, phase_of


def test_partitions_commit_at_different_moments_of_the_interval() -> None:
    phases = [phase_of(Partition("events", index), SECOND) for index in range(64)]
    assert all(0 <= phase < SECOND for phase in phases)
    tenths = {phase // (SECOND // 10) for phase in phases}
    assert len(tenths) == 10


def test_a_partition_commits_once_an_interval_whenever_it_committed_before() -> None:
    def passes(last: float, now: float) -> bool:
        return has_passed(EpochUs(int(last * 10)), EpochUs(int(now * 10)), 10, 3)

    # Ticks are at 0.3, 1.3, 2.3 ...
    assert [passes(0.0, now) for now in (0.2, 0.3, 0.4)] == [False, True, True]
    assert [passes(0.4, now) for now in (0.9, 1.2, 1.3)] == [False, False, True]


def test_without_an_interval_every_moment_is_right() -> None:
    assert has_passed(EpochUs(5), EpochUs(5), 0, phase_of(Partition("events", 0), 0))


@pytest.mark.parametrize(
    ("revision", "config", "error"),
    [
        pytest.param(1, "sha256:other", None, id="an_older_one_ran"),
        pytest.param(2, "sha256:ours", None, id="the_same"),
        pytest.param(2, "sha256:other", StateRefused, id="two_call_themselves_the_same"),
        pytest.param(3, "sha256:other", Superseded, id="a_newer_one_ran"),
    ],
)
def test_a_newer_revision_rests_us_and_an_equal_one_with_other_rules_is_refused(
    revision: int, config: str, error: type[Exception] | None
) -> None:
    ours = rules(rule(), revision=2, hash="sha256:ours")
    if error is None:
        check_revision("here", revision, config, ours)
        return
    with pytest.raises(error, match=r"here: .*raise `revision`"):
        check_revision("here", revision, config, ours)

"""Stage 2 as the task sees it: what it may merge, and what it keeps apart while a commit is under way."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from support.fold import Event, Fold
from support.rules import rule, rules

from evaluator.core.event import FAILED, MINUTE, SECOND, EpochUs
from evaluator.core.partial import Origin, Partial
from evaluator.core.watermark import BEGINNING, PartitionTime
from evaluator.errors import StateRefused, Superseded
from evaluator.runtime.evaluate_stage import EvaluateStage, Publishing
from evaluator.runtime.log.port import Fetched, Record
from evaluator.runtime.topics import Topics
from evaluator.wire import partial as partial_wire
from evaluator.wire.record import Publisher

OURS = "sha256:ours"


def stage(revision: int = 1) -> EvaluateStage:
    publishing = Publishing(Publisher("app", OURS, "1", "http://here"), 5 * SECOND)
    judged = rules(rule(), revision=revision, hash=OURS)
    begun = EvaluateStage(judged, 0, 1, Topics("app"), publishing, Counter())
    begun.restore([], (0, 0), None)
    begun.freeze(EpochUs(0))
    begun.committed(EpochUs(0))
    return begun


def partial(
    begin: int, end: int, origin: Origin, prev: int | None = None, watermark: int = BEGINNING, **more: Any
) -> Partial:
    return Partial(
        source="events", partition=0, partitions=1, begin=begin, end=end, sequence=1, before=BEGINNING,
        time=PartitionTime(EpochUs(watermark)), origin=origin, prev=prev, **more,
    )  # fmt: skip


def fetched(*partials: Partial) -> Fetched:
    records = [Record(n, 0, None, partial_wire.encode(one)[0]) for n, one in enumerate(partials)]
    return Fetched(records, len(records), len(records), EpochUs(0))


def test_partials_of_a_newer_revision_are_not_merged() -> None:
    older = stage(revision=1)
    with pytest.raises(Superseded, match="revision 2 of the rules ran"):
        older.apply(fetched(partial(0, 5, Origin(1, OURS)), partial(5, 9, Origin(2, "sha256:new"), prev=5)))
    assert older.sources["events"].partitions[0].end == 5
    assert older.next_offset == 0


def test_partials_of_another_configuration_with_our_revision_are_refused() -> None:
    with pytest.raises(StateRefused, match=r"\(sha256:theirs ran, this is sha256:ours\)"):
        stage().apply(fetched(partial(0, 5, Origin(1, "sha256:theirs"))))


def test_what_is_merged_during_a_commit_is_not_taken_for_committed() -> None:
    begun = stage()
    begun.apply(fetched(partial(0, 5, Origin(1, OURS))))
    assert begun.freeze(EpochUs(SECOND)) is not None
    later = fetched(partial(5, 9, Origin(1, OURS), prev=5))
    begun.apply(later._replace(next_offset=2, high_watermark=2))
    assert begun.merged_until == 0
    begun.committed(EpochUs(2 * SECOND))
    assert (begun.merged_until, begun.next_offset) == (1, 2)
    assert begun.freeze(EpochUs(3 * SECOND)) is not None


def test_the_delay_of_a_commit_counts_from_the_append_that_ripened_its_windows() -> None:
    begun = stage()
    failing = Fold(rules(rule()))
    failing.feed(0, [Event(0, 0, FAILED)])
    cells = failing.aggregators[0].take().cells
    begun.apply(
        fetched(
            partial(0, 1, Origin(1, OURS), cells=cells, watermark=SECOND, appended=EpochUs(2 * SECOND)),
            partial(1, 2, Origin(1, OURS), prev=1, watermark=MINUTE, appended=EpochUs(62 * SECOND)),
            partial(2, 3, Origin(1, OURS), prev=2, watermark=MINUTE),
        )
    )
    assert begun.freeze(EpochUs(63 * SECOND)) is not None
    begun.committed(EpochUs(64 * SECOND))
    assert list(begun.commit_delays) == [2 * SECOND]
    assert list(begun.alert_delays) == [4 * SECOND]

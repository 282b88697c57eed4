"""Stage 2 as the task sees it: what it may merge, and what it keeps apart while a commit is under way."""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from support.fold import Event, Fold
from support.next_release import NEXT
from support.rules import rule, rules

from evaluator.core.event import FAILED, MINUTE, SECOND, EpochUs, SeriesKey
from evaluator.core.partial import Origin, Partial
from evaluator.core.watermark import BEGINNING, PartitionTime
from evaluator.errors import SchemaRefused, StateRefused, Superseded
from evaluator.runtime.evaluate_stage import (
    DECIDED_AT_ONCE,
    REWRITTEN_AT_ONCE,
    TURN_BYTES,
    EvaluateStage,
    Publishing,
)
from evaluator.runtime.log.port import Fetched
from evaluator.runtime.topics import Topics
from evaluator.wire import partial as partial_wire
from evaluator.wire.codecs import CODECS, Codecs
from evaluator.wire.record import Publisher
from evaluator.wire.records import Record
from evaluator.wire.state import META_KEY

if TYPE_CHECKING:
    from evaluator.core.rule import RuleSet

OURS, NOW = "sha256:ours", EpochUs(0)


def stage(revision: int = 1) -> EvaluateStage:
    publishing = Publishing(Publisher("app", OURS, "1", "http://here"), 5 * SECOND)
    judged = rules(rule(), revision=revision, hash=OURS)
    begun = EvaluateStage(judged, 0, 1, Topics("app"), publishing, Counter())
    begun.restore([], (0, 0), None)
    assert written(begun)
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
    assert older.next_offset == 1, "what is merged is not to be merged again, whatever is committed now"


def test_partials_of_another_configuration_with_our_revision_are_refused() -> None:
    with pytest.raises(StateRefused, match=r"\(sha256:theirs ran, this is sha256:ours\)"):
        stage().apply(fetched(partial(0, 5, Origin(1, "sha256:theirs"))))


def test_what_is_merged_during_a_commit_is_not_taken_for_committed() -> None:
    begun = stage()
    begun.apply(fetched(partial(0, 5, Origin(1, OURS))))
    assert written(begun, EpochUs(SECOND))
    later = fetched(partial(5, 9, Origin(1, OURS), prev=5))
    begun.apply(later._replace(next_offset=2, high_watermark=2))
    assert begun.merged_until == 0
    begun.committed(EpochUs(2 * SECOND))
    assert (begun.merged_until, begun.next_offset) == (1, 2)
    assert written(begun, EpochUs(3 * SECOND))


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
    assert written(begun, EpochUs(63 * SECOND))
    begun.committed(EpochUs(64 * SECOND))
    assert list(begun.commit_delays) == [2 * SECOND]
    assert list(begun.alert_delays) == [4 * SECOND]


def test_more_partials_than_a_turn_may_take_are_left_for_the_next() -> None:
    events = Fold(rules(rule(), revision=1, hash=OURS, group_by=("f",)))
    parts = []
    for number in range(4):
        at = EpochUs(number * MINUTE)
        events.feed(0, [Event(number, at, FAILED, 7, SeriesKey("api", (str(n) * 100,))) for n in range(300)])
        cells = events.aggregators[0].take().cells
        parts.append(partial(number, number + 1, Origin(1, OURS), prev=number or None, cells=cells))
    whole = fetched(*parts)
    weights = [len(record.value or b"") for record in whole.records]
    assert max(weights) < TURN_BYTES < sum(weights[:2]), weights

    begun = stage()
    rest = begun.apply(whole)
    assert rest is not None
    assert ([record.offset for record in rest.records], begun.next_offset, begun.lag) == ([2, 3], 2, 2)
    assert begun.apply(rest) is None
    assert (begun.next_offset, begun.lag) == (4, 0)
    at_once = stage()
    for one in whole.records:
        at_once.apply(whole._replace(records=[one], next_offset=one.offset + 1))
    assert written(begun) == written(at_once)


def test_many_series_whose_windows_ripen_at_once_are_decided_in_turns() -> None:
    count = 2 * DECIDED_AT_ONCE + 1
    judged = rules(rule(), revision=1, hash=OURS, group_by=("f",))

    def begun() -> EvaluateStage:
        publishing = Publishing(Publisher("app", OURS, "1", "http://here"), 5 * SECOND, verdicts=True)
        one = EvaluateStage(judged, 0, 1, Topics("app"), publishing, Counter())
        one.restore([], (0, 0), None)
        assert written(one)
        return one

    events = Fold(judged)
    events.feed(0, [Event(0, 0, FAILED, 7, SeriesKey("api", (str(n),))) for n in range(count)])
    cells = events.aggregators[0].take().cells
    ripe = fetched(partial(0, 1, Origin(1, OURS), cells=cells, watermark=MINUTE, appended=EpochUs(0)))
    later = fetched(partial(1, 2, Origin(1, OURS), prev=1, watermark=2 * MINUTE, appended=EpochUs(0)))

    in_turns, frozen_between, both = begun(), begun(), begun()
    rest = in_turns.apply(ripe)
    assert rest is not None
    assert (list(rest.records), rest.next_offset, in_turns.next_offset) == ([], 1, 1)
    assert in_turns.due(EpochUs(1)), "what is not decided yet is urgent, should nothing more be applied"
    assert in_turns.apply(rest) is rest
    assert in_turns.apply(rest) is None

    # A commit between the turns decides the others first, and what is applied next waits for them.
    frozen_between.apply(ripe)
    both.apply(ripe)
    assert both.apply(later) is later, "nothing is merged before all is decided"
    expected = written(in_turns)
    assert len(set(ids(expected))) == count
    assert written(frozen_between) == expected
    rest = both.apply(later)
    while rest is not None:
        rest = both.apply(rest)
    # They name more partials than those that ripened them; the transitions are the same.
    assert ids(written(both)) == ids(expected)


def ids(records: list[Any]) -> list[str]:
    """Of the alerts."""
    return [orjson.loads(record.value)["id"] for record in records if record.topic == "slo.alerts"]


def written(begun: EvaluateStage, now: EpochUs = NOW) -> list[Any]:
    outbox = begun.freeze(now)
    return [] if outbox is None else list(outbox.records)


MANY = 3_000
"""Series, each with a pane and a progress: more records than one commit rewrites."""


def wide() -> RuleSet:
    """Rules with room for so many."""
    judged = rules(rule(), revision=1, hash=OURS, group_by=("f",))
    return replace(judged, surfaces={"api": replace(judged.surfaces["api"], max_series=MANY)})


def restored(kept: dict[bytes | None, Record], codecs: Codecs) -> EvaluateStage:
    publishing = Publishing(Publisher("app", OURS, "1", "http://here"), 5 * SECOND)
    begun = EvaluateStage(wide(), 0, 1, Topics("app"), publishing, Counter(), codecs)
    begun.restore(list(kept.values()), (0, 1), None)
    return begun


def keep(kept: dict[bytes | None, Record], begun: EvaluateStage) -> int:
    """Write an outbox's state over what is kept; returns how many records of state it had."""
    outbox = begun.freeze(EpochUs(0))
    written = [] if outbox is None else [record for record in outbox.records if record.topic == "app.state"]
    kept.update({record.key: Record(0, 0, record.key, record.value) for record in written})
    begun.committed(EpochUs(0))
    return len(written)


def schemas(kept: dict[bytes | None, Record]) -> Counter[int]:
    return Counter(record.value[0] for record in kept.values() if record.value is not None)


def values(kept: dict[bytes | None, Record]) -> dict[bytes | None, bytes | None]:
    """What is stored of series."""
    return {key: record.value for key, record in kept.items() if key != META_KEY}


def test_what_has_another_schema_is_written_anew_a_few_thousand_records_a_commit() -> None:
    events = Fold(wide())
    events.feed(0, [Event(n, 0, FAILED, 7, SeriesKey("api", (str(n),))) for n in range(MANY)])
    kept: dict[bytes | None, Record] = {}
    begun = restored(kept, NEXT)
    begun.apply(fetched(partial(0, MANY, Origin(1, OURS), cells=events.aggregators[0].take().cells)))
    keep(kept, begun)
    assert schemas(kept) == {1: 2 * MANY + 1}
    first = values(kept)

    finalizing = restored(kept, NEXT.finalized())
    assert finalizing.due(EpochUs(0))
    assert keep(kept, finalizing) == REWRITTEN_AT_ONCE + 1
    assert schemas(kept) == {1: 2 * MANY - REWRITTEN_AT_ONCE, 2: REWRITTEN_AT_ONCE + 1}

    again = restored(kept, NEXT.finalized())
    assert again.due(EpochUs(0))
    assert keep(kept, again) == 2 * MANY - REWRITTEN_AT_ONCE + 1
    assert schemas(kept) == {2: 2 * MANY + 1}
    assert not again.due(EpochUs(0))

    with pytest.raises(SchemaRefused, match="state of a shard: stored with schema 2"):
        restored(kept, CODECS)
    back = restored(kept, NEXT)
    while keep(kept, back):
        pass
    assert schemas(kept) == {1: 2 * MANY + 1}
    assert values(kept) == first


def kept_of_one_series() -> tuple[dict[bytes | None, Record], bytes]:
    """A shard with one series, and the key of its pane."""
    events = Fold(wide())
    events.feed(0, [Event(0, 0, FAILED, 7, SeriesKey("api", ("x",)))])
    kept: dict[bytes | None, Record] = {}
    begun = restored(kept, NEXT)
    begun.apply(fetched(partial(0, 1, Origin(1, OURS), cells=events.aggregators[0].take().cells)))
    keep(kept, begun)
    (pane,) = (key for key in kept if key is not None and key.startswith(b"p"))
    return kept, pane


def test_a_damaged_pane_is_refused_before_the_shard_runs() -> None:
    kept, pane = kept_of_one_series()
    value = kept[pane].value or b""
    kept[pane] = kept[pane]._replace(value=value[:-1] + bytes([value[-1] ^ 1]))
    with pytest.raises(StateRefused, match="pane: a stored record is damaged"):
        restored(kept, NEXT)


def test_a_pane_that_is_to_be_written_anew_and_cannot_be_opened_is_refused_before_the_shard_runs() -> None:
    kept, pane = kept_of_one_series()
    body = b"\xc0"
    kept[pane] = kept[pane]._replace(value=struct.pack(">BI", 1, zlib.crc32(body, 1)) + body)
    with pytest.raises(StateRefused, match="pane: a stored record says schema 1 but is not of it"):
        restored(kept, NEXT.finalized())
    restored(kept, NEXT)

"""Stage 1 as the task sees it: what a clock may decide, what is recorded, what is refused."""

from __future__ import annotations

import gzip
import tracemalloc
from collections import Counter
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from evaluator.core.event import FAILED, SECOND, UNKNOWN, EpochUs
from evaluator.core.partial import FutureRejection, IdleAdvance
from evaluator.core.watermark import BEGINNING
from evaluator.errors import StateRefused, Superseded
from evaluator.runtime.aggregate_stage import AggregateStage, Timing
from evaluator.runtime.log.port import Fetched
from evaluator.runtime.topics import Topics
from evaluator.wire import partial as partial_wire
from evaluator.wire.config.load import load_rules
from evaluator.wire.records import Record
from evaluator.wire.text import rfc3339

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from evaluator.core.partial import ClockDecision, Partial

START = 1_769_558_400 * SECOND
RULES = """
version: 1
revision: {revision}
sources:
  events:
    topic: t
    format: json
    out_of_orderness: 5s
    idle_after: 30s
    dedup: {dedup}
    fields: {{time: t, id: i, failed: {{s: ">= 500"}}, deploy: v}}
surfaces:
  api: {{source: events}}
alerts:
  A: {{surface: api, when: error_count > {threshold}, window: {window}, severity: page}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def stage(
    folder: Path, *, decisions: Sequence[ClockDecision] = (), clock: bool = True, shards: int = 2, revision: int = 0,
    dedup: int = 0, threshold: int = 1, window: str = "1m", accepts_loss: bool = False, original: int | None = None,
) -> AggregateStage:  # fmt: skip
    """A stage of partition 0 of 1 that has begun afresh."""
    path = folder / "rules.yaml"
    path.write_text(RULES.format(revision=revision, dedup=dedup, threshold=threshold, window=window))
    timing = Timing(SECOND, uses_clock=clock, accepts_loss=accepts_loss)
    return AggregateStage(
        load_rules([path]),
        "events",
        0,
        1,
        shards,
        Topics("app"),
        timing,
        Counter(),
        decisions,
        original=None if original is None else lambda: original,
    )


def fresh(folder: Path, **changes: Any) -> AggregateStage:
    begun = stage(folder, **changes)
    begun.restore([], (0, 0), None)
    begun.freeze(EpochUs(START))
    return begun


def record(offset: int, at: float, **fields: object) -> Record:
    """An event `at` seconds after the start, as it was appended then."""
    time = START + round(at * SECOND)
    return Record(offset, time // 1000, None, orjson.dumps({"t": rfc3339(time), **fields}))


def fetched(*records: Record, at: float, next_offset: int | None = None, end: int | None = None) -> Fetched:
    """A fetch at `at` seconds after the start; `end` is the log's end."""
    after = next_offset if next_offset is not None else (records[-1].offset + 1 if records else 0)
    return Fetched(records, after, after if end is None else end, EpochUs(START + round(at * SECOND)))


def apply_all(stage: AggregateStage, fetched: Fetched) -> None:
    """Take it in, however many turns it wants for that."""
    rest: Fetched | None = fetched
    while rest is not None:
        rest = stage.apply(rest)


def seconds(stage: AggregateStage) -> float:
    """The watermark in seconds after the start."""
    return (stage.watermark - START) / SECOND


def partials(stage: AggregateStage, at: float = 1e6) -> list[Partial]:
    """The partials of a commit."""
    outbox = stage.freeze(EpochUs(START + round(at * SECOND)))
    assert outbox is not None
    return [partial_wire.decode(r.value or b"") for r in outbox.records if r.topic == "app.partials"]


def test_a_partition_that_is_idle_at_its_end_follows_the_clock(folder: Path) -> None:
    idle = fresh(folder)
    idle.apply(fetched(record(0, 0), at=0))
    for now in range(0, 36, 5):
        idle.apply(fetched(at=now, next_offset=1))
    assert seconds(idle) == 30


def test_runs_of_deploys_go_to_the_shard_of_their_series_as_they_are(folder: Path) -> None:
    read = fresh(folder, window="deploy")
    read.apply(fetched(record(0, 0, v="a", s=500), record(1, 1), record(2, 30, v="b"), record(3, 20, v="b"), at=30))
    (told,) = [partial for partial in partials(read) if partial.runs]
    ((series, runs),) = told.runs
    assert (series.surface, told.cells) == ("api", ())
    # The last one is older than the watermark, 25 s after the start.
    assert [(run.offset, run.deploy, run.failed, (run.time - START) // SECOND) for run in runs] == [
        (0, "a", FAILED, 0), (1, "", UNKNOWN, 1), (2, "b", UNKNOWN, 30),
    ]  # fmt: skip
    assert read.tallies["late", "api"] == 1


def test_where_deploys_are_judged_every_shard_is_told_the_time_each_minute(folder: Path) -> None:
    idle = fresh(folder, window="deploy")
    idle.apply(fetched(record(0, 0, v="a"), at=0))
    partials(idle, 1)
    told = []
    for now in range(0, 300, 5):
        idle.apply(fetched(at=now, next_offset=1))
        if idle.due(EpochUs(START + now * SECOND)):
            told.append((now, len(partials(idle, now))))
    assert told == [(30, 2), (65, 2), (125, 2), (185, 2), (245, 2)]


def test_the_end_of_the_input_is_told_to_every_shard(folder: Path) -> None:
    """Also where the watermark is there already: what is as old as it is complete only now."""
    ended = fresh(folder, window="deploy", clock=False)
    ended.apply(fetched(record(0, 0, v="a"), record(1, 5), at=5))
    partials(ended, 6)
    ended.finish(EpochUs(START + 5 * SECOND))
    assert [partial.time.is_over for partial in partials(ended, 7)] == [True, True]
    assert ended.freeze(EpochUs(START + 8 * SECOND)) is None


def test_a_partition_with_unread_records_is_never_advanced_by_a_clock(folder: Path) -> None:
    behind = fresh(folder)
    behind.apply(fetched(record(0, 0), at=0, end=5))
    for now in range(0, 120, 5):
        behind.apply(fetched(at=now, next_offset=1, end=5))
    assert seconds(behind) == -5


def test_an_open_transaction_of_a_producer_is_not_the_end(folder: Path) -> None:
    waiting = fresh(folder)
    for now in range(0, 120, 5):
        waiting.apply(fetched(at=now, next_offset=0, end=1))
    assert waiting.watermark == BEGINNING


def test_a_pause_between_fetches_starts_observation_again(folder: Path) -> None:
    paused = fresh(folder)
    paused.apply(fetched(record(0, 0), at=0))
    for now in (5, 10, 15, 20, 25, 36, 40, 45, 50, 55, 60, 65):
        paused.apply(fetched(at=now, next_offset=1))
    assert seconds(paused) == -5


def test_a_takeover_starts_observation_again(folder: Path) -> None:
    taken = fresh(folder)
    for now in range(0, 30, 5):
        taken.apply(fetched(at=now))
    taken.interrupted()
    taken.apply(fetched(at=31))
    assert taken.watermark == BEGINNING


def test_rejected_records_do_not_keep_a_partition_busy(folder: Path) -> None:
    noisy = fresh(folder)
    noisy.apply(fetched(record(0, 0), at=0))
    for number in range(1, 8):
        noisy.apply(fetched(Record(number, -1, None, b"{"), at=number * 5))
    assert seconds(noisy) == 30


def test_a_clock_that_is_not_trusted_moves_no_watermark_and_rejects_no_event(folder: Path) -> None:
    off = fresh(folder)
    off.apply(fetched(record(0, 0), at=0))
    off.trust_clock(trusted=False)
    for now in range(0, 66, 5):
        off.apply(fetched(at=now, next_offset=1))
    assert seconds(off) == -5
    # By our clock, which is an hour behind, this event is of the future.
    off.apply(fetched(record(1, 100), at=-3600))
    assert (seconds(off), off.tallies["rejected", "events", "future"]) == (95, 0)
    off.trust_clock(trusted=True)
    for now in range(100, 136, 5):
        off.apply(fetched(at=now, next_offset=2))
    assert seconds(off) == 130


def test_an_idle_partition_asks_for_the_brokers_time_while_its_clock_is_not_trusted(folder: Path) -> None:
    off = fresh(folder)
    assert not off.due(EpochUs(START + 60 * SECOND))
    off.trust_clock(trusted=False)
    assert not off.due(EpochUs(START + 29 * SECOND))
    assert off.due(EpochUs(START + 31 * SECOND))
    assert off.freeze(EpochUs(START + 31 * SECOND)) is not None
    assert not off.due(EpochUs(START + 32 * SECOND))


def test_a_clock_is_compared_with_the_brokers_before_it_decides_anything(folder: Path) -> None:
    first = stage(folder)
    first.restore([], (0, 0), None)
    second = stage(folder)
    second.restore(progress_of(first), (0, 0), None)
    assert second.freeze(EpochUs(START)) is not None
    assert second.freeze(EpochUs(START)) is None
    without_clock = stage(folder, clock=False)
    again = stage(folder)
    again.restore([], (0, 0), None)
    without_clock.restore(progress_of(again), (0, 0), None)
    assert without_clock.freeze(EpochUs(START)) is None


def test_a_partial_says_when_the_records_came_that_ripened_a_window(folder: Path) -> None:
    busy = fresh(folder)
    busy.apply(fetched(record(0, 0), at=0))
    busy.apply(fetched(record(1, 66), record(2, 67), at=67))
    busy.apply(fetched(record(3, 68), at=68))
    assert {p.appended for p in partials(busy)} == {EpochUs(START + 66 * SECOND)}
    busy.apply(fetched(record(4, 69), at=69))
    assert {p.appended for p in partials(busy)} == {None}


def test_a_fetch_that_failed_begins_the_observation_anew(folder: Path) -> None:
    idle = fresh(folder)
    idle.apply(fetched(record(0, 0), at=0))
    for now in range(0, 60, 5):
        idle.apply(fetched(at=now, next_offset=1)._replace(is_continuous=now not in {25, 50}))
    assert seconds(idle) == -5
    for now in range(60, 81, 5):
        idle.apply(fetched(at=now, next_offset=1))
    assert seconds(idle) == 75


def test_an_idle_advance_is_recorded_where_it_happened(folder: Path) -> None:
    idle = fresh(folder)
    idle.apply(fetched(record(0, 0), at=0))
    for now in range(0, 66, 5):
        idle.apply(fetched(at=now, next_offset=1))
    assert {p.idle_advances for p in partials(idle)} == {(IdleAdvance(1, EpochUs(START + 60 * SECOND)),)}


def test_a_recorded_idle_advance_is_applied_at_its_offset_and_no_other_is_made(folder: Path) -> None:
    replayed = fresh(folder, decisions=[IdleAdvance(1, EpochUs(START + 60 * SECOND))], clock=False)
    late = record(1, 30)
    replayed.apply(fetched(record(0, 0), late, at=1000))
    (first, _) = partials(replayed)
    assert first.idle_advances == (IdleAdvance(1, EpochUs(START + 60 * SECOND)),)
    assert replayed.tallies["late", "api"] == 1


def test_an_event_ahead_of_our_clock_is_rejected_and_the_decision_recorded(folder: Path) -> None:
    ahead = fresh(folder)
    event = Record(0, -1, None, orjson.dumps({"t": rfc3339(START + 60 * SECOND)}))
    ahead.apply(fetched(event, at=0))
    assert ahead.tallies["rejected", "events", "future"] == 1
    assert partials(ahead)[0].future_rejections == (FutureRejection(0, 0),)


def test_without_a_clock_only_recorded_events_are_future_ones(folder: Path) -> None:
    event = Record(0, -1, None, orjson.dumps({"t": rfc3339(START + 60 * SECOND)}))
    free, bound = fresh(folder, clock=False), fresh(folder, clock=False, decisions=[FutureRejection(0, 0)])
    for replayed in (free, bound):
        replayed.apply(fetched(event, at=0))
    assert (free.tallies["records", "events", "ok"], bound.tallies["records", "events", "ok"]) == (1, 0)


def progress_of(begun: AggregateStage, at: float = 1e6) -> list[Record]:
    """What the next life reads from the progress topic."""
    outbox = begun.freeze(EpochUs(START + round(at * SECOND)))
    assert outbox is not None
    return [Record(0, 0, r.key, r.value) for r in outbox.records if r.topic == "app.progress.events"]


def test_a_restart_continues_the_chain_of_each_shard(folder: Path) -> None:
    first = fresh(folder)
    first.apply(fetched(record(0, 0), at=0))
    second = stage(folder)
    second.restore(progress_of(first), (0, 1), record(0, 0))
    second.apply(fetched(record(1, 90), at=90))
    assert {(p.prev, p.begin, p.end, p.sequence) for p in partials(second)} == {(1, 1, 2, 2)}


def test_a_first_commit_under_a_new_config_says_which_panes_the_old_one_filled(folder: Path) -> None:
    first = fresh(folder)
    first.apply(fetched(record(0, 70), at=70))
    second = stage(folder, threshold=2)
    second.restore(progress_of(first), (0, 1), record(0, 70))
    assert {p.since for p in partials(second)} == {START + 120 * SECOND}


def test_deduplication_knows_after_a_restart_what_it_knew_before(folder: Path) -> None:
    first = fresh(folder, dedup=3)
    first.apply(fetched(record(0, 0, i="a"), record(1, 1, i="b"), at=1))
    second = stage(folder, dedup=3)
    second.restore(progress_of(first), (0, 2), record(1, 1, i="b"))
    assert second.next_offset == 0
    second.apply(fetched(record(0, 0, i="a"), record(1, 1, i="b"), record(2, 2, i="a"), at=2))
    assert (second.tallies["duplicates", "events"], second.tallies["records", "events", "ok"]) == (1, 0)


@pytest.mark.parametrize(
    ("changes", "bounds", "last", "message"),
    [
        pytest.param({"shards": 3}, (0, 1), record(0, 0), "set EVALUATOR_SHARDS=2", id="another_number_of_shards"),
        pytest.param({}, (5, 9), None, "--accept-data-loss", id="retention_was_faster"),
        pytest.param({}, (0, 0), None, "recreated", id="the_log_is_shorter_than_what_was_read"),
        pytest.param({}, (0, 9), record(0, 7), "recreated", id="another_record_stands_where_ours_stood"),
        pytest.param(
            {"revision": 1, "threshold": 9}, (0, 1), record(0, 0), "call themselves", id="two_configs_of_one_revision"
        ),
    ],
)
def test_state_that_cannot_be_continued_is_refused(
    folder: Path, changes: dict[str, Any], bounds: tuple[int, int], last: Record | None, message: str
) -> None:
    first = fresh(folder, revision=1)
    first.apply(fetched(record(0, 0), at=0))
    progress = progress_of(first)
    with pytest.raises(StateRefused, match=message):
        stage(folder, **{"revision": 1, **changes}).restore(progress, bounds, last)


def test_an_accepted_loss_is_said_to_every_shard_and_nothing_before_the_next_event_is_covered(folder: Path) -> None:
    first = fresh(folder)
    first.apply(fetched(record(0, 0), at=0))
    second = stage(folder, accepts_loss=True)
    second.restore(progress_of(first), (5, 9), None)
    assert second.next_offset == 5
    (empty, _) = partials(second)
    assert (empty.prev, empty.begin, empty.end, empty.lost, empty.time.covered) == (1, 5, 5, (1, 5), None)
    second.apply(fetched(record(5, 200), at=200))
    told = partials(second)
    assert {(p.prev, p.begin, p.lost, p.time.covered) for p in told} == {
        (5, 5, None, START + 205 * SECOND)
    }  # and the disorder allowed


def test_a_process_with_an_older_revision_keeps_off(folder: Path) -> None:
    first = fresh(folder, revision=1)
    first.apply(fetched(record(0, 0), at=0))
    with pytest.raises(Superseded, match="raise `revision`"):
        stage(folder, revision=0).restore(progress_of(first), (0, 1), record(0, 0))


def test_a_damaged_progress_record_is_refused(folder: Path) -> None:
    first = fresh(folder)
    first.apply(fetched(record(0, 0), at=0))
    (stored,) = progress_of(first)
    flipped = bytearray(stored.value or b"")
    flipped[-1] ^= 1
    with pytest.raises(StateRefused, match="damaged"):
        stage(folder).restore([stored._replace(value=bytes(flipped))], (0, 1), None)


def test_a_batch_of_bad_events_is_one_dead_letter(folder: Path) -> None:
    begun = fresh(folder)
    begun.apply(fetched(record(0, 0), Record(1, -1, b"k", b'{"t": "yesterday"}'), at=0))
    outbox = begun.freeze(EpochUs(START + 10**12))
    assert outbox is not None
    (letter,) = [r for r in outbox.records if r.topic == "slo.dlq"]
    headers = dict(letter.headers)
    assert (letter.key, letter.value, headers["offset"], headers["reason"]) == (
        b"k",
        b'{"t": "yesterday"}',
        b"1",
        b"bad_value",
    )


def test_a_dead_letter_says_what_a_re_publication_needs(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(
        "version: 1\nsources: {events: {topic: t, format: json, batch: array, fields: {time: t}}}\n"
        "surfaces: {api: {source: events}}\n"
    )
    of_batches = AggregateStage(load_rules([path]), "events", 0, 1, 2, Topics("app"), Timing(SECOND), Counter())
    of_batches.restore([], (0, 0), None)
    of_batches.freeze(EpochUs(START))
    good, stamp = {"t": rfc3339(START)}, START // 1000
    values = [[good], [good, {"t": "x"}, good, {}], [{}]]
    headers = (("ce_id", b"7"), ("empty", None))
    of_batches.apply(fetched(*(
        Record(offset, stamp, None, orjson.dumps(value), headers) for offset, value in enumerate(values)
    ), at=0))  # fmt: skip
    outbox = of_batches.freeze(EpochUs(START + 10**12))
    assert outbox is not None
    told = [dict(r.headers) for r in outbox.records if r.topic == "slo.dlq"]
    names = ("offset", "index", "events", "accepted", "timestamp", "header.ce_id")
    assert [[each[name] for name in names] for each in told] == [
        [b"1", b"1", b"2", b"2", b"%d" % stamp, b"7"],
        [b"2", b"0", b"1", b"0", b"%d" % stamp, b"7"],
    ]
    assert all("header.empty" not in each for each in told)


def test_from_the_end_is_about_the_first_run_only(folder: Path) -> None:
    first = stage(folder, original=1)
    first.restore([], (3, 7), None)
    assert first.next_offset == 7
    stored = progress_of(first)
    # Fifty records have come since.
    again = stage(folder, original=1)
    again.restore(stored, (3, 57), None)
    assert again.next_offset == 7
    again.apply(fetched(record(7, 0), at=0))
    (told, _) = partials(again)
    assert told.time.covered == EpochUs(START + 5 * SECOND)  # not before: earlier records were not read


def test_a_partition_that_was_added_after_the_first_run_is_read_from_its_beginning(folder: Path) -> None:
    added = stage(folder, original=0)
    added.restore([], (3, 7), None)
    assert added.next_offset == 3


def test_what_a_fetch_unpacks_to_is_not_in_memory_at_once(tmp_path: Path) -> None:
    """Thirty-two megabytes of ids, in records of a kilobyte."""
    path = tmp_path / "rules.yaml"
    path.write_text("version: 1\nsources: {events: {topic: t, format: supabase}}\nsurfaces: {api: {source: events}}\n")
    about = {"timestamp": START, "metadata": {"function_id": "f", "response": {"status_code": 200}}}
    value = gzip.compress(orjson.dumps([{"id": "x" * 500_000, **about}]))
    unpacking = AggregateStage(load_rules([path]), "events", 0, 1, 2, Topics("app"), Timing(SECOND), Counter())
    unpacking.restore([], (0, 0), None)
    unpacking.freeze(EpochUs(START))
    tracemalloc.start()
    apply_all(unpacking, fetched(*(Record(offset, START // 1000, None, value) for offset in range(64)), at=0))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (unpacking.tallies["records", "events", "ok"], unpacking.next_offset) == (64, 64)
    assert peak < 20_000_000

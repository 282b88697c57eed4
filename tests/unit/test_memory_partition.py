"""Compaction, trimming and fetching of one partition, drawn offset by offset."""

from __future__ import annotations

import gc
import weakref
from itertools import repeat

import pytest

from evaluator.runtime.log.memory_partition import PartitionLog


def filled(keys: str, compact_every: int | None = None) -> PartitionLog:
    """A record for each letter; a capital is a tombstone of its key."""
    log = PartitionLog(compact_every)
    add(log, keys)
    return log


def add(log: PartitionLog, keys: str) -> None:
    """Append a record for each letter, one by one."""
    for letter in keys:
        log.extend([0], [letter.lower().encode()], [None if letter.isupper() else letter.encode()])


def strip(log: PartitionLog) -> str:
    """The key at each kept offset from 0, capital for a tombstone; `.` where nothing is."""
    cells = ["."] * log.end
    for record in log.read(0, committed=False):
        letter = (record.key or b"?").decode()
        cells[record.offset] = letter.upper() if record.value is None else letter
    return "".join(cells)


@pytest.mark.parametrize(
    ("before", "once", "twice"),
    [
        pytest.param(
            "abab",
            "..ab",
            "..ab", id="the_newest_of_each_key_stays_at_its_offset",
        ),
        pytest.param(
            "abA",
            ".bA",
            ".b.", id="a_tombstone_outlives_one_pass",
        ),
        pytest.param(
            "aAa",
            "..a",
            "..a", id="a_key_may_come_back",
        ),
        pytest.param("", "", "", id="an_empty_log_stays_empty"),
    ],
)  # fmt: skip
def test_compaction_keeps_what_the_drawing_says(before: str, once: str, twice: str) -> None:
    log = filled(before)
    log.compact()
    assert strip(log) == once
    log.compact()
    assert strip(log) == twice
    assert (log.first, log.end) == (0, len(before))


def test_compaction_stops_at_the_last_stable_offset() -> None:
    log = filled("aa")
    log.write(1, 0, b"b", b"open", ())
    add(log, "aba")
    log.compact()
    assert strip(log) == ".ababa"
    log.mark(1, commit=True)
    log.compact()
    assert strip(log) == "....ba."


def test_compaction_drops_aborted_records_and_keeps_what_they_seemed_to_replace() -> None:
    log = filled("a")
    log.write(1, 0, b"a", b"aborted", ())
    log.mark(1, commit=False)
    assert strip(log) == "aa."
    log.compact()
    assert strip(log) == "a.."
    assert [record.value for record in log.read(0, committed=True)] == [b"a"]


def test_an_aborted_record_above_the_last_stable_offset_stays_hidden_after_a_compaction() -> None:
    log = PartitionLog()
    log.write(1, 0, b"a", b"open", ())
    log.write(2, 0, b"b", b"aborted", ())
    log.mark(2, commit=False)
    log.compact()
    log.mark(1, commit=True)
    assert [record.value for record in log.read(0, committed=True)] == [b"open"]


def test_a_compacted_log_stays_small_by_itself() -> None:
    log = filled("abcd" * 1000, compact_every=100)
    assert len(log.read(0, committed=True)) < 200
    assert log.fetch(3999, 10)[1] == log.end == 4000


def test_a_fetch_crosses_compacted_gaps() -> None:
    log = filled("abcabcx")
    log.compact()
    assert strip(log) == "...abcx"
    records, after = log.fetch(0, 2)
    assert ([record.offset for record in records], after) == ([3, 4], 5)


def test_a_trimmed_record_is_freed_at_once() -> None:
    # Plain bytes cannot be weakly referenced, so the header's name is watched.
    class Watched(str):
        """A header name that can be watched."""

        __slots__ = ("__weakref__",)

    names = [Watched("h") for _ in range(10)]
    watchers = [weakref.ref(name) for name in names]
    log = PartitionLog()
    log.extend(range(10), repeat(None), repeat(b"v"), [((name, b""),) for name in names])
    del names
    log.trim(3)
    gc.collect()
    assert [watcher() is None for watcher in watchers] == [True] * 3 + [False] * 7


@pytest.mark.parametrize("step", [1, 2, 3, 7])
def test_trimming_in_any_steps_keeps_the_rest(step: int) -> None:
    log = filled("abcdefghijklmnopqrst")
    for before in range(0, 21, step):
        log.trim(before)
        assert log.first == before
        assert [record.offset for record in log.read(0, committed=True)] == list(range(before, 20))
    log.trim(5)
    assert log.first > 5
    log.trim(99)
    assert (log.first, log.end, log.read(0, committed=True)) == (20, 20, [])
    add(log, "z")
    assert log.fetch(20, 5)[1] == 21


def test_an_open_transaction_is_not_trimmed() -> None:
    log = filled("ab")
    log.write(1, 0, b"c", b"open", ())
    log.trim(3)
    assert log.first == 2
    log.mark(1, commit=True)
    assert [record.offset for record in log.read(0, committed=True)] == [2]


def test_a_fetch_looks_past_aborted_records_for_as_many_as_were_asked() -> None:
    #  a  x  x  C  a  x  C  a      x: aborted, C: marker
    log = filled("a")
    for aborted, behind in ((2, "a"), (1, "a")):
        for _ in range(aborted):
            log.write(1, 0, b"x", b"x", ())
        log.mark(1, commit=False)
        add(log, behind)
    assert [(record.offset) for record in log.fetch(0, 2)[0]] == [0, 4]
    assert log.fetch(0, 2)[1] == 5
    assert [record.offset for record in log.fetch(0, 3)[0]] == [0, 4, 7]
    assert log.fetch(1, 1)[0][0].offset == 4
    assert log.fetch(8, 1) == ([], 8)

"""Laws that every format keeps: no bytes raise, every event has its place, records do not disturb each other."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from fuzz.mutation import mutated as damaged
from fuzz.targets import GROUPS, HEADERS, check, seeds_of
from hypothesis import given
from hypothesis import strategies as st
from support.decoded import NOON, bare, source_of, unfiltered
from support.payloads import documents, mostly, mutated

from evaluator.wire import formats
from evaluator.wire.records import Record, Records

if TYPE_CHECKING:
    from evaluator.wire.formats import Read, Reader

NAMES = sorted(formats.known())


def records_of(name: str) -> st.SearchStrategy[list[Record]]:
    """Runs of records: two of three values from the corpus, the others damaged or anything."""
    seeds = seeds_of(name)
    rngs = st.integers(0, 2**32).map(random.Random)
    near = rngs.map(lambda rng: damaged(rng, seeds))
    values = mostly(st.sampled_from(seeds), near | documents | mutated() | st.binary(max_size=40))
    headers = st.sampled_from(HEADERS.get(name, ((),)))
    made = st.tuples(values, headers, st.sampled_from([NOON, -1, None]))
    return st.lists(made, min_size=1, max_size=4).map(
        lambda some: [Record(n, stamp, None, value, headers) for n, (value, headers, stamp) in enumerate(some)]
    )


def read(reader: Reader, records: list[Record]) -> Read:
    return reader([record.value or b"" for record in records], Records.of(records))


def rows(found: Read) -> list[str]:
    """The events, each as a text: repr tells 1 from 1.0 and True."""
    return [repr(row) for row in zip(*found.columns, strict=True)]


def faults(found: Read) -> list[tuple[int, str]]:
    """What is wrong, in the order of the log."""
    return [(index, fault.detail) for _, index, fault in sorted(found.faults, key=lambda each: each[:2])]


@pytest.mark.parametrize("name", NAMES)
def test_every_event_and_fault_has_its_place(name: str) -> None:
    reader = formats.get(name).reader(unfiltered(source_of(bare(name))), (*GROUPS, "span.end", "ce.time"))
    examples, reached = 0, 0

    @given(records_of(name))
    def law(records: list[Record]) -> None:
        nonlocal examples, reached
        found = read(reader, records)
        check(found, [record.value or b"" for record in records])
        examples += 1
        reached += bool(found.count)

    law()
    assert reached * 2 > examples


@pytest.mark.parametrize("name", NAMES)
def test_a_record_says_the_same_whatever_stands_around_it(name: str) -> None:
    format_, source = formats.get(name), source_of(bare(name))
    paths = (*GROUPS, "span.duration", "span.trace_id", "id", "ce.source+id")
    together, alone = format_.reader(source, paths), format_.reader(source, paths)
    examples, reached = 0, 0

    @given(records_of(name))
    def law(records: list[Record]) -> None:
        nonlocal examples, reached
        examples += 1
        whole = read(together, records)
        records = records[: whole.until]
        each = [read(alone, [record]) for record in records]
        assert rows(whole) == [row for one in each for row in rows(one)]
        assert faults(whole) == [fault for one in each for fault in faults(one)]
        assert whole.skipped == sum(one.skipped for one in each)
        reached += bool(whole.count)

    law()
    assert reached * 2 > examples


@pytest.mark.parametrize("name", [name for name in NAMES if source_of(bare(name)).batch == "one"])
def test_a_path_that_is_asked_for_later_finds_the_events_that_were_found_without_it(name: str) -> None:
    format_, source = formats.get(name), source_of(bare(name))
    before, later = format_.reader(source, ("url",)), format_.reader(source, ("ce.id",))
    examples, reached = 0, 0

    @given(records_of(name))
    def law(records: list[Record]) -> None:
        nonlocal examples, reached
        examples += 1
        first = read(before, records)
        position = range(len(records)) if first.position is None else first.position
        again = read(later, [records[place] for place in position])
        assert (again.count, again.faults) == (first.count, [])
        reached += bool(first.count)

    law()
    assert reached * 2 > examples


@pytest.mark.parametrize("name", [name for name in NAMES if formats.get(name).of_values])
def test_a_format_of_values_looks_at_nothing_else_of_a_record(name: str) -> None:
    format_, source = formats.get(name), source_of(bare(name))
    paths = (*GROUPS, "id")
    whole, bare_ones = format_.reader(source, paths), format_.reader(source, paths)

    @given(records_of(name))
    def law(records: list[Record]) -> None:
        values = [record.value or b"" for record in records]
        expected, found = whole(values, Records.of(records)), bare_ones(values, Records.of(()))
        assert (rows(found), faults(found)) == (rows(expected), faults(expected))

    law()

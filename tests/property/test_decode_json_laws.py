"""The two ways of the format `json` are one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.payloads import KEYS, ODD_VALUES, arrays, documents, mostly, mutated, plain

from evaluator.wire.formats.json import LESSON, MAX_DEPTH, JsonReader, unreadable_as_json

if TYPE_CHECKING:
    from evaluator.wire.formats import Read


def shown(read: Read) -> list[list[object]]:
    return [list(column) for column in read.columns]


PATHS = ("t", "status", "user.id", "user.name.first", "http.status", "\u00e9")
BATCHES = ("one", "array", "lines", "auto")


@pytest.mark.parametrize("batch", BATCHES)
def test_the_typed_way_never_answers_differently_from_the_lenient_one(batch: str) -> None:
    examples, reached = 0, 0
    typed, lenient = JsonReader(PATHS, batch), JsonReader(PATHS, batch, typed=False)
    assert typed._typed is not None  # noqa: SLF001  # else there is nothing to compare

    @given(st.lists(mostly(arrays if batch == "array" else plain, documents | mutated()), min_size=1, max_size=4))
    def law(payloads: list[bytes]) -> None:
        nonlocal examples, reached
        found, expected = typed(payloads, ()), lenient(payloads, ())
        examples += 1
        reached += bool(found.count)
        # Rows of one event a record need no positions; repr tells 1 from 1.0 and True.
        position = found.position if found.position is not None else list(range(len(payloads)))
        index = found.index if found.index is not None else [0] * len(payloads)
        assert repr(shown(found)) == repr(shown(expected))
        assert (position, index) == (expected.position, expected.index)
        assert (found.faults, found.skipped) == (expected.faults, expected.skipped)

    law()
    assert reached * 2 > examples


def test_every_odd_value_alone_is_read_the_same_in_both_ways() -> None:
    typed, lenient = JsonReader(PATHS, "one"), JsonReader(PATHS, "one", typed=False)
    for key in KEYS:
        payloads = [f'{{"{key}":{value},"status":200}}'.encode() for value in ODD_VALUES]
        found, expected = typed(payloads, ()), lenient(payloads, ())
        assert repr(shown(found)) == repr(shown(expected))
        assert found.faults == expected.faults


VALUES = st.sampled_from(["1", "1.5", '"a"', "true", "null", "12345678901234567890", '"\u00e9"', "[2]", "{}", "-0.0"])


@given(
    lesson=st.fixed_dictionaries(dict.fromkeys(("t", "status"), VALUES), optional={"user.id": VALUES}),
    later=st.lists(st.dictionaries(st.sampled_from(["t", "status", "user.id", "\u00e9"]), VALUES), max_size=5),
    nested=st.booleans(),
)
def test_what_a_batch_taught_never_changes_what_later_ones_say(
    lesson: dict[str, str], later: list[dict[str, str]], *, nested: bool
) -> None:
    def payload(fields: dict[str, str]) -> bytes:
        texts = [f'"{name}":{value}' for name, value in fields.items() if not (nested and name == "user.id")]
        if nested and "user.id" in fields:
            texts.append(f'"user":{{"id":{fields["user.id"]}}}')
        return ("{" + ",".join(texts) + "}").encode()

    taught, lenient = JsonReader(PATHS, "one"), JsonReader(PATHS, "one", typed=False)
    taught([payload(lesson)] * LESSON, ())
    payloads = [payload(fields) for fields in (lesson, *later)]
    for batch in (payloads, payloads[:1]):
        found, expected = taught(batch, ()), lenient(batch, ())
        assert repr(shown(found)) == repr(shown(expected))
        assert found.faults == expected.faults
        if found.kinds is not None:
            assert all(set(map(type, column)) <= kind for column, kind in zip(found.columns, found.kinds, strict=True))


def test_a_damaged_record_now_and_then_unlearns_nothing() -> None:
    reader = JsonReader(("t",), "one")
    good = [b'{"t":1}'] * LESSON
    for broken in (b"{", b'{"t":"x"}', b"[]", b"{") * 10:
        reader([*good, broken], ())
        found = reader(good, ())
        assert found.kinds is not None
        assert found.kinds[0] <= {int, str}


@given(st.lists(documents | mutated(), max_size=6))
def test_a_path_that_is_asked_for_later_finds_the_events_that_were_found_without_it(payloads: list[bytes]) -> None:
    before, later = JsonReader(("t", "status"), "one"), JsonReader(("user.id",), "one")
    both = JsonReader(("t", "status", "user.id"), "one")
    first, whole = before(payloads, ()), both(payloads, ())
    assert (first.count, first.position, first.faults) == (whole.count, whole.position, whole.faults)
    position = list(range(len(payloads))) if first.position is None else first.position
    found = later([payloads[place] for place in position], ())
    assert found.faults == []
    assert repr(shown(found)) == repr(shown(whole)[2:])


@given(
    st.lists(st.sampled_from(["{", "}", "[", "]", '"', "\\", "x", '"[{"', '"\\"]"', "[" * 99, "]" * 99, "{}" * 150])),
    st.integers(0, 250),
)
def test_how_deep_brackets_nest_is_told_the_same_in_every_way(parts: list[str], extra: int) -> None:
    text = "".join(parts) + "[" * extra + "[]" * 200 + "]" * extra
    depth = deepest = 0
    is_inside = is_escaped = False
    for character in text:
        if is_inside:
            is_inside = is_escaped or character != '"'
            is_escaped = character == "\\" and not is_escaped
        elif character in '"[{]}':
            is_inside = character == '"'
            depth += {'"': 0, "[": 1, "{": 1}.get(character, -1)
            deepest = max(deepest, depth)
    assert (unreadable_as_json(text.encode()) is not None) is (deepest > MAX_DEPTH)

"""Numbers, times and texts of payloads, one value at a time."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest

from evaluator.wire.field import cut, label_of, lookup, text_of
from evaluator.wire.instant import LAST, NOT_A_TIME, instant
from evaluator.wire.number import micros, number_of


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (12, 12),
        (-1.5, -1.5),
        ("12", 12),
        ("-0.5e1", -5.0),
        ("9" * 5000, math.inf),
        ("1e400", math.inf),
        ("01", None),
        ("+1", None),
        (" 1", None),
        ("1.", None),
        ("NaN", None),
        ("", None),
        ("\u0661", None),
        (True, None),
        ([1], None),
        ({}, None),
    ],
)
def test_a_number_is_a_json_number_or_a_string_in_jsons_number_grammar(value: object, number: float | None) -> None:
    assert number_of(value) == number
    assert type(number_of(value)) is type(number)


@pytest.mark.parametrize(
    ("number", "unit", "expected"),
    [
        pytest.param(2**53 + 1, "s", (2**53 + 1) * 10**6, id="integers_are_exact"),
        pytest.param(0.0000005, "s", 0, id="a_tie_goes_to_the_even_zero"),
        pytest.param(0.0015, "ms", 2, id="a_tie_goes_to_the_even_two"),
        pytest.param(2.5, "us", 2, id="a_double_of_us"),
        pytest.param(1500, "ns", 2, id="integer_ns_up_to_even"),
        pytest.param(2500, "ns", 2, id="integer_ns_down_to_even"),
        pytest.param(2501, "ns", 3, id="integer_ns_above_the_tie"),
        pytest.param(-1500, "ns", -2, id="negative_ns"),
        pytest.param(123.4, "ms", 123_400, id="the_double_times_a_thousand"),
        pytest.param(99_999_999_999, "auto", 99_999_999_999 * 10**6, id="auto_s"),
        pytest.param(10**11, "auto", 10**14, id="auto_ms"),
        pytest.param(10**14, "auto", 10**14, id="auto_us"),
        pytest.param(10**17, "auto", 10**14, id="auto_ns"),
        pytest.param(math.inf, "ms", None, id="infinite"),
    ],
)
def test_a_number_becomes_microseconds_to_the_nearest_ties_to_even(
    number: float, unit: str, expected: int | None
) -> None:
    assert micros(number, unit) == expected


def at(*parts: int) -> int:
    return round(datetime(*parts, tzinfo=UTC).timestamp()) * 1_000_000  # type: ignore[misc, arg-type]  # y, m, d, ...


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-28T12:00:00Z", at(2026, 1, 28, 12)),
        ("2026-01-28 12:00Z", at(2026, 1, 28, 12)),
        ("2026-01-28T12:00:00.5Z", at(2026, 1, 28, 12) + 500_000),
        ("2026-01-28T12:00:00.0000005Z", at(2026, 1, 28, 12)),
        ("2026-01-28T12:00:00.0000015Z", at(2026, 1, 28, 12) + 2),
        ("2026-01-28T12:00:00.00000050000000001Z", at(2026, 1, 28, 12) + 1),
        ("2026-01-28T12:00:59.9999999Z", at(2026, 1, 28, 12, 1)),
        ("2026-01-28T12:00:00+01:30", at(2026, 1, 28, 10, 30)),
        ("2026-01-28T12:00:00-0130", at(2026, 1, 28, 13, 30)),
        ("2026-01-28T12:00:00+01", at(2026, 1, 28, 11)),
        ("2024-02-29T00:00:00Z", at(2024, 2, 29)),
        ("9999-12-31T23:59:59.999999Z", LAST),
        ("9999-12-31T23:59:59.9999999Z", NOT_A_TIME),
        ("9999-12-31T23:59:59-01:00", NOT_A_TIME),
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00+01:00", NOT_A_TIME),
        ("2026-01-28T12:00:00", NOT_A_TIME),
        ("2026-01-28", NOT_A_TIME),
        ("2026-02-29T00:00:00Z", NOT_A_TIME),
        ("2026-01-28T24:00:00Z", NOT_A_TIME),
        ("2026-01-28T23:60:00Z", NOT_A_TIME),
        ("2026-01-28T23:59:60Z", NOT_A_TIME),
        ("2026-01-28T12:00:00+24:00", NOT_A_TIME),
        ("2026-01-28t12:00:00z", NOT_A_TIME),
        ("2026-01-28T12:00:00,5Z", NOT_A_TIME),
        ("2026-01-28T12:00:00Z\n", NOT_A_TIME),
        ("\u0662026-01-28T12:00:00Z", NOT_A_TIME),
        ("now", NOT_A_TIME),
    ],
)
def test_an_iso_time_needs_an_offset_and_has_an_exact_fraction(text: str, expected: int) -> None:
    assert instant(text, "auto") == expected


@pytest.mark.parametrize("value", [-1, -0.001, 253_402_300_800, True, [1], {}, 1e300, 10**400])
def test_what_lies_outside_the_years_1970_to_9999_is_no_time(value: object) -> None:
    assert instant(value, "s") == NOT_A_TIME


def test_range_is_checked_after_rounding() -> None:
    assert instant(-0.4, "us") == 0
    assert instant(-499, "ns") == 0


def test_digits_in_a_string_count_in_the_unit() -> None:
    assert instant("1769601600", "s") == instant(1769601600, "s") == at(2026, 1, 28, 12)


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ("x", "x"),
        (None, ""),
        (True, "true"),
        (False, "false"),
        (1, "1"),
        (1.0, "1"),
        (-0.0, "0"),
        (0.1, "0.1"),
        (1e21, "1000000000000000000000"),
        (1e-7, "1e-07"),
        (2**53 + 1, "9007199254740992"),
        (10**400, "Infinity"),
        ([1, "a", None], '[1,"a",null]'),
        ({"b": 1, "a": {"c": 2.5}}, '{"b":1,"a":{"c":2.5}}'),
        ([10**30, "\ud800"], '[1000000000000000000000000000000,"\ufffd"]'),
    ],
)
def test_the_text_of_a_label_is_the_contracts(value: object, label: str) -> None:
    assert label_of(value) == label


def test_an_integer_id_keeps_all_its_digits() -> None:
    assert text_of(2**63 - 1) == "9223372036854775807"
    assert text_of(1.0) == "1"


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"a": {"b": {"c": 1}}}, 1),
        ({"a": {"b.c": 2}}, 2),
        ({"a.b": {"c": 3}}, 3),
        ({"a.b.c": 4}, 4),
        ({"a": {"b": {"c": 1}}, "a.b.c": 4}, 1),
        ({"a": {"b": {"c": None}}, "a.b.c": 4}, 4),
        ({"a": 7, "a.b.c": 4}, 4),
        ({"a": [{"b": [[{"c": [5]}]]}]}, 5),
        ({"a": [{"b": 1}, {"b": 2}]}, None),
        ({"a": {"b": {"c": [1, 2]}}}, [1, 2]),
        ({"a": {"b": {"c": []}}}, []),
        ({"a": {"b": {"c": [None]}}}, None),
        ({}, None),
        ([], None),
    ],
)
def test_a_path_looks_nested_first_then_for_a_literal_key_and_through_lists_of_one(
    payload: object, expected: object
) -> None:
    assert lookup(payload, ("a", "b", "c")) == expected


def test_half_a_surrogate_pair_becomes_the_replacement_character() -> None:
    assert lookup({"a": "x\ud83d"}, ("a",)) == "x\ufffd"
    assert lookup({"a": "\U0001f600"}, ("a",)) == "\U0001f600"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("abcdef", "abcd"), ("abc\u00e9", "abc"), ("ab\u00e9", "ab\u00e9"), ("\U0001f600", "\U0001f600"), ("", "")],
)
def test_text_is_cut_between_characters(text: str, expected: str) -> None:
    assert cut(text, 4) == expected

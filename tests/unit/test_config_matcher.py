"""What a test of a matcher holds for (docs/config.md, "Matcher")."""

from __future__ import annotations

from typing import Any

import pytest

from evaluator.wire.config.finding import Refused
from evaluator.wire.config.matcher import Matcher, parse_test

HUGE = 10**400
VALUES: dict[str, Any] = {
    "missing": None,
    "true": True,
    "500": 500,
    "500.0": 500.0,
    '"500"': "500",
    "499.5": 499.5,
    "ok": "ok",
    "empty": "",
    "huge": HUGE,
    "object": {"a": 1},
    "list": ["ok", "no"],
}


@pytest.mark.parametrize(
    ("written", "holds_for"),
    [
        pytest.param(500, "500 500.0", id="a_number_is_equal_by_value_and_no_text"),
        pytest.param("500", '"500"', id="a_text_is_equal_to_text_only"),
        pytest.param(True, "true", id="a_boolean_is_no_number"),
        pytest.param(1, "", id="one_is_not_true"),
        pytest.param("*", 'true 500 500.0 "500" 499.5 ok empty huge object list', id="a_star_is_presence"),
        pytest.param(["ok", 500], "500 500.0 ok", id="a_list_is_one_of"),
        pytest.param(["> 5", "*"], "", id="in_a_list_everything_is_literal"),
        pytest.param(">= 500", '500 500.0 "500" huge', id="at_least_counts_numeric_strings"),
        pytest.param("> 499.5", '500 500.0 "500" huge', id="above"),
        pytest.param("< 500", "499.5", id="below_is_false_for_what_is_no_number"),
        pytest.param("<= 500", '500 500.0 "500" 499.5', id="at_most"),
        pytest.param("== 500", '500 500.0 "500"', id="same_compares_numbers_where_both_are"),
        pytest.param("== ok", "ok", id="same_compares_text"),
        pytest.param("== true", "true", id="same_compares_the_text_of_a_boolean"),
        pytest.param("!= 500", "missing true 499.5 ok empty huge object list", id="different_holds_where_missing"),
        pytest.param("!= ", 'missing true 500 500.0 "500" 499.5 ok huge object list', id="different_from_nothing"),
        pytest.param("~ ^5", '500 500.0 "500"', id="search_looks_at_the_text_of_a_number"),
        pytest.param("!~ ^5", "missing true 499.5 ok empty huge object list", id="no_match_holds_where_missing"),
        pytest.param("~ no", "list", id="search_looks_at_compact_json"),
        pytest.param(">=500", "", id="an_operator_without_a_space_is_a_literal"),
    ],
)  # fmt: skip
def test_a_test_holds_for(written: object, holds_for: str) -> None:
    test = parse_test(written)
    assert [name for name, value in VALUES.items() if test.holds(value)] == holds_for.split()


def test_text_with_half_a_surrogate_pair_can_be_searched() -> None:
    assert parse_test("~ ^a.+b$").holds("a\ud800b")
    assert not parse_test("~ ^ab$").holds("a\ud800b")


def test_a_search_never_backtracks() -> None:
    assert not parse_test("~ (a+)+$").holds("a" * 50_000 + "b")


@pytest.mark.parametrize(
    "written", [None, {}, [], [[1]], [None], {"a": 1}, "> x", "<= ", "~ (", "~ (?=a)", float("nan")]
)
def test_what_is_no_test_is_refused(written: object) -> None:
    with pytest.raises(Refused):
        parse_test(written)


def matcher(*cases: dict[str, object]) -> Matcher:
    return Matcher(tuple(tuple((path, parse_test(test)) for path, test in case.items()) for case in cases))


def test_all_fields_of_a_case_must_hold() -> None:
    both = matcher({"a": 1, "b": 2})
    assert both.holds({"a": 1, "b": 2}.get)
    assert not both.holds({"a": 1, "b": 3}.get)


def test_any_case_is_enough() -> None:
    either = matcher({"a": 1}, {"b": 2})
    assert either.holds({"b": 2}.get)
    assert not either.holds({"b": 1}.get)


def test_the_fields_of_a_matcher_are_each_once_in_config_order() -> None:
    assert matcher({"b": 1, "a": 2}, {"a": 3, "c": 4}).fields == ("b", "a", "c")


def test_what_is_hashed_does_not_depend_on_the_order_of_fields() -> None:
    assert matcher({"b": ">= 1", "a": ["x"]}).written() == matcher({"a": ["x"], "b": ">=  1"}).written()

"""Durations, ratios, conditions: what a text means, exactly."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator.core.condition import Condition, Kind, Op
from evaluator.wire.config.duration import LONGEST, format_duration, parse_duration, parse_latency
from evaluator.wire.config.expression import parse_condition, parse_sli
from evaluator.wire.config.finding import Refused
from evaluator.wire.config.ratio import parse_objective, parse_ratio

MS, S, M, H, D = 1_000, 1_000_000, 60_000_000, 3_600_000_000, 86_400_000_000


@pytest.mark.parametrize(
    ("text", "micros"),
    [("0s", 0), ("100ms", 100 * MS), ("5m", 5 * M), ("1h30m", 90 * M), ("7d", 7 * D), ("1w", 7 * D), ("1y", 365 * D),
     ("1y2w3d4h5m6s7ms", 382 * D + 4 * H + 5 * M + 6 * S + 7 * MS), ("90m", 90 * M), ("05m", 5 * M), ("100y", LONGEST)],
)  # fmt: skip
def test_a_duration_is_ordered_whole_units(text: str, micros: int) -> None:
    assert parse_duration(text) == micros
    assert parse_latency(text) == micros


def test_microseconds_are_for_latencies_only() -> None:
    assert parse_latency("1ms250us") == 1250
    with pytest.raises(Refused):
        parse_duration("250us")


@pytest.mark.parametrize(
    "written", ["", "5", 5, 5.5, "1M", "1.5h", "1m1h", "1h 30m", " 5m", "5m\n", "-5m", "m", "1h1h", "\u0665m", "101y",
                "9" * 19 + "s", "9" * 5000 + "s", True, None, ["5m"]],
)  # fmt: skip
def test_what_is_no_duration_is_refused(written: object) -> None:
    with pytest.raises(Refused):
        parse_duration(written)


@given(st.integers(0, LONGEST))
def test_a_duration_survives_being_written_and_read(micros: int) -> None:
    assert parse_latency(format_duration(micros)) == micros


@pytest.mark.parametrize(
    ("micros", "text"),
    [(0, "0s"), (H, "1h"), (5 * M, "5m"), (90 * M, "1h30m"), (7 * D, "7d"), (30 * D, "30d"), (365 * D, "1y"),
     (366 * D, "366d"), (1500 * MS, "1s500ms"), (250, "250us")],
)  # fmt: skip
def test_a_duration_is_written_as_people_would(micros: int, text: str) -> None:
    assert format_duration(micros) == text


def test_a_ratio_is_exact() -> None:
    assert parse_ratio("0.5%") == parse_ratio("0.005") == Fraction(5, 1000)
    assert parse_ratio("100%") == 1
    assert parse_ratio(0) == 0


@pytest.mark.parametrize(
    "written", ["101%", "1.5", "5", "-1%", ".5", "1e-3", "", "x", None, True, [], float("nan"), "0.5 %"]
)
def test_what_is_no_ratio_is_refused(written: object) -> None:
    with pytest.raises(Refused):
        parse_ratio(written)


@pytest.mark.parametrize("written", ["0%", "100%", "0", "1", 0, 1, "99.5"])
def test_an_objective_lies_strictly_between_nothing_and_all(written: object) -> None:
    with pytest.raises(Refused):
        parse_objective(written)


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("error_ratio>0.5%", Condition("error_ratio > 0.5%", "error_ratio", Kind.ERROR_RATIO, Op.GT, Fraction(1, 200))),
        (" error_count  >=  3 ", Condition("error_count >= 3", "error_count", Kind.ERROR_COUNT, Op.GE, Fraction(3))),
        ("request_count < 1", Condition("request_count < 1", "request_count", Kind.REQUEST_COUNT, Op.LT, Fraction(1))),
        ("mean <= 250us", Condition("mean <= 250us", "mean", Kind.MEAN, Op.LE, Fraction(250))),
        ("max > 1s500ms", Condition("max > 1s500ms", "max", Kind.MAX, Op.GT, Fraction(1_500_000))),
        (
            "median > 500ms",
            Condition("median > 500ms", "median", Kind.QUANTILE, Op.GT, Fraction(500_000), q=Fraction(1, 2)),
        ),
        ("p99.9 > 1s", Condition("p99.9 > 1s", "p99.9", Kind.QUANTILE, Op.GT, Fraction(S), q=Fraction(999, 1000))),
        (
            "slow_ratio( 500ms )>5%",
            Condition(
                "slow_ratio(500ms) > 5%", "slow_ratio(500ms)", Kind.SLOW_RATIO, Op.GT, Fraction(1, 20),
                slower_than=500_000,
            ),
        ),
        ("score < 0.75", Condition("score < 0.75", "score", Kind.SCORE, Op.LT, Fraction(3, 4))),
        ("score_drop>10%", Condition("score_drop > 10%", "score_drop", Kind.SCORE_DROP, Op.GT, Fraction(1, 10))),
    ],
)  # fmt: skip
def test_a_condition_is_an_indicator_an_operator_and_an_exact_value(text: str, condition: Condition) -> None:
    assert parse_condition(text) == condition


@pytest.mark.parametrize(
    "written", ["", "error_ratio", "> 1%", "error_ratio >", "error_ratio > > 1%", "error_ratio => 1%", "p0 > 1s",
                "p100 > 1s", "p > 1s", "pp95 > 1s", "p95(1s) > 1s", "slow_ratio() > 1%", "slow_ratio(5) > 1%",
                "error_count > 1%", "error_count > -1", "error_ratio > 1s", "p95 > 1%", "error_ratio > 1%\n",
                "error_ratio > 1% > 2%", "error_ratio ≥ 1%", "score < 5", "score > 100ms", "burn_rate(x) > 5",
                "score(x) > 1%", None, 5, {}],
)  # fmt: skip
def test_what_is_no_condition_is_refused(written: object) -> None:
    with pytest.raises(Refused):
        parse_condition(written)


def test_an_sli_is_availability_or_a_bound_on_latency() -> None:
    assert parse_sli("availability") is None
    assert parse_sli("latency <= 500ms") == parse_sli("latency<=500ms") == 500_000
    for written in ("latency > 5s", "latency <= 5", "avail", "", None, 5):
        with pytest.raises(Refused):
            parse_sli(written)

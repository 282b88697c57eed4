"""The public records: what subscribers may rely on (docs/contracts.md, 2)."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest
from support import cases
from support.fold import Event, Fold
from support.rules import rule, rules

from evaluator.core.condition import Condition, Kind, Op
from evaluator.core.event import FAILED, GOOD, MINUTE, SECOND, DurationUs
from evaluator.core.rule import Deploys
from evaluator.wire.dead_letter import LIMIT, dead_letter
from evaluator.wire.record import Input, Publisher, alert_headers, alert_record, dumps
from evaluator.wire.schema import alert_schema
from evaluator.wire.text import decimal, rfc3339, span

SCHEMA = Path(__file__).parents[2] / "schema" / "alert.v1.json"
PUBLISHER = Publisher("app", "sha256:ab", "0.1.0", "http://host:10095")
ERRORS = Condition("error_ratio > 0.5%", "error_ratio", Kind.ERROR_RATIO, Op.GT, Fraction(1, 200))


def firing() -> Fold:
    fold = Fold(rules(rule(conditions=(ERRORS,), min_samples=1)))
    bad = [Event(n, n, FAILED, 731_000, trace_id="5b8e") for n in range(3)]
    fold.feed(0, [*bad, Event(3, 4, GOOD), Event(4, MINUTE, GOOD)])
    fold.commit(0)
    return fold


def test_the_committed_schema_is_the_current_one() -> None:
    assert orjson.loads(SCHEMA.read_bytes()) == alert_schema(), "run: evaluator schema alert > schema/alert.v1.json"


@pytest.mark.parametrize("name", cases.names())
def test_every_alert_of_the_worked_cases_fits_the_schema(name: str) -> None:
    validator = jsonschema.Draft202012Validator(alert_schema())
    for line in cases.run(cases.CASES / name).alerts:
        validator.validate(orjson.loads(line))


def test_an_alert_record_says_everything_in_the_schemas_order() -> None:
    (transition,) = firing().transitions
    record = alert_record(transition, PUBLISHER, [Input("t", 0, 0, 5)], late=False)
    assert list(record) == list(alert_schema()["properties"])
    shown = orjson.loads(dumps(record))
    assert shown["annotations"]["summary"] == "api: error_ratio 75% > 0.5% in a 1m window (3 of 4 failed in the last)"
    assert shown["windows"] == [{
        "start": "1970-01-01T00:00:00Z", "end": "1970-01-01T00:01:00Z", "verdict": "BREACH",
        "breached": ["error_ratio > 0.5%"], "values": {"error_ratio": 0.75}, "estimate": [], "n": 4, "bad": 3,
    }]  # fmt: skip
    assert shown["evidence"]["failing"][0] == {
        "trace_id": "5b8e", "time": "1970-01-01T00:00:00.000002Z", "latency": 0.731,
    }  # fmt: skip


LOW = Condition("score < 0.75", "score", Kind.SCORE, Op.LT, Fraction(3, 4))
DROP = Condition("score_drop > 10%", "score_drop", Kind.SCORE_DROP, Op.GT, Fraction(1, 10))


def deployed(scores: dict[str, float], **changes: Any) -> list[dict[str, Any]]:
    """The records of deploys with these scores, a run each, an hour apart and half a second late."""
    of_deploys = Deploys(DurationUs(15 * MINUTE), runs=1, contexts=("main", "beta"))
    fold = Fold(rules(rule(**{"conditions": (LOW,), "deploys": of_deploys, **changes})))
    for number, (deploy, score) in enumerate(scores.items()):
        at = number * 60 * MINUTE + SECOND // 2
        fold.feed(0, [Event(number, at, GOOD, deploy=deploy, score=round(score * 10**6))])
    fold.finish()
    found = [alert_record(transition, PUBLISHER, [], late=False) for transition in fold.transitions]
    return [orjson.loads(dumps(record)) for record in found]


def test_an_alert_about_a_deploy_names_it_and_how_it_ends() -> None:
    fired, resolved = deployed({"a": 0.7, "b": 0.9})
    assert fired["windows"] == [{
        "start": "1970-01-01T00:00:00.500Z", "end": "1970-01-01T00:00:00.500Z", "verdict": "BREACH",
        "breached": ["score < 0.75"], "values": {"score": 0.7}, "estimate": [], "n": 1, "bad": 0,
        "deploy": "a", "context": "main",
    }]  # fmt: skip
    assert fired["rule"] == {
        "when": ["score < 0.75"], "window": "deploy", "every": "deploy", "consecutive": 1, "runs": 1, "settle": "15m",
        "contexts": ["main", "beta"],
    }  # fmt: skip
    assert resolved["annotations"]["summary"] == "api: A recovered after 1h"
    for record in (fired, resolved):
        jsonschema.Draft202012Validator(alert_schema()).validate(record)


@pytest.mark.parametrize(
    ("scores", "changes", "summary"),
    [
        ({"a": 0.7}, {}, "score 0.7 < 0.75 in deploy a (0 of 1 failed in the last)"),
        ({"a": 0.9, "b": 0.6}, {"conditions": (LOW, DROP)},
         "score 0.6 < 0.75 and score_drop 33.33% > 10% in deploy b (0 of 1 failed in the last)"),
        ({"a": 0.7, "b": 0.6}, {"required": 2},
         "score 0.6 < 0.75 in 2 consecutive deploys, b the last (0 of 1 failed in the last)"),
        ({"a": 0.7, "b": 0.9, "c": 0.5}, {"required": 2, "among": 3},
         "score 0.5 < 0.75 in 2 of 3 deploys, c the last (0 of 1 failed in the last)"),
    ],
)  # fmt: skip
def test_the_summary_of_an_alert_about_deploys(scores: dict[str, float], changes: dict[str, Any], summary: str) -> None:
    (fired,) = deployed(scores, **changes)
    assert fired["annotations"]["summary"] == f"api: {summary}"


def test_an_alert_carries_cloudevents_headers() -> None:
    (transition,) = firing().transitions
    assert dict(alert_headers(transition, PUBLISHER)) == {
        "ce_specversion": b"1.0",
        "ce_id": transition.id.encode(),
        "ce_type": b"dev.slo-evaluator.alert.firing.v1",
        "ce_source": b"/evaluator/app",
        "ce_subject": b"api/A",
        "ce_time": b"1970-01-01T00:01:00Z",
        "ce_partitionkey": b"api/A",
        "content-type": b"application/json",
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Fraction(0), "0"),
        (Fraction(1, 3), "0.333333"),
        (Fraction(1, 1_000_000), "0.000001"),
        (Fraction(5, 10_000_000), "0"),
        (Fraction(15, 10_000_000), "0.000002"),
        (Fraction(10**21), "1" + "0" * 21),
        (Fraction(-5, 2), "-2.5"),
    ],
)
def test_values_are_rounded_half_to_even_and_written_without_exponent(value: Fraction, text: str) -> None:
    assert decimal(value) == text


@pytest.mark.parametrize(
    ("micros", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_500_000, "1970-01-01T00:00:01.500Z"),
        (1, "1970-01-01T00:00:00.000001Z"),
        (253_402_300_799_000_000, "9999-12-31T23:59:59Z"),
    ],
)
def test_times_have_no_fraction_or_three_or_six_digits(micros: int, text: str) -> None:
    assert rfc3339(micros) == text


@pytest.mark.parametrize(("micros", "text"), [(12, "12us"), (312_000, "312ms"), (5_200_000, "5.2s")])
def test_latencies_are_told_in_the_unit_that_fits(micros: int, text: str) -> None:
    assert span(micros) == text


def test_a_dead_letter_can_always_be_sent() -> None:
    letter = dead_letter(
        key=b"k" * 10**6, value=b"x" * 10**7, topic="t", partition=1, offset=7, index=0, reason="not_json",
        detail="d" * 10**5,
    )  # fmt: skip
    size = len(letter.key or b"") + len(letter.value or b"") + sum(len(n) + len(v) for n, v in letter.headers)
    assert size < 2 * LIMIT
    assert dict(letter.headers)["size"] == b"10000000"

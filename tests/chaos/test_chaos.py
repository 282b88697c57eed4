"""A short form of `make chaos`: some scenarios once, small, on a real Kafka. `make chaos SHORT=1` runs them all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chaos.ground import without_traceback
from chaos.history import gaps, judge
from chaos.run import chosen, report, row, run_one, scenarios
from chaos.scenario import Outcome, Scenario, Size

if TYPE_CHECKING:
    from pathlib import Path


QUICK = ("F1", "F2-one", "F10")
"""Those that take seconds and have no other form in `tests/kafka`: the ordinary tests have to end within minutes."""


@pytest.mark.parametrize("scenario", [s for s in scenarios() if s.name in QUICK], ids=lambda scenario: scenario.name)
async def test_what_is_published_is_what_one_undisturbed_pass_finds(scenario: Scenario) -> None:
    outcome = await run_one(scenario, Size(is_full=False, seed=1))
    assert outcome.passed, outcome


def test_every_fault_of_the_promise_has_a_scenario() -> None:
    assert {s.name.partition("-")[0] for s in scenarios()} == {f"F{number}" for number in range(1, 17)}


def alert(number: int, status: str = "firing") -> dict[str, str]:
    return {"status": status, "id": str(number)}


def test_the_judge_tells_lost_from_doubled_from_invented() -> None:
    found = judge([alert(1), alert(2), alert(1, "resolved")], [alert(1), alert(1), alert(3)])
    assert (found.expected, found.seen, found.lost, found.duplicated, found.invented) == (3, 3, 2, 1, 1)
    assert not found.is_exact
    assert judge([alert(1)], [alert(1)]).is_exact


def test_a_missing_sequence_is_a_gap() -> None:
    assert gaps([4, 5, 7]) == [6]
    assert gaps([]) == []


async def nothing(_folder: Path, _size: Size) -> Outcome:
    return Outcome("F1", "what | is done", 1, 0, 1, 1, 0, 0, 0, None)


def test_a_scenario_in_which_nothing_was_hurt_does_not_pass() -> None:
    outcome = Outcome("F1", "what | is done", 1, 0, 1, 1, 0, 0, 0, None)
    assert not outcome.passed
    text = report([row(outcome, is_full=True, seed=1, seconds=2.0)])
    assert "| F1 | what / is done | full," in text
    assert "FAILED: transitions or no fault" in text
    assert outcome._replace(faults=1).passed


def test_a_report_names_the_error_of_a_traceback_and_no_path() -> None:
    line = '{"event":"closed","exception":"Traceback:\\n  File \\"/usr/lib/x.py\\"\\nMemoryError"}'
    assert without_traceback(line) == '{"event": "closed", "exception": "MemoryError"}'
    for other in ("MemoryError", '"text"', '{"event":"closed"}'):
        assert without_traceback(other) == other


def test_a_scenario_is_chosen_with_all_its_forms() -> None:
    names = [Scenario(name, "", nothing) for name in ("F6", "F6-commit", "F7")]
    assert [s.name for s in chosen(names, "F6")] == ["F6", "F6-commit"]
    assert [s.name for s in chosen(names, "F6-commit")] == ["F6-commit"]
    with pytest.raises(SystemExit, match="no scenario F99"):
        chosen(names, "F99")

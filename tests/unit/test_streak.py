"""Strips of windows: x breach, . ok, ? held. Below each: ^ fires, v resolves."""

from __future__ import annotations

from typing import Any

import pytest
from support.rules import rule

from evaluator.core.event import MINUTE, EpochUs
from evaluator.core.streak import INACTIVE, Phase, Reason, Streak, advance
from evaluator.core.verdict import Effect

EFFECTS = {"x": Effect.BREACH, ".": Effect.OK, "?": Effect.HELD}


def walk(strip: str, **changes: Any) -> tuple[str, Streak]:
    """The transitions under a strip of one-minute windows, and the streak after it.

    The newest event is as old as the end of the last window that was not held.
    """
    judged, streak, newest = rule(**changes), INACTIVE, EpochUs(0)
    below = ""
    for place, mark in enumerate(strip):
        start, end = EpochUs(place * MINUTE), EpochUs((place + 1) * MINUTE)
        if mark != "?":
            newest = EpochUs(end - 1)
        streak, reason = advance(judged, streak, EFFECTS[mark], start, end, newest)
        below += {None: " ", Reason.BREACHED: "^"}.get(reason, "v")
    return below.rstrip(), streak


@pytest.mark.parametrize(
    ("strip", "expected", "changes"),
    [
        pytest.param("x", "^", {}, id="one_breach_fires_by_default"),
        pytest.param("..xxx.", "    ^v", {"required": 3}, id="fires_on_the_third_and_resolves_on_the_first_ok"),
        pytest.param("xx.xx.", "", {"required": 3}, id="an_ok_window_breaks_a_streak"),
        pytest.param("xx?x", "   ^", {"required": 3}, id="a_held_window_neither_extends_nor_breaks"),
        pytest.param("x???xx", "     ^", {"required": 3}, id="a_gap_of_max_gap_is_bridged"),
        pytest.param("x????xx", "", {"required": 3}, id="a_longer_gap_forgets_the_streak"),
        pytest.param("x??x??x", "      ^", {"required": 3}, id="held_windows_are_counted_in_a_row"),
        pytest.param("x??x", "", {"required": 2, "max_gap": 1}, id="max_gap_can_be_set"),
        pytest.param("x.x..", "^   v", {"resolve_after": 2}, id="resolves_after_two_clear_windows_in_a_row"),
        pytest.param("x.?.", "^  v", {"resolve_after": 2}, id="a_held_window_does_not_restart_clearing"),
        pytest.param("x.x", "  ^", {"required": 2, "among": 3}, id="two_of_three_fire"),
        pytest.param("x..x", "", {"required": 2, "among": 3}, id="two_of_four_do_not"),
        pytest.param("x?.?x", "    ^", {"required": 2, "among": 3}, id="held_windows_take_no_place_among_the_last_n"),
        pytest.param("x????x", "", {"required": 2, "among": 3}, id="a_long_gap_empties_the_memory"),
        pytest.param("xx.xx", " ^v ^", {"required": 2, "among": 3}, id="a_resolve_empties_the_memory"),
        pytest.param("x???", "^ v", {"expire_after": 2 * MINUTE}, id="expires_when_the_newest_event_is_too_old"),
    ],
)
def test_transitions_fall_where_the_strip_says(strip: str, expected: str, changes: dict[str, Any]) -> None:
    assert walk(strip, **changes)[0] == expected


def test_an_alert_starts_at_the_first_window_of_its_streak() -> None:
    assert walk(".x?xx", required=3)[1].starts_at == 1 * MINUTE


def test_m_of_n_starts_at_the_oldest_breach_it_remembers() -> None:
    assert walk("x..x.x", required=2, among=3)[1].starts_at == 3 * MINUTE


def test_a_series_without_breaches_has_no_memory() -> None:
    assert walk("x....", required=3, among=4)[1] == INACTIVE


def test_every_phase_has_an_answer_to_every_effect() -> None:
    for phase in Phase:
        for effect in Effect:
            streak = Streak(phase, 1, EpochUs(0), EpochUs(0))
            advance(rule(required=2), streak, effect, EpochUs(0), EpochUs(MINUTE), EpochUs(0))

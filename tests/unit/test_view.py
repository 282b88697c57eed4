"""What every replica shows, from the public records alone."""

from __future__ import annotations

from fractions import Fraction

import orjson
import pytest
from support.rules import rule, rules
from support.shown import NOON, FixedClock, alert, breach, firing, minutes_before_noon, status, window

from evaluator.core.alert import fingerprint
from evaluator.core.event import MINUTE, DurationUs, EpochUs
from evaluator.core.rule import Deploys
from evaluator.runtime.intake import MAX_REJECTED, Rejects
from evaluator.runtime.status import group_of
from evaluator.runtime.view import TRANSITIONS_KEPT, Data, View
from evaluator.wire.rejection import Reason


def view_of(*records: tuple[bytes, bytes | None], clock: FixedClock | None = None) -> View:
    view = View(rules(rule(), group_by=("zone",)), clock or FixedClock(), MAX_REJECTED)
    for key, value in records:
        view.apply(key, value)
    return view


def keys(view: View) -> list[str]:
    return [series.status.key for series in view.series()]


def test_what_fires_comes_first_then_what_may_fire_then_the_rest_by_key() -> None:
    view = view_of(
        status({"zone": "a"}), status({"zone": "d"}, phase="pending"), firing({"zone": "c"}), firing({"zone": "b"})
    )
    assert keys(view) == ['api/A{zone="b"}', 'api/A{zone="c"}', 'api/A{zone="d"}', 'api/A{zone="a"}']


def test_a_newer_record_takes_the_place_of_an_older_one() -> None:
    view = view_of(firing(), status())
    assert [series.status.phase for series in view.series()] == ["inactive"]


def test_a_forgotten_series_is_not_shown_and_its_rule_waits_again() -> None:
    key, value = status()
    view = view_of((key, value), (key, None))
    assert [(s.status.key, s.data) for s in view.series()] == [("api/A", Data.WAITING)]


def test_an_alert_without_a_series_is_listed_as_waiting() -> None:
    series = view_of().series()
    assert [(s.status.alertname, s.data, s.status.rule.when) for s in series] == [
        ("A", Data.WAITING, ("error_ratio > 0%",))
    ]


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b"{}", b'{"key":1}', b"\xff", b'{"a":"\\ud800"}', b"null"])
def test_a_record_that_is_none_is_counted_and_changes_nothing(value: bytes) -> None:
    view = view_of(firing())
    view.apply(firing()[0], value)
    view.alert(value)
    assert (view.unreadable, keys(view), view.transitions()) == (2, ["api/A"], [])


def test_fields_that_a_later_version_adds_are_ignored() -> None:
    key, value = firing()
    view = view_of((key, orjson.dumps(orjson.loads(value) | {"new": {"deep": [1]}})))
    assert keys(view) == ["api/A"]


def test_the_fingerprint_is_alertmanagers() -> None:
    labels = {"alertname": "VoiceApiErrorRate", "severity": "page", "surface": "voice-api"}
    view = view_of(firing(alertname="VoiceApiErrorRate", surface="voice-api", labels=labels))
    found = view.find("e3ac2da702ecd9b8")
    assert found is not None
    assert found.status.key == "voice-api/VoiceApiErrorRate"


def test_a_fingerprint_that_nobody_has_finds_nothing() -> None:
    assert view_of(firing()).find("0" * 16) is None


@pytest.mark.parametrize("value", ['say "no"', "a\\b", "two\nlines", "a}b{c", "x,y=z", "häßlich", "\\n"])
def test_group_labels_are_read_back_from_the_key(value: str) -> None:
    key, _ = status({"zone": value, "other": "o"})
    assert group_of(key.decode()) == {"zone": value, "other": "o"}


# -- blind ----------------------------------------------------------------------------------------------------
#
#   every 1m, blind_after 5m, the last window decided ended 11:53
#
#   11:53     11:54                       11:59  noon
#   W . . . . .|. . . . . . . . . . . . . . .|. . |     the window that ends 11:54 is overdue from 11:59 on


@pytest.mark.parametrize(
    ("watermark_ago", "data"),
    [
        pytest.param(7.0, Data.BLIND, id="overdue_by_a_minute_more_than_blind_after"),
        pytest.param(6.0, Data.OK, id="overdue_by_exactly_blind_after"),
        pytest.param(0.5, Data.OK, id="up_to_date"),
    ],
)
def test_a_series_is_blind_when_a_window_is_overdue(watermark_ago: float, data: Data) -> None:
    ended = int(watermark_ago) + 1
    view = view_of(status(watermark=minutes_before_noon(watermark_ago), windows=[window("OK", ended)]))
    assert [series.data for series in view.series()] == [data]


def test_a_blind_series_says_since_when() -> None:
    (series,) = view_of(firing(watermark=minutes_before_noon(10))).series()
    assert (series.data, series.blind_since, series.status.phase) == (Data.BLIND, NOON - 9 * MINUTE, "firing")


def test_nothing_happened_is_not_blind() -> None:
    view = view_of(status(data="no_data", windows=[window("NO_DATA", 1)]))
    assert [series.data for series in view.series()] == [Data.NO_DATA]


def test_deploys_have_no_window_that_could_be_overdue() -> None:
    view = View(rules(rule(deploys=Deploys(DurationUs(15 * MINUTE)))), FixedClock(), MAX_REJECTED)
    said = {"when": ["score < 0.75"], "window": "deploy", "every": "deploy", "consecutive": 1}
    for record in (status(watermark=minutes_before_noon(60), rule=said), status(alertname="Gone", rule=said)):
        view.apply(*record)
    view.observe("events", EpochUs(NOON - 60 * MINUTE))
    assert [series.data for series in view.series()] == [Data.OK, Data.OK]
    assert [source.is_blind for source in view.sources()] == [False]


def test_a_rule_about_deploys_that_waits_says_so_in_the_words_of_the_config() -> None:
    (series,) = View(rules(rule(deploys=Deploys(DurationUs(15 * MINUTE)))), FixedClock(), MAX_REJECTED).series()
    assert (series.data, series.status.rule.window, series.status.rule.every) == (Data.WAITING, "deploy", "deploy")


def test_a_series_without_a_window_yet_is_as_blind_as_its_source() -> None:
    warming = status({"zone": "new"}, windows=[], data="warming", watermark=minutes_before_noon(30))
    view = view_of(warming, status({"zone": "old"}))
    assert {s.status.key: s.data for s in view.series()} == {
        'api/A{zone="new"}': Data.WARMING,
        'api/A{zone="old"}': Data.OK,
    }


def test_an_alert_without_a_series_is_blind_when_its_source_is_behind() -> None:
    clock = FixedClock()
    view = view_of(clock=clock)
    view.observe("events", EpochUs(NOON - MINUTE))
    assert [s.data for s in view.series()] == [Data.WAITING]
    clock.at = EpochUs(NOON + 10 * MINUTE)
    assert [s.data for s in view.series()] == [Data.BLIND]


def test_before_there_is_a_watermark_we_become_blind_only_after_a_while() -> None:
    clock = FixedClock()
    view = view_of(clock=clock)
    assert [source.is_blind for source in view.sources()] == [False]
    clock.at = EpochUs(NOON + 7 * MINUTE)
    assert [source.is_blind for source in view.sources()] == [True]


def test_a_source_says_how_far_it_is_behind() -> None:
    view = view_of(status({"zone": "a"}, watermark=minutes_before_noon(3)), status({"zone": "b"}))
    assert [(s.name, s.behind, s.is_blind) for s in view.sources()] == [("events", MINUTE // 2, False)]


def test_a_watermark_never_goes_back() -> None:
    view = view_of()
    view.observe("events", NOON)
    view.observe("events", EpochUs(NOON - MINUTE))
    assert view.watermark("events") == NOON


# -- rejects --------------------------------------------------------------------------------------------------


def tallies(ok: int, rejected: int, skipped: int = 0) -> dict[tuple[str, ...], int]:
    return {
        ("records", "events", "ok"): ok, ("records", "events", "rejected"): rejected,
        ("records", "events", "skipped"): skipped, ("rejected", "events", "future"): rejected,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("read", "limit", "is_flagged"),
    [
        pytest.param(tallies(99, 1), Fraction(1, 100), False, id="at_the_limit"),
        pytest.param(tallies(98, 2), Fraction(1, 100), True, id="above_it"),
        pytest.param(tallies(98, 2), Fraction(5, 100), False, id="a_larger_limit"),
        pytest.param(tallies(1, 1, skipped=1_000), Fraction(1, 100), True, id="skipped_records_hide_nothing"),
        pytest.param(tallies(0, 1), Fraction(1), True, id="everything"),
        pytest.param(tallies(0, 0, skipped=9), Fraction(0), False, id="nothing_to_judge"),
    ],
)
def test_a_source_is_flagged_when_more_than_the_limit_is_rejected(
    read: dict[tuple[str, ...], int],
    limit: Fraction,
    is_flagged: bool,  # noqa: FBT001  # a parameter of the test
) -> None:
    view = View(rules(rule()), FixedClock(), limit)
    view.count(read)
    assert [source.is_flagged for source in view.sources()] == [is_flagged]


def test_a_flag_goes_once_what_was_rejected_is_ten_minutes_old() -> None:
    clock = FixedClock()
    view = view_of(clock=clock)
    view.count(tallies(50, 50))
    assert [source.rejects for source in view.sources()] == [Rejects(50, 100, Reason.FUTURE)]
    clock.at = EpochUs(NOON + 5 * MINUTE)
    view.count(tallies(150, 50))
    assert [(source.rejects.events, source.is_flagged) for source in view.sources()] == [(200, True)]
    clock.at = EpochUs(NOON + 10 * MINUTE)
    assert [(source.rejects.events, source.is_flagged) for source in view.sources()] == [(100, False)]


def test_a_source_of_which_nothing_was_read_is_not_flagged() -> None:
    assert [(source.rejects, source.is_flagged) for source in view_of().sources()] == [(Rejects(), False)]


# -- transitions ----------------------------------------------------------------------------------------------


def test_transitions_are_shown_newest_first_each_once() -> None:
    view = view_of()
    for number in (1, 3, 2, 3, 1):
        view.alert(alert(number))
    assert [seen.annotations["summary"] for seen in view.transitions()] == ["summary 3", "summary 2", "summary 1"]


def test_only_the_last_transitions_are_kept() -> None:
    view = view_of()
    for number in range(TRANSITIONS_KEPT + 50):
        view.alert(alert(number))
    shown = view.transitions()
    assert (len(shown), shown[-1].annotations["summary"]) == (TRANSITIONS_KEPT, "summary 50")


def test_transitions_of_one_series_can_be_asked_for() -> None:
    view = view_of()
    view.alert(alert(1, {"zone": "a"}))
    view.alert(alert(2, {"zone": "b"}))
    of_first = view.transitions()[1].fingerprint
    assert [seen.labels["zone"] for seen in view.transitions(of_first)] == ["a"]


def test_a_run_of_windows_is_kept_as_one() -> None:
    run = window("NO_DATA", 40, count=30, until=minutes_before_noon(11))
    (series,) = view_of(status(windows=[run, breach(1)])).series()
    assert [(w.count, w.last_end) for w in series.status.windows] == [
        (30, minutes_before_noon(11)),
        (1, minutes_before_noon(1)),
    ]


def test_a_record_with_other_labels_has_another_fingerprint() -> None:
    """A config that renames an owner's label writes the same key."""
    view = View(rules(rule()), FixedClock(), MAX_REJECTED)
    key, value = firing({"zone": "a"})
    view.apply(key, value)
    (before,) = view.series()
    view.apply(key, value)
    assert view.series() == [before]
    changed = orjson.loads(value or b"")
    changed["labels"]["team"] = "b"
    view.apply(key, orjson.dumps(changed))
    (after,) = view.series()
    assert after.fingerprint == fingerprint(changed["labels"]) != before.fingerprint

"""Run groups: which events are one, when it closes, what it says, and when all is forgotten (docs/semantics.md, 9).

Times in the drawings are minutes. The source allows five minutes of disorder, a group settles for fifteen.
"""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from support.fold import Event, Fold
from support.rules import DAY, ERRORS, rule, rules

from evaluator.core.condition import Condition, Kind, Op
from evaluator.core.event import FAILED, GOOD, MINUTE, NO_SCORE, DurationUs, SeriesKey
from evaluator.core.rule import Deploys, Policy, Rule, RuleSet
from evaluator.core.verdict import Effect, Verdict, Window

LOW = Condition("score < 0.75", "score", Kind.SCORE, Op.LT, Fraction(3, 4))
DROP = Condition("score_drop > 10%", "score_drop", Kind.SCORE_DROP, Op.GT, Fraction(1, 10))
SETTLE = DurationUs(15 * MINUTE)


def deploy_rule(name: str = "A", when: tuple[Condition, ...] = (LOW,), **changes: Any) -> Rule:
    """A rule over run groups; what `Deploys` has comes from `changes` too."""
    own = {key: changes.pop(key) for key in ("runs", "baseline", "contexts", "baseline_context") if key in changes}
    given = {"window": SETTLE, "every": SETTLE, "forget_after": DurationUs(30 * DAY), **changes}
    return rule(name, conditions=when, deploys=Deploys(SETTLE, **own), **given)


def ruled(*given: Rule, **changes: Any) -> RuleSet:
    return rules(*given, out_of_orderness=5 * MINUTE, **changes)


def runs(text: str) -> list[Event]:
    """`minute deploy score` for each run, as `0 a .9, 1 a -, 2 b/pr .5`: - is a run that failed, ? one of no score."""
    events = []
    for offset, run in enumerate(text.split(",")):
        at, deploy, score = run.split()
        deploy, _, context = deploy.partition("/")
        events.append(Event(
            offset, int(float(at) * MINUTE), FAILED if score == "-" else GOOD, deploy=deploy.strip("_"),
            score=NO_SCORE if score in "-?" else round(float(score) * 10**6), context=context or "main",
        ))  # fmt: skip
    return events


def decided(judged: RuleSet | Rule, text: str, *, until: float | None = None) -> Fold:
    """What the log says; the input is over behind its last run, or at `until`."""
    fold = Fold(judged if isinstance(judged, RuleSet) else ruled(judged))
    fold.feed(0, runs(text))
    fold.commit(0)
    fold.finish(None if until is None else int(until * MINUTE))
    return fold


def windows(fold: Fold) -> list[Window]:
    return [window for _, _, window in fold.verdicts]


def groups(fold: Fold) -> list[str]:
    """`deploy start-end n verdict` of every group, in the order in which they were decided; times in minutes."""
    return [
        f"{w.deploy} {w.start / MINUTE:g}-{w.end / MINUTE:g} {w.n} {w.verdict.value}" for w in windows(fold)
    ]  # fmt: skip


def told(fold: Fold) -> list[str]:
    """`status reason startsAt at` of every transition; times in minutes."""
    return [f"{t.status} {t.reason.value} {t.starts_at / MINUTE:g} {t.at / MINUTE:g}" for t in fold.transitions]


# -- when a group closes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "until", "expected"),
    [
        pytest.param("0 a .9, 1 a .8, 2 b .9", None, ["a 0-1 2 OK"], id="another_deploy_closes_it"),
        pytest.param("0 a .9, 14 a .8", 29, ["a 0-14 2 OK"], id="silence_closes_it_when_the_watermark_is_there"),
        pytest.param("0 a .9, 14 a .8", 28.9, [], id="and_not_a_moment_before"),
        pytest.param("0 a .9, 15 a .1", None, ["a 0-0 1 OK"], id="an_event_at_the_end_of_the_silence_is_too_late"),
        pytest.param("0 a .9, 14.9 a .1", 30, ["a 0-14.9 2 BREACH"], id="one_just_before_it_is_not"),
        pytest.param("1 a .9, 0 a .1, 2 b .9", None, ["a 0-1 2 BREACH"], id="events_are_taken_by_time"),
        pytest.param("0 a .9, 1 b .9, 2 a .1, 3 c .9", None, ["a 0-0 1 OK", "b 1-1 1 OK"], id="for_good"),
        pytest.param("0 a .9, 1 _ .1, 2 a .9, 3 b .9", None, ["a 0-2 2 OK"], id="events_without_deploy_do_nothing"),
        pytest.param("0 a .9, 1 b/pr .1, 2 a .9, 3 c .9", None, ["a 0-2 2 OK"], id="contexts_do_not_close_each_other"),
        pytest.param("0 a .9, 1 a/pr .1, 9 b .9", 24, ["a 0-0 1 OK", "a 1-1 1 BREACH", "b 9-9 1 OK"],
                     id="a_deploy_has_a_group_in_each_context"),
        pytest.param("0 z .9, 0 a/pr .9", 60, ["z 0-0 1 OK", "a 0-0 1 OK"], id="together_by_context_and_deploy"),
        pytest.param("1 z .9, 0 a/pr .9", 60, ["a 0-0 1 OK", "z 1-1 1 OK"], id="but_first_by_the_last_event"),
    ],
)  # fmt: skip
def test_a_group_closes(text: str, until: float | None, expected: list[str]) -> None:
    assert groups(decided(deploy_rule(), text, until=until)) == expected


def test_the_last_of_its_runs_closes_a_group_at_once() -> None:
    fold = decided(deploy_rule(runs=2), "0 a .9, 1 a .8, 2 a .1, 3 b .9")
    assert groups(fold) == ["a 0-1 2 OK"]
    assert fold.evaluator.tallies["late", "api"] == 1


def test_events_as_old_as_the_watermark_wait_until_nothing_as_old_can_come() -> None:
    """Partition 1 has an earlier one of the same time: by (time, partition, offset) it comes second, whoever is read
    first. An event of the same time that comes later in the log must find its place among them."""
    fold = Fold(ruled(deploy_rule()), partitions=2)
    fold.feed(1, runs("10 b .9, 15 b .9"))
    fold.commit(1)
    fold.feed(0, runs("10 a .9, 15 a .9"))
    fold.commit(0)
    assert fold.evaluator.sources["events"].time.watermark == 10 * MINUTE
    assert groups(fold) == []
    fold.feed(0, [Event(2, 10 * MINUTE, GOOD, deploy="a", score=500_000), Event(3, 16 * MINUTE, deploy="a")])
    fold.commit(0)
    fold.feed(1, [Event(2, 30 * MINUTE, deploy="b")])
    fold.commit(1)
    assert groups(fold) == ["a 10-10 2 BREACH"]


def test_an_event_older_than_the_watermark_before_its_record_is_late() -> None:
    """The watermark stands at 5: 5 is on time, 4.9 is late, and neither moves what came in the same record."""
    fold = Fold(ruled(deploy_rule()))
    late = [Event(1, int(4.9 * MINUTE), deploy="a", score=1), Event(1, 5 * MINUTE, deploy="a", score=900_000)]
    fold.feed(0, [Event(0, 10 * MINUTE, deploy="a", score=900_000), *late])
    fold.commit(0)
    fold.finish(60 * MINUTE)
    assert groups(fold) == ["a 5-10 2 OK"]
    assert fold.aggregators[0].tallies["late", "api"] == 1


# -- what it says ---------------------------------------------------------------------------------------------------


def verdict_of(fold: Fold) -> tuple[Verdict, Fraction | None]:
    window = windows(fold)[-1]
    return window.verdict, window.values[0].value


@pytest.mark.parametrize(
    ("text", "verdict", "value"),
    [
        pytest.param("0 a .7, 1 a .8, 2 a .9", Verdict.OK, "4/5", id="the_median"),
        pytest.param("0 a .7, 1 a .8", Verdict.BREACH, "7/10", id="the_lower_of_the_middle_two"),
        pytest.param("0 a .75", Verdict.OK, "3/4", id="the_threshold_itself_is_not_below"),
        pytest.param("0 a .749999", Verdict.BREACH, "749999/1000000", id="a_millionth_below_it_is"),
        pytest.param("0 a -, 1 a .7, 2 a -", Verdict.BREACH, "7/10", id="failed_runs_have_no_score"),
        pytest.param("0 a -, 1 a -", Verdict.NO_DATA, None, id="no_score_at_all_is_no_data"),
        pytest.param("0 a ?", Verdict.NO_DATA, None, id="nor_is_a_run_that_says_none"),
        pytest.param("0 a 0", Verdict.BREACH, "0", id="a_score_of_0_is_a_score"),
    ],
)
def test_the_score_of_a_group_is(text: str, verdict: Verdict, value: str | None) -> None:
    expected = None if value is None else Fraction(value)
    assert verdict_of(decided(deploy_rule(), text, until=60)) == (verdict, expected)


def test_scores_need_as_many_as_min_samples() -> None:
    judged = deploy_rule(min_samples=2)
    assert verdict_of(decided(judged, "0 a .5, 1 a -", until=60))[0] is Verdict.INSUFFICIENT
    assert verdict_of(decided(judged, "0 a .5, 1 a .5", until=60))[0] is Verdict.BREACH


@pytest.mark.parametrize(
    ("text", "verdict", "value"),
    [
        pytest.param("0 a .5", Verdict.NO_DATA, None, id="without_a_base_nothing"),
        pytest.param("0 a .8, 1 b .72", Verdict.OK, "1/10", id="ten_per_cent_are_not_more_than_ten"),
        pytest.param("0 a .8, 1 b .719999", Verdict.BREACH, "80001/800000", id="a_little_more_is"),
        pytest.param("0 a .8, 1 b .9", Verdict.OK, "-1/8", id="a_rise_is_a_negative_drop"),
        pytest.param("0 a .8, 1 b -", Verdict.NO_DATA, None, id="a_group_without_score_has_no_drop"),
        pytest.param("0 a .8, 1 b -, 2 c .7", Verdict.BREACH, "1/8", id="and_is_no_base"),
        pytest.param("0 a .1, 1 b .8, 2 c .8, 3 d .1, 4 e .8, 5 f .7", Verdict.BREACH, "1/8", id="median_of_the_bases"),
        pytest.param("0 a .1, 1 b .1, 2 c .1, 3 d .9, 4 e .9, 5 f .9, 6 g .8", Verdict.BREACH, "1/9",
                     id="the_last_five_only"),
        pytest.param("0 a .9, 1 b .5, 2 c .5", Verdict.OK, "0", id="of_an_even_number_the_lower"),
        pytest.param("0 a .9, 1 x/pr .1, 2 b .5", Verdict.BREACH, "4/9", id="a_pull_request_is_no_base"),
        pytest.param("0 a .9, 1 x/pr .5, 40 z .9", Verdict.BREACH, "4/9", id="but_is_measured_from_it"),
        pytest.param("0 a 0, 1 b .5", Verdict.OK, "0", id="from_nothing_nothing_drops"),
    ],
)  # fmt: skip
def test_a_drop_is_measured_from_the_groups_before(text: str, verdict: Verdict, value: str | None) -> None:
    expected = None if value is None else Fraction(value)
    last = text.rsplit(",", maxsplit=1)[-1].split()[1]
    fold = decided(deploy_rule(when=(DROP,), runs=1), text)
    shown = [w for w in windows(fold) if w.deploy == (last if last != "z" else "x")][-1]
    assert (shown.verdict, shown.values[0].value) == (verdict, expected)


def test_other_conditions_count_the_events_of_a_group() -> None:
    slow = Condition("max > 1s", "max", Kind.MAX, Op.GT, Fraction(10**6))
    half = Condition("error_ratio >= 50%", "error_ratio", Kind.ERROR_RATIO, Op.GE, Fraction(1, 2))
    fold = Fold(ruled(deploy_rule(when=(slow, half), min_samples=1)))
    fold.feed(0, [
        Event(0, 0, GOOD, latency=10**6, deploy="a", weight=3), Event(1, 1, FAILED, latency=5, deploy="a", weight=3),
        Event(2, 2, GOOD, latency=10**6 + 1, deploy="b"),
    ])  # fmt: skip
    fold.finish(60 * MINUTE)
    assert [(w.deploy, w.breached, w.n, w.bad) for w in windows(fold)] == [
        ("a", ("error_ratio >= 50%",), 6, 3),
        ("b", ("max > 1s",), 1, 0),
    ]


# -- what it does to the alert ----------------------------------------------------------------------------------------


def test_an_alert_fires_and_recovers_with_the_times_of_its_groups() -> None:
    fold = decided(deploy_rule(), "0 a .9, 3 b .5, 4 b .5, 6 c .9, 7 d .9")
    assert told(fold) == ["firing breached 3 4", "resolved recovered 3 6"]
    assert [[w.deploy for w in t.windows] for t in fold.transitions] == [["b"], ["b", "c"]]


def test_failing_runs_are_the_evidence() -> None:
    fold = Fold(ruled(deploy_rule(when=(ERRORS,), min_samples=1)))
    fold.feed(0, [Event(0, 7, FAILED, deploy="a", trace_id="t"), Event(1, MINUTE, GOOD, deploy="b")])
    fold.finish()
    assert [(event.time, event.trace_id) for event in fold.transitions[0].failing] == [(7, "t")]


def test_consecutive_groups_and_groups_without_score() -> None:
    """A group of failed runs neither counts nor breaks the row of two."""
    fold = decided(deploy_rule(required=2), "0 a .5, 1 b -, 2 c .5, 3 d .9, 4 e .9")
    assert told(fold) == ["firing breached 0 2", "resolved recovered 0 3"]


def test_no_data_may_count_as_breach() -> None:
    assert told(decided(deploy_rule(no_data=Policy.BREACH), "0 a -, 1 b .9")) == ["firing breached 0 0"]


def test_a_held_group_expires_nothing_however_long_ago_the_last_one_was() -> None:
    text = f"0 a .5, {40 * 60} b -, {40 * 60 + 1} c .9, {40 * 60 + 2} d .9"
    assert told(decided(deploy_rule(), text)) == ["firing breached 0 0", f"resolved recovered 0 {40 * 60 + 1}"]


def test_a_pull_request_is_judged_and_shown_and_fires_nothing() -> None:
    fold = decided(deploy_rule(), "0 a .9, 1 x/pr .5, 2 y/pr .5, 3 b .5, 4 c .9, 5 d .9")
    shown = [(w.deploy, w.context, w.verdict, w.effect) for w in windows(fold)]
    assert ("x", "pr", Verdict.BREACH, Effect.SHOWN) in shown
    assert told(fold) == ["firing breached 3 3", "resolved recovered 3 4"]
    assert [[w.deploy for w in t.windows] for t in fold.transitions] == [["b"], ["b", "c"]]


def test_a_rule_may_count_other_contexts() -> None:
    fold = decided(deploy_rule(contexts=("pr",)), "0 a .5, 1 x/pr .5, 2 b .5, 3 y/pr .9")
    assert told(fold) == ["firing breached 1 1"]


def test_windows_that_are_only_shown_do_not_push_out_those_that_count() -> None:
    text = "0 a .5, " + ", ".join(f"{n} x{n}/pr .9" for n in range(1, 40)) + ", 50 b .5, 51 c .9"
    fold = decided(deploy_rule(required=2), text)
    assert [[w.deploy for w in t.windows] for t in fold.transitions] == [["a", "b"]]


def test_the_series_of_a_surface_have_groups_of_their_own() -> None:
    fold = Fold(ruled(deploy_rule(), group_by=("url",)))
    keys = [SeriesKey("api", (url,)) for url in ("/x", "/y")]
    events = [Event(0, 0, deploy="a", score=500_000, series=keys[0]), Event(1, 1, deploy="b", score=1, series=keys[1])]
    fold.feed(0, events)
    fold.finish(20 * MINUTE)
    assert [(series.values, w.deploy) for _, series, w in fold.verdicts] == [(("/x",), "a"), (("/y",), "b")]


# -- what is forgotten, and what was never whole ----------------------------------------------------------------------

FORGET = 60 * 60
"""Minutes: two and a half days."""


def forgetful(**changes: Any) -> Rule:
    return deploy_rule(forget_after=DurationUs(FORGET * MINUTE), **changes)


def test_a_silent_series_is_expired_at_the_end_of_its_memory() -> None:
    assert told(decided(forgetful(), "0 a .5", until=FORGET - 0.1)) == ["firing breached 0 0"]
    fold = decided(forgetful(), "0 a .5", until=FORGET)
    assert told(fold) == ["firing breached 0 0", f"resolved expired 0 {FORGET}"]
    changes = fold.evaluator.changes()
    assert all(fold.evaluator.group(place) is None for place in changes.groups)
    assert all(fold.evaluator.progress(place) is None for place in changes.progress)


def test_what_was_forgotten_may_come_again() -> None:
    text = f"0 a .5, {FORGET} a .9, {FORGET + 1} b .9"
    fold = decided(forgetful(), text)
    assert groups(fold) == ["a 0-0 1 BREACH", f"a {FORGET}-{FORGET} 1 OK"]
    assert told(fold) == ["firing breached 0 0", f"resolved expired 0 {FORGET}"]


def test_runs_of_a_closed_deploy_keep_the_series_in_memory() -> None:
    nightly = ", ".join(f"{night * 24 * 60} a .5" for night in range(6))
    assert told(decided(forgetful(), nightly)) == ["firing breached 0 0"]


def test_the_memory_of_bases_goes_with_the_series() -> None:
    text = f"0 a .9, {FORGET} b .5, {FORGET + 1} c .4"
    fold = decided(forgetful(when=(DROP,), runs=1), text)
    assert [w.verdict for w in windows(fold)] == [Verdict.NO_DATA, Verdict.NO_DATA, Verdict.BREACH]


def test_a_group_that_began_before_everything_was_read_is_not_decided_and_no_base() -> None:
    """Reading begins at offset 1, so all from minute 5 on is covered, and `a` may have had runs before."""
    judged = ruled(deploy_rule(when=(LOW, DROP)))
    fold = Fold(judged, starts=(1,))
    fold.feed(0, [replace(event, offset=event.offset + 1) for event in runs("0 a .5, 6 a .5, 7 b .5, 8 c .5")])
    fold.finish()
    assert groups(fold) == ["b 7-7 1 BREACH"]
    assert windows(fold)[0].values[1].value is None


# -- what a restart must not change -----------------------------------------------------------------------------------

STORY = """0 a .9, 1 a .85, 3 b .6, 2 a .9, 4 b .6, 5 _ .1, 6 x/pr .2, 6 b -, 9 c .9, 9 a .1, 12 c .9,
    40 d .5, 41 d .5, 80 e .9"""


@pytest.mark.parametrize("seed", range(20))
def test_cuts_and_restarts_anywhere_change_nothing(seed: int) -> None:
    rng = random.Random(seed)
    judged = ruled(deploy_rule(), deploy_rule("B", (DROP,), runs=2, baseline=2, contexts=("main", "pr")))
    whole = decided(judged, STORY)
    fold, rest = Fold(judged), runs(STORY)
    while rest:
        size = rng.randrange(1, 4)
        fold.feed(0, rest[:size])
        rest = rest[size:]
        if rng.random() < 0.7:
            fold.commit(0)
        if rng.random() < 0.5:
            fold.restart()
    fold.finish()
    assert sorted(map(repr, fold.transitions)) == sorted(map(repr, whole.transitions))
    assert sorted(map(repr, fold.verdicts)) == sorted(map(repr, whole.verdicts))
    assert len(whole.transitions) >= 4

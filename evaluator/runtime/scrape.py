"""What one scrape says: the metrics of docs/contracts.md, 3, made from a snapshot.

A snapshot is taken in the event loop, where it costs little; everything here may run in a thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, repeat
from operator import add
from typing import TYPE_CHECKING, NamedTuple

from evaluator.core.event import EpochUs
from evaluator.core.rule import RuleSet
from evaluator.runtime.exposition import Family, counter, gauge, histogram, info
from evaluator.runtime.histogram import Histogram
from evaluator.runtime.status import Alert
from evaluator.runtime.view import Data, Look, SeriesView, SourceView
from evaluator.wire.rejection import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from evaluator.runtime.status import Status


class Gauges(NamedTuple):
    """What this process is doing at the moment.

    Lag is by source and partition, tasks are by stage and state; `loop_lag_s` is by how much the event loop
    was late. `other_rules` counts the replicas that judge by other rules.
    """

    lag: Mapping[tuple[str, int], int]
    tasks: Mapping[tuple[str, str], int]
    loop_lag_s: float = 0.0
    is_ready: bool = False
    other_rules: int = 0


class Snapshot(NamedTuple):
    """Everything that a scrape shows, as it was at one moment. `histograms` by metric and its stage, if any.

    `is_read` says whether everything published so far was read.
    """

    rules: RuleSet
    look: Look
    is_read: bool
    transitions: Sequence[Alert]
    sources: Sequence[SourceView]
    tallies: Mapping[tuple[str, ...], int]
    gauges: Gauges
    histograms: Mapping[tuple[str, ...], Histogram]
    loaded_at: EpochUs
    version: str
    revision: str


def families(snapshot: Snapshot) -> list[Family]:
    """Every metric of a scrape."""
    series = snapshot.look.series()
    if not snapshot.is_read:
        # 0 of an alert that fires would resolve it for whoever scrapes us; no value only makes a gap.
        series = [one for one in series if one.data is not Data.WAITING]
    return [
        *_alerts(series),
        *_windows(series),
        _events(series, snapshot.transitions),
        *_objectives(snapshot),
        *_counters(snapshot),
        *_sources(snapshot),
        *_process(snapshot),
    ]


# -- alerts -------------------------------------------------------------------------------------------------


def _alerts(series: Iterable[SeriesView]) -> tuple[Family, ...]:
    firing = gauge("slo_alert_firing", "1 while the alert fires for the series, else 0.")
    pending = gauge("slo_alert_pending", "1 while a streak of breaches has begun and the alert does not fire yet.")
    streak = gauge("slo_alert_consecutive_breaches", "Breaches that count towards the alert at the moment.")
    for shown in series:
        status, labels = shown.status, shown.labels
        if shown.data is Data.WAITING and "{" in status.key:
            continue
        streak.put(labels.plain, status.streak)
        firing.put(labels.severe, status.phase == "firing")
        pending.put(labels.severe, status.phase == "pending")
    return firing, pending, streak


_STATS = {"median": "p50"}


def _windows(series: Iterable[SeriesView]) -> tuple[Family, ...]:
    ratio = gauge("slo_window_error_ratio", "Failed events over known ones in the last decided window, 0 to 1.")
    requests = gauge("slo_window_requests", "Events in the last decided window.", add)
    latency = gauge("slo_window_latency_seconds", "Latency in the last decided window; quantiles are within 1 %.")
    for shown in series:
        status, labels = shown.status, shown.labels
        if not status.windows:
            continue
        window = status.windows[-1]
        requests.put(labels.plain, window.n)
        for name, value in window.values.items():
            if value is None:
                continue
            if name == "error_ratio":
                ratio.put(labels.plain, value)
            elif name in {"median", "mean", "max"} or name.startswith("p"):
                before, behind = labels.stat
                latency.put(f'{before}stat="{_STATS.get(name, name)}"{behind}', value)
    return ratio, requests, latency


def _events(series: Iterable[SeriesView], transitions: Iterable[Alert]) -> Family:
    """Each series counts once, however many alerts watch it: the record that was written last knows most."""
    events = counter("slo_events", "On-time events of the series by outcome.")
    newest: dict[str, SeriesView] = {}
    for shown in series:
        if shown.data is Data.WAITING:
            continue
        known = newest.get(shown.status.series)
        if known is None or _count(known.status) < _count(shown.status):
            newest[shown.status.series] = shown
    for shown in newest.values():
        before, behind = shown.labels.outcome
        for outcome in ("good", "bad", "unknown"):
            events.put(f'{before}outcome="{outcome}"{behind}', getattr(shown.status.events, outcome))
    for trace, shown in _failures(transitions, newest):
        before, behind = shown.labels.outcome
        events.exemplify(f'{before}outcome="bad"{behind}', trace)
    return events


def _count(status: Status) -> int:
    return status.events.good + status.events.bad + status.events.unknown


def _failures(transitions: Iterable[Alert], known: Mapping[str, SeriesView]) -> Iterator[tuple[str, SeriesView]]:
    """A failing trace of each series that has one, the oldest first so that the newest stays."""
    for alert in sorted(transitions, key=lambda alert: alert.at):
        name = alert.surface + "".join(alert.key.partition("{")[1:])
        if name in known and alert.evidence.failing:
            yield alert.evidence.failing[0].trace_id, known[name]


# -- configuration ------------------------------------------------------------------------------------------


def _objectives(snapshot: Snapshot) -> Iterator[Family]:
    rules = snapshot.rules
    objective = gauge("slo_objective_ratio", "The objective, 0 to 1.")
    facts = info("slo", "Whose objective it is.")
    for slo in rules.slos.values():
        surface = rules.surfaces[slo.surface]
        labels = {"slo": slo.name, "surface": slo.surface}
        objective.add(labels, float(slo.objective))
        facts.add({**labels, "team": surface.team or "", "owner": ",".join(surface.owners)}, 1)
    build = info("evaluator_build", "What runs.")
    build.add({"version": snapshot.version, "revision": snapshot.revision}, 1)
    succeeded = gauge("evaluator_config_last_reload_successful", "1 if the rules were read without an error.")
    succeeded.add({}, 1)
    at = gauge("evaluator_config_last_reload_success_timestamp_seconds", "When the rules were last read.")
    at.add({}, snapshot.loaded_at / 1e6)
    config = gauge("evaluator_config_hash_info", "The hash of the rules in force, as in an alert's provenance.")
    config.add({"hash": rules.hash}, 1)
    yield from (objective, facts, build, succeeded, at, config)


# -- the process --------------------------------------------------------------------------------------------


class _Tallied(NamedTuple):
    """A counter, and which tallies it shows: the first part of their key, and what the other parts are."""

    tally: str
    metric: str
    labels: tuple[str, ...]
    documentation: str


_TALLIED = (
    _Tallied("records", "evaluator_records", ("source", "result"), "Records and events read, by what became of them."),
    _Tallied("rejected", "evaluator_rejected", ("source", "reason"), "Records and events sent to the dead letters."),
    _Tallied(
        "decoder_bugs", "evaluator_decoder_bugs", ("source",), "Bugs of ours in decoders, stopped by the last net."
    ),
    _Tallied("late", "evaluator_late_events", ("surface",), "Events that came after their window was decided."),
    _Tallied("unmatched", "evaluator_unmatched_events", ("source",), "Events that belong to no surface."),
    _Tallied("overflow_series", "evaluator_overflow_series", ("surface",), "Group values past max_series."),
    _Tallied("duplicates", "evaluator_duplicate_events", ("source",), "Events dropped because their id was seen."),
    _Tallied("bad_latency", "evaluator_bad_latency", ("source",), "Latencies that were no duration."),
    _Tallied("oversized_groups", "evaluator_oversized_group_values", ("source",), "Group values above 1 KiB."),
    _Tallied("alerts", "evaluator_alerts_published", ("status",), "Transitions acknowledged by the log."),
    _Tallied("commits", "evaluator_commits", ("stage", "result"), "Transactions by result."),
    _Tallied("restores", "evaluator_restores", (), "Partitions taken over."),
    _Tallied("fenced", "evaluator_fenced", (), "Producers that another process fenced."),
)

_OF_SOURCES = [row.tally for row in _TALLIED if row.labels == ("source",)]


def _counters(snapshot: Snapshot) -> Iterator[Family]:
    rows = {row.tally: row for row in _TALLIED}
    counters = {row.tally: counter(row.metric, row.documentation) for row in _TALLIED}
    for (tally, *values), count in chain(zip(_beginnings(snapshot.rules), repeat(0)), snapshot.tallies.items()):
        if tally in rows and len(values) == len(rows[tally].labels):
            counters[tally].add(dict(zip(rows[tally].labels, values, strict=True)), count)
    yield from counters.values()


def _beginnings(rules: RuleSet) -> Iterator[tuple[str, ...]]:
    """Counters that must be there at 0: a rate cannot see the first increment of one that appears with it."""
    for source in rules.sources:
        yield from (("records", source, result) for result in ("ok", "skipped", "rejected"))
        yield from (("rejected", source, reason.value) for reason in Reason)
        yield from ((name, source) for name in _OF_SOURCES)
    for surface in rules.surfaces:
        yield from (("late", surface), ("overflow_series", surface))
    yield from (("alerts", status) for status in ("firing", "resolved"))
    yield from (("commits", stage, result) for stage in ("aggregate", "evaluate") for result in ("ok", "retried"))
    yield from (("restores",), ("fenced",))


def _sources(snapshot: Snapshot) -> tuple[Family, ...]:
    watermark = gauge(
        "evaluator_source_watermark_timestamp_seconds", "Event time up to which the source was read in full."
    )
    blind = gauge("evaluator_blind", "1 while a window of the source is overdue by more than blind_after.")
    lag = gauge("evaluator_source_lag_records", "Records of a partition that are not read yet.")
    for source in snapshot.sources:
        blind.add({"source": source.name}, source.is_blind)
        if source.watermark is not None:
            watermark.add({"source": source.name}, source.watermark / 1e6)
    for (name, partition), records in snapshot.gauges.lag.items():
        lag.add({"source": name, "partition": str(partition)}, records)
    return watermark, blind, lag


_HISTOGRAMS = {
    "evaluator_commit_duration_seconds": "From the freeze of an outbox to its acknowledged commit.",
    "evaluator_commit_delay_seconds": "From the append that ripened a window to the acknowledged commit.",
    "evaluator_alert_delay_seconds": "From a window's end to the acknowledged transition.",
    "evaluator_restore_duration_seconds": "Taking over a partition.",
}


def _process(snapshot: Snapshot) -> Iterator[Family]:
    tasks = gauge("evaluator_tasks", "Tasks of this process by stage and state.", add)
    for (stage, state), count in snapshot.gauges.tasks.items():
        tasks.add({"stage": stage, "state": state}, count)
    loop = gauge("evaluator_loop_lag_seconds", "By how much the event loop was late at the last look.")
    loop.add({}, snapshot.gauges.loop_lag_s)
    ready = gauge("evaluator_ready", "1 while what the groups gave us runs, as /-/ready says.")
    ready.add({}, snapshot.gauges.is_ready)
    conflict = gauge("evaluator_config_conflict", "Replicas under our app_id that judge by other rules than this one.")
    conflict.add({}, snapshot.gauges.other_rules)
    yield from (tasks, loop, ready, conflict)
    for name, documentation in _HISTOGRAMS.items():
        family = histogram(name, documentation)
        for key, observed in snapshot.histograms.items():
            if key[0] == name:
                family.observe(dict(zip(("stage",), key[1:], strict=False)), observed)
        yield family

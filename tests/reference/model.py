"""The fold: from the events of a log to transitions, straight from the definitions.

Three questions, in this order. Which events are on time for a pane (`Arrivals`, section 3)? What is the
verdict of a window, given its events (`verdict`, sections 5 and 6)? What does the row of verdicts do to the
alert (`Streak`, section 7)? The run groups of section 9 are other windows of the same kind (`groups_of`).
Nothing here merges, counts ahead or skips a silence, and nothing of the evaluator is used but the values that
the configuration is parsed into.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import groupby, repeat
from math import ceil
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from evaluator.core.condition import COUNTS, RATIOS, SCORES, Condition, Kind, Op
from evaluator.core.rule import Policy, Rule, RuleSet, Surface

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

BREACH, OK, NO_DATA, INSUFFICIENT = "BREACH", "OK", "NO_DATA", "INSUFFICIENT"
"""The verdicts of a window."""

HELD = "HELD"
"""What a verdict without a policy of its own does to a streak; BREACH and OK are the other two effects."""

Series = tuple[str, tuple[str, ...]]
"""A surface and the values of its `group_by` fields."""


@dataclass(frozen=True, slots=True)
class RefEvent:
    """An accepted event. Time and latency in microseconds, the score in millionths; `series` is None where no surface
    matched."""

    partition: int
    offset: int
    time: int
    failed: bool | None
    latency: int | None
    weight: int
    series: Series | None
    deploy: str = ""
    context: str = "main"
    score: int | None = None


class Idle(NamedTuple):
    """A recorded decision: just before `offset` was read, the partition's watermark moved up to `until_us`."""

    partition: int
    offset: int
    until_us: int


class RefVerdict(NamedTuple):
    """A decided window of a series, and what was decided; times in microseconds."""

    alertname: str
    values: tuple[str, ...]
    start: int
    end: int
    verdict: str


class RefTransition(TypedDict):
    """A transition; times in microseconds, `endsAt_us` None while firing."""

    id: str
    status: str
    reason: str
    alertname: str
    surface: str
    slo: str | None
    severity: str
    labels: dict[str, str]
    startsAt_us: int
    firedAt_us: int
    endsAt_us: int | None
    fingerprint: str
    episode: str
    key: str


def judge(
    rules: RuleSet,
    source: str,
    partitions: Sequence[Sequence[RefEvent]],
    idle: Sequence[Idle] = (),
    end: int | None = None,
    starts: Sequence[int] | None = None,
    verdicts: list[RefVerdict] | None = None,
) -> list[RefTransition]:
    """All transitions of the rules about one source, in the order of a replay (section 13).

    `partitions` holds the accepted events of each partition in log order. `end` moves every watermark up
    to that time after the last event (`end_of_input` gives a replay's); None leaves the log open. `starts`
    are the offsets that reading began at, 0 where absent. Every decided window is appended to `verdicts`.
    """
    arrivals = [
        Arrivals.of(
            events,
            [step for step in idle if step.partition == number],
            rules.sources[source].out_of_orderness,
            end,
            starts[number] if starts else 0,
        )
        for number, events in enumerate(partitions)
    ]
    watermark = min_or_none([each.watermark for each in arrivals])
    if watermark is None:
        return []
    covered = max((each.covered for each in arrivals if each.covered is not None), default=None)
    found: list[RefTransition] = []
    for rule in rules.rules.values():
        surface = rules.surfaces[rule.surface]
        if surface.source != source:
            continue
        if rule.conditions[0].kind is Kind.SILENCE:
            changes = judge_absence(rule, arrivals, watermark, covered, verdicts)
            found += [transition(rule, surface, (), change) for change in changes]
            continue
        judge_one = judge_series if rule.deploys is None else judge_deploys
        for values, events in on_time(rule, arrivals).items():
            taken = [event for event in events if rule.deploys is None or end is not None or event.time < watermark]
            changes = judge_one(rule, taken, watermark, covered, values, verdicts)
            found += [transition(rule, surface, values, change) for change in changes]
    return sorted(found, key=replay_order)


def end_of_input(partitions: Sequence[Sequence[RefEvent]], until: int | None = None) -> int | None:
    """Where a replay moves every watermark at the end: the largest accepted time, or `until` if larger."""
    times = [event.time for events in partitions for event in events]
    return max([*times, *([] if until is None else [until])], default=None)


def replay_order(record: RefTransition) -> tuple[int, str, str, str]:
    """Section 13: by window end, key, alertname, firing before resolved."""
    return record["endsAt_us"] or record["firedAt_us"], record["key"], record["alertname"], record["status"]


# --- Which events are on time: section 3 ----------------------------------------------------------------


@dataclass(slots=True)
class Arrivals:
    """One partition read to its end.

    `events` are its events, each with the watermark just before its record (None: there was none yet);
    `watermark` is the last one, `covered` C_p (None: all time), `first` the time of the first event (section 10).
    """

    events: list[tuple[RefEvent, int | None]]
    watermark: int | None
    covered: int | None
    first: int | None

    @classmethod
    def of(
        cls, events: Sequence[RefEvent], idle: Sequence[Idle], out_of_orderness: int, end: int | None, start: int
    ) -> Arrivals:
        """Read the records in order, each idle decision just before the record at its offset."""
        watermark: int | None = None
        covered: int | None = None
        arrived: list[tuple[RefEvent, int | None]] = []
        waiting = sorted(idle, key=lambda step: step.offset)
        for offset, record in groupby(events, key=lambda event: event.offset):
            while waiting and waiting[0].offset <= offset:
                watermark = at_least(watermark, waiting.pop(0).until_us)
                covered = watermark if covered is None else covered
            together = list(record)
            arrived.extend(zip(together, repeat(watermark), strict=False))
            covered = together[0].time + out_of_orderness if covered is None else covered
            watermark = at_least(watermark, max(event.time for event in together) - out_of_orderness)
        for moved in [*(step.until_us for step in waiting), *([] if end is None else [end])]:
            watermark = at_least(watermark, moved)
            covered = watermark if covered is None else covered
        first = at_least(arrived[0][1], arrived[0][0].time) if arrived else None
        return cls(arrived, watermark, covered if start > 0 else None, first)


def at_least(watermark: int | None, time: int) -> int:
    """A watermark never goes back."""
    return time if watermark is None else max(watermark, time)


def min_or_none(values: Sequence[int | None]) -> int | None:
    """The smallest, or None where one of them is None: a partition that was never heard of holds all back."""
    known = [value for value in values if value is not None]
    return min(known) if known and len(known) == len(values) else None


def pane_end(time: int, every: int) -> int:
    """The end of the pane `[k*every, (k+1)*every)` that holds a time."""
    return (time // every + 1) * every


def is_late(event: RefEvent, before: int | None, rule: Rule) -> bool:
    """Late for a pane iff its end was at or before the watermark when the record came; for a group, its time before."""
    if before is None:
        return False
    return pane_end(event.time, rule.every) <= before if rule.deploys is None else event.time < before


def on_time(rule: Rule, arrivals: Sequence[Arrivals]) -> dict[tuple[str, ...], list[RefEvent]]:
    """The on-time events of each series of the rule's surface, by time, partition and offset."""
    found: dict[tuple[str, ...], list[RefEvent]] = {}
    for each in arrivals:
        for event, before in each.events:
            if event.series is not None and event.series[0] == rule.surface and not is_late(event, before, rule):
                found.setdefault(event.series[1], []).append(event)
    for events in found.values():
        events.sort(key=lambda event: (event.time, event.partition, event.offset))
    return found


# --- Which windows are decided, and when a series is forgotten: section 4 -------------------------------


def judge_series(
    rule: Rule,
    events: Sequence[RefEvent],
    watermark: int,
    covered: int | None,
    values: tuple[str, ...],
    verdicts: list[RefVerdict] | None,
) -> Iterator[Change]:
    """Every window of one series, one after the other, from its first event until it is forgotten, and again."""
    times = [event.time for event in events]
    remembered = 0
    while remembered < len(events):
        streak = Streak(rule)
        end = pane_end(times[remembered], rule.every)
        forgotten = False
        while end <= watermark and not forgotten:
            start = end - rule.window
            if covered is None or start >= covered:
                before_end = bisect_left(times, end)
                inside = events[max(remembered, bisect_left(times, start)) : before_end]
                age = end - times[before_end - 1]
                judged = verdict(rule, inside)
                if verdicts is not None:
                    verdicts.append(RefVerdict(rule.name, values, start, end, judged))
                yield from streak.step(start, end, effect_of(rule, judged, inside), age)
                forgotten = age >= rule.forget_after
                if forgotten:
                    yield from streak.forget(end)
            end += rule.every
        if not forgotten:
            return
        # What came before the end at which the series was forgotten went with it.
        remembered = bisect_left(times, end - rule.every)


# --- Whether what is waited for came: section 10 ---------------------------------------------------------


def judge_absence(
    rule: Rule,
    arrivals: Sequence[Arrivals],
    watermark: int,
    covered: int | None,
    verdicts: list[RefVerdict] | None,
) -> Iterator[Change]:
    """Every window of a surface as a whole, from the one that holds what was read first."""
    origin = min((each.first for each in arrivals if each.first is not None), default=None)
    origin = origin if covered is None else covered
    if origin is None:
        return
    times = sorted(event.time for events in on_time(rule, arrivals).values() for event in events)
    streak = Streak(rule)
    for end in range(pane_end(origin, rule.every), watermark + 1, rule.every):
        age = end - max([origin, *times[: bisect_left(times, end)][-1:]])
        judged = BREACH if age > rule.conditions[0].threshold else OK
        if verdicts is not None:
            verdicts.append(RefVerdict(rule.name, (), end - rule.every, end, judged))
        yield from streak.step(end - rule.every, end, judged, age)


# --- Which run groups there are: section 9 --------------------------------------------------------------


class Forgotten(NamedTuple):
    """At this time a series was forgotten."""

    at: int


def groups_of(rule: Rule, events: Sequence[RefEvent], watermark: int) -> Iterator[list[RefEvent] | Forgotten]:
    """The groups of a series in the order in which they close, and when it is forgotten in between."""
    assert rule.deploys is not None
    settle, runs = rule.deploys.settle, rule.deploys.runs
    growing: list[list[RefEvent]] = []
    closed: list[tuple[str, str]] = []
    newest: int | None = None
    for event in [*events, None]:
        now = watermark if event is None else event.time
        quiet = [group for group in growing if group[-1].time + settle <= now]
        for group in sorted(quiet, key=lambda group: (group[-1].time, group[0].context, group[0].deploy)):
            growing.remove(group)
            closed.append((group[0].context, group[0].deploy))
            yield group
        if newest is not None and newest + rule.forget_after <= now:
            yield Forgotten(newest + rule.forget_after)
            closed, newest = [], None
        if event is None:
            return
        newest = event.time
        if not event.deploy or (event.context, event.deploy) in closed:
            continue
        of_context = [group for group in growing if group[0].context == event.context]
        mine = [group for group in of_context if group[0].deploy == event.deploy] or [[]]
        ending = [group for group in of_context if group[0].deploy != event.deploy]
        growing += [mine[0]] if not mine[0] else []
        mine[0].append(event)
        ending += mine if len(mine[0]) == runs else []
        for group in ending:
            growing.remove(group)
            closed.append((group[0].context, group[0].deploy))
            yield group


def judge_deploys(
    rule: Rule,
    events: Sequence[RefEvent],
    watermark: int,
    covered: int | None,
    values: tuple[str, ...],
    verdicts: list[RefVerdict] | None,
) -> Iterator[Change]:
    """Every run group of one series."""
    assert rule.deploys is not None
    streak, bases = Streak(rule), list[int]()
    for group in groups_of(rule, events, watermark):
        if isinstance(group, Forgotten):
            yield from streak.forget(group.at)
            streak, bases = Streak(rule), []
            continue
        start, end, context = group[0].time, group[-1].time, group[0].context
        if covered is not None and start < covered:
            continue
        base = median(bases[-rule.deploys.baseline :])
        judged = verdict(rule, group, base)
        if verdicts is not None:
            verdicts.append(RefVerdict(rule.name, values, start, end, judged))
        if context in rule.deploys.contexts:
            yield from streak.step(start, end, effect_of(rule, judged, group, base), age=0)
        value = median([event.score for event in group if event.score is not None])
        if context == rule.deploys.baseline_context and value is not None:
            bases.append(value)


def median(scores: Sequence[int]) -> int | None:
    """The middle one, of an even number the lower of the two; None of none."""
    return sorted(scores)[(len(scores) - 1) // 2] if scores else None


# --- What a window says: sections 5 and 6 ---------------------------------------------------------------


def verdict(rule: Rule, events: Sequence[RefEvent], base: int | None = None) -> str:
    """The verdict of a window of a rule that holds these events; of a run group, with the base of its drop."""
    true = [condition for condition in rule.conditions if is_true(condition, events, base)]
    if any(has_evidence(rule, condition, events, base) for condition in true):
        return BREACH
    measured = [condition for condition in rule.conditions if condition.kind is not Kind.REQUEST_COUNT]
    if measured and all(not sampled(condition, events, base) for condition in measured):
        return NO_DATA
    demanding = [condition for condition in rule.conditions if condition.kind not in COUNTS]
    if true or (demanding and all(len(sampled(each, events, base)) < min_samples(rule, each) for each in demanding)):
        return INSUFFICIENT
    return OK


def effect_of(rule: Rule, judged: str, events: Sequence[RefEvent], base: int | None = None) -> str:
    """What the verdict does to the streak under the rule's policies."""
    if judged == NO_DATA:
        return {Policy.HOLD: HELD, Policy.OK: OK, Policy.BREACH: BREACH}[rule.no_data]
    if judged == INSUFFICIENT:
        if rule.low_traffic is Policy.BREACH:
            return BREACH if any(is_true(condition, events, base) for condition in rule.conditions) else HELD
        return {Policy.HOLD: HELD, Policy.OK: OK}[rule.low_traffic]
    return judged


def sampled(condition: Condition, events: Sequence[RefEvent], base: int | None = None) -> list[RefEvent]:
    """The events that a condition looks at: all, those with a known outcome, those with a latency or with a score."""
    if condition.kind in SCORES:
        has_value = condition.kind is Kind.SCORE or base is not None
        return [event for event in events if event.score is not None and has_value]
    if condition.kind is Kind.REQUEST_COUNT:
        return list(events)
    if condition.kind in {Kind.ERROR_RATIO, Kind.ERROR_COUNT}:
        return [event for event in events if event.failed is not None]
    return [event for event in events if event.latency is not None]


def is_true(condition: Condition, events: Sequence[RefEvent], base: int | None = None) -> bool:
    """Whether the condition is true on the weighted counts."""
    sample = sampled(condition, events, base)
    if not sample and condition.kind is not Kind.REQUEST_COUNT:
        return False
    if condition.kind in SCORES:
        return compare(score_of(condition, sample, base), condition.op, condition.threshold)
    return compare(value_of(condition, [(event, event.weight) for event in sample]), condition.op, condition.threshold)


def score_of(condition: Condition, sample: Sequence[RefEvent], base: int | None) -> Fraction:
    """The median of the scores, or by which share of the base it is below it: of nothing, none."""
    value = median([event.score for event in sample if event.score is not None])
    assert value is not None
    if condition.kind is Kind.SCORE:
        return Fraction(value, 10**6)
    return 1 - Fraction(value, base) if base else Fraction(0)


def has_evidence(rule: Rule, condition: Condition, events: Sequence[RefEvent], base: int | None = None) -> bool:
    """Whether a true condition may be believed: on raw counts, where each event is one."""
    if condition.kind in COUNTS:
        return True
    sample = sampled(condition, events, base)
    needed = min_samples(rule, condition)
    if condition.op in {Op.LT, Op.LE} or condition.kind in {Kind.MEAN, Kind.MAX, *SCORES}:
        return len(sample) >= needed
    missing = max(0, needed - len(sample))
    raw = [(event, 1) for event in sample]
    if condition.kind in RATIOS and sum(is_bad(condition, event) for event in sample) < rule.min_bad:
        return False
    padded = [*raw, *([(_GOOD, missing)] if missing else [])]
    return compare(value_of(condition, padded), condition.op, condition.threshold)


_GOOD = RefEvent(partition=0, offset=0, time=0, failed=False, latency=-1, weight=1, series=None)
"""An event that would have been good whatever the threshold: faster than every latency."""


def min_samples(rule: Rule, condition: Condition) -> int:
    """The number of events that a condition wants to see, configured or by default."""
    if rule.min_samples is not None:
        return rule.min_samples
    above = condition.op in {Op.GT, Op.GE}
    if condition.kind in RATIOS and above and condition.threshold > 0:
        inverse = 1 / condition.threshold
        return ceil(inverse) if condition.op is Op.GT else inverse.numerator // inverse.denominator + 1
    if condition.kind is Kind.QUANTILE and above:
        q = quantile_of(condition)
        return ceil(10 / min(q, 1 - q))
    return 1


def is_bad(condition: Condition, event: RefEvent) -> bool:
    """Whether an event counts in the numerator of a ratio."""
    if condition.kind is Kind.SLOW_RATIO:
        return event.latency is not None and condition.slower_than is not None and event.latency > condition.slower_than
    return event.failed is True


def value_of(condition: Condition, sample: Sequence[tuple[RefEvent, int]]) -> Fraction:
    """The exact value of an indicator over events, each with how often it counts; only a count may be of none."""
    total = sum(weight for _, weight in sample)
    match condition.kind:
        case Kind.REQUEST_COUNT:
            return Fraction(total)
        case Kind.ERROR_COUNT:
            return Fraction(sum(weight for event, weight in sample if event.failed is True))
        case Kind.ERROR_RATIO | Kind.SLOW_RATIO:
            return Fraction(sum(weight for event, weight in sample if is_bad(condition, event)), total)
        case Kind.MEAN:
            return Fraction(sum(weight * latency_of(event) for event, weight in sample), total)
        case Kind.MAX:
            return Fraction(max(latency_of(event) for event, _ in sample))
        case Kind.QUANTILE:
            return Fraction(nearest_rank(sample, ceil(quantile_of(condition) * total)))


def nearest_rank(sample: Sequence[tuple[RefEvent, int]], rank: int) -> int:
    """The smallest latency with at least `rank` latencies at or below it."""
    seen = 0
    for latency, weight in sorted((latency_of(event), weight) for event, weight in sample):
        seen += weight
        if seen >= rank:
            return latency
    raise AssertionError(rank, seen)


def latency_of(event: RefEvent) -> int:
    """The latency of an event that has one."""
    assert event.latency is not None
    return event.latency


def quantile_of(condition: Condition) -> Fraction:
    """The q of a quantile condition."""
    assert condition.q is not None
    return condition.q


def compare(value: Fraction, op: Op, threshold: Fraction) -> bool:
    """`value op threshold`, exactly."""
    match op:
        case Op.GT:
            return value > threshold
        case Op.GE:
            return value >= threshold
        case Op.LT:
            return value < threshold
        case Op.LE:
            return value <= threshold


# --- What a row of windows does to an alert: section 7 --------------------------------------------------


class Change(NamedTuple):
    """An alert that began to fire or was resolved at the end of a window, times in microseconds."""

    status: str
    reason: str
    starts_at: int
    fired_at: int
    end: int


@dataclass(slots=True)
class Streak:
    """The state machine of one alert and series.

    `breaches` is only used for consecutive windows, `memory` (start of the window, breach or not) only
    for `m_of_n`.
    """

    rule: Rule
    phase: str = "inactive"
    breaches: int = 0
    clear: int = 0
    gap: int = 0
    starts_at: int = 0
    fired_at: int = 0
    memory: list[tuple[int, bool]] = field(default_factory=list)

    def step(self, start: int, end: int, effect: str, age: int) -> Iterator[Change]:
        """Take a window `[start, end)`; `age` is its end less the newest on-time event before it."""
        if self.phase == "firing":
            yield from self._step_firing(end, effect, age)
        elif effect == HELD:
            self._step_held()
        elif self.rule.among is None:
            yield from self._step_consecutive(start, end, effect)
        else:
            yield from self._step_m_of_n(start, end, effect, self.rule.among)

    def forget(self, end: int) -> Iterator[Change]:
        """The series is forgotten; what still fires is expired."""
        if self.phase == "firing":
            yield self._resolve("expired", end)

    def _step_firing(self, end: int, effect: str, age: int) -> Iterator[Change]:
        if effect == BREACH:
            self.clear = 0
        elif effect == OK:
            self.clear += 1
            if self.clear == self.rule.resolve_after:
                yield self._resolve("recovered", end)
        elif age >= self.rule.expire_after:
            yield self._resolve("expired", end)

    def _step_held(self) -> None:
        if self.phase == "pending":
            self.gap += 1
            if self.gap > self.rule.max_gap:
                self._reset()

    def _step_consecutive(self, start: int, end: int, effect: str) -> Iterator[Change]:
        if effect == OK:
            self._reset()
            return
        if self.phase == "inactive":
            self.starts_at = start
        self.phase = "pending"
        self.gap = 0
        self.breaches += 1
        if self.breaches == self.rule.required:
            yield self._fire(end)

    def _step_m_of_n(self, start: int, end: int, effect: str, among: int) -> Iterator[Change]:
        self.gap = 0
        self.memory = [*self.memory, (start, effect == BREACH)][-among:]
        breaches = [began for began, breach in self.memory if breach]
        self.phase = "pending" if breaches else "inactive"
        if len(breaches) >= self.rule.required:
            self.starts_at = breaches[0]
            yield self._fire(end)

    def _fire(self, end: int) -> Change:
        self.phase = "firing"
        self.fired_at = end
        self.clear = 0
        return Change("firing", "breached", self.starts_at, end, end)

    def _resolve(self, reason: str, end: int) -> Change:
        change = Change("resolved", reason, self.starts_at, self.fired_at, end)
        self._reset()
        return change

    def _reset(self) -> None:
        self.phase = "inactive"
        self.breaches = self.clear = self.gap = 0
        self.memory = []


# --- How a transition is named: section 8 ---------------------------------------------------------------


def transition(rule: Rule, surface: Surface, values: tuple[str, ...], change: Change) -> RefTransition:
    """The transition of one series with its identity."""
    labels = labels_of(rule, surface, values)
    fingerprint = fingerprint_of(labels)
    episode = f"{fingerprint}-{change.starts_at // 1_000_000}"
    return RefTransition(
        id=hashlib.sha256(f"{episode}|{change.status}|{change.end}".encode()).hexdigest()[:32],
        status=change.status,
        reason=change.reason,
        alertname=rule.name,
        surface=surface.name,
        slo=rule.slo,
        severity=rule.severity,
        labels=labels,
        startsAt_us=change.starts_at,
        firedAt_us=change.fired_at,
        endsAt_us=None if change.status == "firing" else change.end,
        fingerprint=fingerprint,
        episode=episode,
        key=key_of(rule, surface, values),
    )


def labels_of(rule: Rule, surface: Surface, values: tuple[str, ...]) -> dict[str, str]:
    """All labels of an alert; one without a value is left out."""
    labels = {"alertname": rule.name, "surface": surface.name, "severity": rule.severity}
    labels["slo"] = rule.slo or ""
    labels["team"] = surface.team or ""
    labels.update({each.label: value for each, value in zip(surface.group_by, values, strict=bool(values))})
    labels.update(rule.labels)
    return {name: value for name, value in labels.items() if value}


def fingerprint_of(labels: Mapping[str, str]) -> str:
    """Alertmanager's: 64-bit FNV-1a over name, 255, value, 255, by name."""
    value = 14695981039346656037
    for name in sorted(labels):
        for byte in name.encode() + b"\xff" + labels[name].encode() + b"\xff":
            value = (value ^ byte) * 1099511628211 % 2**64
    return f"{value:016x}"


def key_of(rule: Rule, surface: Surface, values: tuple[str, ...]) -> str:
    """`surface/alertname`, and the series where the surface is split, escaped as in Prometheus' text format."""
    key = f"{surface.name}/{rule.name}"
    if not values:
        return key
    pairs = zip(surface.group_by, values, strict=True)
    return key + "{" + ",".join(f'{each.label}="{escaped(value)}"' for each, value in pairs if value) + "}"


def escaped(value: str) -> str:
    """Backslash, newline and quote, as Prometheus writes them in a label value."""
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')

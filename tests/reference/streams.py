"""Streams that exercise the subject: rules, and partitions of events that make them fire.

Random independent events rarely fire an alert. So time advances through phases (healthy, failing, slow,
sparse, silent for minutes or for days), events come out of order within and beyond what is allowed, and
thresholds are values that the events really have. `interest` tells what a sample reached; a law asserts
that at least half of its examples reached what the law is about.

`samples()` is the strategy and `generate(seed)` the same without hypothesis. What shapes a sample is drawn
one by one, so that it shrinks; the noise of single events comes from one drawn seed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, NamedTuple

import hypothesis.strategies as st
import numpy as np

from evaluator.core.condition import SCORES, Condition, Kind, Op
from evaluator.core.event import (
    FAILED,
    GOOD,
    MINUTE,
    NO_LATENCY,
    NO_SCORE,
    SECOND,
    UNKNOWN,
    UNMATCHED,
    DurationUs,
    EventBatch,
    RunColumns,
    SeriesKey,
    SeriesTable,
    listed,
)
from evaluator.core.rule import Deploys, GroupField, Policy, Rule, RuleSet, Source, Surface
from evaluator.core.watermark import NEVER
from reference.model import (
    INSUFFICIENT,
    NO_DATA,
    Arrivals,
    Idle,
    RefEvent,
    RefTransition,
    RefVerdict,
    Series,
    end_of_input,
    is_late,
    judge,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

SOURCE = "events"
BEGIN = 1_769_558_400_000_000
"""2026-01-28T00:00:00Z, a multiple of every window here."""

HOUR = 60 * MINUTE
DAY = 24 * HOUR


@dataclass(frozen=True, slots=True)
class Sample:
    """A configuration and a log that were made for each other; the arguments of `judge`."""

    rules: RuleSet
    partitions: list[list[RefEvent]]
    idle: list[Idle]
    end: int | None
    starts: list[int]

    def judged(self, verdicts: list[RefVerdict] | None = None) -> list[RefTransition]:
        """What the reference says of it."""
        return judge(self.rules, SOURCE, self.partitions, self.idle, self.end, self.starts, verdicts)


class Interest(NamedTuple):
    """What a sample reached."""

    firings: int
    resolves: int
    expired: int
    late: int
    held: int
    decided: int


def samples() -> st.SearchStrategy[Sample]:
    """Samples for hypothesis."""
    return st.randoms(use_true_random=False, note_method_calls=False).map(make_sample)


def generate(seed: int) -> Sample:
    """The sample of a seed."""
    return make_sample(Random(seed))


def interest(sample: Sample) -> Interest:
    """How much of the subject a sample reaches; `late` counts events that are late for some rule."""
    verdicts: list[RefVerdict] = []
    found = sample.judged(verdicts)
    resolved = [each for each in found if each["status"] == "resolved"]
    return Interest(
        firings=len(found) - len(resolved),
        resolves=len(resolved),
        expired=sum(each["reason"] == "expired" for each in resolved),
        late=count_late(sample),
        held=sum(each.verdict in {NO_DATA, INSUFFICIENT} for each in verdicts),
        decided=len(verdicts),
    )


def count_late(sample: Sample) -> int:
    """Events that are late for at least one rule of their surface."""
    late = 0
    delay = sample.rules.sources[SOURCE].out_of_orderness
    for number, events in enumerate(sample.partitions):
        idle = [step for step in sample.idle if step.partition == number]
        for event, before in Arrivals.of(events, idle, delay, None, 0).events:
            rules = sample.rules.rules_of(event.series[0]) if event.series else ()
            late += any(is_late(event, before, rule) for rule in rules)
    return late


def to_batches(events: Sequence[RefEvent], cuts: Sequence[int], table: SeriesTable) -> list[EventBatch]:
    """The events of one partition as columns, cut before each of the offsets in `cuts`.

    There is one batch more than cuts; it may be empty. All are numbered by `table`, so whoever takes between
    two batches makes them one at a time, each with its own table.
    """
    edges = [float("-inf"), *sorted(cuts), float("inf")]
    return [to_batch([event for event in events if low <= event.offset < high], table) for low, high in pairwise(edges)]


def to_batch(events: Sequence[RefEvent], table: SeriesTable) -> EventBatch:
    """One batch of columns, in the order given."""
    outcomes = {None: UNKNOWN, False: GOOD, True: FAILED}
    weights = [event.weight for event in events]
    return EventBatch(
        offset=np.array([event.offset for event in events], np.int64),
        time=np.array([event.time for event in events], np.int64),
        failed=np.array([outcomes[event.failed] for event in events], np.int8),
        latency=np.array([NO_LATENCY if event.latency is None else event.latency for event in events], np.int64),
        series=np.array(
            [UNMATCHED if event.series is None else table.intern(SeriesKey(*event.series)) for event in events],
            np.int32,
        ),
        trace_ids=listed([""] * len(events)),
        weight=np.array(weights, np.int64) if set(weights) - {1} else None,
        runs=RunColumns(
            np.array([NO_SCORE if event.score is None else event.score for event in events], np.int64),
            [event.deploy for event in events],
            [event.context for event in events],
        ),
    )


# --- Rules ----------------------------------------------------------------------------------------------

BOUNDS = (500_000, 100_000)
"""Latency thresholds; events have these latencies and the ones next to them."""

RATIOS = tuple(Fraction(text) for text in ("1/10", "0", "1/2", "1/3", "0.005", "1"))
OPS = (Op.GT, Op.GT, Op.GT, Op.GE, Op.GE, Op.LT, Op.LE)
KINDS = (
    Kind.ERROR_RATIO,
    Kind.ERROR_RATIO,
    Kind.QUANTILE,
    Kind.QUANTILE,
    Kind.ERROR_COUNT,
    Kind.MAX,
    Kind.MEAN,
    Kind.SLOW_RATIO,
    Kind.REQUEST_COUNT,
)
QUANTILES = (
    ("median", Fraction(1, 2)),
    ("p95", Fraction(95, 100)),
    ("p50", Fraction(1, 2)),
    ("p99.9", Fraction("0.999")),
)
POLICIES = (Policy.HOLD, Policy.HOLD, Policy.OK, Policy.BREACH)

VALUES: dict[str, tuple[Series, ...]] = {
    "api": (("api", ()),),
    "fn": (("fn", ("a", "")), ("fn", ("b", "eu")), ("fn", ("", "")), ("fn", ('q"\\\n', "é"))),
}
"""Every series that a sample can hold."""


def make_rules(random: Random) -> RuleSet:
    """Two to five rules over two surfaces of one source."""
    late = random.choice((5, 0, 30))
    fields = (GroupField("region", "region"), GroupField("zone.name", "zone_name"))
    rules = [make_rule(random, f"R{number}") for number in range(random.randrange(2, 6))]
    rules += [make_absence(random, f"A{number}") for number in range(random.choice((1, 0, 2)))]
    return RuleSet(
        sources={SOURCE: Source(SOURCE, "t", DurationUs(late * SECOND), DurationUs(30 * SECOND), MINUTE)},
        surfaces={"api": Surface("api", SOURCE, team="Core"), "fn": Surface("fn", SOURCE, fields)},
        slos={},
        rules={rule.name: rule for rule in rules},
        revision=0,
        hash="sha256:sample",
        blind_after=DurationUs(5 * MINUTE),
        max_replay_age=DurationUs(HOUR),
    )


def make_rule(random: Random, name: str) -> Rule:
    """A rule with any of the settings of sections 4 to 7, at sizes that a short log can reach."""
    every = random.choice((60, 30, 10)) * SECOND
    window = random.choice((1, 1, 2, 3, 5)) * every
    required = random.choice((1, 2, 3))
    among = random.choice((None, None, required, required + 2))
    expire_after = max(2 * window, random.choice((10 * MINUTE, 2 * MINUTE, 2 * HOUR, 12 * HOUR)))
    forget_after = expire_after * random.choice((2, 1, 3)) if every < MINUTE or random.randrange(6) else 7 * DAY
    deploys = make_deploys(random)
    kinds = KINDS if deploys is None else (*KINDS, *[Kind.SCORE, Kind.SCORE_DROP] * 6)
    return Rule(
        name=name,
        surface=random.choice(("api", "fn")),
        severity=random.choice(("page", "ticket")),
        conditions=tuple(make_condition(random, kinds) for _ in range(random.choice((1, 1, 2)))),
        window=DurationUs(window),
        every=DurationUs(every),
        required=required,
        among=among,
        resolve_after=random.choice((1, 1, 2, 3)),
        max_gap=random.choice((among or required, 1, 4)),
        expire_after=DurationUs(expire_after),
        forget_after=DurationUs(max(forget_after, expire_after, 0 if deploys is None else deploys.settle)),
        definition=f"sha256:{name}",
        min_samples=random.choice((None, 1, 3, 10)),
        min_bad=random.choice((1, 1, 2)),
        no_data=random.choice(POLICIES),
        low_traffic=random.choice(POLICIES),
        labels=random.choice(({}, {"tier": "1"})),
        deploys=deploys,
    )


def make_deploys(random: Random) -> Deploys | None:
    """How the events of a deploy become a group, for one rule of three."""
    if random.randrange(3):
        return None
    return Deploys(
        settle=DurationUs(random.choice((2 * MINUTE, 20 * SECOND, 2 * HOUR))),
        runs=random.choice((None, None, 1, 3, 5)),
        baseline=random.choice((5, 1, 2)),
        contexts=random.choice((("main",), ("main",), ("main", "pr"), ("pr",))),
        baseline_context=random.choice(("main", "main", "pr")),
    )


def make_absence(random: Random, name: str) -> Rule:
    """A rule that waits for events, for a time after which some are silent; steps that a silence of weeks can take."""
    patience = random.choice((2 * MINUTE, 90 * SECOND, 5 * MINUTE, 20 * SECOND, HOUR))
    waits = Condition(f"expect_every {patience}us", "last_event", Kind.SILENCE, Op.GT, Fraction(patience))
    every = random.choice((MINUTE, MINUTE, 5 * MINUTE))
    return replace(
        make_rule(random, name),
        conditions=(waits,),
        window=every,
        every=every,
        forget_after=DurationUs(NEVER),
        deploys=None,
    )


def make_condition(random: Random, kinds: Sequence[Kind]) -> Condition:
    """Any indicator of `kinds` with any operator."""
    kind, op = random.choice(kinds), random.choice(OPS)
    name, q, slower_than = str(kind), None, None
    if kind is Kind.ERROR_RATIO or kind in SCORES:
        threshold = random.choice(RATIOS)
    elif kind is Kind.SLOW_RATIO:
        threshold, slower_than = random.choice(RATIOS), random.choice(BOUNDS)
        name = f"slow_ratio({slower_than}us)"
    elif kind in {Kind.ERROR_COUNT, Kind.REQUEST_COUNT}:
        threshold = Fraction(random.choice((1, 0, 2, 5)))
    else:
        threshold = Fraction(random.choice(BOUNDS))
        if kind is Kind.QUANTILE:
            name, q = random.choice(QUANTILES)
    return Condition(f"{name} {op} {threshold}", name, kind, op, threshold, q, slower_than)


# --- Logs -----------------------------------------------------------------------------------------------


class Phase(NamedTuple):
    """How traffic is for a while; `rate` in events a minute."""

    name: str
    rate: int
    failing: float
    slow: float
    minutes: tuple[int, ...]


PHASES = (
    Phase("failing", 10, 0.9, 0.1, (3, 1, 6)),
    Phase("healthy", 10, 0.02, 0.02, (2, 5)),
    Phase("slow", 10, 0.05, 0.9, (3, 6)),
    Phase("mixed", 8, 0.3, 0.3, (4, 8)),
    Phase("sparse", 1, 0.6, 0.6, (6, 12)),
    Phase("silent", 0, 0, 0, (3, 15)),
    Phase("gone", 0, 0, 0, (3 * 60, 14 * 60, 9 * 24 * 60, 70 * 24 * 60)),
)
FAST = (250_000, 100_000, 99_999, 100_001, 1_000, 0)
SCORED = (0, 449_999, 500_000, 900_000, 1_000_000, 333_333)
SLOW = (900_000, 500_001, 500_000, 499_999, 2_000_000)


class Sent(NamedTuple):
    """An event on its way into a partition."""

    arrival: int
    partition: int
    event: RefEvent


def make_sample(random: Random) -> Sample:
    """Rules, the phases of a log, its disorder and its end."""
    rules = make_rules(random)
    phases = [random.choice(PHASES) for _ in range(random.randrange(3, 7))]
    lengths = [random.choice(phase.minutes) for phase in phases]
    partitions = random.choice((2, 1, 3, 4))
    used = random.choice((partitions, partitions, max(1, partitions - 1)))
    disorder = random.choice((30, 5, 100, 0)) * SECOND
    weighted, idles = random.choice((False, True)), random.choice((False, True))
    starts = [random.choice((0, 0, 0, 0, 17)) for _ in range(partitions)]
    ending = random.choice(("input", "input", "soon", "days", "open"))
    noise = Random(random.randrange(2**32))

    sent = traffic(noise, rules, phases, lengths, used, disorder, weighted=weighted)
    logs = [number_offsets(noise, [each for each in sent if each.partition == p], starts[p]) for p in range(partitions)]
    events = [[each.event for each in log] for log in logs]
    idle = make_idle(noise, logs, starts, rules.sources[SOURCE].out_of_orderness) if idles else []
    last = end_of_input(events)
    end = None if last is None else last + {"soon": 4 * MINUTE, "days": 3 * DAY}.get(ending, 0)
    return Sample(rules, events, idle, None if ending == "open" else end, starts)


def traffic(
    noise: Random,
    rules: RuleSet,
    phases: Sequence[Phase],
    lengths: Sequence[int],
    partitions: int,
    disorder: int,
    *,
    weighted: bool,
) -> list[Sent]:
    """The events of all phases in the order of their arrival, without offsets yet."""
    everywhere = [series for surface in rules.surfaces for series in VALUES[surface]]
    # Half of the traffic goes where the rules look; `api` alone gives series with many events.
    targets: list[Series | None] = [*everywhere, ("api", ()), ("api", ()), ("fn", ("a", "")), ("fn", ("a", "")), None]
    sent: list[Sent] = []
    begin = BEGIN + noise.randrange(0, 5 * MINUTE)
    for phase, minutes in zip(phases, lengths, strict=True):
        for _ in range(phase.rate * minutes):
            time = begin + noise.randrange(0, minutes * MINUTE)
            if noise.random() < 0.1:
                time = time // (10 * SECOND) * 10 * SECOND - noise.choice((0, 0, 1))
            event = make_event(noise, phase, time, noise.choice(targets), weighted=weighted)
            partition = noise.randrange(partitions)
            sent.append(Sent(time + delay(noise, disorder), partition, event))
        begin += minutes * MINUTE
    return sorted(sent, key=lambda each: each.arrival)


def make_event(noise: Random, phase: Phase, time: int, series: Series | None, *, weighted: bool) -> RefEvent:
    """One event of a phase."""
    latency = noise.choice(SLOW if noise.random() < phase.slow else FAST)
    failed = None if noise.random() < 0.1 else noise.random() < phase.failing
    # A deploy every three minutes; the one before is still running, and some events say none.
    deploy = (time - BEGIN) // (3 * MINUTE) - noise.choice((0, 0, 0, 0, 0, 1))
    scores = SCORED if noise.random() < phase.slow else SCORED[2:]
    return RefEvent(
        partition=0,
        offset=0,
        time=time,
        deploy="" if noise.random() < 0.05 else f"d{deploy}",
        context=noise.choice(("main", "main", "main", "pr")),
        score=None if failed or noise.random() < 0.1 else noise.choice(scores),
        failed=failed,
        latency=None if noise.random() < 0.1 else latency,
        weight=noise.choice((1, 1, 2, 10)) if weighted else 1,
        series=series,
    )


def delay(noise: Random, disorder: int) -> int:
    """How long an event is on its way: up to `disorder`, a straggler up to a quarter of an hour."""
    if disorder and noise.random() < 0.05:
        return noise.randrange(0, 15 * MINUTE)
    return noise.randrange(0, disorder + 1)


def number_offsets(noise: Random, sent: Sequence[Sent], start: int) -> list[Sent]:
    """Offsets with the gaps that rejected records leave, sometimes two events in one record."""
    offset = start
    numbered = []
    for number, (arrival, partition, event) in enumerate(sent):
        if number:
            offset += noise.choice((1, 1, 1, 1, 1, 1, 0, 3))
        placed = replace(event, partition=partition, offset=offset)
        numbered.append(Sent(arrival, partition, placed))
    return numbered


def make_idle(noise: Random, logs: Sequence[Sequence[Sent]], starts: Sequence[int], late: int) -> list[Idle]:
    """Idle decisions in the longer pauses of each partition, after its end, and in partitions without events."""
    last = max((log[-1].arrival for log in logs if log), default=BEGIN)
    idle = []
    for number, log in enumerate(logs):
        for before, after in pairwise(log):
            pause = after.arrival - before.arrival
            if pause > 30 * SECOND and after.event.offset > before.event.offset and noise.random() < 0.5:
                idle.append(Idle(number, after.event.offset, before.arrival + noise.randrange(pause) - late))
        if noise.random() < 0.5:
            end = log[-1].event.offset + 1 if log else starts[number]
            first = log[-1].arrival if log else BEGIN
            idle.append(Idle(number, end, max(first, last - noise.choice((0, MINUTE, 10 * MINUTE))) - late))
    return idle

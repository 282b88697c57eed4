"""What is configured, as the core sees it: sources, surfaces, objectives and rules.

Made once by `wire/config` from the rules files, frozen after that. Everything here is a plain value; how an
event is decoded and matched stays in `wire`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from evaluator.core.condition import Condition, Kind
from evaluator.core.event import DurationUs, SeriesKind
from evaluator.core.word import Word


class Policy(Word):
    """What a window without data, or without enough of it, does to the streak."""

    HOLD = "hold"
    OK = "ok"
    BREACH = "breach"


@dataclass(frozen=True, slots=True)
class GroupField:
    """A field that splits a surface into series, and the label that carries its value."""

    path: str
    label: str


@dataclass(frozen=True, slots=True)
class Surface:
    """Something that has an objective; `group_by` splits it into series."""

    name: str
    source: str
    group_by: tuple[GroupField, ...] = ()
    max_series: int = 1000
    team: str | None = None
    owners: tuple[str, ...] = ()
    owner_source: str | None = None


@dataclass(frozen=True, slots=True)
class Slo:
    """An objective over a period. `latency` is the bound of a latency SLI in microseconds, else None."""

    name: str
    surface: str
    objective: Fraction
    period: DurationUs
    latency: DurationUs | None = None


@dataclass(frozen=True, slots=True)
class Deploys:
    """How the events of a deploy become a group (`window: deploy`).

    A group closes with its `runs`-th event (None: however many there are), or `settle` after its last one. A drop is
    measured from the last `baseline` groups of `baseline_context`. Groups of other contexts than `contexts` are judged
    and shown and change no streak.
    """

    settle: DurationUs
    runs: int | None = None
    baseline: int = 5
    contexts: tuple[str, ...] = ("main",)
    baseline_context: str = "main"


@dataclass(frozen=True, slots=True)
class Rule:
    """One alert: conditions over a window, and how many of them make a page.

    `window` is a multiple of `every`. `required` breaches among the last `among` windows fire;
    `among` is None where they must be consecutive. Durations are in microseconds. `definition` is a
    hash over everything that may change a verdict or the identity of the alert. With `deploys` its windows are run
    groups, `window` and `every` are how long such a group settles, and no grid is made of them.
    """

    name: str
    surface: str
    severity: str
    conditions: tuple[Condition, ...]
    window: DurationUs
    every: DurationUs
    required: int
    among: int | None
    resolve_after: int
    max_gap: int
    expire_after: DurationUs
    forget_after: DurationUs
    definition: str
    slo: str | None = None
    min_samples: int | None = None
    min_bad: int = 1
    no_data: Policy = Policy.HOLD
    low_traffic: Policy = Policy.HOLD
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    deploys: Deploys | None = None

    @property
    def grid(self) -> DurationUs | None:
        """The step from one end of a window to the next; None where deploys end them."""
        return self.every if self.deploys is None else None

    @property
    def counted(self) -> tuple[int, ...]:
        """The latency thresholds that its conditions count, ascending."""
        counted = (condition.counted() for condition in self.conditions)
        return tuple(sorted({threshold for threshold in counted if threshold is not None}))

    @property
    def is_about_absence(self) -> bool:
        """Whether it waits for events of the surface as a whole, whatever splits that into series."""
        return any(condition.kind is Kind.SILENCE for condition in self.conditions)


@dataclass(frozen=True, slots=True)
class Source:
    """A topic and the time behaviour of its producers. All durations in microseconds."""

    name: str
    topic: str
    out_of_orderness: DurationUs
    idle_after: DurationUs
    max_future: DurationUs
    dedup: int = 0


@dataclass(frozen=True, slots=True)
class RuleSet:
    """The whole configuration of the core. Mappings keep config order.

    `max_skew` is how far one partition may run ahead of its source before it is paused (None: the
    default of twice the longest window, at least 1 h).
    """

    sources: Mapping[str, Source]
    surfaces: Mapping[str, Surface]
    slos: Mapping[str, Slo]
    rules: Mapping[str, Rule]
    revision: int
    hash: str
    blind_after: DurationUs
    max_replay_age: DurationUs
    max_skew: DurationUs | None = None

    def rules_of(self, surface: str) -> tuple[Rule, ...]:
        """The rules about one surface, in config order."""
        return tuple(rule for rule in self.rules.values() if rule.surface == surface)

    def rules_by_kind(self) -> dict[SeriesKind, tuple[Rule, ...]]:
        """The rules about each kind of series that is judged, in config order."""
        found: dict[SeriesKind, tuple[Rule, ...]] = {}
        for name, surface in self.surfaces.items():
            rules, fields = self.rules_of(name), len(surface.group_by)
            found[name, fields] = tuple(rule for rule in rules if not (fields and rule.is_about_absence))
            about_whole = tuple(rule for rule in rules if rule.is_about_absence)
            if fields and about_whole:
                found[name, 0] = about_whole
        return found

    def grids_of(self, source: str) -> frozenset[DurationUs]:
        """The steps of all rules about a source."""
        grids = (rule.grid for rule in self.rules.values() if self.surfaces[rule.surface].source == source)
        return frozenset(grid for grid in grids if grid is not None)

    def deploy_rules_of(self, surface: str) -> tuple[Rule, ...]:
        """The rules about the run groups of one surface, in config order."""
        return tuple(rule for rule in self.rules_of(surface) if rule.deploys is not None)


def steps_of(rules: Iterable[Rule]) -> dict[DurationUs, tuple[int, ...]]:
    """For each pane width that the rules need, the latency thresholds to count, ascending."""
    steps: dict[DurationUs, set[int]] = {}
    for rule in rules:
        if rule.grid is not None:
            steps.setdefault(rule.grid, set()).update(rule.counted)
    return {step: tuple(sorted(steps[step])) for step in sorted(steps)}

"""The shape of a rules file: which keys stand where, and what each one takes.

One class for each kind of entry. Values come out parsed: durations in microseconds, exact ratios, conditions,
tests. What holds between entries, references and labels, is checked in `check.py`. The JSON Schema for
editors is made from these classes; their docstrings are its descriptions.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from evaluator.core.condition import Condition, Kind, Op
from evaluator.core.event import MINUTE, DurationUs
from evaluator.core.rule import Deploys
from evaluator.core.watermark import NEVER
from evaluator.wire.config.duration import format_duration
from evaluator.wire.config.model import Batch, LatencyUnit, Start, TimeUnit
from evaluator.wire.config.scalar import (
    Duration,
    FieldPath,
    FieldTest,
    LabelName,
    LabelValue,
    MOfN,
    Name,
    Natural,
    Objective,
    Positive,
    PositiveDuration,
    Seconds,
    Size,
    Sli,
    SourceName,
    Text,
    Topic,
    Url,
    Version,
    When,
    Window,
)
from evaluator.wire.preset import PresetName

DAY = 24 * 60 * MINUTE
SETTLE = DurationUs(15 * MINUTE)

DEPLOY_KEYS = ("runs", "settle", "baseline", "contexts", "baseline_context")
"""Keys of an alert that say how the events of a deploy become a window."""

PolicyName = Literal["hold", "ok", "breach"]


def _default(written: str) -> Any:  # noqa: ANN401  # it stands for a value of the annotated type
    """A default as one would write it, so that the schema shows `30s` and not microseconds."""
    return Field(default=written, validate_default=True)


def _shape(tag: str, other: str, kind: type) -> Discriminator:
    """Tells two shapes of a value apart: `tag` where it is a `kind`.

    Tags stand in angle brackets, so that `diagnose.py` can tell them from the keys of an error's path.
    """
    return Discriminator(lambda written: tag if isinstance(written, kind) else other)


class Entry(BaseModel):
    """What all entries have in common: nothing unknown, nothing converted, nothing changed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


Case = Annotated[dict[FieldPath, FieldTest], Field(min_length=1)]
"""Fields and their tests, all of which must hold."""
MatcherEntry = Annotated[
    Annotated[Case, Tag("<all>")] | Annotated[list[Case], Field(min_length=1), Tag("<any>")],
    _shape("<any>", "<all>", list),
]


class SpanEntry(Entry):
    """A latency that is the difference of two times of the event."""

    from_: FieldPath = Field(alias="from")
    """The field of the earlier time."""
    to: FieldPath
    """The field of the later time."""


LatencyEntry = Annotated[
    Annotated[FieldPath, Tag("<path>")] | Annotated[SpanEntry, Tag("<span>")], _shape("<span>", "<path>", dict)
]


class FieldsEntry(Entry):
    """Where in a payload the parts of an event are."""

    time: FieldPath | None = None
    """The field of the event's time; without it, the record's timestamp."""
    time_unit: TimeUnit = "auto"
    """The unit of times that are numbers; auto tells it by the magnitude."""
    latency: (
        Annotated[
            Annotated[FieldPath, Tag("<path>")] | Annotated[SpanEntry, Tag("<span>")], _shape("<span>", "<path>", dict)
        ]
        | None
    ) = None
    """The field of the latency, or `{from, to}`: the difference of two times."""
    latency_unit: LatencyUnit | None = None
    """The unit of the latency; required with a path."""
    failed: MatcherEntry | None = None
    """Which events are failures."""
    weight: FieldPath | None = None
    """How many events this one stands for: an integer from 1."""
    trace_id: FieldPath | None = None
    """Shown as evidence of an alert."""
    id: FieldPath | None = None
    """What tells a duplicate; counts with `dedup`."""
    deploy: FieldPath | None = None
    """The version that the event came from."""
    context: FieldPath | None = None
    """What the event was made for: main, a pull request."""
    score: FieldPath | None = None
    """How well a run did, from 0 to 1."""


class RegistryEntry(Entry):
    """A schema registry over HTTP."""

    url: Url
    """Where it answers: http://registry:8081."""
    username: Text | None = None
    """Who asks, where it wants to know."""
    password_file: Text | None = None
    """The file that holds the password, and nothing else."""


class SourceEntry(Entry):
    """A topic and how its records become events."""

    topic: Topic
    """The Kafka topic; one source reads it."""
    format: Text
    """How its records are written."""
    preset: PresetName | None = None
    """A dialect of JSON logs: what `where` and `fields` are, where nothing else is written. For the format json."""
    where: MatcherEntry | None = None
    """Events that fail it are skipped; without it, those that fail what the format or the preset proposes."""
    fields: FieldsEntry = Field(default_factory=FieldsEntry)
    """Where its records hold the time, the latency, the failure."""
    out_of_orderness: Duration = _default("30s")
    """How much later than a newer event of its partition an event may come and still count."""
    idle_after: PositiveDuration = _default("30s")
    """How long a partition is silent before it no longer holds up the others."""
    max_future: Duration = _default("30s")
    """How far an event's time may be ahead of its record's."""
    dedup: Natural = 0
    """How many offsets back a repeated id is recognised; 0: off. Without it, what the format says: 500 for vercel."""
    start: Start = "earliest"
    """Where the very first run begins."""
    batch: Batch = "one"
    """How many events a record holds, for formats that do not say it themselves."""
    max_record_bytes: Size = _default("4MiB")
    """Larger records are rejected."""
    max_record_events: Positive | None = None
    """So are records with more events than this; 20000 unless it is said."""
    schemas: (
        Annotated[
            Annotated[Text, Tag("<folder>")] | Annotated[RegistryEntry, Tag("<registry>")],
            _shape("<registry>", "<folder>", dict),
        ]
        | None
    ) = None
    """Where the schemas are that its records name by id: a folder, or a registry. For the format registry."""
    tail_sampled: bool = False
    """Whether the producer keeps only interesting traces: then ratios, quantiles and means of them say nothing."""


class GroupEntry(Entry):
    """A field of `group_by` under another label."""

    field: FieldPath
    """The field whose values make the series."""
    as_: LabelName = Field(alias="as")
    """The label that carries the value."""


GroupByEntry = Annotated[
    Annotated[FieldPath, Tag("<path>")] | Annotated[GroupEntry, Tag("<as>")], _shape("<as>", "<path>", dict)
]


class SurfaceEntry(Entry):
    """Something that has an objective: an endpoint, a service, a page."""

    source: SourceName
    """The source of its events."""
    match: MatcherEntry | None = None
    """Which events are its own; without it, all that no surface before it took."""
    group_by: list[GroupByEntry] = Field(default_factory=list)
    """Fields whose values split it into series, each judged on its own."""
    max_series: Positive = 1000
    """Further series share one."""
    owners: list[Text] = Field(default_factory=list)
    """Who is asked when it is down."""
    team: Text | None = None
    """A label of its alerts, to route by."""


class SloEntry(Entry):
    """An objective over a period."""

    surface: Name
    """What it is about."""
    sli: Sli
    """`availability`, or `latency <= DURATION`."""
    objective: Objective
    """The share of good events: 99.5%."""
    period: Seconds
    """Over how long the objective holds: 30d."""


WhenEntry = Annotated[
    Annotated[When, Tag("<one>")] | Annotated[list[When], Field(min_length=1), Tag("<any>")],
    _shape("<any>", "<one>", list),
]


class AlertEntry(Entry):
    """Conditions over a window, or an event that is waited for, and how many windows make an alert."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["when", "window"]}, {"required": ["expect_every"]}]}
    )

    surface: Name
    """What it is about."""
    slo: Name | None = None
    """The objective that it protects; of the same surface."""
    severity: Text
    """A label, to route by: page, ticket."""
    when: (
        Annotated[
            Annotated[When, Tag("<one>")] | Annotated[list[When], Field(min_length=1), Tag("<any>")],
            _shape("<any>", "<one>", list),
        ]
        | None
    ) = None
    """A condition, or a list of which any one suffices."""
    expect_every: PositiveDuration | None = None
    """Instead of `when`: how long the surface as a whole may be without an event."""
    window: Window = None
    """How long a window is: 5m; or `deploy`: as long as there are events of a deploy. Required with `when`."""
    every: Seconds | None = None
    """The step from window to window; without it, the window's length. With `expect_every` 1m."""
    consecutive: Positive | None = None
    """How many windows in a row must breach."""
    for_: Seconds | None = Field(default=None, alias="for")
    """The same as a duration, a multiple of `every`."""
    m_of_n: MOfN | None = None
    """[M, N]: at least M of the last N windows must breach."""
    resolve_after: Positive = 1
    """How many windows in a row must be good before it resolves."""
    max_gap: Natural | None = None
    """More held windows in a row than this and a pending alert starts over."""
    min_samples: Positive | None = None
    """How many events a window needs before it can breach."""
    min_bad: Positive | None = None
    """How many of them must have failed. For ratios."""
    no_data: PolicyName = "hold"
    """What a window without events does."""
    low_traffic: PolicyName = "hold"
    """What a window with too few events does."""
    expire_after: PositiveDuration | None = None
    """A firing alert without events for this long resolves as expired."""
    forget_after: PositiveDuration | None = None
    """A series without events for this long is forgotten."""
    runs: Positive | None = None
    """How many events a deploy has; without it, its window ends with silence. For `window: deploy`."""
    settle: Seconds | None = None
    """How long silence is before a deploy's window ends; 15m. For `window: deploy`."""
    baseline: Positive | None = None
    """How many deploys before it a score is compared with; 5. For `window: deploy`."""
    contexts: Annotated[list[Text], Field(min_length=1)] | None = None
    """Which contexts can fire; others are judged and shown. `[main]`. For `window: deploy`."""
    baseline_context: Text | None = None
    """Which context a score is compared with; main. For `window: deploy`."""
    labels: dict[LabelName, LabelValue] = Field(default_factory=dict)
    """More labels, to route by."""
    annotations: dict[LabelName, LabelValue] = Field(default_factory=dict)
    """Text for people: a summary, a runbook's address."""

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The conditions of `when`, of which any one suffices, or what `expect_every` stands for."""
        if self.expect_every is not None:
            text = f"expect_every {format_duration(self.expect_every)}"
            return (Condition(text, "last_event", Kind.SILENCE, Op.GT, Fraction(self.expect_every)),)
        if self.when is None:
            return ()
        return tuple(self.when) if isinstance(self.when, list) else (self.when,)

    @property
    def step(self) -> DurationUs:
        """From the end of a window to the end of the next."""
        return self.every if self.every is not None else self.length

    @property
    def is_of_deploys(self) -> bool:
        """Whether deploys end its windows: `window: deploy` is read as a length that there is not."""
        return self.window is None and "window" in self.model_fields_set

    @property
    def length(self) -> DurationUs:
        """How long a window is; for a deploy, how long it settles; for `expect_every`, its step."""
        if self.window is not None:
            return self.window
        if self.is_of_deploys:
            return self.settle if self.settle is not None else SETTLE
        return self.every if self.every is not None else MINUTE

    @property
    def deploys(self) -> Deploys | None:
        """How the events of a deploy become a window; None for windows of time."""
        if not self.is_of_deploys:
            return None
        given = {key: getattr(self, key) for key in DEPLOY_KEYS}
        given["contexts"] = None if self.contexts is None else tuple(self.contexts)
        written = {key: value for key, value in given.items() if value is not None}
        return Deploys(**{"settle": SETTLE, **written})

    @property
    def firing(self) -> tuple[int, int | None]:
        """How many breaches fire, and among how many windows; None: they must be consecutive."""
        if self.m_of_n is not None:
            return self.m_of_n
        if self.for_ is not None:
            return max(1, self.for_ // self.step), None
        return self.consecutive or 1, None

    @property
    def expires(self) -> DurationUs:
        """How long a firing alert waits for events (docs/semantics.md 7)."""
        return self.expire_after or DurationUs(max(DAY, 2 * self.length))

    @property
    def forgets(self) -> DurationUs:
        """How long a series is remembered without events (docs/semantics.md 4)."""
        if self.expect_every is not None:
            return DurationUs(NEVER)
        days = 30 if self.is_of_deploys else 7
        return self.forget_after or DurationUs(max(days * DAY, self.expires))


class RulesEntry(Entry):
    """Rules of the evaluator: sources of events, surfaces, objectives and alerts."""

    model_config = ConfigDict(title="Evaluator rules, version 1")

    version: Version
    """The version of this file's format: 1."""
    revision: Natural = 0
    """Counts up with every change that is rolled out, so that an older process can tell it is older."""
    blind_after: PositiveDuration = _default("5m")
    """A window that is this late is shown as blind."""
    max_replay_age: PositiveDuration = _default("1h")
    """Alerts about windows older than this are marked as evaluated late."""
    max_skew: PositiveDuration | None = None
    """How far a partition may run ahead of its source; twice the longest window, at least 1h."""
    sources: dict[SourceName, SourceEntry] = Field(default_factory=dict)
    """Topics and how their records become events, by name."""
    surfaces: dict[Name, SurfaceEntry] = Field(default_factory=dict)
    """What has an objective, by name. The order counts: an event belongs to the first that matches."""
    slos: dict[Name, SloEntry] = Field(default_factory=dict)
    """Objectives, by name."""
    alerts: dict[Name, AlertEntry] = Field(default_factory=dict)
    """Alerts, by name."""

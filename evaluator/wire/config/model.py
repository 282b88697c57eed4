"""What decoding needs to know of the rules: sources with their fields, surfaces with their matchers.

The core has its own, smaller view of the same things (`evaluator/core/rule.py`): it never sees a payload.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from evaluator.core.event import DurationUs
from evaluator.core.rule import GroupField
from evaluator.wire.config.matcher import Matcher
from evaluator.wire.schemas import Schemas

TimeUnit = Literal["auto", "s", "ms", "us", "ns"]
LatencyUnit = Literal["s", "ms", "us", "ns"]
Batch = Literal["one", "array", "lines", "auto"]
Start = Literal["earliest", "latest"]

SECONDS_30 = DurationUs(30_000_000)
MEBIBYTES_4 = 4 * 2**20
MAX_RECORD_EVENTS = 20_000
"""More than a record of 1 MiB holds, which is what brokers take unless told otherwise: a span has 60 bytes or more."""


@dataclass(frozen=True, slots=True)
class LatencySpan:
    """A latency that is the difference of two times of the event, in the source's `time_unit`."""

    from_: str
    to: str


@dataclass(frozen=True, slots=True)
class FieldsConfig:
    """Where in a payload the parts of an event are. None: absent, and in a rules file the format's own.

    `latency_unit` is set iff `latency` is a path.
    """

    time: str | None = None
    time_unit: TimeUnit = "auto"
    latency: str | LatencySpan | None = None
    latency_unit: LatencyUnit | None = None
    failed: Matcher | None = None
    weight: str | None = None
    trace_id: str | None = None
    id: str | None = None
    deploy: str | None = None
    context: str | None = None
    score: str | None = None

    def or_else(self, own: FieldsConfig) -> FieldsConfig:
        """These fields, and where they say nothing the format's `own`.

        A unit goes with its field: that of the format's time says nothing about another time.
        """
        said = ((each.name, getattr(self, each.name)) for each in fields(self))
        written: dict[str, Any] = {name: value for name, value in said if value is not None}
        if self.time_unit == "auto" and self.time in {None, own.time}:
            written["time_unit"] = own.time_unit
        if self.latency is not None and self.latency != own.latency:
            written["latency_unit"] = self.latency_unit
        return replace(own, **written)


@dataclass(frozen=True, slots=True)
class SourceDefaults:
    """What a format or a preset says of a source where the config says nothing."""

    fields: FieldsConfig = FieldsConfig()
    where: Matcher | None = None
    out_of_orderness: DurationUs = SECONDS_30
    dedup: int = 0


@dataclass(frozen=True, slots=True)
class SurfaceConfig:
    """Which events of its source belong to a surface (all, without `match`), and how they split into series."""

    name: str
    match: Matcher | None = None
    group_by: tuple[GroupField, ...] = ()
    max_series: int = 1000


@dataclass(frozen=True, slots=True)
class SchemaFolder:
    """Schemas that were read from files: what is in those says what they are, not where they are."""

    digests: Mapping[str, str]
    """SHA-256 by the name of the file."""
    known: Schemas = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class RegistryConfig:
    """A schema registry over HTTP; the password is in a file. `known` is what it has said until now."""

    url: str
    username: str | None = None
    password_file: str | None = None
    known: Schemas = field(default_factory=Schemas, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """A topic and how its records become events.

    `surfaces` are in config order: an event belongs to the first whose `match` holds. Events that fail
    `where` are skipped. `start` counts only when a source is read for the first time. `deploying` are the surfaces that
    are judged by run groups.
    """

    name: str
    topic: str
    format: str
    fields: FieldsConfig = FieldsConfig()
    surfaces: tuple[SurfaceConfig, ...] = ()
    where: Matcher | None = None
    batch: Batch = "one"
    max_record_bytes: int = MEBIBYTES_4
    max_record_events: int | None = None
    dedup: int = 0
    out_of_orderness: DurationUs = SECONDS_30
    idle_after: DurationUs = SECONDS_30
    max_future: DurationUs = SECONDS_30
    start: Start = "earliest"
    schemas: SchemaFolder | RegistryConfig | None = None
    deploying: tuple[str, ...] = ()

    @property
    def most_events(self) -> int:
        """How many events a record may have."""
        return MAX_RECORD_EVENTS if self.max_record_events is None else self.max_record_events

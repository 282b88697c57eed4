"""From checked entries to the values that the core and the decoder work with. What could fail was checked before."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from evaluator.core.rule import GroupField, Policy, Rule, RuleSet, Slo, Source, Surface
from evaluator.wire import formats
from evaluator.wire.config.definition import definition_of, hash_of
from evaluator.wire.config.entry import RegistryEntry, RulesEntry, SpanEntry
from evaluator.wire.config.matcher import Matcher
from evaluator.wire.config.model import FieldsConfig, LatencySpan, RegistryConfig, SourceConfig, SurfaceConfig
from evaluator.wire.preset import PRESETS

if TYPE_CHECKING:
    from collections.abc import Callable

    from evaluator.core.event import DurationUs
    from evaluator.wire.config.entry import (
        AlertEntry,
        FieldsEntry,
        GroupEntry,
        MatcherEntry,
        SloEntry,
        SourceEntry,
        SurfaceEntry,
    )
    from evaluator.wire.config.files import Entries
    from evaluator.wire.config.model import SchemaFolder, SourceDefaults


def rules_of(entries: Entries, load: Callable[[str], SchemaFolder]) -> tuple[RuleSet, dict[str, SourceConfig]]:
    """The core's rules and the decoder's sources; `load` reads a folder of schemas, or has read it already."""
    registries: dict[RegistryConfig, RegistryConfig] = {}
    surfaces = {name: _surface(name, entry) for name, entry in entries.surfaces.items()}
    matching = {name: _matching(surfaces[name], entry) for name, entry in entries.surfaces.items()}
    sources = {
        name: _source_config(
            name,
            entry,
            tuple(matching[each.name] for each in surfaces.values() if each.source == name),
            _schemas(entry.schemas, load, registries),
            _deploying(name, entries),
        )
        for name, entry in entries.sources.items()
    }
    slos = {name: _slo(name, entry) for name, entry in entries.slos.items()}
    rules = {}
    for name, entry in entries.alerts.items():
        rule, surface = _rule(name, entry), surfaces[entry.surface]
        slo = slos[rule.slo] if rule.slo is not None else None
        definition = definition_of(rule, surface, matching[surface.name], slo, sources[surface.source])
        rules[name] = replace(rule, definition=definition)
    settings = RulesEntry(version=1).model_copy(update=entries.settings)
    rule_set = RuleSet(
        sources={name: _source(name, entry) for name, entry in entries.sources.items()},
        surfaces=surfaces,
        slos=slos,
        rules=rules,
        revision=settings.revision,
        hash="",
        blind_after=settings.blind_after,
        max_replay_age=settings.max_replay_age,
        max_skew=settings.max_skew,
    )
    return replace(rule_set, hash=hash_of(rule_set, sources)), sources


def _source(name: str, entry: SourceEntry) -> Source:
    return Source(
        name=name,
        topic=entry.topic,
        out_of_orderness=_out_of_orderness(entry),
        idle_after=entry.idle_after,
        max_future=entry.max_future,
        dedup=_dedup(entry),
    )


def _source_config(
    name: str,
    entry: SourceEntry,
    surfaces: tuple[SurfaceConfig, ...],
    schemas: SchemaFolder | RegistryConfig | None,
    deploying: tuple[str, ...],
) -> SourceConfig:
    return SourceConfig(
        name=name,
        topic=entry.topic,
        format=entry.format,
        fields=fields_of(entry),
        surfaces=surfaces,
        where=_where(entry),
        batch=formats.get(entry.format).batch or entry.batch,
        max_record_bytes=entry.max_record_bytes,
        max_record_events=entry.max_record_events,
        dedup=_dedup(entry),
        out_of_orderness=_out_of_orderness(entry),
        idle_after=entry.idle_after,
        max_future=entry.max_future,
        start=entry.start,
        schemas=schemas,
        deploying=deploying,
    )


def _deploying(source: str, entries: Entries) -> tuple[str, ...]:
    """The surfaces of a source that some alert judges by run groups."""
    judged = {alert.surface for alert in entries.alerts.values() if alert.deploys is not None}
    return tuple(name for name, surface in entries.surfaces.items() if surface.source == source and name in judged)


def _schemas(
    entry: str | RegistryEntry | None,
    load: Callable[[str], SchemaFolder],
    registries: dict[RegistryConfig, RegistryConfig],
) -> SchemaFolder | RegistryConfig | None:
    """Sources that name one registry share what is known of it."""
    if isinstance(entry, RegistryEntry):
        registry = RegistryConfig(entry.url, entry.username, entry.password_file)
        return registries.setdefault(registry, registry)
    return None if entry is None else load(entry)


def _where(entry: SourceEntry) -> Matcher | None:
    """What counts: of what the format is about, what the config says, else what the format or the preset proposes."""
    only, where = formats.get(entry.format).only, matcher_of(entry.where) or defaults_of(entry).where
    return where if only is None else only if where is None else only.and_(where)


def defaults_of(entry: SourceEntry) -> SourceDefaults:
    """What the preset, or else the format, knows by itself. The format is a known one."""
    return formats.get(entry.format).defaults if entry.preset is None else PRESETS[entry.preset]


def _out_of_orderness(entry: SourceEntry) -> DurationUs:
    is_said = "out_of_orderness" in entry.model_fields_set
    return entry.out_of_orderness if is_said else defaults_of(entry).out_of_orderness


def _dedup(entry: SourceEntry) -> int:
    return entry.dedup if "dedup" in entry.model_fields_set else defaults_of(entry).dedup


def fields_of(entry: SourceEntry) -> FieldsConfig:
    """The fields as configured, and those that the format or the preset knows by itself. The format is a known one."""
    return _written(entry.fields).or_else(defaults_of(entry).fields)


def _written(entry: FieldsEntry) -> FieldsConfig:
    latency = entry.latency
    return FieldsConfig(
        time=entry.time,
        time_unit=entry.time_unit,
        latency=LatencySpan(latency.from_, latency.to) if isinstance(latency, SpanEntry) else latency,
        latency_unit=entry.latency_unit,
        failed=matcher_of(entry.failed),
        weight=entry.weight,
        trace_id=entry.trace_id,
        id=entry.id,
        deploy=entry.deploy,
        context=entry.context,
        score=entry.score,
    )


def matcher_of(entry: MatcherEntry | None) -> Matcher | None:
    """The matcher of a mapping, or of a list of which any holds."""
    if entry is None:
        return None
    cases = entry if isinstance(entry, list) else [entry]
    return Matcher(tuple(tuple(case.items()) for case in cases))


def _surface(name: str, entry: SurfaceEntry) -> Surface:
    return Surface(
        name=name,
        source=entry.source,
        group_by=tuple(group_of(each) for each in entry.group_by),
        max_series=entry.max_series,
        team=entry.team,
        owners=tuple(entry.owners),
        owner_source="surface" if entry.owners else None,
    )


def _matching(surface: Surface, entry: SurfaceEntry) -> SurfaceConfig:
    return SurfaceConfig(surface.name, matcher_of(entry.match), surface.group_by, surface.max_series)


_NOT_IN_LABELS = re.compile(r"[^a-zA-Z0-9_]")


def group_of(entry: str | GroupEntry) -> GroupField:
    """A field of `group_by` and its label (docs/semantics.md 8)."""
    if not isinstance(entry, str):
        return GroupField(entry.field, entry.as_)
    label = _NOT_IN_LABELS.sub("_", entry)
    return GroupField(entry, f"_{label}" if label[0].isdigit() else label)


def _slo(name: str, entry: SloEntry) -> Slo:
    return Slo(name, entry.surface, entry.objective, entry.period, entry.sli)


def _rule(name: str, entry: AlertEntry) -> Rule:
    """The rule, without its definition, which needs the surface and the source too."""
    required, among = entry.firing
    return Rule(
        name=name,
        surface=entry.surface,
        severity=entry.severity,
        conditions=entry.conditions,
        window=entry.length,
        every=entry.step,
        required=required,
        among=among,
        resolve_after=entry.resolve_after,
        max_gap=entry.max_gap if entry.max_gap is not None else among or required,
        expire_after=entry.expires,
        forget_after=entry.forgets,
        definition="",
        slo=entry.slo,
        min_samples=entry.min_samples,
        min_bad=entry.min_bad or 1,
        no_data=Policy(entry.no_data),
        low_traffic=Policy(entry.low_traffic),
        labels={label: value for label, value in entry.labels.items() if value},
        annotations=dict(entry.annotations),
        deploys=entry.deploys,
    )

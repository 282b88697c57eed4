"""What must hold between entries: references, multiples, labels, fields. Every finding here is an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evaluator.core.condition import LATENCIES, RATIOS, SCORES, Kind
from evaluator.wire import formats
from evaluator.wire.config.assemble import defaults_of, fields_of, group_of
from evaluator.wire.config.duration import format_duration
from evaluator.wire.config.entry import DEPLOY_KEYS, RegistryEntry
from evaluator.wire.config.finding import Code, Finding, Refused, guidance, shown
from evaluator.wire.preset import PRESETS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from evaluator.wire.config.entry import AlertEntry, SourceEntry, SurfaceEntry
    from evaluator.wire.config.files import Entries
    from evaluator.wire.config.finding import Path
    from evaluator.wire.config.model import SchemaFolder
    from evaluator.wire.formats import Format

    Load = Callable[[str], SchemaFolder]

BUILT_IN_LABELS = ("alertname", "surface", "severity", "slo", "team")

_FAILURES = frozenset({Kind.ERROR_RATIO, Kind.ERROR_COUNT})
_SAMPLED_WRONG = RATIOS | {Kind.QUANTILE, Kind.MEAN}
"""What the good events that were not kept would change. Failures and the slowest are kept: counts and `max` stay."""
_SINGULAR = {"sources": "source", "surfaces": "surface", "slos": "SLO"}


def errors_between(entries: Entries, load: Load) -> Iterator[Finding]:
    """Every error that no entry shows on its own; `load` reads a folder of schemas. Raises nothing."""
    if not entries.names("sources") and not entries.findings:
        place = entries.start
        yield Finding.at(
            place, Code.NOTHING_TO_DO, (), "no sources, so there is nothing to read; add one under sources"
        )
    yield from _topics(entries)
    for name, source in entries.sources.items():
        yield from _source(entries, ("sources", name), source, load)
    for name, surface in entries.surfaces.items():
        yield from _reference(entries, ("surfaces", name, "source"), "sources", surface.source)
        yield from _group_labels(entries, ("surfaces", name), surface)
    for name, slo in entries.slos.items():
        yield from _reference(entries, ("slos", name, "surface"), "surfaces", slo.surface)
    for name, alert in entries.alerts.items():
        yield from _alert(entries, ("alerts", name), alert)


def _value(entries: Entries, code: Code, path: Path, message: str) -> Finding:
    return Finding.at(entries.value_place(path), code, path, message)


def _key(entries: Entries, code: Code, path: Path, message: str) -> Finding:
    return Finding.at(entries.key_place(path), code, path, message)


def _topics(entries: Entries) -> Iterator[Finding]:
    first: dict[str, str] = {}
    for name, source in entries.sources.items():
        other = first.setdefault(source.topic, name)
        if other != name:
            message = f'the topic {source.topic} is read by source "{other}" already; tell its events apart by surfaces'
            yield _value(entries, Code.TOPIC_TWICE, ("sources", name, "topic"), message)


def _source(entries: Entries, path: Path, source: SourceEntry, load: Load) -> Iterator[Finding]:
    written, at = source.fields, (*path, "fields")
    if source.format not in formats.known():
        yield _format(entries, (*path, "format"), source.format)
        return
    yield from _reading(entries, path, source, load)
    fields = fields_of(source)
    if isinstance(fields.latency, str) and fields.latency_unit is None:
        message = 'missing key "latency_unit": say what unit the latency is in, for example latency_unit: ms'
        yield _key(entries, Code.KEY_NEEDS_KEY, (*at, "latency"), message)
    if written.latency_unit is not None and not isinstance(fields.latency, str):
        message = "latency_unit needs a latency that is a field" + (
            "; a difference of times is in time_unit" if fields.latency is not None else ""
        )
        yield _key(entries, Code.KEY_NEEDS_KEY, (*at, "latency_unit"), message)
    if "time_unit" in written.model_fields_set and fields.time is None and isinstance(fields.latency, str | None):
        message = "time_unit needs a time; without one, the record's timestamp is the event's time"
        yield _key(entries, Code.KEY_NEEDS_KEY, (*at, "time_unit"), message)
    yield from _units(entries, at, source)
    if source.dedup and fields.id is None:
        message = "dedup needs a field that holds an id; add fields.id, or leave dedup out"
        yield _key(entries, Code.KEY_NEEDS_KEY, (*path, "dedup"), message)


def _units(entries: Entries, at: Path, source: SourceEntry) -> Iterator[Finding]:
    """Units for fields of the format or preset, which knows them itself: another would be wrong by its factor."""
    written, own = source.fields, defaults_of(source).fields
    unit = written.latency_unit or own.latency_unit
    if own.latency_unit not in (None, unit) and written.latency in (None, own.latency):
        message = f"{own.latency} is in {own.latency_unit}; leave latency_unit out, or name a latency of your own"
        yield _key(entries, Code.KEYS_EXCLUDE, (*at, "latency_unit"), message)
    is_said = "time_unit" in written.model_fields_set
    if is_said and own.time_unit not in ("auto", written.time_unit) and written.time in (None, own.time):
        message = f"{own.time} is in {own.time_unit}; leave time_unit out, or name a time of your own"
        yield _key(entries, Code.KEYS_EXCLUDE, (*at, "time_unit"), message)


def _reading(entries: Entries, path: Path, source: SourceEntry, load: Load) -> Iterator[Finding]:
    """What the format itself needs, and what only other formats know."""
    format_ = formats.get(source.format)
    if not format_.is_installed:
        yield _value(entries, Code.NOT_INSTALLED, (*path, "format"), _not_installed(format_))
    if source.preset is not None and source.format != "json":
        message = f"presets are dialects of the format json; the format {source.format} has fields of its own"
        yield _key(entries, Code.KEYS_EXCLUDE, (*path, "preset"), message)
    yield from _schemas(entries, path, source, load if format_.is_installed else None)
    if "batch" in source.model_fields_set and format_.batch is not None:
        message = f"the format {source.format} says by itself how many events a record holds; leave batch out"
        yield _key(entries, Code.KEYS_EXCLUDE, (*path, "batch"), message)


def _schemas(entries: Entries, path: Path, source: SourceEntry, load: Load | None) -> Iterator[Finding]:
    """Schemas that are missing, that nobody needs, or that cannot be used."""
    if source.format != "registry":
        if source.schemas is not None:
            message = f"schemas are for the format registry; the format {source.format} needs none"
            yield _key(entries, Code.KEYS_EXCLUDE, (*path, "schemas"), message)
    elif source.schemas is None:
        message = 'missing key "schemas": a folder or {url: ...}, for example schemas: /etc/evaluator/schemas'
        yield _key(entries, Code.MISSING_KEY, path, message)
    elif isinstance(source.schemas, RegistryEntry):
        if (source.schemas.username is None) != (source.schemas.password_file is None):
            message = "username and password_file go together; write both, or none"
            yield _key(entries, Code.KEY_NEEDS_KEY, (*path, "schemas"), message)
    elif load is not None:
        try:
            load(source.schemas)
        except Refused as bad:
            yield _value(entries, bad.code, (*path, "schemas"), str(bad))


def _not_installed(format_: Format) -> str:
    """How to get what a format needs."""
    extra = format_.extra
    return f"the format {format_.name} needs the extra {extra}; install it: pip install 'evaluator[{extra}]'"


def _format(entries: Entries, path: Path, name: str) -> Finding:
    if name in PRESETS:
        message = f"{shown(name)} is a preset of the format json; say format: json, preset: {name}"
        return _value(entries, Code.BAD_VALUE, path, message)
    known = sorted(formats.known())
    near = guidance(name, known, "formats")
    return _value(entries, Code.BAD_VALUE, path, f"unknown format {shown(name)}{near}")


def _reference(entries: Entries, path: Path, section: str, name: str) -> Iterator[Finding]:
    if not entries.knows(section, name) and entries.readable:
        names = entries.names(section)
        known = guidance(name, names, section) if names else f"; there are no {section}"
        message = f"no {_SINGULAR[section]} has the name {shown(name)}{known}"
        yield _value(entries, Code.UNKNOWN_REFERENCE, path, message)


def _group_labels(entries: Entries, path: Path, surface: SurfaceEntry) -> Iterator[Finding]:
    first: dict[str, str] = {}
    for index, entry in enumerate(surface.group_by):
        group = group_of(entry)
        at = (*path, "group_by", index)
        if group.label in BUILT_IN_LABELS:
            message = (
                f"the field {group.path} would become the label {group.label}, which every alert has; "
                f"name another one: {{field: {group.path}, as: my_{group.label}}}"
            )
            yield _value(entries, Code.LABEL_CLASH, at, message)
        elif group.label in first:
            message = (
                f"the fields {first[group.label]} and {group.path} would both become the label {group.label}; "
                f"name another one: {{field: {group.path}, as: {group.label}_2}}"
            )
            yield _value(entries, Code.LABEL_CLASH, at, message)
        first.setdefault(group.label, group.path)


def _alert(entries: Entries, path: Path, alert: AlertEntry) -> Iterator[Finding]:
    yield from _reference(entries, (*path, "surface"), "surfaces", alert.surface)
    yield from _objective(entries, path, alert)
    yield from _asked(entries, path, alert)
    yield from _windows(entries, path, alert)
    yield from _forgetting(entries, path, alert)
    yield from _own_labels(entries, path, alert)
    yield from _measured(entries, path, alert)


def _objective(entries: Entries, path: Path, alert: AlertEntry) -> Iterator[Finding]:
    if alert.slo is None:
        return
    yield from _reference(entries, (*path, "slo"), "slos", alert.slo)
    slo = entries.slos.get(alert.slo)
    if slo is not None and slo.surface != alert.surface and entries.knows("surfaces", alert.surface):
        message = f"the SLO {alert.slo} is about the surface {slo.surface}, this alert about {alert.surface}"
        yield _value(entries, Code.OTHER_SURFACE, (*path, "slo"), message)


def _asked(entries: Entries, path: Path, alert: AlertEntry) -> Iterator[Finding]:
    """Conditions over a window, or an event that is waited for: one of the two."""
    if "expect_every" not in alert.model_fields_set:
        for key, example in (("when", "error_ratio > 0.5%"), ("window", "5m")):
            if key not in alert.model_fields_set:
                message = f'missing key "{key}", for example {key}: {example}'
                yield _key(entries, Code.MISSING_KEY, path, message)
        return
    if alert.when is not None:
        message = "when and expect_every are two alerts; keep one of them here"
        yield _key(entries, Code.KEYS_EXCLUDE, (*path, "expect_every"), message)
    if "window" in alert.model_fields_set:
        message = "expect_every looks at the newest event, whenever that was; leave window out"
        yield _key(entries, Code.KEYS_EXCLUDE, (*path, "window"), message)


def _windows(entries: Entries, path: Path, alert: AlertEntry) -> Iterator[Finding]:
    step = format_duration(alert.step)
    yield from _of_deploys(entries, path, alert)
    if not alert.is_of_deploys and alert.length % alert.step:
        message = f"{format_duration(alert.length)} is not a multiple of every: {step}"
        yield _value(entries, Code.NOT_A_MULTIPLE, (*path, "window"), message)
    if not alert.is_of_deploys and alert.for_ is not None and alert.for_ % alert.step:
        what = "window" if alert.every is None and alert.window is not None else "every"
        message = f"{format_duration(alert.for_)} is not a multiple of {what}: {step}"
        yield _value(entries, Code.NOT_A_MULTIPLE, (*path, "for"), message)
    given = [key for key in ("consecutive", "for", "m_of_n") if _is_given(alert, key)]
    for key in given[1:]:
        message = f"{given[0]} and {key} both say how many windows it takes; keep one of them"
        yield _key(entries, Code.KEYS_EXCLUDE, (*path, key), message)


_OF_TIME = {
    "every": "the windows of deploys have no step",
    "for": "the windows of deploys have no length; say how many it takes with consecutive",
    "expire_after": "the windows of deploys end with their last event; say how long a series may be silent with "
    "forget_after",
}
"""What only windows of time have, and why."""


def _of_deploys(entries: Entries, path: Path, alert: AlertEntry) -> Iterator[Finding]:
    """Keys that go with windows of time only, or with windows of deploys only."""
    if alert.is_of_deploys:
        for key in (key for key in _OF_TIME if _is_given(alert, key)):
            message = f"window: deploy excludes {key}: {_OF_TIME[key]}"
            yield _key(entries, Code.KEYS_EXCLUDE, (*path, key), message)
        return
    for key in (key for key in DEPLOY_KEYS if _is_given(alert, key)):
        message = f"{key} is about deploys; write window: deploy, or leave it out"
        yield _key(entries, Code.KEY_NEEDS_KEY, (*path, key), message)


def _is_given(alert: AlertEntry, key: str) -> bool:
    return getattr(alert, "for_" if key == "for" else key) is not None


def _forgetting(entries: Entries, path: Path, alert: AlertEntry) -> Iterator[Finding]:
    if alert.expect_every is not None:
        return
    if alert.is_of_deploys:
        if alert.forget_after is not None and alert.forget_after < alert.length:
            message = f"{format_duration(alert.forget_after)} is shorter than settle: {format_duration(alert.length)}"
            yield _value(entries, Code.FORGETS_TOO_SOON, (*path, "forget_after"), message)
        return
    if alert.forget_after is None or alert.forget_after >= alert.expires:
        return
    whose = "" if alert.expire_after is not None else " (its default)"
    message = (
        f"{format_duration(alert.forget_after)} is shorter than expire_after: "
        f"{format_duration(alert.expires)}{whose}; a firing alert would be forgotten before it can expire"
    )
    yield _value(entries, Code.FORGETS_TOO_SOON, (*path, "forget_after"), message)


def _own_labels(entries: Entries, path: Path, alert: AlertEntry) -> Iterator[Finding]:
    surface = entries.surfaces.get(alert.surface)
    grouped = {group_of(each).label for each in surface.group_by} if surface is not None else set()
    for label in alert.labels:
        at = (*path, "labels", label)
        if label in BUILT_IN_LABELS:
            yield _key(
                entries, Code.LABEL_CLASH, at, f"every alert has a label {label} already; name yours differently"
            )
        elif label in grouped:
            message = f"a group_by field of {alert.surface} is the label {label} already; name yours differently"
            yield _key(entries, Code.LABEL_CLASH, at, message)


def _measured(entries: Entries, path: Path, alert: AlertEntry) -> Iterator[Finding]:
    """Conditions on something that the source never says."""
    surface = entries.surfaces.get(alert.surface)
    source = entries.sources.get(surface.source) if surface is not None else None
    if surface is None or source is None:
        return
    if source.format not in formats.known():
        return
    fields = fields_of(source)
    if alert.is_of_deploys and fields.deploy is None:
        message = f"window: deploy needs a deploy; add fields.deploy to the source {surface.source}"
        yield _value(entries, Code.NO_DEPLOY_FIELD, (*path, "window"), message)
    for index, condition in enumerate(alert.conditions):
        at = (*path, "when", index) if isinstance(alert.when, list) else (*path, "when")
        if source.tail_sampled and condition.kind in _SAMPLED_WRONG:
            message = (
                f"{condition.name} is wrong on the source {surface.source}, which is tail_sampled: what failed or was "
                "slow is kept more often; read a topic from before the sampling, or use a count"
            )
            yield _value(entries, Code.TAIL_SAMPLED, at, message)
        if condition.kind in LATENCIES and fields.latency is None:
            message = f"{condition.name} needs a latency; add fields.latency to the source {surface.source}"
            yield _value(entries, Code.NO_LATENCY_FIELD, at, message)
        if condition.kind in SCORES and not alert.is_of_deploys:
            message = f"{condition.name} is about the runs of a deploy; it needs window: deploy"
            yield _value(entries, Code.KEY_NEEDS_KEY, at, message)
        elif condition.kind in SCORES and fields.score is None:
            message = f"{condition.name} needs a score; add fields.score to the source {surface.source}"
            yield _value(entries, Code.NO_SCORE_FIELD, at, message)
        if condition.kind in _FAILURES and fields.failed is None:
            message = f"{condition.name} needs to know what failed; add fields.failed to the source {surface.source}"
            yield _value(entries, Code.NO_FAILED_FIELD, at, message)

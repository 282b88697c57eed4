"""What is allowed and probably not meant. Every finding here is a warning, and says what to do."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from evaluator.core.condition import COUNTS, RATIOS, SCORES, Condition, Kind, Op
from evaluator.core.verdict import min_samples
from evaluator.wire.config.duration import format_duration
from evaluator.wire.config.finding import Code, Finding, shown
from evaluator.wire.config.matcher import Equals, looks_like_operator
from evaluator.wire.config.model import RegistryConfig
from evaluator.wire.text import percent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from evaluator.core.rule import Rule, RuleSet, Slo, Surface
    from evaluator.wire.config.entry import MatcherEntry
    from evaluator.wire.config.files import Entries
    from evaluator.wire.config.finding import Path
    from evaluator.wire.config.model import SourceConfig

_ABOVE = frozenset({Op.GT, Op.GE})

_PRIVATE: Mapping[str, frozenset[str]] = {
    "easymo-api": frozenset({"path"}),
    "pino-http": frozenset({"req.url"}),
    "vercel": frozenset({"path", "proxy.path", "message"}),
    "supabase": frozenset({"event_message", "metadata.request.pathname", "metadata.request.url"}),
}
"""What holds ids and secrets of callers as producers write it, by preset or format (docs/formats.md)."""


def warnings_of(entries: Entries, rules: RuleSet, sources: Mapping[str, SourceConfig]) -> Iterator[Finding]:
    """Every warning about a configuration that has no errors."""
    for name, source in rules.sources.items():
        if source.max_future > source.out_of_orderness:
            message = (
                f"max_future: {format_duration(source.max_future)} is longer than out_of_orderness: "
                f"{format_duration(source.out_of_orderness)}; one fast clock could make all others late. "
                f"Set max_future to at most {format_duration(source.out_of_orderness)}"
            )
            yield _warning(entries, Code.FUTURE_BEYOND_LATENESS, ("sources", name), message)
    for name, config in sources.items():
        registry = config.schemas
        if isinstance(registry, RegistryConfig) and registry.username and not registry.url.startswith("https:"):
            message = "the password goes over the network as it is; use https"
            yield _warning(entries, Code.PASSWORD_IN_CLEAR, ("sources", name, "schemas", "url"), message)
    yield from _literals(entries)
    for name, surface in rules.surfaces.items():
        if not surface.owners:
            message = 'nobody owns this surface; add owners, for example owners: ["@team"]'
            yield _warning(entries, Code.UNOWNED, ("surfaces", name), message)
        yield from _private(entries, surface)
        if not rules.rules_of(name):
            yield _warning(entries, Code.SURFACE_WITHOUT_ALERTS, ("surfaces", name), "no alert is about this surface")
    for name, slo in rules.slos.items():
        yield from _unmeasured(entries, name, slo, sources[rules.surfaces[slo.surface].source])
    for rule in rules.rules.values():
        yield from _rule(entries, rule, rules.slos[rule.slo] if rule.slo is not None else None)


def _warning(entries: Entries, code: Code, path: Path, message: str) -> Finding:
    place = entries.key_place(path) if len(path) == 2 else entries.value_place(path)  # noqa: PLR2004  # an entry itself
    return Finding.at(place, code, path, message)


def _literals(entries: Entries) -> Iterator[Finding]:
    matchers: list[tuple[Path, MatcherEntry | None]] = []
    for name, source in entries.sources.items():
        matchers.append((("sources", name, "where"), source.where))
        matchers.append((("sources", name, "fields", "failed"), source.fields.failed))
    matchers += [(("surfaces", name, "match"), surface.match) for name, surface in entries.surfaces.items()]
    for path, matcher in matchers:
        cases = list(enumerate(matcher)) if isinstance(matcher, list) else [(None, matcher or {})]
        for index, case in cases:
            for field, test in case.items():
                if isinstance(test, Equals) and looks_like_operator(test.literal):
                    at = (*path, field) if index is None else (*path, index, field)
                    message = f"{shown(test.literal)} is compared as a text; an operator is followed by a space"
                    yield _warning(entries, Code.LOOKS_LIKE_OPERATOR, at, message)


def _private(entries: Entries, surface: Surface) -> Iterator[Finding]:
    source = entries.sources[surface.source]
    for index, field in enumerate(surface.group_by):
        if field.path in _PRIVATE.get(source.preset or source.format, ()):
            message = f"{field.path} holds ids and secrets of callers, and all can see labels; leave it out"
            yield _warning(entries, Code.PRIVATE_LABEL, ("surfaces", surface.name, "group_by", index), message)


def _unmeasured(entries: Entries, name: str, slo: Slo, source: SourceConfig) -> Iterator[Finding]:
    fields = source.fields
    key, present = ("latency", fields.latency) if slo.latency is not None else ("failed", fields.failed)
    if present is None:
        message = f"the source {source.name} has no fields.{key}, so this objective is never measured"
        yield _warning(entries, Code.SLO_UNMEASURED, ("slos", name), message)


def _rule(entries: Entries, rule: Rule, slo: Slo | None) -> Iterator[Finding]:
    path = ("alerts", rule.name)
    if slo is not None and rule.deploys is None and rule.window == slo.period:
        message = (
            f"the window is as long as the period of {slo.name}, so {rule.required} of them are "
            f"{format_duration(rule.window * rule.required)}; a shorter window tells in time, for example 1h"
        )
        yield _warning(entries, Code.WINDOW_IS_PERIOD, (*path, "window"), message)
    yield from _without_effect(entries, rule)
    listed = isinstance(entries.alerts[rule.name].when, list)
    for index, condition in enumerate(rule.conditions):
        at = (*path, "when", index) if listed else (*path, "when")
        constant = _constant(condition)
        if constant is not None:
            yield _warning(entries, Code.CONSTANT_CONDITION, at, f"{condition.text} {constant}")
            continue
        remedy = _single_event(rule, condition)
        if remedy is not None:
            message = f"one single event can make this alert fire; {remedy}"
            yield _warning(entries, Code.SINGLE_EVENT, at, message)
    if slo is not None:
        yield from _looser(entries, rule, slo)


_FOR_CONDITIONS = frozenset(
    {"expire_after", "forget_after", "low_traffic", "max_gap", "min_bad", "min_samples", "no_data"}
)


def _without_effect(entries: Entries, rule: Rule) -> Iterator[Finding]:
    kinds = {condition.kind for condition in rule.conditions}
    given = entries.alerts[rule.name]
    if rule.is_about_absence:
        for key in sorted(_FOR_CONDITIONS & given.model_fields_set):
            message = f"{key} does not count for expect_every; leave it out"
            yield _warning(entries, Code.WITHOUT_EFFECT, ("alerts", rule.name, key), message)
        return
    if given.min_bad is not None and not kinds & RATIOS:
        message = "min_bad counts for ratios only, and this alert has none; leave it out"
        yield _warning(entries, Code.WITHOUT_EFFECT, ("alerts", rule.name, "min_bad"), message)
    for key in ("baseline", "baseline_context"):
        if getattr(given, key) is not None and Kind.SCORE_DROP not in kinds:
            message = f"{key} counts for score_drop only, and this alert has none; leave it out"
            yield _warning(entries, Code.WITHOUT_EFFECT, ("alerts", rule.name, key), message)
    if given.min_samples is not None and kinds <= COUNTS:
        message = "min_samples does not count for error_count and request_count; leave it out"
        yield _warning(entries, Code.WITHOUT_EFFECT, ("alerts", rule.name, "min_samples"), message)


_ALWAYS, _NEVER = "is always true", "can never be true"


def _constant(condition: Condition) -> str | None:
    """What to say of a condition that does not depend on the events."""
    # A drop may be negative: a rise.
    if condition.threshold == 0 and condition.op in {Op.GE, Op.LT} and condition.kind is not Kind.SCORE_DROP:
        return _ALWAYS if condition.op is Op.GE else _NEVER
    if condition.kind in RATIOS | SCORES and condition.threshold == 1 and condition.op in {Op.GT, Op.LE}:
        return _NEVER if condition.op is Op.GT else _ALWAYS
    return None


def _single_event(rule: Rule, condition: Condition) -> str | None:
    """What would keep one event from firing the alert alone; None where it cannot.

    An event is in window/every windows, so it can fire alone where so few breaches are enough.
    """
    if rule.required > rule.window // rule.every or condition.op not in _ABOVE:
        return None
    remedy = None
    match condition.kind:
        case Kind.ERROR_COUNT if condition.threshold < 1 or (condition.op is Op.GE and condition.threshold == 1):
            remedy = "require a larger error_count, or consecutive: 2"
        case Kind.MAX:
            remedy = "max is a single event by definition; a quantile such as p99 is not, or require consecutive: 2"
        case Kind.MEAN if min_samples(rule, condition) == 1:
            remedy = "min_samples: 20 would prevent that"
        case Kind.ERROR_RATIO | Kind.SLOW_RATIO if rule.min_bad == 1:
            remedy = _against(rule, condition, condition.threshold, condition.op)
        case Kind.QUANTILE:
            # p_q > T holds where at least lat_n - ceil(q lat_n) + 1 are above T: more than 1 - q of them.
            remedy = _against(rule, condition, 1 - (condition.q or Fraction(0)), Op.GT)
    return remedy


def _against(rule: Rule, condition: Condition, share: Fraction, op: Op) -> str | None:
    """The `min_samples` with which one event of them is no longer more than (or as much as) `share`."""
    if share == 0:
        return "min_bad: 2 would prevent that"
    needed = -(-share.denominator // share.numerator) if op is Op.GT else share.denominator // share.numerator + 1
    return f"min_samples: {needed} would prevent that" if min_samples(rule, condition) < needed else None


def _looser(entries: Entries, rule: Rule, slo: Slo) -> Iterator[Finding]:
    """An objective can be missed for ever while all conditions about it hold still."""
    about = [c for c in rule.conditions if c.op in _ABOVE and _is_about(c, slo)]
    if about and all(_is_looser(condition, slo) for condition in about):
        budget = percent(1 - slo.objective)
        bad = "failures" if slo.latency is None else f"events slower than {format_duration(slo.latency)}"
        message = (
            f"looser than the objective of {slo.name}: that allows {budget} of {bad}, "
            f"this alert is silent beyond it ({', '.join(condition.text for condition in about)})"
        )
        yield _warning(entries, Code.LOOSER_THAN_OBJECTIVE, ("alerts", rule.name, "when"), message)


def _is_about(condition: Condition, slo: Slo) -> bool:
    if slo.latency is None:
        return condition.kind is Kind.ERROR_RATIO
    return condition.kind in {Kind.QUANTILE, Kind.SLOW_RATIO}


def _is_looser(condition: Condition, slo: Slo) -> bool:
    allowed = 1 - slo.objective
    if slo.latency is None:
        return condition.threshold > allowed
    if condition.kind is Kind.QUANTILE:
        return condition.threshold > slo.latency or 1 - (condition.q or Fraction(0)) > allowed
    return (condition.slower_than or 0) > slo.latency or condition.threshold > allowed

"""What a rule is, as a hash: the same hash, the same verdicts and the same identity of its alerts.

A changed definition resets a rule's streaks (docs/semantics.md 12), so a hash must change with everything
that may change a verdict or a label, and with nothing else: not with comments, spelling (`60m` for `1h`),
annotations or owners. What is absent is left out, so that a key of a later version changes no hash of today.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from evaluator.core.condition import LATENCIES, SCORES, Kind
from evaluator.wire.config.matcher import Matcher
from evaluator.wire.config.model import RegistryConfig

if TYPE_CHECKING:
    from evaluator.core.condition import Condition
    from evaluator.core.rule import Rule, RuleSet, Slo, Surface
    from evaluator.wire.config.model import FieldsConfig, SourceConfig, SurfaceConfig

_FAILURES = frozenset({Kind.ERROR_COUNT, Kind.ERROR_RATIO}) | SCORES
"""A run that failed has no score."""
_PRESENTATION = frozenset({"annotations", "definition", "conditions"})


def definition_of(rule: Rule, surface: Surface, matching: SurfaceConfig, slo: Slo | None, source: SourceConfig) -> str:
    """SHA-256, in hex, of everything that may change the rule's verdicts or its alerts' identity."""
    return _sha256(
        {
            "alert": _fields(rule, without=_PRESENTATION)
            | {"when": [_condition(condition) for condition in rule.conditions]},
            "surface": {
                "source": surface.source,
                "match": _plain(matching.match),
                "group_by": [[field.path, field.label] for field in surface.group_by],
                "team": surface.team,
            },
            "slo": None if slo is None else {"objective": _plain(slo.objective), "latency": slo.latency},
            "source": _source(source, rule),
        }
    )


def hash_of(rules: RuleSet, sources: Mapping[str, SourceConfig]) -> str:
    """`sha256:` and the hash of all that the files say: two processes with the same one run the same rules."""
    everything = {
        "rules": _fields(rules, without=frozenset({"hash"})),
        "sources": _plain(sources),  # each with its surfaces in order: the first that matches takes an event
    }
    return f"sha256:{_sha256(everything)}"


def _condition(condition: Condition) -> dict[str, object]:
    """Without the spelling: `0.5%` and `0.005` are one threshold, `median` and `p50` one quantile."""
    return _fields(condition, without=frozenset({"text", "name"}))


def _source(source: SourceConfig, rule: Rule) -> dict[str, object]:
    used = _fields_used(source.fields, {condition.kind for condition in rule.conditions})
    if rule.deploys is not None:
        used |= {"deploy": source.fields.deploy, "context": source.fields.context}
    if source.dedup:
        used |= {"id": source.fields.id, "dedup": source.dedup}
    schemas = source.schemas
    return {
        "format": source.format,
        "schemas": {"registry": schemas.url} if isinstance(schemas, RegistryConfig) else _plain(schemas),
        "where": _plain(source.where),
        "batch": source.batch,
        "out_of_orderness": source.out_of_orderness,
        "max_future": source.max_future,
        "fields": used,
    }


def _fields_used(configured: FieldsConfig, kinds: set[Kind]) -> dict[str, object]:
    used: dict[str, object] = {
        "time": configured.time,
        "time_unit": configured.time_unit,
        "weight": configured.weight,
    }
    if kinds & LATENCIES:
        used |= {"latency": _plain(configured.latency), "latency_unit": configured.latency_unit}
    if kinds & _FAILURES:
        used["failed"] = _plain(configured.failed)
    if kinds & SCORES:
        used["score"] = configured.score
    return used


def _plain(value: object) -> object:
    """A value of the config as JSON can hold it."""
    plain: object = value
    match value:
        case Matcher():
            plain = value.written()
        case Fraction():
            plain = f"{value.numerator}/{value.denominator}"
        case Enum():
            plain = value.value
        case list() | tuple():
            plain = [_plain(item) for item in value]
        case Mapping():
            plain = {name: _plain(item) for name, item in value.items()}
        case _ if is_dataclass(value):
            plain = _fields(value)
    return plain


def _fields(value: Any, without: frozenset[str] = frozenset()) -> dict[str, object]:  # noqa: ANN401  # any dataclass
    named = [each.name for each in fields(value) if each.compare and each.name not in without]
    return {name: _plain(getattr(value, name)) for name in named}


def _sha256(value: Mapping[str, object]) -> str:
    canonical = json.dumps(_present(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _present(value: object) -> object:
    """Plain data without what is absent: null and empty collections, at every level."""
    if isinstance(value, Mapping):
        present = {name: _present(item) for name, item in value.items()}
        return {name: item for name, item in present.items() if item is not None and item not in ([], {})}
    return [_present(item) for item in value] if isinstance(value, list) else value

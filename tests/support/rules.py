"""Rules and rule sets for tests of the core, without a config file."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from evaluator.core.condition import Condition, Kind, Op
from evaluator.core.event import MINUTE, SECOND, DurationUs
from evaluator.core.rule import GroupField, Rule, RuleSet, Source, Surface
from evaluator.core.watermark import NEVER

if TYPE_CHECKING:
    from collections.abc import Iterable

DAY = 24 * 60 * MINUTE
ERRORS = Condition("error_ratio > 0%", "error_ratio", Kind.ERROR_RATIO, Op.GT, Fraction(0))


def rule(name: str = "A", **changes: Any) -> Rule:
    """`error_ratio > 0%` over one minute, firing at the first breach, with `changes`."""
    plain = Rule(
        name=name, surface="api", severity="page", conditions=(ERRORS,), window=MINUTE, every=MINUTE, required=1,
        among=None, resolve_after=1, max_gap=1, expire_after=DurationUs(DAY), forget_after=DurationUs(7 * DAY),
        definition=name,
    )  # fmt: skip
    changed = replace(plain, **changes)
    if "max_gap" not in changes:
        changed = replace(changed, max_gap=changed.among or changed.required)
    return changed


def absence(name: str, patience: int, **changes: Any) -> Rule:
    """`expect_every`, judged every minute, with `changes`."""
    waits = Condition(f"expect_every {patience}us", "last_event", Kind.SILENCE, Op.GT, Fraction(patience))
    return rule(name, conditions=(waits,), forget_after=DurationUs(NEVER), **changes)


def rules(*given: Rule, out_of_orderness: int = 0, group_by: tuple[str, ...] = (), **changes: Any) -> RuleSet:
    """A rule set of one source and the surface `api`."""
    source = Source("events", "t", DurationUs(out_of_orderness), DurationUs(30 * SECOND), DurationUs(30 * SECOND))
    surface = Surface("api", "events", tuple(GroupField(path, path) for path in group_by))
    plain = RuleSet(
        sources={"events": source}, surfaces={"api": surface}, slos={}, rules=named(given), revision=0,
        hash="sha256:test", blind_after=DurationUs(5 * MINUTE), max_replay_age=DurationUs(60 * MINUTE),
    )  # fmt: skip
    return replace(plain, **changes)


def named(given: Iterable[Rule]) -> dict[str, Rule]:
    """Rules by name."""
    return {rule.name: rule for rule in given}

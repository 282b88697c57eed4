"""The configuration and the events of a replay's files, read as plainly as can be.

Enough of docs/semantics.md 1, 2 and 13 for the examples in `tests/cases`: format `json`, one record or an
array of them a line. It trusts the configuration; what would be a config error is not looked for.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import yaml

from evaluator.core.condition import Condition, Kind, Op
from evaluator.core.event import DurationUs
from evaluator.core.rule import Deploys, GroupField, Policy, Rule, RuleSet, Slo, Source, Surface

if TYPE_CHECKING:
    from collections.abc import Mapping

UNITS = {
    "y": 365 * 86_400_000_000,
    "w": 7 * 86_400_000_000,
    "d": 86_400_000_000,
    "h": 3_600_000_000,
    "m": 60_000_000,
    "s": 1_000_000,
    "ms": 1_000,
    "us": 1,
}
_DURATION = re.compile("".join(rf"(?:(?P<{unit}>\d+){unit})?" for unit in UNITS))
_CONDITION = re.compile(
    r"\s*(?P<name>[a-z_]+(?:[0-9.]+)?(?:\((?P<bound>\w+)\))?)\s*(?P<op>>=|<=|>|<)\s*(?P<value>\S+)\s*"
)


def duration(text: str) -> DurationUs:
    """`1h30m` in microseconds."""
    found = _DURATION.fullmatch(text)
    if not found or not text:
        raise ValueError(text)
    return DurationUs(sum(int(number) * UNITS[unit] for unit, number in found.groupdict().items() if number))


def ratio(text: str | float) -> Fraction:
    """`0.5%` or `0.005` as an exact fraction."""
    text = str(text)
    return Fraction(text[:-1]) / 100 if text.endswith("%") else Fraction(text)


def condition(text: str) -> Condition:
    """`p95 > 5s` and the like."""
    found = _CONDITION.fullmatch(text)
    if not found:
        raise ValueError(text)
    name, op, value = found["name"], Op(found["op"]), found["value"]
    kind = kind_of(name)
    q = None
    if kind is Kind.QUANTILE:
        q = Fraction(1, 2) if name == "median" else Fraction(name[1:]) / 100
    if kind in {Kind.ERROR_RATIO, Kind.SLOW_RATIO, Kind.SCORE, Kind.SCORE_DROP}:
        threshold = ratio(value)
    elif kind in {Kind.ERROR_COUNT, Kind.REQUEST_COUNT}:
        threshold = Fraction(int(value))
    else:
        threshold = Fraction(duration(value))
    slower_than = duration(found["bound"]) if found["bound"] else None
    return Condition(f"{name} {op} {value}", name, kind, op, threshold, q, slower_than)


def kind_of(name: str) -> Kind:
    """What an indicator's name stands for."""
    if name == "median" or re.fullmatch(r"p[0-9.]+", name):
        return Kind.QUANTILE
    return Kind(name.partition("(")[0])


def read_config(text: str) -> tuple[RuleSet, Mapping[str, Any]]:
    """The rules, and the raw sections for what is only needed to read events."""
    raw = yaml.safe_load(text)
    surfaces = {name: surface(name, found) for name, found in raw["surfaces"].items()}
    slos = {
        name: Slo(name, found["surface"], ratio(found["objective"]), duration(found["period"]))
        for name, found in raw.get("slos", {}).items()
    }
    sources = {
        name: Source(
            name,
            found["topic"],
            duration(found.get("out_of_orderness", "30s")),
            duration(found.get("idle_after", "30s")),
            duration(found.get("max_future", "30s")),
            found.get("dedup", 0),
        )
        for name, found in raw["sources"].items()
    }
    rules = {name: rule(name, found) for name, found in raw.get("alerts", {}).items()}
    return RuleSet(sources, surfaces, slos, rules, 0, "", duration("5m"), duration("1h")), raw


def surface(name: str, found: Mapping[str, Any]) -> Surface:
    """A surface and the labels of its `group_by` fields."""
    fields = [each if isinstance(each, dict) else {"field": each} for each in found.get("group_by", [])]
    grouped = tuple(GroupField(each["field"], each.get("as") or label_name(each["field"])) for each in fields)
    return Surface(name, found["source"], grouped, found.get("max_series", 1000), found.get("team"))


def label_name(path: str) -> str:
    """Section 8: what is not allowed in a label's name becomes `_`."""
    name = re.sub(r"[^a-zA-Z0-9_]", "_", path)
    return "_" + name if name[0].isdigit() else name


def rule(name: str, found: Mapping[str, Any]) -> Rule:
    """An alert with its defaults."""
    when = found.get("when", [])
    conditions = [condition(each) for each in (when if isinstance(when, list) else [when])]
    deploys = deploys_of(found) if found.get("window") == "deploy" else None
    window = deploys.settle if deploys else duration(found["window"] if "window" in found else found.get("every", "1m"))
    every = duration(found["every"]) if "every" in found else window
    if "expect_every" in found:
        text, patience = f"expect_every {found['expect_every']}", Fraction(duration(found["expect_every"]))
        conditions = [Condition(text, "last_event", Kind.SILENCE, Op.GT, patience)]
    required, among = found.get("m_of_n") or (found.get("consecutive", 1), None)
    if "for" in found:
        required = duration(found["for"]) // every
    expire_after = duration(found["expire_after"]) if "expire_after" in found else max(duration("24h"), 2 * window)
    remembered = duration("30d" if deploys else "7d")
    forget_after = duration(found["forget_after"]) if "forget_after" in found else max(remembered, expire_after)
    return Rule(
        name=name,
        surface=found["surface"],
        severity=found["severity"],
        conditions=tuple(conditions),
        window=window,
        every=every,
        required=required,
        among=among,
        resolve_after=found.get("resolve_after", 1),
        max_gap=found.get("max_gap", among or required),
        expire_after=DurationUs(expire_after),
        forget_after=DurationUs(forget_after),
        definition="",
        slo=found.get("slo"),
        min_samples=found.get("min_samples"),
        min_bad=found.get("min_bad", 1),
        no_data=Policy(found.get("no_data", "hold")),
        low_traffic=Policy(found.get("low_traffic", "hold")),
        labels=found.get("labels", {}),
        deploys=deploys,
    )


def deploys_of(found: Mapping[str, Any]) -> Deploys:
    """How the events of a deploy become a group: section 9."""
    return Deploys(
        settle=duration(found.get("settle", "15m")),
        runs=found.get("runs"),
        baseline=found.get("baseline", 5),
        contexts=tuple(found.get("contexts", ["main"])),
        baseline_context=found.get("baseline_context", "main"),
    )

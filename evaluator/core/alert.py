"""Transitions and their identity: what makes two processes name the same alert the same.

The fingerprint is Alertmanager's, so that its silences and our records speak of the same thing; the id is a
hash of what the log decided, so that a repeated computation gives the same id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from evaluator.core.event import SECOND, EpochUs, SeriesKey, fnv1a
from evaluator.core.pane import Evidence
from evaluator.core.rule import Rule, Surface
from evaluator.core.streak import Reason
from evaluator.core.verdict import Window

WINDOWS_SHOWN = 20

FIRES = frozenset({Reason.BREACHED, Reason.BLIND})
"""The reasons of transitions that fire; all others resolve."""


@dataclass(frozen=True, slots=True)
class Transition:
    """An alert of one series fired or resolved. `at` is the end of the window that decided it."""

    rule: Rule
    surface: Surface
    series: SeriesKey
    labels: Mapping[str, str]
    key: str
    reason: Reason
    at: EpochUs
    starts_at: EpochUs
    fired_at: EpochUs
    windows: tuple[Window, ...] = ()
    failing: tuple[Evidence, ...] = ()
    slowest: tuple[Evidence, ...] = ()

    @property
    def status(self) -> str:
        """`firing` or `resolved`."""
        return "firing" if self.reason in FIRES else "resolved"

    @property
    def fingerprint(self) -> str:
        """Alertmanager's name for the label set."""
        return fingerprint(self.labels)

    @property
    def episode(self) -> str:
        """One name for a firing and its resolve."""
        return f"{self.fingerprint}-{self.starts_at // SECOND}"

    @property
    def id(self) -> str:
        """The same for the same decision, whoever computes it and how often."""
        return hashlib.sha256(f"{self.episode}|{self.status}|{self.at}".encode()).hexdigest()[:32]


def fingerprint(labels: Mapping[str, str]) -> str:
    """Alertmanager's fingerprint of a label set: 16 hex digits.

    Source: prometheus/common model.LabelSet.Fingerprint: FNV-1a over sorted name, 255, value, 255.
    """
    hashed = bytearray()
    for name in sorted(labels):
        hashed += name.encode() + b"\xff" + labels[name].encode("utf-8", "surrogatepass") + b"\xff"
    return f"{_named(bytes(hashed)):016x}"


_named = lru_cache(maxsize=4096)(fnv1a)
"""A record says five times whose it is, and a hash in Python takes 30 us."""


def labels_of(rule: Rule, surface: Surface, series: SeriesKey) -> dict[str, str]:
    """The labels of an alert. Empty values are left out, as Alertmanager does."""
    labels = {"alertname": rule.name, "surface": surface.name, "severity": rule.severity}
    if rule.slo is not None:
        labels["slo"] = rule.slo
    if surface.team is not None:
        labels["team"] = surface.team
    labels.update(group_labels(surface, series))
    labels.update(rule.labels)
    return {name: value for name, value in labels.items() if value}


def group_labels(surface: Surface, series: SeriesKey) -> dict[str, str]:
    """The `group_by` labels of a series, in the listed order, without the empty ones; none for a whole surface."""
    if not series.values:
        return {}
    pairs = zip(surface.group_by, series.values, strict=True)
    return {group.label: value for group, value in pairs if value}


def key_of(rule: Rule, surface: Surface, series: SeriesKey) -> str:
    """The readable name of an alert of a series: `surface/alertname{name="value",...}`."""
    name = f"{surface.name}/{rule.name}"
    if not series.values:
        return name
    pairs = (f'{label}="{_escaped(value)}"' for label, value in group_labels(surface, series).items())
    return f"{name}{{{','.join(pairs)}}}"


def _escaped(value: str) -> str:
    """Escaped as a label value of Prometheus' text format."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

"""Who works on what, in the words of the page. The templates only lay it out."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from evaluator.runtime.web.page import ago
from evaluator.wire.text import rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evaluator.core.event import EpochUs
    from evaluator.runtime.fleet import Work

SHOWN = 256
"""Partitions on the page. A browser lays out more, and nobody reads them: `evaluator status` has all."""

NOTHING = "–"  # noqa: RUF001  # a dash

_STAGES = {"aggregate": "source partition", "evaluate": "shard"}


class Replica(NamedTuple):
    """A process and how much of the work it has. `rules`: by which it judges, where those are not ours."""

    name: str
    is_this: bool
    host: str
    shares: str
    rules: str


class Line(NamedTuple):
    """A partition. What only its owner knows is a dash where that is not us."""

    stage: str
    place: str
    owner: str
    is_ours: bool
    state: str
    lag: str
    watermark: str
    committed: str
    restored: str


def replicas(work: Sequence[Work], this: str, rules: str) -> list[Replica]:
    """Every process that works on something, this one first. `rules` is the hash of ours."""
    hosts = {this: "", **{one.owner: one.host or "" for one in work if one.owner != this}}
    return [
        _replica(name, host, [one for one in work if one.owner == name], work, this, rules)
        for name, host in sorted(hosts.items(), key=lambda known: (known[0] != this, known[0]))
    ]


def _replica(name: str, host: str, own: Sequence[Work], work: Sequence[Work], this: str, rules: str) -> Replica:
    others = sorted({one.rules for one in own} - {rules, ""})
    return Replica(name, name == this, host, _shares(own, work), ", ".join(others))


def _shares(own: Sequence[Work], everything: Sequence[Work]) -> str:
    ours, all_of = (Counter(one.stage for one in work) for work in (own, everything))
    return ", ".join(f"{ours[stage]} of {all_of[stage]} {words}s" for stage, words in _STAGES.items())


def lines(work: Sequence[Work], this: str, now: EpochUs) -> list[Line]:
    """Every partition, source partitions first."""
    return [_line(one, this, now) for one in work[:SHOWN]]


def _line(work: Work, this: str, now: EpochUs) -> Line:
    task = work.task
    committed = None if task is None else task.committed_at
    restored = None if task is None else task.restored_in_s
    return Line(
        stage=_STAGES[work.stage], place=f"{work.partition.topic}/{work.partition.index}",
        owner=work.owner, is_ours=work.owner == this, state=work.state or NOTHING,
        lag=NOTHING if task is None else f"{task.stage.lag:,}",
        watermark=NOTHING if work.watermark is None else f"{ago(now - work.watermark)} behind",
        committed=NOTHING if committed is None else f"{ago(now - committed)} ago",
        restored=NOTHING if restored is None else f"in {restored:.2f} s",
    )  # fmt: skip


def api(work: Work) -> Mapping[str, object]:
    """A partition as the API shows it: times in RFC 3339, null for what only its owner knows."""
    task = work.task
    return {
        "stage": work.stage,
        "topic": work.partition.topic,
        "partition": work.partition.index,
        "owner": work.owner,
        "host": work.host,
        "rules": work.rules,
        "state": work.state,
        "offset": None if task is None else task.stage.next_offset,
        "lag": None if task is None else task.stage.lag,
        "watermark": None if work.watermark is None else rfc3339(work.watermark),
        "committedAt": None if task is None or task.committed_at is None else rfc3339(task.committed_at),
        "restoreSeconds": None if task is None else task.restored_in_s,
    }

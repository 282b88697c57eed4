"""Holding back partitions that run far ahead of their source, so that stage 2 need not keep all that lies between.

It changes no verdict: a partition's watermark is its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evaluator.core.watermark import BEGINNING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from evaluator.core.event import EpochUs
    from evaluator.core.rule import RuleSet
    from evaluator.runtime.aggregate_stage import AggregateStage
    from evaluator.runtime.crew import Crew

HOUR = 3_600_000_000

REASON = "ahead"


class Alignment:
    """The partitions of one stage 1 crew. `known` gives a source's watermark as the shards publish it."""

    def __init__(self, crew: Crew, rules: RuleSet, known: Callable[[str], EpochUs]) -> None:
        self._crew, self._known = crew, known
        self._judged = sorted({rules.surfaces[rule.surface].source for rule in rules.rules.values()})
        longest = max((rule.window for rule in rules.rules.values()), default=0)
        self._stood: dict[str, EpochUs] = {}
        self._max_skew = rules.max_skew if rules.max_skew is not None else max(HOUR, 2 * longest)

    def align(self, stages: Sequence[AggregateStage]) -> None:
        """Hold and release by how the watermarks stand now."""
        for name in self._judged:
            # Without rules nothing is held between partitions, and no shard hears of the watermark.
            of_source = [stage for stage in stages if stage.source.name == name]
            limit = self._behind(name, of_source) + self._max_skew
            for stage in of_source:
                if stage.watermark > limit:
                    self._crew.hold(stage.input, REASON)
                else:
                    self._crew.release(stage.input, REASON)

    def _behind(self, source: str, stages: Sequence[AggregateStage]) -> EpochUs:
        """Up to where the source is decided, as far as we know.

        A shard of ours knows; else it is not before the slowest of our partitions. While one of those has had no event
        the source may stand still, and what is kept begins about where the others stood when that was seen first.
        """
        slowest = min((stage.watermark for stage in stages), default=BEGINNING)
        for told in (self._known(source), slowest):
            if told > BEGINNING:
                self._stood.pop(source, None)
                return told
        others = [stage.watermark for stage in stages if stage.watermark > BEGINNING]
        return self._stood.setdefault(source, min(others)) if others else BEGINNING

"""Letting go of partials: `<app>.partials` keeps everything by itself, so its reader deletes what it has merged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from evaluator.errors import EvaluatorError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluator.core.event import EpochUs
    from evaluator.runtime.evaluate_stage import EvaluateStage
    from evaluator.runtime.log.port import Log

log = structlog.get_logger(__name__)

TRIM_EVERY_S = 3_600.0

KEEP_MS = 7 * 86_400_000
"""Merged partials are kept for a week: for `dump` and for whoever has to find out what happened."""


async def trim_merged(log_port: Log, stages: Sequence[EvaluateStage], now: EpochUs) -> None:
    """Delete the partials that are merged for good and older than a week; a failure is a warning."""
    for stage in stages:
        partition = stage.input
        try:
            first, _ = await log_port.bounds(partition)
            before = min(await log_port.offset_at(partition, now // 1000 - KEEP_MS), stage.merged_until)
            if before > first:
                await log_port.trim(partition, before)
                log.info("partials.trimmed", partition=f"{partition.topic}/{partition.index}", before=before)
        except EvaluatorError as error:
            log.warning("partials.not_trimmed", partition=f"{partition.topic}/{partition.index}", reason=str(error))

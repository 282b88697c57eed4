"""The format `lighthouse`: a Lighthouse report a record, whole or reduced to what is read here.

A run that failed has no score: it is a failed run, not one with the score 0. The url is the one that was asked for,
because a redirect to a login page must not make a new series. Reports are published minutes after their run, and in any
order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evaluator.core.event import MINUTE, DurationUs
from evaluator.wire.config.matcher import Matcher
from evaluator.wire.config.model import FieldsConfig, SourceDefaults
from evaluator.wire.field import lookup
from evaluator.wire.formats import Format, Made, MadeReader
from evaluator.wire.formats.json import JsonReader

if TYPE_CHECKING:
    from collections.abc import Mapping

_RUN = ("runtimeError.code", "categories.performance.score")
"""Where a report says how the run went."""


def _first(*values: object) -> object:
    return next((value for value in values if value is not None and value != ""), None)


_URLS = ("requestedUrl", "finalDisplayedUrl", "finalUrl")


def url_of(report: Mapping[str, object]) -> str:
    """What a report is about; "" where it does not say."""
    url = _first(*(lookup(report, (name,)) for name in _URLS))
    return url if isinstance(url, str) else ""


def _is_failed(error: object, score: object) -> bool:
    return (error is not None and error != "NO_ERROR") or score is None


_MADE = {
    "url": Made(_URLS, _first),
    "form_factor": Made(("configSettings.formFactor",), _first),
    "context": Made(("context",), lambda context: context or "main"),
    "run.failed": Made(_RUN, _is_failed),
    "run.score": Made(_RUN, lambda error, score: None if _is_failed(error, score) else score),
}

FORMATS = (
    Format(
        "lighthouse",
        lambda _, paths: MadeReader(paths, _MADE, lambda needed: JsonReader(needed, "one")),
        SourceDefaults(
            FieldsConfig(
                time="fetchTime",
                failed=Matcher.of({"run.failed": True}),
                score="run.score",
                deploy="commit",
                context="context",
            ),
            out_of_orderness=DurationUs(15 * MINUTE),
        ),
        batch="one",
    ),
)

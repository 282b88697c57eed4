"""The format `vercel`: the drain of request logs, as an array, a line each, or one object.

A request writes several lines; the one with `proxy` is the one that counts. Vercel says -1 for two things: as
`statusCode` that the function crashed, as `proxy.statusCode` that this was a revalidation in the background, which
nobody waited for. These lines hold no duration.
"""

from __future__ import annotations

from evaluator.wire.config.matcher import Matcher
from evaluator.wire.config.model import FieldsConfig, SourceDefaults
from evaluator.wire.formats import Format
from evaluator.wire.formats.json import JsonReader

FORMATS = (
    Format(
        "vercel",
        lambda source, paths: JsonReader(paths, "auto", source.most_events),
        SourceDefaults(
            FieldsConfig(
                time="timestamp",  # milliseconds; the magnitude tells
                failed=Matcher.of({"statusCode": "== -1"}, {"statusCode": ">= 500"}, {"proxy.statusCode": ">= 500"}),
                trace_id="requestId",
                id="requestId",
                deploy="deploymentId",
            ),
        ),
        batch="auto",
        only=Matcher.of({"proxy.timestamp": "*", "proxy.statusCode": "!= -1"}),
    ),
)

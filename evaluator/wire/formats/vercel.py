"""The format `vercel`: the drain of request logs, as an array, a line each, or one object.

A request writes several lines, any number of them with `proxy`: those of the network, of a middleware, and what a
function prints. Nothing in them says which one is the request, but all hold its `requestId` and its status. So the
first line with `proxy` counts, and those that repeat its id do not. Vercel says -1 for two things: as `statusCode` that
the function crashed, as `proxy.statusCode` that this was a revalidation in the background, which nobody waited for.
These lines hold no duration.
"""

from __future__ import annotations

from evaluator.wire.config.matcher import Matcher
from evaluator.wire.config.model import FieldsConfig, SourceDefaults
from evaluator.wire.formats import Format
from evaluator.wire.formats.json import JsonReader

_LINES_APART = 500
"""Records between two lines of a request. They come within seconds, in one batch of the drain or the next ones; where a
relay makes a record of each line, hundreds of others may lie between. With fewer the requests of a busy project count
twice; with more a restart reads more records again, and a batch may have a megabyte.
"""

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
            dedup=_LINES_APART,
        ),
        batch="auto",
        only=Matcher.of({"proxy.timestamp": "*", "proxy.statusCode": "!= -1"}),
    ),
)

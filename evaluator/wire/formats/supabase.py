"""The format `supabase`: the log drain of Edge Functions, an array of events, perhaps gzip.

A drain sends the logs of all products; a request of an Edge Function (`function_edge_logs`) is what names a function
and has a response or the time that it took. Objects in it may be lists of one, or flattened into keys with dots: both
are what every path looks through.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evaluator.wire.config.matcher import Matcher
from evaluator.wire.config.model import FieldsConfig, SourceConfig, SourceDefaults
from evaluator.wire.formats import Format, Reader, Row, reading_each
from evaluator.wire.formats.json import JsonReader
from evaluator.wire.gunzip import gunzipped
from evaluator.wire.rejection import Fault

if TYPE_CHECKING:
    from collections.abc import Sequence


_STATUS, _TIME_TAKEN = "metadata.response.status_code", "metadata.execution_time_ms"
_FUNCTION = "metadata.function_id"

_AT_ONCE = 16
"""Each may be of `max_record_bytes` unpacked, most of it in fields that are read. The drain puts 250 events in one."""


def _reader(source: SourceConfig, paths: tuple[str, ...]) -> Reader:
    inner, limit = JsonReader(paths, "auto"), source.max_record_bytes

    def events(value: bytes) -> Sequence[Row | Fault]:
        plain = gunzipped(value, limit)
        return [plain] if isinstance(plain, Fault) else inner.events(plain)

    # One after the other: unpacked, those of a fetch may be a thousand times as large.
    return reading_each(len(paths), events)


FORMATS = (
    Format(
        "supabase",
        _reader,
        SourceDefaults(
            FieldsConfig(
                time="timestamp",  # microseconds; the magnitude tells
                latency=_TIME_TAKEN,
                latency_unit="ms",
                failed=Matcher.of({_STATUS: ">= 500"}),
                trace_id="id",
                id="id",
                deploy="metadata.version",
            ),
        ),
        batch="auto",
        at_once=_AT_ONCE,
        only=Matcher.of({_FUNCTION: "*", _STATUS: "*"}, {_FUNCTION: "*", _TIME_TAKEN: "*"}),
    ),
)

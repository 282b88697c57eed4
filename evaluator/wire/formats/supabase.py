"""The format `supabase`: the log drain of Edge Functions, an array of events, perhaps gzip.

A drain sends the logs of all products; a request of an Edge Function (`function_edge_logs`) is what names a function
and has a response or the time that it took. Objects in it may be lists of one, or flattened into keys with dots: both
are what every path looks through.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evaluator.wire.config.matcher import Matcher
from evaluator.wire.config.model import FieldsConfig, SourceConfig, SourceDefaults
from evaluator.wire.formats import Format, Read, Reader, read_within
from evaluator.wire.formats.json import JsonReader
from evaluator.wire.gunzip import gunzipped
from evaluator.wire.rejection import Fault

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluator.wire.records import Records

_STATUS, _TIME_TAKEN = "metadata.response.status_code", "metadata.execution_time_ms"
_FUNCTION = "metadata.function_id"

_UNPACKED_AT_ONCE = 2 << 20
"""Bytes. Those of a fetch may be a thousand times as large as they were sent."""

_RATIO = 1032
"""At most so much larger is what was packed: 258 bytes of two bits."""


def _reader(source: SourceConfig, paths: tuple[str, ...]) -> Reader:
    inner, limit = JsonReader(paths, "auto", source.most_events), source.max_record_bytes

    def read(values: Sequence[bytes], records: Records) -> Read:
        payloads: list[bytes | Fault] = []
        unpacked = 0
        for value in values:
            if unpacked >= _UNPACKED_AT_ONCE:
                break
            payload = gunzipped(value, limit)
            payloads.append(payload)
            unpacked += min(limit, _RATIO * len(value)) if isinstance(payload, Fault) else len(payload)
        count = len(payloads)
        read = read_within(inner, payloads, records[:count])
        if read.until is None and count < len(values):
            read.until = count
        return read

    return read


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
        only=Matcher.of({_FUNCTION: "*", _STATUS: "*"}, {_FUNCTION: "*", _TIME_TAKEN: "*"}),
    ),
)

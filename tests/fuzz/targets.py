"""What is fuzzed: the reader of each format, and the decoder around it. Nothing here catches anything."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.decoded import DEPLOYS, NOON, bare, source_of, unfiltered

from evaluator.core.event import SeriesTable
from evaluator.wire import formats
from evaluator.wire.decode import SourceDecoder
from evaluator.wire.records import Record, Records

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evaluator.wire.formats import Read

CORPUS = Path(__file__).parent / "corpus"
"""Real payloads and inputs that once escaped, a folder for each format."""

GROUPS = ("service.name", "http.route", "a.b", "url", "ce.type", "metadata.function_id", "path")
FIELDS: dict[str, Any] = {
    "time": "time", "failed": {"a.b": ">= 500"}, "weight": "weight", "score": "score", "deploy": "commit",
    "context": "context", "id": "id", "trace_id": "a.b",
}  # fmt: skip
CONFIGURED = {
    "json": (
        {"preset": "edge-functions"},
        {"fields": {**FIELDS, "latency": {"from": "a.b", "to": "time"}}},
        *(
            {"batch": batch, "fields": {**FIELDS, "latency": "a.b", "latency_unit": "ms"}}
            for batch in ("array", "lines", "auto")
        ),
    ),
    "registry": ({}, {"fields": {**FIELDS, "time": "time", "latency": "took.ms", "latency_unit": "ms"}}),
}
"""Ways in which a source of the format may be configured; which of them reads an input, its length says."""

HEADERS = {
    "cloudevents": (
        (("content-type", b"application/cloudevents+json"),),
        (("ce_id", b"1"), ("ce_source", b"/s"), ("ce_specversion", b"1.0"), ("ce_type", b"t"), ("ce_time", None)),
        (("content-type", b"\xff"), ("ce_id", b"\xff")),
    )
}


def seeds_of(name: str) -> list[bytes]:
    """The corpus of a format, as a source of it is configured that says nothing about batches."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


def all_seeds_of(name: str) -> list[bytes]:
    """The corpus of a format, with records that hold several events where only some sources take those."""
    batches = sorted((CORPUS / f"{name}-batches").glob("*"))
    return [*seeds_of(name), *(path.read_bytes() for path in batches)]


class Target:
    """A format that is to survive any bytes."""

    def __init__(self, name: str) -> None:
        self._headers = HEADERS.get(name, ((),))
        self._ways = [_Way(name, configured) for configured in CONFIGURED.get(name, ({},))]
        self._read = 0

    def __call__(self, value: bytes) -> None:
        """Read a record of this value; every event and fault of it has to have its place."""
        self._read += 1
        record = Record(self._read, NOON, None, value, self._headers[len(value) % len(self._headers)])
        self._ways[len(value) // 3 % len(self._ways)](record, value)


class _Way:
    """A source of the format: its reader, and the decoder around it."""

    def __init__(self, name: str, configured: Mapping[str, Any]) -> None:
        wish = {**bare(name), **configured}
        fields = source_of(wish).fields
        # Whatever a source can be asked to read of it.
        wish |= {"dedup": 2} if fields.id else {}
        source = source_of(wish, GROUPS, alerts=DEPLOYS if fields.deploy else {})
        self._read = formats.get(name).reader(unfiltered(source), (*GROUPS, "span.end", "time", "ce.source+id"))
        self._decoder, self._limits = SourceDecoder(source), {each.name: each.max_series for each in source.surfaces}

    def __call__(self, record: Record, value: bytes) -> None:
        check(self._read([value], Records.of([record])), [value])
        decoded = self._decoder.decode([record], SeriesTable(self._limits), None)
        decoded.events.trace_ids(range(decoded.ok))
        assert decoded.ok + len(decoded.rejections) + decoded.skipped + decoded.duplicates > 0


def check(read: Read, values: Sequence[bytes]) -> None:
    """Events in the order of the log, columns of their length, and of each record an event, a fault or a skip."""
    position = [*range(read.count)] if read.position is None else read.position
    index = [0] * read.count if read.index is None else read.index
    places = [*zip(position, index, strict=True)]
    assert all(earlier < later for earlier, later in pairwise(places))
    assert {*map(len, read.columns), read.count, len(places)} == {read.count}
    of_faults = [(place, number) for place, number, _ in read.faults]
    assert not set(places) & set(of_faults)
    assert len({place for place, _ in places + of_faults}) + read.skipped == len(values)

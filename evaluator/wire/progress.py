"""Stage 1's progress: one record per source partition, written with every commit of it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluator.core.event import EpochUs
from evaluator.core.watermark import PartitionTime
from evaluator.wire.stored import Codec, Form

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class LastRecord:
    """The last consumed record: enough to notice that a topic was recreated under the same name."""

    offset: int
    timestamp: int
    checksum: int


@dataclass(frozen=True, slots=True)
class SourceProgress:
    """Where stage 1 of one source partition stands after transaction `sequence` (0: genesis).

    `sent` is, per shard, the `end` of the last partial that was sent to it. `newest_pane_end` is the end of
    the newest pane that was filled under any configuration so far. `clock_rejected` are the
    (offset, event) that only the clock rejected among the records that deduplication reads again. `original` is how
    many partitions the source had at its first run: one with a higher number was added.
    """

    sequence: int
    topic: str
    partitions: int
    next_offset: int
    time: PartitionTime
    newest_pane_end: EpochUs
    sent: dict[int, int]
    revision: int
    config: str
    shards: int
    last: LastRecord | None = None
    clock_rejected: tuple[tuple[int, int], ...] = ()
    original: int = 0


CODEC = Codec("progress of a source partition", 1, Form(SourceProgress))


def key_of(partition: int) -> bytes:
    """The key of a partition's progress record."""
    return str(partition).encode()


def encode(progress: SourceProgress, codec: Codec = CODEC) -> bytes:
    """The value of a progress record."""
    return codec.encode(progress)


def newest(values: Sequence[bytes | None], codec: Codec = CODEC) -> SourceProgress | None:
    """The progress of a partition whose records have these values, oldest first; None without any. As `decode`."""
    stored = next((value for value in reversed(values) if value is not None), None)
    return None if stored is None else decode(stored, codec)


def decode(value: bytes, codec: Codec = CODEC) -> SourceProgress:
    """The progress of a record's value. Raises `StateRefused`."""
    progress: SourceProgress = codec.decode(value)
    return progress


def checksum_of(value: bytes | None) -> int:
    """CRC-32 of a record's value; a tombstone counts as empty."""
    return zlib.crc32(value or b"")

"""Columns from the fetched batches, instead of one call and one object of eleven fields a record.

aiokafka's way costs 2.6 us a record, which is more than decoding one. Here the compiled parser is iterated batch by
batch, and its rows become records of ours only when somebody looks at them; what to skip (aborted transactions,
markers, offsets before the position) is decided as aiokafka does, by its own methods. tests/kafka compares both ways on
the same log.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any

from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException, KafkaError, UnsupportedCodecError
from aiokafka.protocol.fetch import FetchRequest

from evaluator.runtime.log.port import Partition
from evaluator.wire.records import Records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiokafka import AIOKafkaConsumer, TopicPartition

    from evaluator.wire.records import Row


class Unreadable(KafkaError):  # type: ignore[misc]  # aiokafka ships no types
    """A batch of this partition is damaged, or of a codec that is not known. It may only have been so on its way."""

    def __init__(self, place: TopicPartition, offset: int, cause: KafkaError) -> None:
        self.place = place
        super().__init__(f"{place.topic}/{place.partition} from offset {offset} on: {type(cause).__name__} {cause}")


def hand_out_our_records(kafka: AIOKafkaConsumer) -> None:
    """Let the `getmany` of a started consumer return `Records`."""
    kafka._fetcher._records = _Buffer()


def note_failed_fetches(kafka: AIOKafkaConsumer, failed: set[Partition]) -> None:
    """Put the partitions of every fetch without an answer into `failed`: aiokafka tries again and tells nobody."""
    client = kafka._client
    send = client.send

    async def noting(node_id: int, request: Any, **options: Any) -> Any:  # noqa: ANN401  # as aiokafka's
        try:
            return await send(node_id, request, **options)
        except KafkaError:
            if isinstance(request, FetchRequest):
                failed.update(Partition(topic, index) for topic, wanted in request.topics for index, *_ in wanted)
            raise

    client.send = noting


class _Buffer(OrderedDict[Any, Any]):
    """Where aiokafka keeps what was fetched until somebody asks for it."""

    def __setitem__(self, place: TopicPartition, fetched: Any) -> None:  # noqa: ANN401  # a result or an error
        if isinstance(fetched, FetchResult):
            fetched._partition_records = _Unpacked(fetched._partition_records)
            fetched.getall = partial(_getall, fetched)
        super().__setitem__(place, fetched)


def _getall(fetched: FetchResult, max_records: int | None = None) -> Records:
    """What `FetchResult.getall` does: at most `max_records`, and the position moves past them."""
    if not fetched.check_assignment(fetched._topic_partition) or not fetched.has_more():
        return Records.of(())
    unpacked: _Unpacked = fetched._partition_records
    try:
        rows = unpacked.take(max_records)
    except (CorruptRecordException, UnsupportedCodecError) as error:
        raise Unreadable(fetched._topic_partition, unpacked.next_fetch_offset, error) from error
    fetched._update_position()
    if unpacked.is_empty:
        fetched._partition_records = None
    return rows


class _Unpacked:
    """The records of one fetched partition, a batch at a time."""

    def __init__(self, packed: PartitionRecords) -> None:
        self.next_fetch_offset: int = packed.next_fetch_offset
        self.is_empty = False
        self._packed, self._batches = packed, packed._records
        # It refers to `packed`, which refers to it: a cycle that holds a megabyte until the collector comes.
        packed._records_iterator = None
        self._after = self.next_fetch_offset
        self._rows: list[Row] = []
        self._offsets: Sequence[int] = ()
        self._failure: CorruptRecordException | None = None

    def take(self, max_records: int | None) -> Records:
        """The next records, at most `max_records`. Raises `CorruptRecordException` once those before are out."""
        taken: list[Row] = []
        offsets: list[Sequence[int]] = []
        while max_records is None or len(taken) < max_records:
            if not self._rows and not self._unpack():
                self._end(taken)
                break
            room = len(self._rows) if max_records is None else max_records - len(taken)
            part, self._rows = self._rows[:room], self._rows[room:]
            taken += part
            offsets.append(self._offsets[:room])
            self._offsets = self._offsets[room:]
            self.next_fetch_offset = offsets[-1][-1] + 1 if self._rows else self._after
        return Records.of_rows(taken, offsets)

    def _end(self, taken: list[Row]) -> None:
        if self._failure is None:
            self.is_empty = True
        elif not taken:
            raise self._failure

    def _unpack(self) -> bool:
        """Unpack batches until there is a record; False at the end, or before a batch that is damaged."""
        packed, batches = self._packed, self._batches
        while self._failure is None and batches.has_next():
            batch = batches.next_batch()
            if packed._check_crcs and not batch.validate_crc():
                self._failure = CorruptRecordException(f"Invalid CRC - {packed._tp}")
                return False
            self._after = batch.next_offset
            if self._is_hidden(batch):
                self.next_fetch_offset = batch.next_offset
                continue
            rows: list[Row] = list(batch)
            if rows and rows[0].offset < self.next_fetch_offset:
                rows = [row for row in rows if row.offset >= self.next_fetch_offset]
            if rows:
                self._rows, self._offsets = rows, _offsets(rows)
                return True
            self.next_fetch_offset = batch.next_offset
        return False

    def _is_hidden(self, batch: Any) -> bool:  # noqa: ANN401  # compiled, without types
        """Whether a batch is a marker, or of a transaction that was aborted."""
        packed = self._packed
        if packed._isolation_level == READ_COMMITTED and batch.producer_id is not None:
            packed._consume_aborted_up_to(batch.base_offset)
            if batch.is_control_batch and packed._contains_abort_marker(batch):
                packed._aborted_producers.discard(batch.producer_id)
            if batch.is_transactional and batch.producer_id in packed._aborted_producers:
                return True
        return bool(batch.is_control_batch)


def _offsets(rows: list[Row]) -> Sequence[int]:
    """The offsets of a batch, which ascend: a range but where compaction left gaps."""
    first, last = rows[0].offset, rows[-1].offset
    return range(first, last + 1) if last - first + 1 == len(rows) else [row.offset for row in rows]

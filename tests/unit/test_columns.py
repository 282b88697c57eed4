"""Records as columns: the same records, however they are asked for."""

from __future__ import annotations

import orjson
import pytest

from evaluator.errors import UsageError
from evaluator.wire.envelope import envelope, enveloped_columns
from evaluator.wire.records import NO_ENVELOPE, Record, Records

ROWS = [
    Record(3, 1_769_601_600_000, b"k", b"one", (("h", b"1"),)),
    Record(4, -1, None, None),
    Record(9, None, None, b"bare"),
]


def test_columns_hold_what_the_records_hold() -> None:
    records = Records.of(ROWS)
    assert records.offsets.tolist() == [3, 4, 9]
    assert records.timestamps.tolist() == [1_769_601_600_000, -1, NO_ENVELOPE]
    assert records.values == [b"one", None, b"bare"]
    assert list(records) == ROWS
    assert Records.of(records) is records


@pytest.mark.parametrize("part", [slice(0, 1), slice(1, 3), slice(3, 9), slice(0, 0)])
def test_a_part_is_a_part_of_every_column(part: slice) -> None:
    records = Records.of(ROWS)[part]
    assert list(records) == ROWS[part]
    assert records.values == [record.value for record in ROWS[part]]
    assert records.offsets.tolist() == [record.offset for record in ROWS[part]]
    assert bool(records) == bool(ROWS[part])


def test_some_of_them_keep_their_order() -> None:
    records = Records.of(ROWS).only([0, 2])
    assert list(records) == [ROWS[0], ROWS[2]]
    assert records.offsets.tolist() == [3, 9]


def test_the_rows_of_a_client_become_records_when_they_are_looked_at() -> None:
    class Row:
        offset, timestamp, key, value = 7, 8, b"k", b"v"
        headers = (("a", None), ("a", b"x"))

    records = Records.of_rows([Row(), Row(), Row()], [range(7, 9), [12]])
    assert records.offsets.tolist() == [7, 8, 12]
    assert records[1] == Record(7, 8, b"k", b"v", (("a", None), ("a", b"x")))
    assert records.timestamps.tolist() == [8, 8, 8]


def test_a_header_without_a_value_survives_a_dump_as_absent() -> None:
    line = envelope(5, None, b"x", [("a", b"1"), ("b", b"2"), ("a", None)])
    assert orjson.loads(line)["headers"] == {"b": "2"}
    (columns,) = enveloped_columns([line], 10, "file")
    assert columns.headers == [(("b", b"2"),)]


def test_a_row_of_an_old_format_without_a_timestamp_has_none_and_no_other_is_below_that() -> None:
    class Row:
        key = headers = None
        value = b"v"

        def __init__(self, timestamp: int | None) -> None:
            self.offset, self.timestamp = 0, timestamp

    records = Records.of_rows([Row(None), Row(-(2**63)), Row(5)], [range(3)])
    assert records.timestamps.tolist() == [-1, -1, 5]
    assert records[0].timestamp == -1
    assert Records.of([Record(0, -(2**63), None, b"")]).timestamps.tolist() == [-1]


def test_an_envelope_with_a_timestamp_that_no_log_holds_is_refused_with_its_place() -> None:
    line = b'{"timestamp":100000000000000000000,"value":"x"}\n'
    with pytest.raises(UsageError, match=r"file.*1"):
        list(enveloped_columns([line], 10, "file"))

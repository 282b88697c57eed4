"""Dead letters as a person sees them; the commands themselves are in tests/kafka/test_dlq.py."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import pytest

from evaluator.cli.dlq import end_by_sigterm, json_lines, shown, table
from evaluator.runtime.dead_letters import Found, History, Listing, Position
from evaluator.wire.dead_letter import dead_letter, letter_of
from evaluator.wire.records import Record

NOON_MS = 1_769_601_600_000
EVIL = "\x1b]0;owned\x07"


def record(value: bytes = b"{\n  x") -> Record:
    made = dead_letter(
        key=EVIL.encode(), value=value, topic="calls", partition=1, offset=81, index=2, reason="bad_value",
        detail=f"t is {EVIL}", events=3, accepted=4, timestamp=NOON_MS - 1000, headers=[(EVIL, b"\xff"), ("h", b"v")],
    )  # fmt: skip
    return Record(7, NOON_MS, made.key, made.value, made.headers)


def listing() -> Listing:
    history = History({})
    history.notes[Position(0, 7)], history.sent["calls/1/81"] = "calls/1/81", Position(0, 7)
    letter = letter_of(record())
    assert letter is not None
    return Listing([Found(Position(0, 7), NOON_MS, letter)], 1, history)


def test_the_table_escapes_what_others_wrote() -> None:
    head, row = table(listing())
    assert head.split() == ["PLACE", "TIME", "REASON", "FROM", "BAD", "GOOD", "STATE", "DETAIL"]
    assert row == (
        "0:7    2026-01-28T12:00:00Z  bad_value  calls/1/81  3    4     re-published  t is \\x1b]0;owned\\x07"
    )


def test_another_letter_of_a_record_that_was_sent_says_so_too() -> None:
    found, total, history = listing()
    listed = Listing([found[0]._replace(position=Position(0, 9))], total, history)
    assert "  re-published  " in list(table(listed))[1]
    (line,) = json_lines(listed)
    assert (json.loads(line)["republished"], json.loads(line)["offset"]) == (True, 9)


def test_nothing_is_no_table() -> None:
    assert list(table(Listing([], 0, History({})))) == []


def test_an_object_a_line_has_all_but_the_content() -> None:
    (line,) = json_lines(listing())
    assert json.loads(line) == {
        "partition": 0, "offset": 7, "time": "2026-01-28T12:00:00Z", "reason": "bad_value", "detail": f"t is {EVIL}",
        "source": {"topic": "calls", "partition": 1, "offset": 81}, "index": 2, "events": 3, "accepted": 4, "size": 5,
        "truncated": False, "copyOf": None, "republished": True, "rejectedAgain": None,
    }  # fmt: skip


def test_one_is_shown_with_everything_it_holds_and_no_line_can_be_forged() -> None:
    one = record()
    assert list(shown(Position(0, 7), one, letter_of(one), History({}))) == [
        "letter    0:7  2026-01-28T12:00:00Z  new",
        "reason    bad_value: t is \\x1b]0;owned\\x07",
        "from      calls/1/81  2026-01-28T11:59:59Z",
        "events    3 rejected, the first is number 2; 4 judged",
        "key       \\x1b]0;owned\\x07",
        "header    \\x1b]0;owned\\x07: \\xff",
        "header    h: v",
        "value     5 bytes",
        "  {",
        "    x",
    ]


def test_a_time_that_is_no_date_is_shown_as_the_number_that_it_is() -> None:
    one = Record(7, 1, b"k", b"v", (
        ("reason", b"r"), ("topic", b"calls"), ("partition", b"1"), ("offset", b"81"),
        ("timestamp", b"9223372036854775807"),
    ))  # fmt: skip
    assert list(shown(Position(0, 7), one, letter_of(one), History({})))[:3] == [
        "letter    0:7  1970-01-01T00:00:00.001Z  new",
        "reason    r: ",
        "from      calls/1/81  9223372036854775807",
    ]
    last = one._replace(timestamp=253_402_300_799_999)
    assert next(shown(Position(0, 7), last, None, History({}))) == "letter    0:7  9999-12-31T23:59:59.999Z  -"
    late = one._replace(timestamp=253_402_300_800_000)
    assert next(shown(Position(0, 7), late, None, History({}))) == "letter    0:7  253402300800000  -"


def test_what_is_cut_binary_or_no_letter_says_so() -> None:
    cut = record(value=b"\xff" * (512 * 1024 + 1))
    lines = list(shown(Position(0, 7), cut, letter_of(cut), History({})))
    assert "value     524288 bytes of 524289, it was cut" in lines
    assert lines[8] == "  00000000  " + "ff " * 16 + " " + "." * 16
    other = Record(3, -1, None, None, (("republished", b"slo.dlq/0/7"),))
    assert list(shown(Position(0, 3), other, None, History({}))) == [
        "letter    0:3  -  -",
        "reason    none: this is no dead letter",
        "key       -",
        "header    republished: slo.dlq/0/7",
        "value     null",
    ]


def test_sigterm_cancels_as_ctrl_c_does_so_that_what_is_open_is_aborted() -> None:
    done: list[str] = []

    async def publish() -> None:
        end_by_sigterm()
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()
        finally:
            await asyncio.shield(asyncio.sleep(0))
            done.append("aborted")

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(publish())
    assert done == ["aborted"]

"""Whatever somebody wrote into a record, a terminal only shows it."""

from __future__ import annotations

import pytest

from evaluator.cli.printable import lines_of, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 日本", "plain é 日本"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("a\rb\tc\nd", "a\\rb\\tc\\nd"),
        ("\x9b31m", "\\x9b31m"),
        ("abc\u202edcb\u200b", "abc\\u202edcb\\u200b"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_text_keeps_its_lines_and_other_bytes_are_a_dump() -> None:
    assert list(lines_of(b'{"a":\n1\x1b}')) == ['{"a":', "1\\x1b}"]
    assert list(lines_of(b"\xff\x00ab" + b"c" * 14)) == [
        "00000000  ff 00 61 62 63 63 63 63 63 63 63 63 63 63 63 63  ..abcccccccccccc",
        "00000010  63 63                                            cc",
    ]

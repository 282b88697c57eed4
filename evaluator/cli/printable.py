"""Bytes of others on a terminal: as text without control characters, or as a hex dump."""

from __future__ import annotations

from collections.abc import Iterator

_ROW = 16


def printable(text: str) -> str:
    """One line: what would move the cursor, change colours, hide text or turn its direction is escaped."""
    return text if text.isprintable() else "".join(map(_printable, text))


def _printable(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape", "surrogatepass").decode()


def lines_of(raw: bytes) -> Iterator[str]:
    """The lines of a text, printable; the rows of a hex dump where it is not UTF-8."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        yield from _hex(raw)
        return
    yield from map(printable, text.split("\n"))


def _hex(raw: bytes) -> Iterator[str]:
    for start in range(0, len(raw), _ROW):
        row = raw[start : start + _ROW]
        shown = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        yield f"{start:08x}  {row.hex(' '):<{3 * _ROW - 1}}  {shown}"

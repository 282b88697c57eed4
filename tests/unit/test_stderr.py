"""Who runs must not depend on who reads: a pipe that nobody reads costs lines, and nothing else."""

from __future__ import annotations

import io
import os
import select
from typing import TYPE_CHECKING

import pytest

from evaluator.runtime.stderr import unfailing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import TextIO

CAPACITY = 65_536


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    """A pipe: the descriptor to read from, and the stream."""
    out, into = os.pipe()
    with open(into, "w", encoding="utf-8") as stream:  # noqa: PTH123  # a descriptor
        yield out, stream
    os.close(out)


def test_each_line_is_in_the_pipe_at_once(pipe: tuple[int, TextIO]) -> None:
    out, stream = pipe
    unfailing(stream).write("one\n")
    assert os.read(out, CAPACITY) == b"one\n"


def test_lines_that_nobody_reads_are_dropped_and_counted_once_somebody_does(pipe: tuple[int, TextIO]) -> None:
    out, stream = pipe
    logs = unfailing(stream)
    lines = [f"{number:0999}\n" for number in range(100)]
    for line in lines:
        logs.write(line)
    kept = os.read(out, 2 * CAPACITY).decode().splitlines(keepends=True)
    assert kept == lines[: len(kept)]
    assert 50 < len(kept) < 70
    logs.write("back\n")
    told = f"\n({100 - len(kept)} log lines were dropped: nobody read stderr)\nback\n"
    assert os.read(out, CAPACITY).decode() == told


def test_a_line_longer_than_the_room_ends_where_the_room_does(pipe: tuple[int, TextIO]) -> None:
    out, stream = pipe
    logs = unfailing(stream)
    logs.write("x" * 3 * CAPACITY + "\n")
    assert os.read(out, 4 * CAPACITY) == b"x" * CAPACITY
    logs.write("next\n")
    assert os.read(out, CAPACITY) == b"\n(1 log lines were dropped: nobody read stderr)\nnext\n"


def test_a_reader_that_is_gone_fails_nothing(pipe: tuple[int, TextIO]) -> None:
    out, stream = pipe
    logs = unfailing(stream)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, out)  # closes the only end that reads
    os.close(nothing)
    for _ in range(3):
        logs.write("nobody hears this\n")
        logs.flush()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")  # noqa: PTH110  # evaluated at import
def test_a_full_disk_fails_nothing() -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:  # noqa: PTH123  # a device
        logs = unfailing(full)
        logs.write("no room\n")
        logs.flush()


def test_a_file_gets_everything_whatever_the_characters(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w", encoding="utf-8") as file:
        unfailing(file).write("é \ud800" + "x" * 3 * select.PIPE_BUF)
    assert (tmp_path / "log").read_bytes() == "é \\ud800".encode() + b"x" * 3 * select.PIPE_BUF


def test_a_stream_of_a_test_stays_as_it_is() -> None:
    stream = io.StringIO()
    assert unfailing(stream) is stream

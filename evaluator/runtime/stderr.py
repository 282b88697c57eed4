"""A stderr that neither fails nor waits: logs are for people, and no evaluation may depend on who reads them.

    reader gone, disk full, closed    a write would fail     what is said is dropped, and counted
    reader alive that reads nothing   a write would block    the same

A blocked write stops the event loop, and with it the heartbeats of our groups. Making the descriptor non-blocking is
no way out: whoever started us shares it. So we ask before each write; POSIX promises that `PIPE_BUF` bytes fit then.

This is for daemons. Other commands shall wait for whoever pages through what they say.
"""

from __future__ import annotations

import io
import os
import select
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def unfailing(stream: TextIO) -> TextIO:
    """The same destination, for lines of which some may be dropped. A stream without descriptor stays as it is."""
    try:
        stream.fileno()
    except io.UnsupportedOperation:
        return stream
    # Without a buffer in between, as `python -u` does it; typeshed knows buffered ones only.
    dropping: Any = _Dropping(stream)
    return io.TextIOWrapper(dropping, stream.encoding, "backslashreplace", write_through=True)


class _Dropping(io.RawIOBase):
    """Each write is one line or more. How many were dropped is said before the next one that gets through."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream  # kept: a stream that is collected closes its descriptor
        self._ready = select.poll()
        self._ready.register(stream, select.POLLOUT)
        self._dropped = 0

    def write(self, lines: ReadableBuffer, /) -> int:
        """Answers always that everything was written."""
        given = bytes(lines)
        # The end of the line before it may be among what was dropped.
        if self._dropped and self._put(b"\n(%d log lines were dropped: nobody read stderr)\n" % self._dropped):
            self._dropped = 0
        if self._dropped or not self._put(given):
            self._dropped += 1
        return len(given)

    def _put(self, lines: bytes) -> bool:
        for start in range(0, len(lines), select.PIPE_BUF):
            part = lines[start : start + select.PIPE_BUF]
            try:
                if not self._ready.poll(0) or os.write(self.fileno(), part) < len(part):
                    return False
            except OSError:
                return False
        return True

    def writable(self) -> bool:
        """It is."""
        return True

    def isatty(self) -> bool:
        """As the stream says."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """That of the stream."""
        return self._stream.fileno()

"""Dead letters: what could not be judged, with where it stood and why."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

LIMIT = 512 * 1024
"""Longer values are cut, so that a dead letter can always be sent; the position finds the original."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record, or one event of it, that was rejected: raw bytes and headers as they go to the topic."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


def dead_letter(
    *, key: bytes | None, value: bytes | None, topic: str, partition: int, offset: int, index: int, reason: str,
    detail: str, events: int = 1,
) -> DeadLetter:  # fmt: skip
    """The dead letter of a record at a position: `index` is its first bad event, of `events` bad ones."""
    raw = value or b""
    headers = [
        ("reason", reason.encode()),
        ("detail", detail.encode("utf-8", "replace")[:1024]),
        ("topic", topic.encode()),
        ("partition", str(partition).encode()),
        ("offset", str(offset).encode()),
        ("index", str(index).encode()),
        ("events", str(events).encode()),
    ]
    if len(raw) > LIMIT:
        headers += [
            ("size", str(len(raw)).encode()),
            ("sha256", hashlib.sha256(raw).hexdigest().encode()),
            ("truncated", b"true"),
        ]
        value = raw[:LIMIT]
    return DeadLetter(key if key is None or len(key) <= LIMIT // 2 else key[: LIMIT // 2], value, tuple(headers))

"""Bytes near to real ones: what a damaged disk, another version or somebody hostile makes of a payload."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from support.payloads import ODD_VALUES

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

TOKENS = [
    *(value.encode("utf-8", "surrogatepass") for value in ODD_VALUES if len(value) < 100),
    b"\x00", b"\xff", b"\x80", b"\xed\xa0\x80", b"\x1f\x8b", b"\x0a", b"\x12", b"\x7f\xff\xff\xff", b"{", b"}", b"[",
    b"]", b'"', b"\\", b",", b":", b"\n", b"e", b".", b"-", b"null",
]  # fmt: skip

_HOLE = "\ue000"
"""Stands for a token that no JSON library would write."""


def mutated(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds, changed in one to four places; half of the time in its structure, if it has one."""
    value = rng.choice(seeds)
    for _ in range(rng.randint(1, 4)):
        value = (_in_structure if rng.random() < 0.5 else _in_bytes)(rng, value, seeds)
    return value


def _in_bytes(rng: random.Random, value: bytes, seeds: Sequence[bytes]) -> bytes:
    start = rng.randint(0, len(value))
    end = min(len(value), start + rng.choice((0, 1, 1, 2, 4, 30)))
    match rng.randrange(6):
        case 0:
            return value[:start] + bytes([rng.randrange(256)]) + value[start + 1 :]
        case 1:
            return value[:start] + rng.choice(TOKENS) + value[end:]
        case 2:
            return value[:start] + value[end:]
        case 3:
            return value[:start] + value[start:end] * rng.randint(2, 9) + value[end:]
        case 4:
            return value[:start]
        case _:
            other = rng.choice(seeds)
            return value[:start] + other[rng.randint(0, len(other)) :]


def _in_structure(rng: random.Random, value: bytes, seeds: Sequence[bytes]) -> bytes:
    """Another value, or none, at some place of a JSON document."""
    try:
        document = json.loads(value)
    except (ValueError, RecursionError):
        return _in_bytes(rng, value, seeds)
    replace = rng.choice(list(_places(document)) or [None])
    if replace is None:
        return _in_bytes(rng, value, seeds)
    replace(rng)
    text = json.dumps(document, ensure_ascii=rng.random() < 0.5, separators=(",", ":"))
    for written in (json.dumps(_HOLE), f'"{_HOLE}"'):
        text = text.replace(written, rng.choice(ODD_VALUES))
    return text.encode("utf-8", "surrogatepass")


def _places(node: Any) -> list[Callable[[random.Random], None]]:
    """What changes each place of a document."""
    found: list[Callable[[random.Random], None]] = []
    keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else []
    for key in keys:
        found.append(lambda rng, key=key: _change(rng, node, key))
        found += _places(node[key])
    return found


def _change(rng: random.Random, node: Any, key: Any) -> None:
    match rng.randrange(5):
        case 0:
            del node[key]
        case 1:
            node[key] = [node[key]]
        case 2 if isinstance(node, dict):
            node[rng.choice([f"{key}x", f"{key}.{key}", key.upper(), key.swapcase()])] = node.pop(key)
        case 3:
            node[key] = str(node[key])
        case _:
            node[key] = _HOLE

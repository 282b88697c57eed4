"""Payloads that real and hostile producers send, as strategies."""

from __future__ import annotations

import json
from typing import TypeVar

from hypothesis import strategies as st

T = TypeVar("T")

# Tokens are written as text: most of what matters here no JSON library would write.
ODD_VALUES = [
    "null", "true", "false", "0", "-0", "-0.0", "1.0", "1e5", "1E-5", "1e400", "-1e400", "1e-400", "NaN", "Infinity",
    "-Infinity", "01", "1.", ".5", "+1", "--1", "9007199254740993", "18446744073709551616", "1" * 40, "1" * 4300,
    "-" + "1" * 4300, "1" * 4301, "1" * 400 + ".5", '""', '"x"', '"12"', '"1e3"', '"\\u0041"', '"\\ud83d"',
    '"\\udc00x"', '"\\ud83d\\ude00"', '"\\ud83d\\u0041"', '"\\x"', '"\x01"', '"\x7f"', '"\u00e9"', '"a', "[]", "[1]",
    '[["x"]]', "[1,2]", "{}", '{"id":1}', "[[", "]", "tru", "", "[null]", '[{"id":[7]}]', '"2026-01-28T12:00:00Z"',
    "1769601600000", "1769601600000.5", "[" * 150 + "]" * 150, "[" * 199 + "]" * 199, "[" * 200 + "]" * 200,
    "[" * 201 + "]" * 201, '{"a":' * 198 + "1" + "}" * 198, '{"a":' * 250 + "1" + "}" * 250, '"' + "[" * 300 + '"',
    '"' + '\\"[' * 300 + '"', '{"id":1,"id":"x"}', '{"id":1,"name":null}', '{"name":{"first":"a"},"id":2.5}',
    '{"name":[{"first":"a"}]}', '{"name.first":"b"}', '{"status":500}',
]  # fmt: skip
KEYS = [
    "status", "user", "id", "http", "user.id", "user.name", "user.name.first", "name.first", "http.status",
    "\u00e9", "\\u00e9", "\\u0074", "sta\\u0074us", "other", "", "t ", "t", "\\ud800",
]  # fmt: skip

plain_values = st.one_of(
    st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=8), st.booleans(), st.none()
).map(json.dumps)
values = st.one_of(
    plain_values,
    st.integers(0, len(ODD_VALUES) - 1).map(lambda number: ODD_VALUES[number]),  # sampling would print them all
)
spaces = st.sampled_from(["", "", "", " ", "\n", "\t\r\n", "\x0b", "\ufeff"])


@st.composite
def objects(draw: st.DrawFn, value: st.SearchStrategy[str] = values) -> str:
    members = draw(st.lists(st.tuples(st.sampled_from(KEYS), value), max_size=5))
    user = draw(st.sampled_from(["", '"user":{"id":"u1","name":{"first":"f"}}', '"user":{"id":7}']))
    texts = [f'"{key}":{each}' for key, each in members] + ([user] if user else [])
    return "{" + ",".join(draw(st.permutations(texts))) + "}"


def mostly(common: st.SearchStrategy[T], rare: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    """Two of three times `common`: `one_of` would weigh each of the alternatives inside them the same."""
    return st.integers(0, 2).flatmap(lambda number: rare if number == 2 else common)


def encoded(text: str) -> bytes:
    """UTF-8, and where the text has half a surrogate pair something that is not."""
    return text.encode("utf-8", "surrogatepass")


plain = objects(plain_values).map(encoded)
"""One object whose values a JSON library wrote."""

arrays = st.lists(objects(plain_values), max_size=4).map(lambda events: encoded("[" + ",".join(events) + "]"))

documents = st.one_of(
    objects(plain_values),
    objects(),
    values,
    st.builds(lambda a, text, b: a + text + b, spaces, objects(), spaces),
    st.lists(objects(), max_size=4).map(lambda events: "[" + ",".join(events) + "]"),
    st.lists(st.one_of(objects(), values), max_size=4).map("\n".join),
).map(encoded)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    value = bytearray(draw(documents))
    for _ in range(draw(st.integers(0, 3)) if value else 0):
        at = draw(st.integers(0, len(value)))
        value[at : at + draw(st.integers(0, 2))] = draw(st.one_of(st.binary(max_size=2), st.sampled_from(
            [b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b'"', b"\\", b"{", b"]", b",", b"\n", b"\x00", b"e", b"."]
        )))  # fmt: skip
    return bytes(value)

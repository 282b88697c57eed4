"""Laws of the rules file: whatever stands in it, the answer is a configuration or lines that name a place."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from evaluator.errors import ConfigError
from evaluator.wire.config.load import load_rules

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLE = (Path(__file__).parents[2] / "config" / "evaluator.yaml").read_text()
LINE = re.compile(r".*rules\.yaml:[1-9][0-9]*:[1-9][0-9]*: error\[E[0-9]{3}\] \S.*")
TOKENS = st.sampled_from(
    ["{", "}", "[", "]", ": ", "\n", "\n  ", "- ", "*", "&a ", "*a", "!x", "'", '"', "|\n", ">", "#", "\t", "\u00a0",
     "~", "null", "on", "010", "1:30", "1e999", ".nan", "9" * 400, "99.5%", "5m", "p95 > 1s", "deploy", "\\ud800",
     "\x07", "<<: *a", "? ", "---\n", "%YAML 1.1\n", "alerts:", "window", "\ud7ff", "é", "<all>", "'[key]'"]
)  # fmt: skip


@st.composite
def mangled(draw: st.DrawFn) -> str:
    """The example with a few pieces replaced by what breaks YAML, or the rules."""
    text = EXAMPLE
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 30)))
        text = text[:start] + draw(TOKENS) + text[end:]
    return text


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], str]:
    path = tmp_path_factory.mktemp("config") / "rules.yaml"

    def load(raw: bytes) -> str:
        path.write_bytes(raw)
        try:
            load_rules([path])
        except ConfigError as bad:
            return str(bad)
        return ""

    return load


def _only_places(message: str) -> bool:
    return all(LINE.fullmatch(line) for line in message.split("\n")) if message else True


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=mangled())
def test_a_mangled_file_loads_or_is_refused_by_lines_with_places(answer: Callable[[bytes], str], text: str) -> None:
    message = answer(text.encode())
    event("refused" if message else "loads")
    assert _only_places(message)


@settings(deadline=None)
@given(raw=st.binary(max_size=200))
def test_any_bytes_are_refused_by_lines_with_places(answer: Callable[[bytes], str], raw: bytes) -> None:
    message = answer(raw)
    assert message
    assert _only_places(message)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = ("topic: easymo.events", "time: record.timestamp", "preset: easymo-api", "window: deploy", "expect_every: 26h",
        '{from: "header:x-produced-at", to: record.timestamp}', "[metadata.function_id]",
        "{target: api-router, env: production}", '["@jeanbosco"]', "99.5%", "[error_ratio > 0.5%, median > 500ms]",
        "window: 1h", "consecutive: 3", '{runbook_url: "https://example.com/runbooks/voice-api"}')  # fmt: skip


def _yaml(value: object) -> str:
    """Flow YAML of a value."""
    match value:
        case dict():
            return "{" + ", ".join(f"{_yaml(key)}: {_yaml(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_yaml, value)) + "]"
        case str():
            return '"' + "".join(f"\\U{ord(character):08x}" for character in value) + '"'
        case float():
            return repr(value).replace("inf", ".inf").replace("nan", ".nan")
    return "null" if value is None else str(value).lower()


@settings(deadline=None)
@given(key=st.sampled_from(KEYS), value=values)
def test_a_value_of_any_type_anywhere_is_refused_by_lines_with_places(
    answer: Callable[[bytes], str], key: str, value: object
) -> None:
    assert EXAMPLE.count(key) >= 1
    prefix = key.partition(": ")[0] + ": " if re.match(r"[a-z]+: ", key) else ""
    assert _only_places(answer(EXAMPLE.replace(key, prefix + _yaml(value), 1).encode()))

"""The format `heartbeat`: that something is alive, a record each time it says so. Nothing in it can fail."""

from __future__ import annotations

from evaluator.wire.config.matcher import Matcher
from evaluator.wire.config.model import FieldsConfig, SourceDefaults
from evaluator.wire.formats import Format
from evaluator.wire.formats.json import JsonReader

FORMATS = (
    Format(
        "heartbeat",
        lambda _, paths: JsonReader(paths, "one"),
        SourceDefaults(FieldsConfig(time="time")),
        batch="one",
        only=Matcher.of({"kind": "heartbeat"}),
    ),
)

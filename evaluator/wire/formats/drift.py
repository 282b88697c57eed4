"""The format `drift`: whether a database still is what its migrations say, a check a record.

`skipped` says nothing: the check did not run, which is neither clean nor a failure; nor does a status that is none.
"""

from __future__ import annotations

from evaluator.wire.config.matcher import Matcher
from evaluator.wire.config.model import FieldsConfig, SourceDefaults
from evaluator.wire.formats import Format, Made, MadeReader
from evaluator.wire.formats.json import JsonReader

_IS_FAILED = {"clean": False, "drift": True, "failed": True}


def _is_failed(status: object) -> bool | None:
    return _IS_FAILED.get(status) if isinstance(status, str) else None


FORMATS = (
    Format(
        "drift",
        lambda _, paths: MadeReader(
            paths, {"check.failed": Made(("status",), _is_failed)}, lambda needed: JsonReader(needed, "one")
        ),
        SourceDefaults(FieldsConfig(time="time", failed=Matcher.of({"check.failed": True}), deploy="commit")),
        batch="one",
        only=Matcher.of({"kind": "drift"}),
    ),
)

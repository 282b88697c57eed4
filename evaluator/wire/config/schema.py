"""The JSON Schema of a rules file, for editors; `load_rules` remains the judge."""

from __future__ import annotations

from typing import Any

from evaluator.wire.config.entry import RulesEntry


def json_schema() -> dict[str, Any]:
    """A schema of draft 2020-12. What it refuses, `load_rules` refuses too."""
    schema: dict[str, Any] = _strict(RulesEntry.model_json_schema(by_alias=True))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _strict(schema: Any) -> Any:  # noqa: ANN401  # any JSON
    """Without null, which no key takes, without generated titles, and closed where names have a pattern."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    rest = {key: _strict(value) for key, value in schema.items() if not _is_noise(schema, key)}
    if "patternProperties" in rest:
        rest["additionalProperties"] = False
    kinds = [kind for kind in rest.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) == 1 and "anyOf" in rest:
        del rest["anyOf"]
        return kinds[0] | rest
    return rest


def _is_noise(schema: dict[str, Any], key: str) -> bool:
    if key == "default":
        return schema[key] is None
    return key == "title" and isinstance(schema[key], str) and "version" not in schema.get("properties", {})

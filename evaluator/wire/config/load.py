"""Rules files in, rules out, or one error that lists everything there is to fix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from evaluator.core.rule import RuleSet
from evaluator.errors import ConfigError
from evaluator.wire import schema_files
from evaluator.wire.config.assemble import rules_of
from evaluator.wire.config.check import errors_between
from evaluator.wire.config.files import read
from evaluator.wire.config.finding import Finding
from evaluator.wire.config.lint import warnings_of
from evaluator.wire.config.model import SourceConfig, SurfaceConfig
from evaluator.wire.config.schema import json_schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

__all__ = ["Config", "json_schema", "load_rules"]


@dataclass(frozen=True, slots=True)
class Config:
    """A valid configuration: the core's view, the decoder's view, and what looks wrong about it."""

    rules: RuleSet
    sources: Mapping[str, SourceConfig]
    surfaces: Mapping[str, SurfaceConfig]
    warnings: tuple[Finding, ...]


def load_rules(paths: Sequence[Path | str]) -> Config:
    """The one configuration that the files are, in their order. Raises `ConfigError`, a finding a line."""
    if not paths:
        message = "no rules file given; name at least one, for example config/evaluator.yaml"
        raise ConfigError(message)
    entries = read(paths)
    load = cache(schema_files.load)  # what was checked is what is used: the files may change meanwhile
    findings = [*entries.findings, *errors_between(entries, load)]
    if findings:
        raise ConfigError("\n".join(map(str, _in_order(findings, entries.files))))
    rules, sources = rules_of(entries, load)
    surfaces = {surface.name: surface for source in sources.values() for surface in source.surfaces}
    warnings = _in_order(warnings_of(entries, rules, sources), entries.files)
    return Config(rules, sources, {name: surfaces[name] for name in rules.surfaces}, tuple(warnings))


def _in_order(findings: Iterable[Finding], files: Sequence[str]) -> list[Finding]:
    """By file in command-line order, then from top to bottom; each once, also where aliases repeat it."""
    order = {name: number for number, name in reversed(list(enumerate(files)))}
    return sorted(dict.fromkeys(findings), key=lambda each: (order[each.file], each.line, each.column, each.code))

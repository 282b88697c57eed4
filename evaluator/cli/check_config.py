"""`evaluator check-config`: syntax, references and lint of rules files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from evaluator.wire.config.load import load_rules

LINT_FINDINGS = 3


def check_config(
    files: Annotated[list[Path], typer.Argument(help="Rules files; several are one configuration.")],
    *,
    lint_fatal: Annotated[bool, typer.Option("--lint-fatal", help="Exit with 3 when there are warnings.")] = False,
) -> None:
    """Check rules files: syntax, references and lint."""
    config = load_rules(files)
    for finding in config.warnings:
        sys.stderr.write(f"{finding}\n")
    rules = config.rules
    counts = (len(rules.surfaces), len(rules.slos), len(rules.rules))
    typer.echo("SUCCESS: {} surfaces, {} slos, {} alerts".format(*counts))
    if lint_fatal and config.warnings:
        raise typer.Exit(LINT_FINDINGS)

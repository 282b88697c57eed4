"""`evaluator version`."""

from __future__ import annotations

import platform

import typer

from evaluator import __version__


def version() -> None:
    """Print the version."""
    typer.echo(f"evaluator {__version__} (Python {platform.python_version()})")

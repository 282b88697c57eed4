"""`evaluator schema`: the JSON Schemas of the rules file and the alert record."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import orjson
import typer

from evaluator.wire.config.load import json_schema
from evaluator.wire.schema import alert_schema


class Subject(StrEnum):
    """What there is a schema of."""

    RULES = "rules"
    ALERT = "alert"


def schema(subject: Annotated[Subject, typer.Argument(help="rules: the rules file; alert: alert records.")]) -> None:
    """Print a JSON Schema."""
    document = json_schema() if subject is Subject.RULES else alert_schema()
    typer.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())

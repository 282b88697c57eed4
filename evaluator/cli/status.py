"""`evaluator status`: what a running process does, read from its API."""

from __future__ import annotations

import http.client
import sys
from typing import Annotated, Any

import orjson
import typer

from evaluator.cli.healthcheck import get
from evaluator.cli.words import Output
from evaluator.runtime.settings import load


def status(
    *,
    url: Annotated[str | None, typer.Option("--url", help="Where it listens. Default: EVALUATOR_WEB__LISTEN.")] = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="json: the answer as it is.")] = Output.TEXT,
) -> int:
    """Show sources, tasks and alerts of a running process; exit code 1 where none answers."""
    where = url or load().local_url
    code, said = get(where, "/api/v1/status")
    if code != http.client.OK:
        sys.stderr.write(f"{said.strip()}\n")
        return 1
    if output is Output.JSON:
        typer.echo(said)
        return 0
    for line in _lines(orjson.loads(said)["data"]):
        typer.echo(line)
    return 0


def _lines(data: dict[str, Any]) -> list[str]:
    lines = [f"evaluator {data['version']}, rules {data['config'][:19]}"]
    for source in data["sources"]:
        state = "BLIND" if source["blind"] else "ok"
        lines.append(f"source   {source['name']:<20} {state:<6} watermark {source['watermark'] or '-'}")
    lines += [_task(task) for task in data["tasks"]]
    lines += [f"{one['phase']:<8} {one['key']}" for one in data["series"] if one["phase"] in {"pending", "firing"}]
    return lines


def _task(task: dict[str, Any]) -> str:
    where = f"{task['topic']}/{task['partition']}"
    return f"task     {where:<32} {task['state']:<10} offset {task['offset']}, {task['lag']} behind"

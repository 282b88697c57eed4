"""`evaluator status`: what a running process does, read from its API."""

from __future__ import annotations

import http.client
import sys
from typing import Annotated, Any

import orjson
import typer

from evaluator.cli.healthcheck import get
from evaluator.cli.words import Output
from evaluator.core.event import SECOND
from evaluator.runtime.settings import load
from evaluator.runtime.web.page import ago
from evaluator.wire.instant import instant


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
    restores = data["restores"]
    lines = [
        f"evaluator {data['version']}, rules {data['config'][:19]}",
        f"replica  {data['replica']:<32} {restores['count']} taken over in {restores['seconds']:.2f} s",
    ]
    for source in data["sources"]:
        state = "BLIND" if source["blind"] else "ok"
        watermark = f"watermark {source['watermark'] or '-'}"
        # A process of a release before has no word on rejects.
        rejected = f", {_rejected(source['rejects'])}" if "rejects" in source else ""
        lines.append(f"source   {source['name']:<20} {state:<6} {watermark}{rejected}")
    others = sorted({task["owner"] for task in data["tasks"] if task["rules"] not in {data["config"], ""}})
    if others:
        lines.append(f"conflict {', '.join(others)} judge by other rules")
    lines += [_task(task, data["replica"], data["now"]) for task in data["tasks"]]
    lines += [f"{one['phase']:<8} {one['key']}" for one in data["series"] if one["phase"] in {"pending", "firing"}]
    return lines


def _rejected(rejects: dict[str, Any]) -> str:
    """Of what that replica read itself lately."""
    words = f"rejected {rejects['rejected']} of {rejects['events']} in {ago(rejects['overSeconds'] * SECOND)}"
    return f"{words}: TOO MANY, most often {rejects['reason']}; see evaluator dlq list" if rejects["flagged"] else words


def _task(task: dict[str, Any], this: str, now: str) -> str:
    where = f"task     {task['topic'] + '/' + str(task['partition']):<32}"
    watermark = f"watermark {task['watermark'] or '-'}"
    if task["owner"] != this:
        return f"{where} elsewhere  {watermark}, at {task['owner']} ({task['host']})"
    commit = "no commit yet" if task["committedAt"] is None else f"committed {_ago(task['committedAt'], now)} ago"
    restore = "" if task["restoreSeconds"] is None else f", taken over in {task['restoreSeconds']:.2f} s"
    return f"{where} {task['state']:<10} {watermark}, offset {task['offset']}, {task['lag']} behind, {commit}{restore}"


def _ago(time: str, now: str) -> str:
    """Between two times of the same answer."""
    return ago(instant(now, "us") - instant(time, "us"))

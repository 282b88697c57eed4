"""`evaluator healthcheck`: whether the process beside us is alive, for a container's health check."""

from __future__ import annotations

import http.client
import sys
from typing import Annotated
from urllib.parse import urlsplit

import typer

from evaluator.errors import UsageError
from evaluator.runtime.settings import load

TIMEOUT_S = 3.0


def healthcheck(
    *,
    url: Annotated[str | None, typer.Option("--url", help="Where it listens. Default: EVALUATOR_WEB__LISTEN.")] = None,
) -> int:
    """Ask /-/healthy; exit code 0 where it is well, else 1."""
    status, said = get(url or load().local_url, "/-/healthy")
    sys.stderr.write(f"{said.strip()}\n")
    return 0 if status == http.client.OK else 1


def get(url: str, path: str) -> tuple[int, str]:
    """What a page answers: its status and text; status 0 where nobody answers. Raises `UsageError`."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        message = f"--url {url}: expected something like http://127.0.0.1:10095"
        raise UsageError(message)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", parts.path.rstrip("/") + path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return 0, f"nothing answers at {url} ({reason}); start `evaluator run`, or say --url"
    finally:
        connection.close()

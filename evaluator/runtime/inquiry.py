"""One conversation with a schema registry over HTTP. It blocks: somebody calls it in a thread.

Only where the registry says by its own number that there is no such schema is there none: a 404 may also be a proxy's,
or that of a wrong address.
"""

from __future__ import annotations

import base64
import http.client
import socket
import urllib.parse
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluator.errors import SchemasUnavailable
from evaluator.wire.formats.json import parse
from evaluator.wire.schema_registry import schema_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from evaluator.wire.config.model import RegistryConfig
    from evaluator.wire.rejection import Fault
    from evaluator.wire.schemas import Schema

TIMEOUT_S = 5.0
"""For each piece of an answer. A registry that is busy answers within a second."""

MOST_BYTES = 4 << 20
"""Of one answer. The largest schemas known are some hundred kilobytes."""

_OK, _NOT_FOUND = 200, 404
_NO_SCHEMA, _NO_REFERENCE = (40403,), (40401, 40402, 40403)
"""By the numbers of the API: no such schema; no such subject, version or schema."""


def connected(url: str) -> http.client.HTTPConnection:
    """A connection to where a registry answers."""
    parts = urllib.parse.urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
    connection.connect()
    return connection


class Inquiry:
    """Asks one registry, once, over one connection that is made by `connect`. `found` grows as the answers come."""

    def __init__(
        self, registry: RegistryConfig, connect: Callable[[str], http.client.HTTPConnection] = connected
    ) -> None:
        self.found: dict[int, Schema | Fault] = {}
        self._registry, self._connect = registry, connect
        self._connection: http.client.HTTPConnection | None = None
        self._socket: socket.socket | None = None
        self._is_over = False

    def run(self, ids: Sequence[int]) -> None:
        """Ask for these schemas. Raises `SchemasUnavailable` at the first that cannot be had."""
        schema = None
        try:
            for schema in ids:
                self.found[schema] = schema_of(schema, self._get)
        except SchemasUnavailable as error:
            raise SchemasUnavailable(error.url, error.why, schema) from None
        finally:
            self._close()

    def end(self) -> None:
        """Whatever waits for an answer waits no more. From any thread."""
        self._is_over = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _get(self, path: str) -> Mapping[str, Any] | None:
        url = f"{self._registry.url.rstrip('/')}/{path}"
        self._go_on(url)
        try:
            connection = self._connected(url)
            # Nothing is redirected: the password would go wherever an answer says.
            connection.request("GET", f"{urllib.parse.urlsplit(url).path}{_query(url)}", headers=self._headers())
            with connection.getresponse() as answer:
                status, body = answer.status, answer.read(MOST_BYTES)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._close()
            raise SchemasUnavailable(url, str(error) or type(error).__name__) from None
        return _said(url, status, body, _NO_SCHEMA if path.startswith("schemas/") else _NO_REFERENCE)

    def _go_on(self, url: str) -> None:
        """Raises `SchemasUnavailable` where nobody waits for the answer any more."""
        if self._is_over:
            raise SchemasUnavailable(url, "it took too long")

    def _connected(self, url: str) -> http.client.HTTPConnection:
        # A server may close a connection behind its answer.
        if self._connection is None or self._connection.sock is None:
            self._connection = self._connect(self._registry.url)
            self._socket = self._connection.sock
            self._go_on(url)  # `end` may have come before there was a socket to shut down
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/vnd.schemaregistry.v1+json"}
        if self._registry.username is None or self._registry.password_file is None:
            return headers
        password = Path(self._registry.password_file).read_text(encoding="utf-8").strip()
        token = base64.b64encode(f"{self._registry.username}:{password}".encode()).decode()
        return {**headers, "Authorization": f"Basic {token}"}


def _query(url: str) -> str:
    query = urllib.parse.urlsplit(url).query
    return query and f"?{query}"


def _said(url: str, status: int, body: bytes, absent: Sequence[int]) -> Mapping[str, Any] | None:
    said = parse(body)
    known = said if isinstance(said, dict) else {}
    if status == _OK and isinstance(known.get("schema"), str):
        return known
    if status == _NOT_FOUND and known.get("error_code") in absent:
        return None
    raise SchemasUnavailable(url, "it answers, but not with a schema" if status == _OK else f"status {status}")

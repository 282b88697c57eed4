"""How to reach the brokers, and what their errors mean to us.

aiokafka answers a wrong password, an unknown certificate and a dead port alike with `Unable to bootstrap`; the
cause is only in its log. So the first connection of a process is a probe of our own, which knows the cause.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from aiokafka import errors
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.helpers import create_ssl_context

from evaluator.errors import ConfigError, EvaluatorError
from evaluator.runtime.log.port import KafkaUnreachable, NotAuthorized

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from evaluator.runtime.settings import KafkaSettings

REQUEST_TIMEOUT_MS = 15_000
"""Of one request. Below the session and the transaction time-out: a black-holed broker holds up the healthy ones."""


class Patience(NamedTuple):
    """How long to wait for what. Tests are in more of a hurry.

    `limit_s` is that of one step of a commit. aiokafka has none: it would retry for ever. It is above the restart of
    a broker (34 s seen) and below the time-out of a transaction, which survives such a restart too (9 s old session of
    the broker, and its start). `session_ms` is what a killed process costs: others get its partitions after it.
    """

    limit_s: float = 45.0
    session_ms: int = 20_000
    heartbeat_ms: int = 3_000
    transaction_ms: int = 60_000

    @property
    def revoke_s(self) -> float:
        """How long a rebalance waits for our last commits; the others wait meanwhile."""
        return self.session_ms / 2000


PATIENT = Patience()

PROBE_S = 10.0
"""Of one address when a process starts."""

INIT_PRODUCER_ID = 22
INIT_PRODUCER_ID_VERSION = 4
"""With an epoch of our own (KIP-360): what makes one epoch a transaction possible. Kafka has it since 2.7."""

RETRY_BOOTSTRAP_S = 0.5


def process_name() -> str:
    """What the brokers know this process by, in their logs and in the description of its groups.

    The host is the pod's name in Kubernetes; the process id tells replicas on one machine apart.
    """
    return f"evaluator-{socket.gethostname()}-{os.getpid()}"


def connection(kafka: KafkaSettings, client_id: str) -> dict[str, Any]:
    """The arguments that every client of aiokafka takes. Raises `ConfigError` for files that cannot be used."""
    password = kafka.password()
    return {
        "bootstrap_servers": kafka.bootstrap_servers,
        "client_id": client_id,
        "security_protocol": kafka.security_protocol,
        "ssl_context": _ssl_context(kafka),
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
        **(
            {}
            if kafka.sasl_mechanism is None or password is None
            else {
                "sasl_mechanism": kafka.sasl_mechanism,
                "sasl_plain_username": kafka.username,
                "sasl_plain_password": password.get_secret_value(),
            }
        ),
    }


def _ssl_context(kafka: KafkaSettings) -> ssl.SSLContext | None:
    if not kafka.security_protocol.endswith("SSL"):
        return None
    try:
        context: ssl.SSLContext = create_ssl_context(
            cafile=_path(kafka.ca_file), certfile=_path(kafka.cert_file), keyfile=_path(kafka.key_file)
        )
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(str(path) for path in (kafka.ca_file, kafka.cert_file, kafka.key_file) if path is not None)
        message = f"kafka.ca_file, cert_file, key_file ({files}) cannot be used: {error.strerror or error}"
        raise ConfigError(message) from error
    return context


def _path(path: Path | None) -> str | None:
    return None if path is None else str(path)


async def probe(kafka: KafkaSettings, client_id: str) -> None:
    """Connect once to find out whether we can, and to say why not. Raises `KafkaUnreachable`."""
    given = connection(kafka, client_id)
    servers = given.pop("bootstrap_servers")
    failures = []
    for host, port, _ in collect_hosts(servers):
        try:
            async with asyncio.timeout(PROBE_S):
                conn = await create_conn(host, port, **given)
        except (OSError, errors.KafkaError, ssl.SSLError, TimeoutError) as error:
            failures.append(_cause(error, f"{host}:{port}", kafka))
            continue
        versions = conn._versions  # nothing public tells what the broker offers
        conn.close()
        _, newest = versions.get(INIT_PRODUCER_ID, (0, 0))
        if newest < INIT_PRODUCER_ID_VERSION:
            message = f"the broker at {host}:{port} is too old: one epoch per transaction needs Kafka 2.7 or newer"
            raise KafkaUnreachable(message)
        return
    raise KafkaUnreachable("; ".join(failures))


def _cause(error: BaseException, address: str, kafka: KafkaSettings) -> str:  # noqa: PLR0911  # a table of causes
    """One clause: what does not work, and what to do."""
    text = str(error) or type(error).__name__
    if isinstance(error, ssl.SSLCertVerificationError):
        trusted = "the system's certificates do" if kafka.ca_file is None else f"kafka.ca_file {kafka.ca_file} does"
        return (f"{address} has a certificate that {trusted} not confirm ({error.verify_message}); "
                f"name the right authority in kafka.ca_file")  # fmt: skip
    if isinstance(error, errors.SaslAuthenticationFailed):
        return (f"{address} refuses the user {kafka.username!r}: wrong user name or password "
                f"(kafka.username, kafka.password_file) for {kafka.sasl_mechanism}")  # fmt: skip
    if isinstance(error, (errors.UnsupportedSaslMechanismError, errors.IllegalSaslStateError)):
        return f"{address} does not take {kafka.sasl_mechanism}; choose another kafka.sasl_mechanism ({text})"
    if isinstance(error, ssl.SSLError):
        return f"{address} does not speak TLS as we do ({error.reason or text}); check kafka.security_protocol"
    if isinstance(error, TimeoutError):
        return f"{address} did not answer within {PROBE_S:.0f} s; check the address, and firewalls on the way"
    if isinstance(error, ConnectionRefusedError):
        return f'cannot reach {address}: connection refused; start a broker, or try "evaluator demo"'
    if isinstance(error, OSError) and not isinstance(error, (ConnectionResetError, BrokenPipeError)):
        return f"cannot reach {address}: {error.strerror or text}; check kafka.bootstrap_servers"
    return (f"{address} closed the connection ({text}); check kafka.security_protocol "
            f"(it is {kafka.security_protocol}): TLS, SASL or neither")  # fmt: skip


def is_deaf(client: Any) -> bool:  # noqa: ANN401  # aiokafka's own, untyped
    """Whether the task that follows the cluster has ended in this client, which must have been started.

    It then learns of no new leader, address or partition; what asks it for news waits for ever.
    """
    return client._sync_task is None or client._sync_task.done()


@asynccontextmanager
async def limited(what: str, seconds: float = PATIENT.limit_s) -> AsyncIterator[None]:
    """Turn what aiokafka raises into our errors; nothing inside takes longer than `seconds`.

    `what` completes "cannot ...".
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        message = f"cannot {what}: no answer from the brokers within {seconds:.0f} s"
        raise KafkaUnreachable(message) from error
    except errors.KafkaError as error:
        raise translated(error, what) from error


def translated(error: errors.KafkaError, what: str) -> EvaluatorError:
    """Our error for one of aiokafka's."""
    if isinstance(error, UNAUTHORIZED):
        return NotAuthorized(f"not allowed to {what}: {_plain(error)}; `evaluator topics acls` prints what to grant")
    return KafkaUnreachable(f"cannot {what}: {_plain(error)}")


UNAUTHORIZED = (
    errors.TopicAuthorizationFailedError,
    errors.GroupAuthorizationFailedError,
    errors.ClusterAuthorizationFailedError,
    errors.TransactionalIdAuthorizationFailed,
)


def _plain(error: Exception) -> str:
    """`TopicAuthorizationFailed: orders`, without the error's number."""
    name = type(error).__name__.removesuffix("Error")
    said = ", ".join(_words(argument) for argument in error.args)
    return f"{name}: {said}" if said else name


def _words(argument: object) -> str:
    return ", ".join(sorted(map(str, argument))) if isinstance(argument, (set, frozenset)) else str(argument)


async def started(client: Any, what: str = "connect", seconds: float = PATIENT.limit_s) -> None:  # noqa: ANN401  # see `closed`
    """Start a client of aiokafka; one that could not start is closed."""
    runs = False
    try:
        async with limited(what, seconds):
            await client.start()
        runs = True
    finally:
        if not runs:
            await closed(client)


async def closed(*closing: Any, seconds: float = 5.0) -> None:  # noqa: ANN401  # clients of aiokafka have no common type
    """Stop clients side by side, within a limit: `stop` of one that lost its broker can wait for ever."""
    await asyncio.gather(*(_stopped(client, seconds) for client in closing))


async def _stopped(client: Any, seconds: float) -> None:  # noqa: ANN401  # see above
    inner = next(
        (found for name in ("_client", "client") if (found := getattr(client, name, None)) is not None), client
    )
    if is_deaf(inner):
        # Closing would raise what that task died of, and leave the connections open.
        inner._sync_task = None
    try:
        async with asyncio.timeout(seconds):
            await (client.close() if hasattr(client, "close") else client.stop())
    except (TimeoutError, errors.KafkaError, OSError):
        # Nothing of it is needed any more, and the broker forgets us by itself.
        return
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # aiokafka 0.14 cancels a fetch that waits to be tried again, awaits it, and lets that out as if we had been
        # cancelled (`Fetcher.close`); what it would have closed next are the connections.
        await _stopped(inner, seconds)


def error_of(codes: Sequence[int]) -> type[errors.KafkaError] | None:
    """The class of the first code that is an error."""
    return next((errors.for_code(code) for code in codes if code), None)

"""A password that was rotated: the Kafka client would offer the old one for ever, so another start takes the new one.

Nothing is lost by it, and it costs a rebalance. The broker is asked first: while it does not take what is in the file,
the connections that are there may still work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from evaluator.errors import ConfigError, EvaluatorError
from evaluator.runtime.log.port import KafkaUnreachable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from evaluator.runtime.clock import Clock
    from evaluator.runtime.settings import KafkaSettings

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 5.0
"""Often enough not to be noticed beside the restart; a read of a small file."""


class PasswordRotated(EvaluatorError):
    """`kafka.password_file` holds another password, and the brokers take it."""

    exit_code = 4


async def watch_password(kafka: KafkaSettings, probe: Callable[[], Awaitable[None]], clock: Clock) -> None:
    """Look for ever whether the password was rotated. Raises `PasswordRotated`.

    `probe` connects once with what is in the file now, and raises `KafkaUnreachable`.
    """
    ours = kafka.password()
    while True:
        await clock.sleep(LOOK_EVERY_S)
        try:
            if kafka.password() == ours:
                continue
            await probe()
        except (ConfigError, KafkaUnreachable) as error:
            # The file is being replaced, or the brokers do not know of it yet.
            log.warning("password.not_taken", reason=str(error))
            continue
        message = f"the password in {kafka.password_file} was rotated, and the brokers take the new one; start again"
        raise PasswordRotated(message)

"""Brokers that all came back under other addresses: a Kafka client that is there asks only those that it knows.

aiokafka 0.14 never goes back to the bootstrap addresses, so it would wait for ever beside a cluster that a fresh client
finds at once. The end of this process is as safe as every other one, and its next start asks them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from evaluator.errors import ConfigError, Watchdog
from evaluator.runtime.log.port import KafkaUnreachable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from evaluator.runtime.clock import Clock

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 15.0

MOVED_S = 120.0
"""How long a fresh client gets an answer and the one that is there gets none. After a restart of the brokers where they
were, the latter comes back within seconds."""

TRIES = 5
"""Of one look: a client asks a broker at random, and one that is down is no reason to end."""

_BETWEEN_TRIES_S = 0.5


async def watch_addresses(
    ask: Callable[[], Awaitable[object]], probe: Callable[[], Awaitable[None]], clock: Clock
) -> None:
    """Look for ever whether our clients are the reason that nobody answers. Raises `Watchdog`.

    `ask` asks something through a client that is there, `probe` connects afresh; both raise `KafkaUnreachable`.
    """
    since: float | None = None
    while True:
        await clock.sleep(LOOK_EVERY_S)
        if await _answers(ask, clock) or not await _is_there(probe):
            since = None
            continue
        now = clock.monotonic()
        since = now if since is None else since
        log.warning("brokers.moved", reason="a fresh client reaches the brokers, ours do not", for_s=round(now - since))
        if now - since >= MOVED_S:
            message = (f"the brokers answer at kafka.bootstrap_servers, and not at the addresses that our clients have "
                       f"known for {now - since:.0f} s; only a fresh start asks for the new ones")  # fmt: skip
            raise Watchdog(message)


async def _answers(ask: Callable[[], Awaitable[object]], clock: Clock) -> bool:
    for _ in range(TRIES):
        try:
            await ask()
        except KafkaUnreachable:
            await clock.sleep(_BETWEEN_TRIES_S)
        else:
            return True
    return False


async def _is_there(probe: Callable[[], Awaitable[None]]) -> bool:
    try:
        await probe()
    except (ConfigError, KafkaUnreachable):
        return False
    return True

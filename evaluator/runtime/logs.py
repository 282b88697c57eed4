"""Logs: one JSON object a line on stderr, or a readable line for people.

Events are fixed dotted names with fields, one per edge or commit at most. What the libraries log with the
standard library takes the same form.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections import Counter
from typing import TYPE_CHECKING, Literal

import orjson
import structlog

if TYPE_CHECKING:
    from typing import TextIO

    from structlog.typing import EventDict, Processor, WrappedLogger

_SECRET = re.compile(r"password|passwd|secret|token|authorization|api_?key|credential", re.IGNORECASE)
MASK = "***"

SELDOM_S = 10.0


def configure(
    level: str, format: Literal["json", "console"], *, color: bool = False, stream: TextIO | None = None  # noqa: A002  # the setting's name
) -> None:  # fmt: skip
    """Log from `level` on (`debug`, `info`, `warning`, `error`) to `stream`, stderr by default."""
    target = sys.stderr if stream is None else stream
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        masked,
    ]
    rendered: list[Processor] = (
        [structlog.processors.format_exc_info, _json]
        if format == "json"
        # The default would show the values of local variables, passwords among them.
        else [structlog.dev.ConsoleRenderer(colors=color, exception_formatter=structlog.dev.plain_traceback)]
    )
    structlog.configure(
        processors=[*common, *rendered],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(target),
        cache_logger_on_first_use=False,
    )
    _route_standard_logging(target, level, common, rendered)


_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def masked(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Hide the values of fields that are named like a secret; a net, not a licence to log them."""
    for name in event:
        if _SECRET.search(name):
            event[name] = MASK
    return event


def _json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    try:
        return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:
        # Half of a surrogate pair, or an integer of more than 64 bits: slower, but never lost.
        return json.dumps(event, default=repr)


class Seldom(logging.Filter):
    """The Kafka client says the same thing every 100 ms for each of its connections while a broker is away.

    Each of its messages passes once in `SELDOM_S`, with how often it was said since.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, str], float] = {}
        self._held: Counter[tuple[str, str]] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to let a record through."""
        if not record.name.startswith("aiokafka") or record.levelno < logging.WARNING:
            return True
        said = (record.name, str(record.msg))
        if record.created - self._last.get(said, -SELDOM_S) < SELDOM_S:
            self._held[said] += 1
            return False
        self._last[said] = record.created
        held = self._held.pop(said, 0)
        if held:
            record.msg, record.args = f"{record.getMessage()} ({held} more like it)", None
        return True


def _route_standard_logging(target: TextIO, level: str, common: list[Processor], rendered: list[Processor]) -> None:
    """Libraries speak at warning unless we debug: their info is about themselves."""
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*common, structlog.stdlib.add_logger_name],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(formatter)
    handler.addFilter(Seldom())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Its debug lines hold the requests of SASL, passwords included.
    logging.getLogger("aiokafka.conn").setLevel(logging.INFO)
    root.setLevel(logging.DEBUG if level == "debug" else max(_LEVELS[level], logging.WARNING))

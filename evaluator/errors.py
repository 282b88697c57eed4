"""Errors that a caller can act on.

Bad input data is never an exception (it is a `Rejection` value). An exception here means that the world
is broken: the configuration, the state or the log. Each class composes its own message, which says what,
where and what to do, and knows the process exit code that the command line answers with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence


class EvaluatorError(Exception):
    """Base of every error that ends in one clear line instead of a traceback."""

    exit_code: ClassVar[int] = 5


class ConfigError(EvaluatorError):
    """The rules or settings cannot be used. One message may hold several findings, a line each."""

    exit_code = 1


class UsageError(EvaluatorError):
    """The command was called with arguments that do not fit together."""

    exit_code = 2


class StateRefused(EvaluatorError):
    """Stored state cannot be continued safely; nothing was emitted from it."""

    exit_code = 78


class SchemaRefused(StateRefused):
    """A stored record has a schema that this release does not know: a later one, or one from too long ago."""

    def __init__(self, what: str, found: int, readable: tuple[int, ...]) -> None:
        self.what, self.found, self.readable = what, found, readable
        way_out = (
            "run the release that wrote it, or a later one; to go back to this one, run that one with "
            "state.finalize: false first"
            if found > readable[-1]
            else "run each release in between with state.finalize: true, one after the other"
        )
        super().__init__(
            f"{what}: stored with schema {found}, this release reads schema {' and '.join(map(str, readable))}; "
            f"{way_out}, or start afresh under a new app_id"
        )


class StateGap(StateRefused):
    """A partial is missing between two that arrived. Nothing may be decided past it."""

    def __init__(self, source: str, partition: int, expected: int | None, found: int | None) -> None:
        self.source, self.partition, self.expected, self.found = source, partition, expected, found
        super().__init__(
            f"source {source} partition {partition}: the next partial must follow offset {expected}, "
            f"but it follows {found}; a partial was lost or repeated, so this shard decides nothing more. "
            f"Compare the internal topics with a backup, or start afresh under a new app_id"
        )


class SchemasMissing(EvaluatorError):
    """Records name schemas that are not known yet. Nothing of them was decided: learn these, then read them again."""

    exit_code = 4

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = ids
        few = ", ".join(map(str, ids[:5])) + (", ..." if len(ids) > 5 else "")  # noqa: PLR2004  # enough to see which
        super().__init__(f"records name schemas that nobody has asked for yet: {few}")


class SchemasUnavailable(EvaluatorError):
    """A schema registry cannot be asked for a schema that a record needs. Nothing of the record was decided.

    `schema` is its id and `offset` the place of the first record that names it, where they are known.
    """

    exit_code = 4

    def __init__(self, url: str, why: str, schema: int | None = None, offset: int | None = None) -> None:
        self.url, self.why, self.schema, self.offset = url, why, schema, offset
        super().__init__(f"cannot read {url}: {why}; check the registry, its address and its password")


class Superseded(EvaluatorError):
    """A newer revision of the rules has been here. A task that meets it rests; the process goes on."""

    exit_code = 78


class Watchdog(EvaluatorError):
    """Something in this process does not move any more, and only a fresh start helps."""

    exit_code = 70

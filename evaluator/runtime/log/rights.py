"""What a user may do with what, in Kafka's words: the rows of an access control list."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Resource(StrEnum):
    """What a right is about."""

    TOPIC = "topic"
    GROUP = "group"
    TRANSACTIONAL_ID = "transactional id"


class Operation(StrEnum):
    """What may be done. Who may read, write, delete or alter something may see it, too."""

    READ = "read"
    WRITE = "write"
    CREATE = "create"
    DELETE = "delete"
    ALTER = "alter"
    DESCRIBE_CONFIGS = "describe configs"


class Right(NamedTuple):
    """One row: who has it may do `operation` with the resource of this name, or with all whose names begin so.

    `why` is what follows where it is missing. `names` are those among a prefix's that will be used for certain.
    """

    resource: Resource
    name: str
    operation: Operation
    why: str
    is_prefix: bool = False
    is_needed: bool = True
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        """`write topic slo.alerts`, `read topic app.progress.*`."""
        return f"{self.operation} {self.resource} {self.name}{'*' if self.is_prefix else ''}"

    @property
    def used(self) -> tuple[str, ...]:
        """The names of the resources that are used by it."""
        return self.names if self.is_prefix else (self.name,)

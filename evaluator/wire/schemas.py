"""Schemas by id, as far as they are known: what decoding is a function of, beside the records.

Nobody is asked here. What a record names and is not known yet is told, so that it can be learned before the record is
read. A schema never changes under its id: what is known stays known, and all who read a source share it. But what was
not there a while ago may be there now: it has to be learned again. What is read meanwhile still finds nothing under it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from evaluator.errors import SchemasMissing
from evaluator.wire.rejection import Fault, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Paths = tuple[tuple[str, ...], ...]
"""Paths into a JSON value, each split at its dots."""

Decode = Callable[[bytes], object]
"""From a payload to the JSON value that it holds, or the fault that it holds none."""

Schema = Callable[[Paths], Decode]
"""How payloads are decoded for somebody who asks for these paths. Of the JSON value, anything else may be left out."""

MOST_MEMORY = 512 << 20
"""Bytes that the values of one payload may take, at worst. An ordinary payload is ten to a hundred times its size in
memory, so less would refuse records of 4 MiB, the default for the largest; more, and a process of a gigabyte dies."""

MOST_ID = (1 << 31) - 1
"""Registries count in an `int` of Java: of a larger id they say that it is none, and not that there is no schema."""

AGAIN_S = 60.0
"""What was absent for so long is asked for again. More, and a schema that is registered behind its first record costs
its records for longer; less, and ids that are garbage are asked for ever."""

FEW_ABSENT = 50
"""So many ids of a fetch are asked for again within `AGAIN_S`; where more are absent, each is for as much longer. So a
fetch of nothing but garbage ends where a registry answers once a second."""

MOST_ABSENT = 100_000
"""Ids of which it is known that there is nothing under them. More are no ids but garbage, and the oldest are asked for
again. With fewer than the records of a fetch, one of nothing but garbage would never end."""


def _timeless() -> float:
    return 0.0


class Schemas:
    """What is under an id. `is_complete`: what is not here does not exist.

    What is absent stays so, until somebody says by which clock (in seconds) it is not for ever.
    """

    def __init__(self, known: Mapping[int, Schema] | None = None, *, is_complete: bool = False) -> None:
        self.is_complete = is_complete
        self.clock: Callable[[], float] = _timeless
        self._known: dict[int, Schema] = dict(known or {})
        self._absent: dict[int, tuple[Fault, float]] = {}

    def missing(self, named: Iterable[int]) -> list[int]:
        """Which of these ids have to be learned, ascending."""
        if self.is_complete:
            return []
        unknown = set(named) - self._known.keys()
        if not unknown:
            return []
        long_ago = self.clock() - AGAIN_S * max(1.0, len(unknown) / FEW_ABSENT)
        return sorted(each for each in unknown if each not in self._absent or self._absent[each][1] <= long_ago)

    def learn(self, schema: int, found: Schema | Fault) -> None:
        """What is under an id; a fault: nothing that can be used for now, and why."""
        self._absent.pop(schema, None)
        if not isinstance(found, Fault):
            self._known[schema] = found
            return
        self._absent[schema] = (found, self.clock())
        if len(self._absent) > MOST_ABSENT:
            del self._absent[next(iter(self._absent))]

    def find(self, schema: int) -> Schema | Fault:
        """What is under an id; a fault: nothing. Raises `SchemasMissing` where nobody knows."""
        found = self._known.get(schema)
        if found is not None:
            return found
        if schema in self._absent:
            return self._absent[schema][0]
        if self.is_complete:
            return none_under(schema)
        raise SchemasMissing([schema])


def none_under(schema: int) -> Fault:
    """Why a record cannot be read that names this id."""
    return Fault(Reason.UNSUPPORTED, f"there is no schema {schema}")

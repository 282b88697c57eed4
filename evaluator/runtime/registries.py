"""What records name is asked for beside the loop, and then known to the decoders.

    a fetch names schemas that are not known -> its partition is held -> asked for in a thread, within a deadline
    -> known -> the partition is read on, from the same offset

A registry that cannot be asked is no fault of a record. That there is no such schema is known for a while only.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from evaluator.errors import SchemasUnavailable
from evaluator.wire import formats
from evaluator.wire.config.model import RegistryConfig
from evaluator.wire.decode import schemas_missing
from evaluator.wire.records import Records

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from evaluator.runtime.clock import Clock
    from evaluator.runtime.inquiry import Inquiry
    from evaluator.wire.config.model import SourceConfig
    from evaluator.wire.records import Record
    from evaluator.wire.rejection import Fault
    from evaluator.wire.schemas import Schema

Learn = Callable[[], Awaitable[None]]

DEADLINE_S = 10.0
"""For all that is asked for at once, however slowly it drips. What came until then is known."""

MOST_IDS = 64
"""Asked for at once. More, and a partition of garbage keeps others waiting; fewer, and it takes more turns."""


class Registries:
    """Makes schemas known to the decoders of these sources. Each registry is asked by one at a time.

    So what all partitions of a source wait for is asked for once. What is absent is so for a while of this clock.
    """

    def __init__(
        self, sources: Mapping[str, SourceConfig], clock: Clock, deadline_s: float = DEADLINE_S,
        inquire: Callable[[RegistryConfig], Inquiry] | None = None,
    ) -> None:  # fmt: skip
        self._sources, self._deadline_s = sources, deadline_s
        self._inquire = _inquiry if inquire is None else inquire
        self._turns: defaultdict[RegistryConfig, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._conversations: dict[RegistryConfig, asyncio.Future[None]] = {}
        for source in sources.values():
            if isinstance(source.schemas, RegistryConfig):
                source.schemas.known.clock = clock.monotonic

    def lesson(self, source: str, ids: Sequence[int], records: Sequence[Record]) -> Learn:
        """What asks for the first of these schemas, which these records name; again each time that it is called.

        It raises `SchemasUnavailable` where not one of them can be had, and says which record needs the schema.
        """
        offsets = _first_naming(self._sources[source], set(ids), Records.of(records))

        async def learn() -> None:
            try:
                await self.learn(source, ids)
            except SchemasUnavailable as error:
                offset = None if error.schema is None else offsets.get(error.schema)
                raise SchemasUnavailable(error.url, error.why, error.schema, offset) from None

        return learn

    async def learn(self, source: str, ids: Sequence[int]) -> None:
        """Ask for the first of these schemas. Raises `SchemasUnavailable` where not one of them can be had."""
        registry = self._sources[source].schemas
        if not isinstance(registry, RegistryConfig):
            return
        async with self._turns[registry]:
            missing = registry.known.missing(ids)[:MOST_IDS]
            if missing:
                await self._ask(registry, missing)

    async def _ask(self, registry: RegistryConfig, missing: Sequence[int]) -> None:
        await self._end_of_the_last(registry, missing[0])
        inquiry = self._inquire(registry)
        work = self._conversations[registry] = asyncio.ensure_future(asyncio.to_thread(inquiry.run, missing))
        # What fails after the deadline was told already.
        work.add_done_callback(lambda done: None if done.cancelled() else done.exception())
        try:
            await asyncio.wait({work}, timeout=self._deadline_s)
        finally:
            inquiry.end()
        found = inquiry.found.copy()
        _learn(registry, found)
        if not work.done():
            if not found:
                raise SchemasUnavailable(registry.url, f"no answer within {self._deadline_s:g} s", missing[0])
            return
        error = work.exception()
        if error is not None and not (found and isinstance(error, SchemasUnavailable)):
            raise error

    async def _end_of_the_last(self, registry: RegistryConfig, schema: int) -> None:
        """Who looks up a name or shakes hands cannot be told to end: no second thread waits beside it."""
        last = self._conversations.get(registry)
        if last is not None and not last.done():
            await asyncio.wait({last}, timeout=self._deadline_s)
            if not last.done():
                raise SchemasUnavailable(registry.url, "the conversation before this one has not ended yet", schema)


def learn_named(source: SourceConfig, values: Iterable[bytes | None]) -> None:
    """Ask for every schema that these values name, and wait: for a command that does nothing else meanwhile.

    Raises `SchemasUnavailable`.
    """
    registry = source.schemas
    if not isinstance(registry, RegistryConfig):
        return
    missing = schemas_missing(source, values)
    if not missing:
        return
    inquiry = _inquiry(registry)
    try:
        inquiry.run(missing)
    finally:
        _learn(registry, inquiry.found)


def _learn(registry: RegistryConfig, found: Mapping[int, Schema | Fault]) -> None:
    for schema, what in found.items():
        registry.known.learn(schema, what)


def _first_naming(source: SourceConfig, ids: Collection[int], records: Records) -> dict[int, int]:
    """For each of these ids the offset of the first record that names it."""
    schema_of = formats.get(source.format).schema_of
    offsets: dict[int, int] = {}
    for offset, value in zip(records.offsets.tolist(), records.values, strict=True):
        named = None if schema_of is None or value is None else schema_of(value)
        if named is not None and named in ids:
            offsets.setdefault(named, offset)
    return offsets


def _inquiry(registry: RegistryConfig) -> Inquiry:
    # Its http.client takes a while to import, and few sources have a registry.
    from evaluator.runtime import inquiry  # noqa: PLC0415  # see above

    return inquiry.Inquiry(registry)

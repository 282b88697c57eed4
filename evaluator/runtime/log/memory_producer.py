"""A transactional producer of the in-memory log: what the client itself knows, and the calls to the cluster."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from evaluator.runtime.log.port import OutcomeUnknown, RecordTooLarge, SendFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from evaluator.runtime.log.memory_cluster import Cluster, Ownership
    from evaluator.runtime.log.port import Outgoing
    from evaluator.runtime.log.steps import Steps


class MemoryProducer:
    """See `port.Producer`.

    A send is in the log at once. A record that is refused fails its awaitable only: as with a real client
    the commit would succeed without it, so every awaitable must be awaited. After a failed send the next ones
    fail too, also those of the next transaction, until the epoch is raised (sequence numbers have a gap).

    An end that is still on its way when its answer is given up uses the epoch that the client has when it
    arrives, as a real client's repetition does; `revive` replaces the client, and with it what it had under way.
    """

    def __init__(self, cluster: Cluster, steps: Steps, transactional_id: str) -> None:
        self._cluster, self._steps, self._id = cluster, steps, transactional_id
        self._own: Ownership | None = None
        self._begun = False
        self._wrote = False
        self._stopped = False
        self._has_gap = False
        self._client = object()

    async def start(self) -> None:
        """Take over the transactional id."""
        self._check_running()
        own = await self._steps.around("producer.start", lambda: self._cluster.start(self._id), self._id)
        self._own, self._begun, self._has_gap = own, False, False

    async def bump(self) -> None:
        """Raise the own epoch; an open transaction of ours is aborted."""
        own = self._started()
        own = await self._steps.around("producer.bump", lambda: self._cluster.bump(self._id, own), self._id)
        # Only now: who never sees the answer does not know its epoch either.
        self._own, self._begun, self._has_gap = own, False, False

    async def revive(self) -> None:
        """Replace the client, then bump: what the old one still sends has an old epoch."""
        self._client = object()
        await self.bump()

    def begin(self) -> None:
        """Begin a transaction."""
        self._started()
        if self._begun:
            message = f"{self._id} has begun a transaction already; commit, abort or bump first"
            raise RuntimeError(message)
        self._begun, self._wrote = True, False

    async def send(self, record: Outgoing) -> Awaitable[int]:
        """Write a record; the awaitable is done already."""
        own = self._in_transaction()
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        refusal = self._cluster.refusal(record)
        if refusal is not None:
            answer.set_exception(refusal)
            return answer
        try:
            await self._steps.at("producer.send:before")
            self._check_sequence()
            partition, offset, at = self._cluster.write(self._id, own, record)
            self._wrote = True
            self._steps.note("producer.send", self._id, f"{partition.topic}-{partition.index}@{offset}")
            await self._steps.at("producer.send:after")
        except (SendFailed, OutcomeUnknown, RecordTooLarge) as error:
            self._has_gap = True
            answer.set_exception(error)
            answer.exception()  # said once; asyncio need not say it again where nobody awaits it
        else:
            answer.set_result(at)
        return answer

    def _check_sequence(self) -> None:
        if self._has_gap:
            message = f"{self._id}: the broker expects another sequence number"
            raise SendFailed(message)

    async def commit(self) -> None:
        """Commit; without an accepted record nothing happens."""
        await self._end("producer.commit", commit=True)

    async def abort(self) -> None:
        """Abort; without an accepted record nothing happens."""
        await self._end("producer.abort", commit=False)

    async def stop(self) -> None:
        """Forget everything; the cluster keeps what is open."""
        self._stopped = True

    async def _end(self, name: str, *, commit: bool) -> None:
        own, wrote, client = self._in_transaction(), self._wrote, self._client

        def end() -> None:
            epoch = self._own if self._client is client and self._own is not None else own
            self._cluster.end(self._id, epoch, commit=commit, wrote=wrote)

        await self._steps.around(name, end, self._id)
        self._begun = False

    def _check_running(self) -> None:
        if self._stopped:
            message = f"the producer of {self._id} was stopped"
            raise RuntimeError(message)

    def _started(self) -> Ownership:
        self._check_running()
        if self._own is None:
            message = f"the producer of {self._id} was not started"
            raise RuntimeError(message)
        return self._own

    def _in_transaction(self) -> Ownership:
        own = self._started()
        if not self._begun:
            message = f"{self._id} has no transaction; begin one first"
            raise RuntimeError(message)
        return own

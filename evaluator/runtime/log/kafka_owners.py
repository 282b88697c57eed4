"""Who reads which partition in a consumer group, as its coordinator says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiokafka import errors
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment

from evaluator.runtime.log.kafka_assignor import note_of
from evaluator.runtime.log.port import Owner, Partition

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiokafka.admin import AIOKafkaAdminClient


async def owners(admin: AIOKafkaAdminClient, group: str) -> dict[Partition, Owner]:
    """See `port.Log.owners`. Two requests: for the coordinator, and to it."""
    (answer,) = await admin.describe_consumer_groups([group])
    return dict(_shares(answer))


def _shares(answer: Any) -> Iterator[tuple[Partition, Owner]]:  # noqa: ANN401  # aiokafka's own, untyped
    for code, _name, _state, _type, protocol, members, *_rights in answer.groups:
        if code:
            raise errors.for_code(code)
        for member_id, client, host, metadata, assignment, *_static in members:
            if not assignment:
                continue  # a rebalance is under way: nobody owns anything
            owner = Owner(member_id, client, host.lstrip("/"), note_of(protocol, bytes(metadata)))
            for place in ConsumerProtocolMemberAssignment.decode(bytes(assignment)).partitions():
                yield Partition(*place), owner

"""Asking the brokers what we may do, without doing it.

aiokafka speaks a version of Metadata that tells only whether a topic may be seen. Version 8 (Kafka 2.3) tells every
operation that we may do with it. About groups and transactional ids the search for their coordinator tells: who has
no right at all is refused there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.types import Array, Boolean, Int16, Int32, Schema, String

from evaluator.runtime.log.rights import Operation, Resource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiokafka.admin import AIOKafkaAdminClient

    from evaluator.runtime.log.rights import Right

CODES = {
    Operation.READ: 3,
    Operation.WRITE: 4,
    Operation.CREATE: 5,
    Operation.DELETE: 6,
    Operation.ALTER: 7,
    Operation.DESCRIBE_CONFIGS: 10,
}
"""Kafka's numbers; the answer has a bit for each."""

_COORDINATORS = {Resource.GROUP: 0, Resource.TRANSACTIONAL_ID: 1}
_REFUSED = frozenset({30, 53})
_TOPIC_REFUSED = 29
_UNTOLD = -(1 << 31)
_NODE = Schema(("node_id", Int32), ("host", String("utf-8")), ("port", Int32), ("rack", String("utf-8")))


class _MetadataResponse(Response):
    API_KEY = 3
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", Array(_NODE)),
        ("cluster_id", String("utf-8")),
        ("controller_id", Int32),
        ("topics", Array(
            ("error_code", Int16), ("topic", String("utf-8")), ("is_internal", Boolean),
            ("partitions", Array(
                ("error_code", Int16), ("partition", Int32), ("leader", Int32), ("leader_epoch", Int32),
                ("replicas", Array(Int32)), ("isr", Array(Int32)), ("offline_replicas", Array(Int32)),
            )),
            ("authorized_operations", Int32),
        )),
        ("cluster_authorized_operations", Int32),
    )  # fmt: skip


class _MetadataRequest(RequestStruct):
    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        ("topics", Array(String("utf-8"))), ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean), ("include_topic_authorized_operations", Boolean),
    )  # fmt: skip


class _Metadata(Request[_MetadataRequest]):
    API_KEY = 3

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = list(topics)

    def build(self, request_struct_class: type[_MetadataRequest]) -> _MetadataRequest:
        """The request of the version that was agreed upon, which is always 8."""
        return request_struct_class(self._topics, False, False, True)  # noqa: FBT003  # fields of the protocol


async def lacking(admin: AIOKafkaAdminClient, rights: Sequence[Right]) -> list[Right]:
    """Those of the rights that we do not have. A broker that does not tell counts as one that lets us."""
    topics = sorted({name for right in rights if right.resource is Resource.TOPIC for name in right.used})
    masks = await _masks(admin, topics)
    found = []
    for right in rights:
        if right.resource is Resource.TOPIC:
            has = all(masks[name] >> CODES[right.operation] & 1 for name in right.used)
        else:
            has = all([await _may_find(admin, right.resource, name) for name in right.used])
        if not has:
            found.append(right)
    return found


async def _masks(admin: AIOKafkaAdminClient, topics: Sequence[str]) -> dict[str, int]:
    """By topic: the operations that are ours, a bit each."""
    everything = -1
    masks = dict.fromkeys(topics, everything)
    if topics:
        answer: Any = await admin._send_request(_Metadata(topics))
        for code, name, _, _, operations in answer.topics:
            if code == _TOPIC_REFUSED:
                masks[name] = 0
            elif operations != _UNTOLD:
                masks[name] = operations
    return masks


async def _may_find(admin: AIOKafkaAdminClient, resource: Resource, name: str) -> bool:
    answer: Any = await admin._send_request(FindCoordinatorRequest(name, _COORDINATORS[resource]))
    return answer.error_code not in _REFUSED

"""Sticky assignment for aiokafka's group members.

aiokafka's own sticky assignor keeps what it remembers on the class, so that the two groups of one process mix theirs
up. Round-robin shares out anew each time: over joins and leaves of 1 to 8 replicas it moves about three times as many
partitions as have to move, and each of them is restored from its compacted topic.

Every member sends with its join what it was assigned last and in which round; the leader of the group shares out from
that. A member that was away (frozen, cut off) claims what others have been given since: the later round wins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

from evaluator.runtime.log.port import Partition
from evaluator.runtime.log.share_out import share_out

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    class Topics(Protocol):
        """What is asked of aiokafka's cluster metadata."""

        def partitions_for_topic(self, topic: str) -> Collection[int] | None:
            """The indexes of a topic's partitions; None where it is unknown."""


VERSION = 0
"""Of Kafka's consumer protocol."""


class Claim(msgspec.Struct, frozen=True):
    """What a member tells the leader. `round`: how many assignments the group had made when it got this one.

    `note` is for whoever looks at the group.
    """

    round: int = 0
    held: list[tuple[str, list[int]]] = []
    note: str = ""

    def partitions(self) -> list[Partition]:
        """The same, one by one."""
        return [Partition(topic, index) for topic, indexes in self.held for index in indexes]


_ENCODER, _CLAIMS = msgspec.json.Encoder(), msgspec.json.Decoder(Claim)


def claim_of(user_data: bytes | None) -> Claim:
    """What a member sent, or the leader with a share; nothing where it is not ours to read.

    It costs moves at most, so nobody may fail over it.
    """
    try:
        return _CLAIMS.decode(user_data or b"")
    except msgspec.DecodeError:
        return Claim()


class StickyAssignor:
    """Stands in for aiokafka's assignor classes, an instance for each consumer."""

    name = "evaluator-sticky"

    def __init__(self, note: str = "") -> None:
        self._last = Claim(note=note)

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """What this member joins with."""
        return ConsumerProtocolMemberMetadata(VERSION, sorted(topics), _ENCODER.encode(self._last))

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """What this member was given."""
        self._last = Claim(claim_of(assignment.user_data).round, list(assignment.assignment), self._last.note)

    @staticmethod
    def assign(
        cluster: Topics, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """As the group's leader: everybody's share. A topic that is unknown is nobody's for now."""
        claims = {name: claim_of(member.user_data) for name, member in members.items()}
        owners: dict[Partition, str] = {}
        for name in sorted(claims, key=lambda name: (claims[name].round, name)):
            owners.update(dict.fromkeys(claims[name].partitions(), name))
        had: dict[str, list[Partition]] = {name: [] for name in sorted(members)}
        for partition, name in owners.items():
            had[name].append(partition)
        topics = sorted({topic for member in members.values() for topic in member.subscription})
        partitions = [
            Partition(topic, index) for topic in topics for index in sorted(cluster.partitions_for_topic(topic) or ())
        ]
        shares = share_out(partitions, {name: (members[name].subscription, held) for name, held in had.items()})
        number = _ENCODER.encode(Claim(1 + max(claim.round for claim in claims.values())))
        return {
            name: ConsumerProtocolMemberAssignment(VERSION, _by_topic(share), number) for name, share in shares.items()
        }


def note_of(protocol: str, metadata: bytes) -> str:
    """What a member of a group gave as its note; "" where its assignor is another one."""
    if protocol != StickyAssignor.name or not metadata:
        return ""
    return claim_of(ConsumerProtocolMemberMetadata.decode(metadata).user_data).note


def _by_topic(share: Iterable[Partition]) -> list[tuple[str, list[int]]]:
    by_topic: dict[str, list[int]] = {}
    for partition in share:
        by_topic.setdefault(partition.topic, []).append(partition.index)
    return list(by_topic.items())

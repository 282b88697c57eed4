"""A consumer group: who reads which partition, in which generation.

The eager protocol, as Kafka's coordinator runs it:

    stable --join, leave, expiry, new partitions--> rebalancing --every member has rejoined--> stable, generation + 1

Each member gives everything up and rejoins from within its own poll; nobody gets anything before the last
one has, or has been silent for the session time-out. So two live members never own the same partition,
and a dead or frozen one may believe whatever it likes: its commits are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from evaluator.runtime.log.port import Owner, Partition
from evaluator.runtime.log.share_out import share_out

if TYPE_CHECKING:
    from collections.abc import Collection

    from evaluator.runtime.clock import Clock


class Topics(Protocol):
    """What a group needs of the cluster."""

    @property
    def clock(self) -> Clock:
        """The cluster's clock."""

    def partitions(self, topic: str) -> list[Partition]:
        """The partitions of a topic."""

    def changed(self, topics: Collection[str]) -> None:
        """Wake whoever waits for news of these topics."""


@dataclass(slots=True, eq=False)
class Member:
    """What the coordinator knows of a member. `seen`: when it last polled; `waiting`: it is inside a poll."""

    topics: frozenset[str]
    process: str = "evaluator"
    note: str = ""
    seen: float = 0.0
    waiting: bool = False
    rejoined: bool = False
    generation: int = -1
    assignment: tuple[Partition, ...] = ()


class Group:
    """The coordinator of one group."""

    def __init__(self, cluster: Topics, session_timeout_s: float) -> None:
        self.generation = 0
        self.offsets: dict[Partition, int] = {}
        self._cluster = cluster
        self._session_timeout_s = session_timeout_s
        self._members: list[Member] = []
        self._stable = False

    def topics(self) -> frozenset[str]:
        """What the members read."""
        return frozenset[str]().union(*(member.topics for member in self._members))

    def knows(self, member: Member) -> bool:
        """Whether the member is still one."""
        return member in self._members

    def must_rejoin(self, member: Member) -> bool:
        """Whether the member has to give up its partitions and `rejoin`."""
        return member not in self._members or not (self._stable or member.rejoined)

    @property
    def is_stable(self) -> bool:
        """Whether no rebalance is under way: until it is over, the shares are those of the one before."""
        return self._stable

    def owners(self) -> dict[Partition, Owner]:
        """Who reads what; nobody anything while a rebalance is under way."""
        members = self._members if self._stable else ()
        return {
            partition: Owner(f"{member.process}-{number}", member.process, "127.0.0.1", member.note)
            for number, member in enumerate(members)
            for partition in member.assignment
        }

    def join(self, member: Member) -> None:
        """A new member; the others will have to rejoin."""
        self._members.append(member)
        member.seen = self._cluster.clock.monotonic()
        self.rebalance()

    def rejoin(self, member: Member) -> None:
        """The member holds nothing any more and waits for its share. One that was removed joins anew."""
        if member not in self._members:
            self.join(member)
        member.rejoined = True
        self._complete()

    def leave(self, member: Member) -> None:
        """Remove a member; the others share what it had."""
        if member in self._members:
            self._members.remove(member)
            self.rebalance()
            self._complete()

    def expire(self, asking: Member) -> None:
        """Remove who has not polled for the session time-out. Who asks is alive."""
        silent_since = self._cluster.clock.monotonic() - self._session_timeout_s
        for member in list(self._members):
            if member is not asking and not member.waiting and member.seen <= silent_since:
                self.leave(member)

    def rebalance(self) -> None:
        """Everybody has to rejoin; who already has in a rebalance under way need not again."""
        if self._stable:
            self._stable = False
            for member in self._members:
                member.rejoined = False
        self._cluster.changed(self.topics())

    def _complete(self) -> None:
        if self._stable or not self._members or not all(member.rejoined for member in self._members):
            return
        partitions = [partition for topic in sorted(self.topics()) for partition in self._cluster.partitions(topic)]
        shares = share_out(partitions, {member: (member.topics, member.assignment) for member in self._members})
        self.generation += 1
        self._stable = True
        for member, share in shares.items():
            member.assignment, member.generation = tuple(share), self.generation
        self._cluster.changed(self.topics())

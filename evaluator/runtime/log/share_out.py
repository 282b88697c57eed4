"""Who reads which partition: even shares, and as few moves as an even share allows."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from evaluator.runtime.log.port import Partition

M = TypeVar("M")


def share_out(
    partitions: Sequence[Partition], members: Mapping[M, tuple[Collection[str], Collection[Partition]]]
) -> dict[M, list[Partition]]:
    """Share out `partitions` evenly; `members` maps each to its topics and what it had before, no two the same.

    A member keeps what it had as far as that is even, so that a join or leave moves only what has to move: every
    partition that moves has to be restored by its new owner. Deterministic: ties go to who comes first in `members`.
    """
    floor, spare = divmod(len(partitions), len(members))
    wanted = set(partitions)
    shares: dict[M, list[Partition]] = {}
    for member, (topics, previous) in members.items():
        kept = [partition for partition in previous if partition in wanted and partition.topic in topics]
        allowed = floor + 1 if spare > 0 else floor
        shares[member] = kept[:allowed]
        spare -= len(shares[member]) > floor
        wanted.difference_update(shares[member])
    for partition in partitions:
        readers = [member for member, (topics, _) in members.items() if partition.topic in topics]
        if partition in wanted and readers:
            shares[min(readers, key=lambda member: len(shares[member]))].append(partition)
    return {member: sorted(share) for member, share in shares.items()}

"""Shares of a group: even, with few moves; and the same through what aiokafka's members send each other."""

from __future__ import annotations

import pytest
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from hypothesis import given
from hypothesis import strategies as st

from evaluator.runtime.log.kafka_assignor import Claim, StickyAssignor, claim_of, note_of
from evaluator.runtime.log.port import Partition
from evaluator.runtime.log.share_out import share_out


@pytest.mark.parametrize(
    ("partitions", "before", "after"),
    [
        pytest.param(4, ["", ""], ["02", "13"], id="a_first_assignment_goes_round"),
        pytest.param(4, ["0123", ""], ["01", "23"], id="a_join_moves_half"),
        pytest.param(4, ["01", "23", ""], ["01", "2", "3"], id="a_third_takes_one"),
        pytest.param(7, ["012", "345", ""], ["012", "34", "56"], id="only_one_may_have_the_odd_one"),
        pytest.param(6, ["05", "1"], ["035", "124"], id="a_leave_moves_only_what_was_left"),
        pytest.param(1, ["", "0"], ["", "0"], id="an_idle_member_does_not_rob_the_owner"),
        pytest.param(0, ["", ""], ["", ""], id="no_partition"),
    ],
)
def test_an_assignment_is_even_and_moves_little(partitions: int, before: list[str], after: list[str]) -> None:
    members = {name: ({"t"}, [Partition("t", int(index)) for index in had]) for name, had in enumerate(before)}
    shared = share_out([Partition("t", index) for index in range(partitions)], members)
    assert sorted(map(len, shared.values())) == sorted(map(len, after))
    assert ["".join(str(one.index) for one in share) for share in shared.values()] == after


class Cluster:
    """Topics with their numbers of partitions."""

    def __init__(self, **topics: int) -> None:
        self.topics = topics

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        """As aiokafka's metadata."""
        return set(range(self.topics[topic])) if topic in self.topics else None


def rebalanced(cluster: Cluster, members: dict[str, StickyAssignor]) -> dict[str, set[Partition]]:
    """One round of the group, through the bytes that travel."""
    joined = {
        name: ConsumerProtocolMemberMetadata.decode(one.metadata(["b", "a"]).encode()) for name, one in members.items()
    }
    shares = {}
    for name, assignment in StickyAssignor.assign(cluster, joined).items():
        received = ConsumerProtocolMemberAssignment.decode(assignment.encode())
        members[name].on_assignment(received)
        shares[name] = {Partition(*place) for place in received.partitions()}
    return shares


def moved(before: dict[str, set[Partition]], after: dict[str, set[Partition]]) -> int:
    """How many partitions somebody has who had them not."""
    return sum(len(share - before.get(name, set())) for name, share in after.items())


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 7)), max_size=20), st.integers(1, 9), st.integers(0, 9))
def test_joins_and_leaves_move_what_has_to_move_and_nothing_else(
    changes: list[tuple[bool, int]], a: int, b: int
) -> None:
    cluster, members = Cluster(a=a, b=b), {"m": StickyAssignor()}
    shares = rebalanced(cluster, members)
    for number, (is_join, which) in enumerate(changes):
        if is_join:
            members[f"{which}-{number}"] = StickyAssignor()
            needed = (a + b) // len(members)
        elif len(members) > 1:
            needed = len(shares[gone := sorted(members)[which % len(members)]])
            del members[gone], shares[gone]
        else:
            needed = 0
        before, shares = shares, rebalanced(cluster, members)
        assert sum(map(len, shares.values())) == len(set().union(*shares.values())) == a + b
        assert max(map(len, shares.values())) - min(map(len, shares.values())) <= 1
        assert moved(before, shares) == needed


@pytest.mark.parametrize("away", ["1", "2", "3"])
def test_who_was_away_does_not_take_back_what_others_have_been_given(away: str) -> None:
    cluster, members = Cluster(a=6), {name: StickyAssignor() for name in "123"}
    rebalanced(cluster, members)
    # Twice, so that they give each other what they had: else what it claims is what it would be given anyway.
    others = {name: one for name, one in members.items() if name != away}
    alone = min(others)
    rebalanced(cluster, {alone: others[alone]})
    before = rebalanced(cluster, others)
    after = rebalanced(cluster, members)
    assert moved(before, after) == len(after[away]) == 2


@pytest.mark.parametrize("sent", [b"", None, b"{", b'{"round": "x"}', b"[]"])
def test_what_a_member_sends_that_is_not_ours_to_read_is_nothing(sent: bytes | None) -> None:
    assert claim_of(sent) == Claim()
    stranger = ConsumerProtocolMemberMetadata(0, ["a"], sent)
    shares = StickyAssignor.assign(Cluster(a=4), {"1": stranger, "2": StickyAssignor().metadata(["a"])})
    assert [len(share.partitions()) for share in shares.values()] == [2, 2]
    assert note_of(StickyAssignor.name, stranger.encode()) == note_of("range", b"?") == ""
    one = StickyAssignor("ours")
    one.on_assignment(ConsumerProtocolMemberAssignment(0, [("a", [1])], sent))
    assert claim_of(one.metadata(["a"]).user_data) == Claim(0, [("a", [1])], "ours")


def test_added_partitions_are_shared_out_and_nothing_else_moves() -> None:
    cluster, members = Cluster(a=4), {"1": StickyAssignor(), "2": StickyAssignor()}
    before = rebalanced(cluster, members)
    cluster.topics["b"] = 3
    after = rebalanced(cluster, members)
    assert moved(before, after) == 3
    assert sorted(map(len, after.values())) == [3, 4]


def test_a_topic_that_is_not_known_yet_is_nobodys() -> None:
    assert rebalanced(Cluster(), {"1": StickyAssignor()}) == {"1": set()}

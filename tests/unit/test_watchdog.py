"""What does not move any more ends the process; what is slow or away does not."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pytest

from evaluator.errors import Watchdog
from evaluator.runtime.clock import VirtualClock, run_virtual
from evaluator.runtime.log.port import KafkaUnreachable, Partition
from evaluator.runtime.watchdog import GIVE_UP_S, LOOK_EVERY_S, NOT_READY_S, STUCK_S, Watch

if TYPE_CHECKING:
    from evaluator.runtime.crew import Crew
    from evaluator.runtime.log.port import Log

PLACE, OTHER = Partition("events", 3), Partition("events", 4)


@dataclass
class Reader:
    """A task and its stage in one, as far as they are looked at."""

    next_offset: int
    input: Partition = PLACE
    committing_since: float | None = None
    where: str = "events/3"

    own: Partition = PLACE

    @property
    def stage(self) -> Reader:
        return self


@dataclass
class Share:
    """A crew, as far as it is looked at."""

    waiting: list[Partition] = field(default_factory=list)
    readers: list[Reader] = field(default_factory=list)
    seen_at: dict[Partition, float] = field(default_factory=dict)
    held: bool = False
    name: str = "app.aggregate"
    is_known: bool = True

    def unsettled(self) -> list[Partition]:
        return self.waiting

    @property
    def is_settled(self) -> bool:
        return self.is_known and not self.waiting

    def running(self) -> list[Reader]:
        return self.readers

    def is_held(self, _partition: Partition) -> bool:
        return self.held


class Ends:
    """A log, as far as it is asked."""

    def __init__(self, end: int) -> None:
        self.end, self.is_away = end, False

    async def bounds(self, _partition: Partition) -> tuple[int, int]:
        if self.is_away:
            message = "nobody answers"
            raise KafkaUnreachable(message)
        return 0, self.end


def watch_of(share: Share, ends: Ends) -> tuple[Watch, VirtualClock]:
    clock = VirtualClock(asyncio.get_running_loop())
    return Watch([cast("Crew", share)], cast("Log", ends), clock), clock


def test_a_partition_that_waits_for_its_task_makes_us_unready_and_then_ends_us() -> None:
    async def main() -> None:
        share = Share()
        watch, clock = watch_of(share, Ends(0))
        assert watch.trouble() is not None
        watch.turn()
        assert watch.trouble() is None
        share.waiting = [PLACE]
        watch.turn()
        await clock.sleep(NOT_READY_S)
        watch.turn()
        assert watch.trouble() is None
        await clock.sleep(1)
        watch.turn()
        assert watch.trouble() == "for 61 s events/3 has waited for its task"
        await watch.look()
        await clock.sleep(GIVE_UP_S - NOT_READY_S)
        with pytest.raises(Watchdog, match=r"events/3 was assigned to us in group app\.aggregate"):
            await watch.look()

    run_virtual(main())


def test_a_partition_that_cannot_be_taken_over_without_brokers_is_given_its_time_when_they_are_back() -> None:
    async def main() -> None:
        share, ends = Share(waiting=[PLACE]), Ends(0)
        watch, clock = watch_of(share, ends)
        watch.turn()
        ends.is_away = True
        for _ in range(100):
            await clock.sleep(LOOK_EVERY_S)
            await watch.look()
        ends.is_away = False
        await clock.sleep(GIVE_UP_S)
        await watch.look()
        await clock.sleep(LOOK_EVERY_S)
        with pytest.raises(Watchdog):
            await watch.look()

    run_virtual(main())


def test_a_group_that_does_not_say_what_is_ours_makes_us_unready_only() -> None:
    async def main() -> None:
        share = Share()
        watch, clock = watch_of(share, Ends(0))
        watch.turn()
        share.is_known = False
        watch.turn()
        await clock.sleep(2 * GIVE_UP_S)
        await watch.look()
        assert watch.trouble() == "for 600 s group app.aggregate has not said what is ours"
        share.is_known = True
        watch.turn()
        assert watch.trouble() is None

    run_virtual(main())


@pytest.mark.parametrize(
    ("seen", "held", "trouble"),
    [
        pytest.param({PLACE: 0.0, OTHER: 0.0}, False, "for 61 s no broker has answered", id="all_silent"),
        pytest.param({PLACE: 0.0, OTHER: 40.0}, False, None, id="one_whose_turn_comes_late_in_a_backlog"),
        pytest.param({PLACE: 0.0, OTHER: 0.0}, True, None, id="all_held_back"),
    ],
)
def test_a_stage_that_no_broker_answers_makes_us_unready_until_one_does(
    seen: dict[Partition, float], held: bool, trouble: str | None  # noqa: FBT001  # parameters of the test
) -> None:  # fmt: skip
    async def main() -> None:
        share = Share(readers=[Reader(5), Reader(5, OTHER)], seen_at=seen, held=held)
        watch, clock = watch_of(share, Ends(5))
        watch.turn()
        await clock.sleep(NOT_READY_S + 1)
        told = watch.trouble()
        assert told is None if trouble is None else told is not None and told.startswith(trouble)
        share.seen_at[OTHER] = clock.monotonic()
        assert watch.trouble() is None

    run_virtual(main())


def test_a_commit_that_does_not_end_makes_us_unready_until_it_does() -> None:
    async def main() -> None:
        share = Share(readers=[Reader(5, committing_since=0.0)])
        watch, clock = watch_of(share, Ends(5))
        watch.turn()
        await clock.sleep(NOT_READY_S + 1)
        assert watch.trouble() == "for 61 s a commit of events/3 has been under way"
        share.readers[0].committing_since = None
        assert watch.trouble() is None

    run_virtual(main())


def test_a_commit_that_does_not_end_though_the_brokers_answer_ends_us() -> None:
    share = Share(readers=[Reader(5, committing_since=0.0)], held=True)
    with pytest.raises(Watchdog, match=r"a commit of events/3 has not ended for 330 s though the brokers answer"):
        run_virtual(look_for(GIVE_UP_S + 60, share, Ends(5)))


def test_commits_that_follow_each_other_or_wait_for_brokers_do_not() -> None:
    async def main() -> None:
        share, ends = Share(held=True), Ends(5)
        watch, clock = watch_of(share, ends)
        for number in range(50):
            share.readers = [Reader(5, committing_since=clock.monotonic() if number < 25 else 0.0)]
            ends.is_away = number > 24
            await clock.sleep(LOOK_EVERY_S)
            await watch.look()

    run_virtual(main())


def test_a_partition_that_was_taken_over_in_time_is_forgotten() -> None:
    async def main() -> None:
        share = Share()
        watch, clock = watch_of(share, Ends(0))
        for _ in range(10):
            share.waiting = [PLACE]
            watch.turn()
            await clock.sleep(50)
            share.waiting = []
            watch.turn()
        assert watch.trouble() is None

    run_virtual(main())


async def look_for(seconds: float, share: Share, ends: Ends, **meanwhile: Any) -> None:
    """Look every so often; `meanwhile` says what happens before each look."""
    watch, clock = watch_of(share, ends)
    for _ in range(int(seconds / LOOK_EVERY_S)):
        await clock.sleep(LOOK_EVERY_S)
        if meanwhile.get("hears"):
            share.seen_at[PLACE] = clock.monotonic()
        await watch.look()


def test_records_that_nobody_fetches_end_us() -> None:
    share = Share(readers=[Reader(5)], seen_at={PLACE: 0.0})
    with pytest.raises(Watchdog, match="events/3 has records that were not fetched for 120 s"):
        run_virtual(look_for(STUCK_S + 60, share, Ends(6)))


@pytest.mark.parametrize(
    ("held", "end", "hears"),
    [
        pytest.param(False, 5, False, id="nothing_new"),
        pytest.param(True, 6, False, id="held_back"),
        pytest.param(False, 6, True, id="an_open_transaction_of_somebody"),
    ],
)
def test_what_waits_for_good_reason_does_not(held: bool, end: int, hears: bool) -> None:  # noqa: FBT001  # parameters of the test
    share = Share(readers=[Reader(5)], seen_at={PLACE: 0.0}, held=held)
    run_virtual(look_for(1000, share, Ends(end), hears=hears))


def test_brokers_that_were_away_give_the_client_its_time_again() -> None:
    async def main() -> None:
        share, ends = Share(readers=[Reader(5)], seen_at={PLACE: 0.0}), Ends(6)
        watch, clock = watch_of(share, ends)
        for away in (False, True, False):
            ends.is_away = away
            for _ in range(4):
                await clock.sleep(LOOK_EVERY_S)
                await watch.look()

    run_virtual(main())

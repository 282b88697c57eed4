"""Work beside the turns: named, bounded in time where that is asked for, and never forgotten when it fails."""

from __future__ import annotations

import asyncio

import pytest

from evaluator.runtime.background import Background, finished_within
from evaluator.runtime.chores import Chores
from evaluator.runtime.clock import VirtualClock, run_virtual
from evaluator.runtime.log.port import Partition, SendFailed
from evaluator.runtime.setbacks import LONGEST_S, Setbacks


def clock() -> VirtualClock:
    return VirtualClock(asyncio.get_running_loop())


async def fail() -> None:
    message = "refused"
    raise SendFailed(message)


async def slow() -> None:
    await asyncio.sleep(60)


def test_a_failure_is_raised_at_the_next_look_and_once() -> None:
    async def main() -> None:
        background = Background()
        background.start("fails", fail)
        background.check()
        await asyncio.sleep(1)
        with pytest.raises(SendFailed):
            background.check()
        background.check()
        assert not background.is_busy

    run_virtual(main())


def test_only_the_owners_work_is_cancelled() -> None:
    async def main() -> list[bool]:
        background, owner = Background(), object()
        tasks = [background.start("a", slow, owner), background.start("b", slow, owner), background.start("c", slow)]
        await background.cancel(owner)
        cancelled = [task.cancelled() for task in tasks]
        await background.finish_all()
        return cancelled

    assert run_virtual(main()) == [True, True, False]


@pytest.mark.parametrize(("seconds", "in_time"), [(59.0, False), (61.0, True)])
def test_what_is_not_done_in_time_goes_on(seconds: float, in_time: bool) -> None:  # noqa: FBT001  # a parameter of the test
    async def main() -> tuple[bool, bool]:
        background = Background()
        task = background.start("slow", slow)
        answer = await finished_within(clock(), seconds, [task])
        await background.finish_all()
        return answer, task.cancelled()

    assert run_virtual(main()) == (in_time, False)


def test_a_chore_that_takes_longer_than_its_interval_does_not_run_twice_at_once() -> None:
    async def main() -> list[float]:
        times, ours = list[float](), clock()

        async def chore() -> None:
            times.append(ours.monotonic())
            await slow()

        chores = Chores(ours)
        chores.every(25, "slow", chore)
        for _ in range(10):
            chores.turn()
            await asyncio.sleep(25)
        await chores.stop()
        return times

    assert run_virtual(main()) == [25, 100, 175]


def test_setbacks_are_tried_again_at_once_and_then_ever_later_until_a_new_assignment() -> None:
    async def main() -> list[float]:
        setbacks, place = Setbacks(clock()), Partition("events", 0)
        pauses = [setbacks.note(place) for _ in range(8)]
        assert not setbacks.may_try(place)
        assert setbacks.may_try(Partition("events", 1))
        await asyncio.sleep(LONGEST_S)
        assert setbacks.may_try(place)
        setbacks.note(place)
        setbacks.forget()
        assert setbacks.may_try(place)
        return pauses

    assert run_virtual(main()) == [0, 0.5, 1, 2, 4, 8, 10, 10]

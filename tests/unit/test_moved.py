"""Brokers that came back elsewhere end the process; brokers that are away, or some of them, do not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from evaluator.errors import Watchdog
from evaluator.runtime.clock import VirtualClock, run_virtual
from evaluator.runtime.log.port import KafkaUnreachable
from evaluator.runtime.moved import LOOK_EVERY_S, MOVED_S, TRIES, watch_addresses

if TYPE_CHECKING:
    from collections.abc import Callable

HOURS_S = 10_000.0


def watched(ours: Callable[[int], bool], fresh: Callable[[int], bool]) -> float | None:
    """When it ended, in seconds; None: not within hours. Both are told how often they were asked before."""

    async def main() -> float | None:
        clock = VirtualClock(asyncio.get_running_loop())
        asked = {"ours": 0, "fresh": 0}

        async def answer(whose: str, is_well: Callable[[int], bool]) -> None:
            number, asked[whose] = asked[whose], asked[whose] + 1
            if not is_well(number):
                raise KafkaUnreachable(whose)

        watch = watch_addresses(lambda: answer("ours", ours), lambda: answer("fresh", fresh), clock)
        began = clock.monotonic()
        try:
            async with asyncio.timeout(HOURS_S):
                with pytest.raises(Watchdog, match="only a fresh start asks for the new ones"):
                    await watch
        except TimeoutError:
            return None
        return clock.monotonic() - began

    return run_virtual(main())


def test_brokers_that_only_a_fresh_client_finds_end_the_process_after_a_while() -> None:
    ended = watched(lambda _: False, lambda _: True)
    assert ended is not None
    assert MOVED_S < ended < MOVED_S + 2 * LOOK_EVERY_S + 10 * TRIES


@pytest.mark.parametrize("fresh", [True, False])
def test_as_long_as_our_clients_get_an_answer_nothing_ends(fresh: bool) -> None:  # noqa: FBT001  # a parameter
    assert watched(lambda _: True, lambda _: fresh) is None


def test_brokers_that_nobody_reaches_are_waited_for() -> None:
    assert watched(lambda _: False, lambda _: False) is None


def test_one_answer_of_a_look_is_enough() -> None:
    assert watched(lambda number: number % TRIES == TRIES - 1, lambda _: True) is None


def test_an_answer_in_between_begins_the_count_anew() -> None:
    assert watched(lambda number: number % (3 * TRIES) == 0, lambda _: True) is None

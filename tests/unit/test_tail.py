"""The public topics as they are followed into what is shown."""

from __future__ import annotations

import asyncio

from support.rules import rule, rules
from support.shown import NOON, alert, firing, status

from evaluator.runtime.clock import VirtualClock, run_virtual
from evaluator.runtime.intake import MAX_REJECTED
from evaluator.runtime.live import AT_ONCE, VIEW_WAITS_S, Tail
from evaluator.runtime.log.memory import MemoryLog
from evaluator.runtime.log.port import Outgoing, TopicSpec
from evaluator.runtime.topics import Topics
from evaluator.runtime.view import View

TOPICS = Topics("app")


class Followed:
    """A log with both topics, and a tail on it."""

    def __init__(self) -> None:
        self.clock = VirtualClock(asyncio.get_running_loop(), NOON)
        self.log = MemoryLog(clock=self.clock)
        self.view = View(rules(rule(), group_by=("zone",)), self.clock, MAX_REJECTED)
        self.told: list[bytes] = []
        self.tail = Tail(self.log, TOPICS, self.view, self.told.append)

    async def publish(self, *records: tuple[bytes, bytes | None]) -> None:
        """Write status records, after the topics where they are missing."""
        await self.log.create([TopicSpec(TOPICS.status, 1), TopicSpec(TOPICS.alerts, 1)])
        await self.log.append([Outgoing(TOPICS.status, key, value, 0) for key, value in records])

    def phases(self) -> dict[str, str]:
        """What is shown."""
        return {series.status.key: series.status.phase for series in self.view.series()}


def test_of_a_history_the_newest_record_of_each_series_is_shown() -> None:
    async def scenario() -> None:
        followed = Followed()
        gone, _ = firing({"zone": "b"})
        await followed.publish(
            firing({"zone": "a"}), firing({"zone": "b"}), (gone, None), status({"zone": "a"}), (b"broken", b"{")
        )
        await followed.tail.look()
        assert followed.phases() == {'api/A{zone="a"}': "inactive"}
        assert followed.view.unreadable == 1

    run_virtual(scenario())


def test_what_is_there_at_the_start_waits_for_who_is_before_it_and_not_for_ever() -> None:
    async def scenario() -> None:
        followed = Followed()
        await followed.publish(firing({"zone": "a"}))
        following = asyncio.create_task(followed.tail.follow(followed.clock, 1.0, lambda: True))
        await followed.clock.sleep(VIEW_WAITS_S - 1)
        assert not followed.view.is_read
        assert 'api/A{zone="a"}' not in followed.phases()
        await followed.clock.sleep(2)
        assert followed.view.is_read
        assert followed.phases() == {'api/A{zone="a"}': "firing"}
        following.cancel()

    run_virtual(scenario())


def test_many_records_leave_the_loop_to_others_in_between() -> None:
    async def scenario() -> None:
        followed = Followed()
        await followed.publish(*(status({"zone": str(n)}) for n in range(3 * AT_ONCE)))
        breaths: list[int] = []

        async def breathe() -> None:
            breaths.append(len(followed.phases()))

        await followed.tail.look(breathe)
        # The stand-in of the alert without a series, then the series.
        assert breaths == [1, AT_ONCE, 2 * AT_ONCE]

    run_virtual(scenario())


def test_each_alert_is_told_once() -> None:
    async def scenario() -> None:
        followed = Followed()
        await followed.publish()
        record = alert(1)
        await followed.log.append([Outgoing(TOPICS.alerts, b"k", record, 0)])
        await followed.tail.look()
        await followed.tail.look()
        assert followed.told == [record]
        assert len(followed.view.transitions()) == 1

    run_virtual(scenario())

"""Made-up traffic with an incident in it: what `simulate` writes and `demo` plays.

The same seed gives the same events. Surfaces behave like those of a small company: a voice API, serverless
functions, and a message broker, on one topic of structured log lines.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import orjson

from evaluator.core.event import MINUTE, SECOND, DurationUs, EpochUs
from evaluator.runtime.log.port import Outgoing
from evaluator.wire.text import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator

    from evaluator.runtime.log.port import Log


class Profile(NamedTuple):
    """How a surface behaves when all is well, and during the incident."""

    target: str
    share: float
    median_ms: float
    failing: float
    incident_failing: float
    incident_slowdown: float
    functions: tuple[str, ...] = ()


PROFILES = (
    Profile("voice-api", 0.5, 140, 0.001, 0.18, 4.0),
    Profile("supabase-functions", 0.3, 90, 0.002, 0.002, 1.0, ("send-message", "sync-contacts", "bill")),
    Profile("message-broker", 0.2, 700, 0.0005, 0.0005, 1.2),
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """Events from `start` on, `rate` per second of event time, up to `disorder` late.

    The incident lasts from `incident_after` to `incident_after + incident_for` after the start; a
    duration of 0 means none.
    """

    start: EpochUs
    seed: int = 1
    rate: float = 20.0
    disorder: DurationUs = DurationUs(2 * SECOND)
    incident_after: DurationUs = DurationUs(4 * MINUTE)
    incident_for: DurationUs = DurationUs(6 * MINUTE)

    def events(self) -> Iterator[tuple[EpochUs, bytes]]:
        """When each event reaches the log, and its JSON; endless, in order of arrival."""
        rng = random.Random(self.seed)  # noqa: S311  # traffic, not secrets
        step = 1e6 / self.rate
        number = 0
        while True:
            arrival = EpochUs(self.start + round(number * step))
            time = EpochUs(arrival - rng.randrange(self.disorder + 1))
            yield arrival, orjson.dumps(self._event(rng, time, number))
            number += 1

    def _event(self, rng: random.Random, time: EpochUs, number: int) -> dict[str, object]:
        profile = rng.choices(PROFILES, [profile.share for profile in PROFILES])[0]
        bad = self.incident_after <= time - self.start < self.incident_after + self.incident_for
        failed = rng.random() < (profile.incident_failing if bad else profile.failing)
        latency = rng.lognormvariate(0, 0.5) * profile.median_ms * (profile.incident_slowdown if bad else 1)
        event: dict[str, object] = {
            "timestamp": rfc3339(time - time % 1000),
            "target": profile.target,
            "env": "production",
            "status_code": 503 if failed else 200,
            "duration_ms": round(latency, 1),
            "trace_id": f"{rng.getrandbits(128):032x}",
            "request_id": f"req-{self.seed}-{number}",
        }
        if profile.functions:
            event["function"] = rng.choice(profile.functions)
        return event


AT_ONCE = 2_000


async def send(log: Log, topic: str, scenario: Scenario, count: int) -> None:
    """Write the first `count` events to a topic, in turn to its partitions. Raises `UnknownTopic`.

    A record's time is that of its arrival, as if it had been written then.
    """
    partitions = await log.partitions(topic)
    arrivals = enumerate(islice(scenario.events(), count))
    while batch := [
        Outgoing(topic, None, event, number % partitions, timestamp=arrival // 1000)
        for number, (arrival, event) in islice(arrivals, AT_ONCE)
    ]:
        await log.append(batch)

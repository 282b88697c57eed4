"""`start: latest` through the whole service: what was there before the first run is not judged, all that comes is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from simulation.world import START, Cluster

from evaluator.core.event import MINUTE
from evaluator.runtime.clock import run_virtual
from evaluator.runtime.log.port import Outgoing
from evaluator.wire.config.load import load_rules
from evaluator.wire.text import rfc3339

if TYPE_CHECKING:
    from pathlib import Path

RULES = """
version: 1
sources:
  events:
    {topic: t, format: json, start: latest, out_of_orderness: 5s, idle_after: 1d,
     fields: {time: t, failed: {s: ">= 500"}}}
surfaces:
  api: {source: events, group_by: [f]}
alerts:
  Failing: {surface: api, when: error_ratio > 50%, window: 1m, min_samples: 1, severity: page}
"""


def event(minute: float, series: str, code: int = 500) -> bytes:
    return orjson.dumps({"t": rfc3339(START + round(minute * MINUTE)), "f": series, "s": code})


def test_an_added_partition_is_read_from_its_beginning_whoever_takes_it_over(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)

    async def main() -> list[tuple[object, object]]:
        cluster = Cluster(load_rules([path]), [[event(0, "old"), event(1, "old")], [event(0, "old")]])
        await cluster.fill()
        first = await cluster.process(name="first")
        for _ in range(200):
            await first.turn()
        # Another one grows the topic's place, reads nothing of it and is gone; the next finds what it left.
        await cluster.log.grow("t", 3)
        await cluster.log.grow("sim.progress.events", 3)
        await cluster.log.append([Outgoing("t", None, event(10, "added"), 2)])
        for crew in (first.aggregate, first.evaluate):
            await crew.consumer.stop()
        # Nothing is known of what was before the first events of the partitions whose beginning was not read.
        await cluster.log.append([Outgoing("t", None, event(5, "new", 200), index) for index in range(2)])
        await cluster.log.append([Outgoing("t", None, event(10, "new"), 0)])
        await cluster.log.append([Outgoing("t", None, event(20, "end", 200), index) for index in range(3)])
        await cluster.run(await cluster.process(name="second"))
        return [(alert["key"], alert["status"]) for alert in await cluster.alerts()]

    assert run_virtual(main()) == [('api/Failing{f="added"}', "firing"), ('api/Failing{f="new"}', "firing")]

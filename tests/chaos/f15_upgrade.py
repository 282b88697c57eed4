"""F15: three replicas are replaced one by one by ones with a later revision of the rules, while events come in.

Where a newer revision has been, older ones rest. The alerts of rules that did not change are those of one pass
under the old rules. Two configurations under one revision are refused.
"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

from kafka.service import RULES
from support.next_release import NEXT

from chaos.ground import HURRIED, ground, traffic
from chaos.scenario import Outcome, Scenario, Size

if TYPE_CHECKING:
    from pathlib import Path

WHAT = "a rolling upgrade to rules with a later revision over three replicas; one revision with two configurations"

SCHEMA = "a rolling upgrade to a release with other state schemas, back, again, finalized; then the old one is refused"

OLD = RULES.replace("version: 1\n", "version: 1\nrevision: 1\n", 1)

ANOTHER = """\
  Failing{revision}: {{surface: voice-api, when: error_ratio > {percent}%, window: 1m, consecutive: 2, min_samples: 1,
    severity: page}}
"""


def later(text: str, revision: int, percent: int) -> str:
    """The rules as a later revision with one more alert."""
    return text.replace("revision: 1", f"revision: {revision}") + ANOTHER.format(revision=revision, percent=percent)


async def run(folder: Path, size: Size) -> Outcome:
    """Once in the short form, ten upgrades after each other in the full one."""
    rounds = 10 if size.is_full else 1
    async with ground(folder, rules=OLD, partitions=3) as here:
        place = here.place
        rules = place.rules
        replicas = [place.begin(HURRIED) for _ in range(3)]
        rested, worst = 0, 0.0
        async with traffic(place):
            await place.at_work(*replicas)
            for revision in range(2, 2 + rounds):
                new = folder / f"rules-{revision}.yaml"
                new.write_text(later(rules.read_text(), revision, 40 + revision))
                for old in replicas:
                    fresh = place.begin(HURRIED, rules=new)
                    await place.at_work(fresh)
                    old.signal(signal.SIGTERM)
                    await place.gone("a replaced replica", old, 0, limit_s=60.0)
                    rested += old.output().count("task.paused")
                    replicas = [*replicas[1:], fresh]
                worst = max(worst, await place.caught_up(f"revision {revision}", *replicas))
            other = folder / "rules-other.yaml"
            other.write_text(later(rules.read_text(), 1 + rounds, 99))
            refused = place.begin(HURRIED, rules=other)
            await place.gone("the same revision with another hash", refused, 78, says="two configurations")
            # It took no partition with it: the others go on.
            worst = max(worst, await place.caught_up("after the refusal", *replicas))
        if not rested:
            place.failures.append("no old replica rested")
        return await place.verdict(
            "F15", WHAT, *replicas, runs=3 * rounds, faults=3 * rounds + 1, recovery_s=worst,
            oracle=await asyncio.to_thread(place.replayed),
            only=lambda alert: alert["alertname"] in {"Failing", "Slow"}, notes=f"{rested} times a partition rested",
        )  # fmt: skip


async def schema(folder: Path, _size: Size) -> Outcome:
    """There, back, there again, finalized, and the old one once more."""
    async with ground(folder, partitions=3) as here:
        place = here.place
        place.codecs = NEXT
        replicas = [place.begin(HURRIED) for _ in range(3)]
        worst = 0.0

        async def replaced(what: str, harm: dict[str, Any], **settings: Any) -> float:
            for old in list(replicas):
                fresh = place.begin(harm, **settings)
                await place.at_work(fresh)
                old.signal(signal.SIGTERM)
                await place.gone(f"{what}: a replaced replica", old, 0, limit_s=60.0)
                replicas.remove(old)
                replicas.append(fresh)
            return await place.caught_up(what, *replicas)

        following = {**HURRIED, "release": "next"}
        async with traffic(place):
            await place.at_work(*replicas)
            # Until it is finalized, the next release writes what this one reads.
            worst = max(worst, await replaced("the next release", following))
            worst = max(worst, await replaced("back again", HURRIED))
            worst = max(worst, await replaced("the next release again", following))
            worst = max(worst, await replaced("finalized", following, state={"finalize": True}))
            refused = place.begin(HURRIED)
            await place.gone("this release on newer state", refused, 78, says="schema")
            worst = max(worst, await place.caught_up("after the refusal", *replicas))
        return await place.verdict("F15-schema", SCHEMA, *replicas, runs=12, faults=13, recovery_s=worst)


SCENARIOS = (Scenario("F15", WHAT, run), Scenario("F15-schema", SCHEMA, schema))

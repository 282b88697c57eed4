"""Runs the chaos scenarios and writes the report.

    python tests/chaos/run.py [--only F3,F5] [--seed 1] [--short]

Rows of scenarios that were not run this time are kept from the last report. Ends with 1 where one failed.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).parents[2]

if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))

from chaos.scenario import Outcome, Scenario, Size  # noqa: E402  # found by the path above

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

RESULTS = ROOT / "docs" / "results" / "chaos.json"
REPORT = ROOT / "docs" / "chaos.md"

HEAD = """\
# What survives

Every fault that [exactly-once.md](exactly-once.md) promises to survive, on a real Kafka with processes of
`evaluator run`. A scenario writes events, hurts the service, and compares what a `read_committed` reader of the alert
topic saw with what `replay` makes of the same events. Faults are counted where they were injected.

    make chaos                    all of them, in full: some hours
    make chaos ONLY=F3,F6         some
    make chaos SHORT=1            the short forms, some of which `make test` runs too

"""


def scenarios() -> list[Scenario]:
    """All of them, in their order."""
    modules = [importlib.import_module(f"chaos.{file.stem}") for file in sorted(Path(__file__).parent.glob("f*.py"))]
    return [scenario for module in modules for scenario in module.SCENARIOS]


def chosen(all_of_them: Sequence[Scenario], only: str | None) -> list[Scenario]:
    """Those that are named, `F6` with all its forms. An unknown name ends the program."""
    if not only:
        return list(all_of_them)
    wanted = [name.strip() for name in only.split(",")]
    unknown = [n for n in wanted if not any(n in {s.name, s.name.partition("-")[0]} for s in all_of_them)]
    if unknown:
        sys.exit(f"no scenario {', '.join(unknown)}; there are {', '.join(s.name for s in all_of_them)}")
    return [s for s in all_of_them if s.name in wanted or s.name.partition("-")[0] in wanted]


def row(outcome: Outcome, *, is_full: bool, seed: int, seconds: float) -> dict[str, Any]:
    """An outcome as it is kept."""
    form = "full" if is_full else "short"
    when = time.strftime("%Y-%m-%d", time.gmtime())
    return {**outcome._asdict(), "failures": list(outcome.failures), "passed": outcome.passed, "form": form,
            "seed": seed, "took_s": round(seconds), "date": when}  # fmt: skip


def report(rows: Iterable[dict[str, Any]]) -> str:
    """The table, as Markdown."""
    lines = [
        "| | fault | form | runs | faults | expected | seen | twice | lost | invented | worst recovery | |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for one in rows:
        recovery = "" if one["recovery_s"] is None else f"{one['recovery_s']:.1f} s"
        remark = "passed" if one["passed"] else "FAILED: " + ("; ".join(one["failures"]) or "transitions or no fault")
        what = one["what"] + (f" ({one['notes']})" if one["notes"] else "")
        cells = [one["scenario"], what, f"{one['form']}, {one['date']}", one["runs"], one["faults"], one["expected"],
                 one["seen"], one["duplicated"], one["lost"], one["invented"], recovery, remark]  # fmt: skip
        lines.append("| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |")
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}, one broker of Apache Kafka 4.1 beside it"
    return HEAD + "\n".join(lines) + f"\n\nMeasured on {machine}.\n"


async def run_one(scenario: Scenario, size: Size) -> Outcome:
    """Run a scenario in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        return await scenario.run(Path(folder), size)


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--short", action="store_true")
    wish = parser.parse_args()
    every = scenarios()
    kept = {one["scenario"]: one for one in json.loads(RESULTS.read_text())} if RESULTS.exists() else {}
    failed = 0
    for scenario in chosen(every, wish.only):
        began = time.monotonic()
        outcome = asyncio.run(run_one(scenario, Size(not wish.short, wish.seed)))
        kept[scenario.name] = row(outcome, is_full=not wish.short, seed=wish.seed, seconds=time.monotonic() - began)
        failed += not outcome.passed
        sys.stdout.write(f"{'passed' if outcome.passed else 'FAILED'} {outcome}\n")
        sys.stdout.flush()
        rows = [kept[one.name] for one in every if one.name in kept]
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
        REPORT.write_text(report(rows))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

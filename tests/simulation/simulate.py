"""Many seeds of the simulation, on every core, with a report of what they held.

    python tests/simulation/simulate.py [--seeds 10000] [--first 0] [--jobs 2] [--report FILE]
    python tests/simulation/simulate.py --seed 123      one seed, told in full

Ends with 1 where a promise was broken, or where the seeds were too easy to prove anything.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import structlog

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from simulation.traffic import RULES
from simulation.trial import Report, try_seed

from evaluator.wire.config.load import load_rules

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from evaluator.wire.config.load import Config

CHUNK = 20
"""Seeds that one process runs before it reports."""

HARD = 0.8
"""Share of the seeds with a crash inside a transaction and a transition after it, below which they prove little."""

ABOUT = """\
# What the simulation held

`make simulate`, written by its last full run. A seed is one life of the service: about a minute of virtual time, 1 to
3 processes, what may go wrong drawn by chance; it is judged by one undisturbed pass over the same log (guarantees.md).
A seed that decides nothing proves nothing and does not count as hard.
"""

SHOWN = (
    ("events", "events"),
    ("crashes inside an open transaction", "crash in a transaction"),
    ("other crashes", "other crash"),
    ("rebalances during a commit", "rebalance during a commit"),
    ("rebalances", "rebalance"),
    ("late EndTxn", "late end"),
    ("... of them refused by the epoch", "late end refused"),
    ("lost requests", "lost request"),
    ("lost answers", "lost answer"),
    ("refused sends", "refused"),
    ("outages of all brokers", "outage"),
    ("frozen processes", "frozen"),
    ("fenced producers", "fenced"),
    ("take-overs", "restored"),
    ("partitions added", "grown"),
    ("source trimmed", "trimmed"),
    ("records too large (exit 5)", "too large"),
    ("8 sends refused in a row (exit 5)", "gave up"),
    ("data lost to retention (refused, exit 78)", "refused to go on"),
    ("idle advances by a clock", "idle advance"),
    ("rejections by a clock", "future rejection"),
    ("transitions of `EvaluatorBlind`", "blindness told"),
    ("firing", "firing"),
    ("resolved", "resolved"),
)


class Total(NamedTuple):
    """All seeds of a run."""

    seeds: int
    deciding: int
    hard: int
    counts: Counter[str]
    slowest_s: int
    failures: list[Report]

    @property
    def problem(self) -> str | None:
        """Why this is no proof; None where it is one."""
        if self.failures:
            return f"{len(self.failures)} seeds broke a promise"
        if self.hard < HARD * self.seeds:
            return f"only {self.hard} of {self.seeds} seeds held a crash in a transaction and a transition after it"
        return None


@cache
def config() -> Config:
    """The rules that every seed runs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rules.yaml"
        path.write_text(RULES)
        return load_rules([path])


def quiet() -> None:
    """A service in trouble has much to say, ten thousand have too much."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def run_chunk(seeds: range) -> list[Report]:
    """Run some seeds."""
    gc.collect()
    gc.disable()  # a seed makes little garbage in cycles, and looking for it takes a tenth of the time
    try:
        return [try_seed(seed, config()) for seed in seeds]
    finally:
        gc.enable()


def run_seeds(seeds: range, jobs: int) -> Iterator[Report]:
    """Run seeds on `jobs` processes, in their order."""
    chunks = [range(n, min(n + CHUNK, seeds.stop)) for n in range(seeds.start, seeds.stop, CHUNK)]
    with ProcessPoolExecutor(jobs, initializer=quiet) as pool:
        try:
            for reports in pool.map(run_chunk, chunks):
                yield from reports
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def total(reports: Iterable[Report]) -> Total:
    """Add the reports up. A seed that decided nothing counts as none."""
    counts: Counter[str] = Counter()
    seeds = deciding = hard = slowest = 0
    failures = []
    for report in reports:
        seeds += 1
        counts.update(report.counts)
        decides = report.counts["firing"] > 0
        deciding += decides
        hard += decides and report.counts_as_hard
        slowest = max(slowest, report.counts["settled in s"])
        if report.failure is not None:
            failures.append(report)
    counts["other crash"] = counts["crash"] - counts["crash in a transaction"]
    return Total(seeds, deciding, hard, counts, slowest, failures)


def table(result: Total, seconds: float, jobs: int) -> str:
    """The report, as Markdown."""
    head = [
        "| over all seeds | |",
        "| --- | ---: |",
        f"| seeds | {result.seeds} |",
        f"| ... that decided something | {result.deciding} |",
        f"| ... with a crash inside a transaction and a transition after it | {result.hard} |",
        f"| ... that broke a promise | {len(result.failures)} |",
    ]
    rows = [f"| {name} | {result.counts[key]} |" for name, key in SHOWN]
    tail = [
        f"| longest time until everything was decided, virtual s after the last fault | {result.slowest_s} |",
        f"| run time, s on {jobs} processes | {seconds:.0f} |",
    ]
    return "\n".join([*head, *rows, *tail]) + "\n"


def tell(report: Report) -> str:
    """A failed seed in two lines: what, and how to see it again."""
    return f"seed {report.seed}: {report.failure}\n    make simulate SEED={report.seed}\n"


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--report", type=Path)
    parser.add_argument("--stop", action="store_true", help="end at the first seed that fails")
    wish = parser.parse_args()
    if wish.seed is not None:
        report = try_seed(wish.seed, config())
        sys.stdout.write(f"{dict(report.counts)}\ndigest {report.digest}\n")
        sys.stdout.write(tell(report) if report.failure else "every promise was kept\n")
        return 1 if report.failure else 0
    began = time.monotonic()
    done = 0

    def told(reports: Iterator[Report]) -> Iterator[Report]:
        nonlocal done
        for report in reports:
            done += 1
            if report.failure is not None:
                sys.stdout.write(tell(report))
            if done % 1000 == 0:
                sys.stderr.write(f"{done} seeds, {time.monotonic() - began:.0f} s\n")
            yield report
            if wish.stop and report.failure is not None:
                return

    result = total(told(run_seeds(range(wish.first, wish.first + wish.seeds), wish.jobs)))
    text = table(result, time.monotonic() - began, wish.jobs)
    sys.stdout.write(text)
    if result.problem is not None:
        sys.stdout.write(f"no proof: {result.problem}\n")
    if wish.report is not None:
        wish.report.write_text(f"{ABOUT}\n{text}")
    return 0 if result.problem is None else 1


if __name__ == "__main__":
    sys.exit(main())

"""Every figure in one table: `make bench`, or a part of it: make bench ONLY=core,replay.

Only when they are named: shapes, load, memory, cap, commits, day.

Kept in docs/results/bench.json, so that a later run can be compared with it.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import commits
import core
import day
import formats
import kafka
import load
import memory
import replay
import shapes
from table import RUNS, save, shown

OUT = Path(__file__).parents[1] / "docs" / "results" / "bench.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="core,formats,replay,kafka")
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--runs", type=int, default=RUNS)
    wish = parser.parse_args()
    parts = {
        "core": core.rows,
        "replay": lambda: replay.rows(wish.events, wish.runs),
        "kafka": lambda: kafka.rows(wish.events, wish.runs),
        "formats": formats.rows,
        "shapes": lambda: shapes.rows(wish.events, min(wish.runs, 3)),
        "load": lambda: load.figures(min(wish.runs, 2)),
        "memory": memory.figures,
        "cap": memory.cap_figures,
        "commits": lambda: commits.rows(wish.runs),
        "day": day.figures,
    }
    wanted = wish.only.split(",")
    rows = []
    for row in itertools.chain.from_iterable(make() for name, make in parts.items() if name in wanted):
        rows.append(row)
        print(shown([row]).splitlines()[-1], flush=True)
    print("\n" + shown(rows))
    save(rows, OUT)


if __name__ == "__main__":
    main()

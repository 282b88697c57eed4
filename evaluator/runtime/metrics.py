"""What the process counts about itself, and the moment at which a scrape looks at it.

Nothing of prometheus-client is in the path of events: the stages count in a `Counter`, durations go to
histograms of our own, and a scrape turns both into text.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from evaluator import __version__
from evaluator.core.watermark import BEGINNING
from evaluator.runtime.exposition import encode
from evaluator.runtime.histogram import COMMIT_S, DELAY_S, Histogram
from evaluator.runtime.scrape import Gauges, Snapshot, families
from evaluator.runtime.task import TaskState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evaluator.runtime.clock import Clock
    from evaluator.runtime.fleet import Fleet
    from evaluator.runtime.view import View
    from evaluator.runtime.worker import Worker

LOOP_LOOK_S = 0.5
"""How often the event loop is looked at: two looks fall between any two scrapes."""

STAGES = ("aggregate", "evaluate")


class Metrics:
    """The counters and histograms of one process; the tasks' `Observer`.

    `attach` adds what a worker counts. Without one, the metrics of the log's records are still there: every
    replica shows all alerts.
    """

    def __init__(self, view: View, *, revision: str = "unknown") -> None:
        self.tallies: Counter[tuple[str, ...]] = Counter()
        self.commit_durations = {stage: Histogram(COMMIT_S) for stage in STAGES}
        self.commit_delay = Histogram(DELAY_S)
        self.alert_delay = Histogram(DELAY_S)
        self.restore_duration = Histogram(COMMIT_S)
        self.loop_lag_s = 0.0
        self._view, self._revision, self._loaded_at = view, revision, view.now()
        self._counted: list[Mapping[tuple[str, ...], int]] = [self.tallies]
        self._of_stages: Mapping[tuple[str, ...], int] = {}
        self._worker: Worker | None = None
        self._fleet: Fleet | None = None

    def attach(self, worker: Worker, tallies: Mapping[tuple[str, ...], int], fleet: Fleet | None = None) -> None:
        """Show what this worker does, what its stages count in `tallies`, and who else is there."""
        self._worker, self._fleet, self._of_stages = worker, fleet, tallies
        self._counted = [self.tallies, tallies]

    @property
    def restores(self) -> tuple[int, float]:
        """How many partitions were taken over since the start, and the seconds that it took altogether."""
        return self.tallies["restores",], self.restore_duration.sum

    # -- observer of the tasks --------------------------------------------------------------------------

    def restored(self, seconds: float) -> None:
        """A task took a partition over."""
        self.tallies["restores",] += 1
        self.restore_duration.observe(seconds)

    def committed(self, stage: str, seconds: float) -> None:
        """A transaction is visible."""
        self.tallies["commits", stage, "ok"] += 1
        self.commit_durations[stage].observe(seconds)

    def retried(self, stage: str) -> None:
        """A transaction has to be tried again."""
        self.tallies["commits", stage, "retried"] += 1

    def fenced(self) -> None:
        """A producer was fenced."""
        self.tallies["fenced",] += 1

    # -- looking ----------------------------------------------------------------------------------------

    async def watch_loop(self, clock: Clock) -> None:
        """Look for ever by how much the event loop is late, and on the way at what was read since the last look."""
        while True:
            before = clock.monotonic()
            await clock.sleep(LOOP_LOOK_S)
            self.loop_lag_s = max(0.0, clock.monotonic() - before - LOOP_LOOK_S)
            self._view.count(self._of_stages)

    def refresh(self) -> None:
        """Take over what the worker noted since the last time, and tell the view what it has read, and how far."""
        if self._worker is None:
            return
        self._view.count(self._of_stages)
        for stage in self._worker.shard_stages():
            # Taken away here: the stage only collects them.
            for delays, histogram in (
                (stage.alert_delays, self.alert_delay), (stage.commit_delays, self.commit_delay),
            ):  # fmt: skip
                while delays:
                    histogram.observe(delays.popleft() / 1e6)
        for source in self._view.rules.sources:
            watermark = self._worker.source_watermark(source)
            if watermark > BEGINNING:
                self._view.observe(source, watermark)

    def look(self) -> Snapshot:
        """Everything as it is now."""
        self.refresh()
        tallies: Counter[tuple[str, ...]] = Counter()
        for counted in self._counted:
            tallies.update(counted)
        return Snapshot(
            rules=self._view.rules, look=self._view.look(), is_read=self._view.is_read,
            transitions=self._view.transitions(), sources=self._view.sources(), tallies=tallies,
            gauges=self._gauges(), histograms=self._histograms(), loaded_at=self._loaded_at, version=__version__,
            revision=self._revision,
        )  # fmt: skip

    def _gauges(self) -> Gauges:
        worker = self._worker
        if worker is None:
            return Gauges({}, {}, self.loop_lag_s)
        lag = {(stage.source.name, stage.input.index): stage.lag for stage in worker.source_stages()}
        others = 0 if self._fleet is None else len(self._fleet.others())
        return Gauges(lag, _tasks(worker), self.loop_lag_s, worker.watch.trouble() is None, others)

    def _histograms(self) -> dict[tuple[str, ...], Histogram]:
        found: dict[tuple[str, ...], Histogram] = {
            ("evaluator_commit_delay_seconds",): self.commit_delay,
            ("evaluator_alert_delay_seconds",): self.alert_delay,
            ("evaluator_restore_duration_seconds",): self.restore_duration,
        }
        for stage, durations in self.commit_durations.items():
            found["evaluator_commit_duration_seconds", stage] = durations
        return {name: observed.copy() for name, observed in found.items()}


def exposition(snapshot: Snapshot, accept: str = "") -> tuple[bytes, str]:
    """The body of a scrape and its content type, in the format that the `Accept` header prefers."""
    return encode(families(snapshot), accept)


def _tasks(worker: Worker) -> dict[tuple[str, str], int]:
    count = {(stage, state.value): 0 for stage in STAGES for state in TaskState}
    for crew in (worker.aggregate, worker.evaluate):
        for task in crew.tasks.values():
            count[task.stage.name, task.state.value] += 1
    return count

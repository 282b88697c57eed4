"""`evaluator run`: the daemon."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from evaluator.cli.connect import Bootstrap, SettingsFile, settings_of, with_log
from evaluator.runtime import logs
from evaluator.runtime.stderr import unfailing
from evaluator.wire.config.load import load_rules


def run(
    *,
    config: Annotated[list[Path], typer.Option("--config", metavar="FILE", help="Rules; may be given several times.")],
    settings: SettingsFile = None,
    bootstrap: Bootstrap = None,
    accept_data_loss: Annotated[
        bool, typer.Option("--accept-data-loss", help="Go on where records were deleted before they were read.")
    ] = False,
    init: Annotated[
        bool, typer.Option("--init", help="Begin without state though the alerts topic has alerts.")
    ] = False,
) -> int:
    """Evaluate: consume events from Kafka, publish alerts to Kafka, serve the page and the metrics."""
    # A reload that comes before the daemon listens for it (brokers may take long to answer) must not end us.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    sys.stderr = unfailing(sys.stderr)
    # The web server takes half a second to import: no other command waits for it.
    from evaluator.runtime.daemon import Run  # noqa: PLC0415  # see above
    from evaluator.runtime.daemon import run as run_daemon  # noqa: PLC0415  # see above

    chosen = settings_of(settings, bootstrap)
    rules = load_rules(config)
    for warning in rules.warnings:
        sys.stderr.write(f"{warning}\n")
    logs.configure(chosen.log.level, chosen.log.format)
    return with_log(chosen, lambda log: run_daemon(Run(rules, chosen, log, _say, accept_data_loss, init)))


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()

"""The command line: one file a command, each parses, calls and prints.

Data goes to stdout, everything else to stderr. An error that can be acted on is one line and an exit code
(docs/contracts.md, 5), never a traceback.
"""

from __future__ import annotations

import sys

import typer

from evaluator.cli import check_config, demo, replay, schema, simulate, version
from evaluator.errors import EvaluatorError
from evaluator.runtime import logs

app = typer.Typer(
    name="evaluator",
    help="Streaming SLO alerts: exact, replayable verdicts from event logs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("demo")(demo.demo)
app.command("check-config")(check_config.check_config)
app.command("replay")(replay.replay)
app.command("simulate")(simulate.simulate)
app.command("schema")(schema.schema)
app.command("version")(version.version)

INTERRUPTED = 130


def main() -> None:
    """Run a command and exit with its code."""
    logs.configure("warning", "console")
    try:
        app()
    except EvaluatorError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of a pipe has seen enough (`| head`); there is nobody left to tell.
        sys.stderr.close()
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)

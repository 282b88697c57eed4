"""The command line: one file a command, each parses, calls and prints.

Data goes to stdout, everything else to stderr. An error that can be acted on is one line and an exit code
(docs/contracts.md, 5), never a traceback. What nobody expected is a bug: one line too, and the traceback in the log.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import typer

from evaluator import __version__
from evaluator.cli import (
    check_config,
    demo,
    dlq,
    dump,
    healthcheck,
    publish,
    replay,
    schema,
    simulate,
    status,
    tail,
    topics,
    version,
)
from evaluator.cli import run as run_command
from evaluator.errors import EvaluatorError
from evaluator.runtime import logs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

log = structlog.get_logger(__name__)

app = typer.Typer(
    name="evaluator",
    help="Streaming SLO alerts: exact, replayable verdicts from event logs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("run")(run_command.run)
app.add_typer(topics.app, name="topics")
app.command("tail")(tail.tail)
app.command("dump")(dump.dump)
app.add_typer(dlq.app, name="dlq")
app.add_typer(publish.app, name="publish")
app.command("status")(status.status)
app.command("healthcheck")(healthcheck.healthcheck)
app.command("demo")(demo.demo)
app.command("check-config")(check_config.check_config)
app.command("replay")(replay.replay)
app.command("simulate")(simulate.simulate)
app.command("schema")(schema.schema)
app.command("version")(version.version)

USAGE = 2
INTERNAL = 5
INTERRUPTED = 130

MISUSE: type[Exception] = typer.BadParameter.__mro__[1]
"""What Typer raises for every wrong command line. Its copy of Click has no public name for it."""


def main() -> None:
    """Run a command and exit with its code."""
    sys.exit(run())


def run(arguments: Sequence[str] | None = None) -> int:
    """The exit code of a command; `arguments` are the process's own where they are not given."""
    # A stream that was closed (`2>&-`) is None; what would go there goes nowhere.
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    logs.configure("warning", "console")
    try:
        code = app(arguments, prog_name=app.info.name, standalone_mode=False)
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):
        # The reader of a pipe has seen enough (`| head`); there is nobody left to tell. Typer 0.29 makes that
        # a SystemExit, which is the only one here: without standalone_mode, all others are returned or raised.
        _let_go_of_stdout()
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except (EvaluatorError, OSError, MISUSE) as error:
        message, code = _told(error)
        _let_go_of_stdout()
        sys.stderr.write(message and f"{message}\n")
    except BaseException as error:  # the last resort: a bug has its exit code too, also a panic of native code
        sys.stderr.write(_bug(error))
        log.critical("internal.error", version=__version__, exc_info=error)
        return INTERNAL
    return code or 0


def _bug(error: BaseException) -> str:
    told = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
    return (f"internal error: {told}; this is a bug in evaluator {__version__}: please report it, "
            f"with the traceback that is logged beside this line (CONTRIBUTING.md)\n")  # fmt: skip


def _told(error: Exception) -> tuple[str, int]:
    """What a person is told, and the exit code."""
    if isinstance(error, EvaluatorError):
        return str(error), error.exit_code
    if isinstance(error, OSError):
        return f"cannot go on: {error.strerror or error}{f' ({error.filename})' if error.filename else ''}", INTERNAL
    formatted, context = error.format_message(), error.ctx  # type: ignore[attr-defined]  # MISUSE has both
    return _misuse(formatted, context), USAGE


def _misuse(message: str, context: typer.Context | None) -> str:
    """One line; nothing where Typer has shown the help already."""
    text = " ".join(message.replace("Value error, ", "").split()).removesuffix(".")
    command = "evaluator" if context is None else context.command_path
    return text and f"{command}: {text[0].lower()}{text[1:]}; see {command} --help"


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")


def _let_go_of_stdout() -> None:
    """What is still buffered is not wanted, or cannot be written: the interpreter shall not try at its exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

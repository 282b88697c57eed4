"""A streaming SLO alert evaluator: exact, replayable verdicts from event logs."""

__version__ = "0.1.0"

"""The running parts: the log, the exactly-once task, the worker, clocks, web and metrics."""

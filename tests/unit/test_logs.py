"""Logs are one JSON object a line, whoever writes them, and hold no secrets."""

from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from evaluator.runtime.logs import MASK, Seldom, configure

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def logged(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_a_name_with_fields_on_one_line() -> None:
    stream = io.StringIO()
    configure("info", "json", stream=stream)
    structlog.get_logger().info("task.restored", partition=3, text="two\nlines")
    (line,) = logged(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "task.restored", "level": "info", "partition": 3, "text": "two\nlines"}


def test_what_is_below_the_level_is_not_written() -> None:
    stream = io.StringIO()
    configure("warning", "json", stream=stream)
    structlog.get_logger().info("quiet")
    assert stream.getvalue() == ""


def test_libraries_log_in_the_same_form_from_warning_on() -> None:
    stream = io.StringIO()
    configure("info", "json", stream=stream)
    logging.getLogger("aiohttp.server").info("chatter")
    logging.getLogger("aiohttp.server").warning("trouble with %s", "x")
    (line,) = logged(stream)
    assert (line["event"], line["level"], line["logger"]) == ("trouble with x", "warning", "aiohttp.server")


def test_an_exception_is_a_field_of_its_line() -> None:
    stream = io.StringIO()
    configure("info", "json", stream=stream)
    try:
        raise ValueError("boom")  # noqa: EM101, TRY301  # the exception to be logged
    except ValueError:
        structlog.get_logger().exception("worker.failed")
    (line,) = logged(stream)
    assert "ValueError: boom" in line["exception"]


@pytest.mark.parametrize("name", ["password", "sasl_password", "client_secret", "Authorization", "api_key", "token"])
def test_a_field_that_is_named_like_a_secret_is_masked(name: str) -> None:
    stream = io.StringIO()
    configure("info", "json", stream=stream)
    structlog.get_logger().info("connected", **{name: "hunter2"})
    assert logged(stream)[0][name] == MASK
    assert "hunter2" not in stream.getvalue()


@pytest.mark.parametrize("value", ["\ud800", 2**70, {1: "x"}, object(), b"bytes"])
def test_a_value_that_json_does_not_know_loses_no_line(value: object) -> None:
    stream = io.StringIO()
    configure("info", "json", stream=stream)
    structlog.get_logger().info("odd", value=value)
    assert logged(stream)[0]["event"] == "odd"


def test_the_console_form_is_for_people() -> None:
    stream = io.StringIO()
    configure("info", "console", stream=stream)
    structlog.get_logger().info("task.restored", partition=3)
    assert "task.restored" in stream.getvalue()
    assert "partition=3" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_no_form_of_a_traceback_shows_the_values_of_variables() -> None:
    stream = io.StringIO()
    configure("info", "console", stream=stream)
    key = "hunter" + "2"
    try:
        {}[key[:0]]
    except KeyError:
        structlog.get_logger().exception("worker.failed")
    assert "KeyError" in stream.getvalue()
    assert key not in stream.getvalue()


def test_logs_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    structlog.get_logger().info("here")
    out, err = capsys.readouterr()
    assert (out, "here" in err) == ("", True)


def test_what_the_kafka_client_repeats_is_said_seldom_and_counted() -> None:
    seldom = Seldom()

    def passed(at: float, name: str = "aiokafka.conn", message: str = "cannot connect to %s") -> str | None:
        record = logging.LogRecord(name, logging.ERROR, "", 0, message, ("node 1",), None)
        record.created = at
        return record.getMessage() if seldom.filter(record) else None

    assert passed(0) == "cannot connect to node 1"
    assert [passed(at) for at in (1, 5, 9.9)] == [None] * 3
    assert passed(10) == "cannot connect to node 1 (3 more like it)"
    assert passed(11, message="another %s") == "another node 1"
    assert [passed(12, name="ours"), passed(12, name="ours")] == ["cannot connect to node 1"] * 2


def test_debug_does_not_include_the_requests_of_sasl() -> None:
    configure("debug", "json", stream=io.StringIO())
    assert not logging.getLogger("aiokafka.conn").isEnabledFor(logging.DEBUG)

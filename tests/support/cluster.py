"""A real Kafka for the tests: one broker per run, shared, with names of their own for each test.

In this order: the one that EVALUATOR_TEST_KAFKA names (HOST:PORT), one in Docker through testcontainers, one of
this machine's Java and Maven (tools/broker). With none of them the tests that need one say so and are skipped;
where that must not happen (CI=true, REQUIRE_KAFKA=1) they fail.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HOW = (
    "no Kafka for this test: set EVALUATOR_TEST_KAFKA=HOST:PORT, or start a Docker engine, or install Java 17 and Maven"
)


OURS_MS = 2_000
"""A session on a broker of tools/broker; others do not allow less than 6 s."""


class Cluster(NamedTuple):
    """Where it is, and how short a session its members may ask for."""

    bootstrap: str
    session_ms: int = 6_000

    def name(self, base: str) -> str:
        """A topic, group or app id that no other test uses."""
        return f"{base}-{uuid.uuid4().hex[:8]}"


def choose(environ: Mapping[str, str], *, has_docker: bool, has_java: bool) -> str | None:
    """Which of the three: `given`, `docker`, `java`, or None."""
    if environ.get("EVALUATOR_TEST_KAFKA"):
        return "given"
    if has_docker:
        return "docker"
    return "java" if has_java else None


def is_required(environ: Mapping[str, str]) -> bool:
    """Whether a test without a broker is a failure."""
    return environ.get("CI") == "true" or environ.get("REQUIRE_KAFKA") == "1"


def missing() -> None:
    """Skip, or fail where skipping would hide something."""
    if is_required(os.environ):
        pytest.fail(HOW)
    pytest.skip(HOW)


def cluster() -> Iterator[Cluster]:
    """The shared broker."""
    how = choose(os.environ, has_docker=has_docker(), has_java=broker_module().java() is None)
    if how is None:
        missing()
    elif how == "given":
        yield Cluster(os.environ["EVALUATOR_TEST_KAFKA"])
    elif how == "docker":
        from testcontainers.kafka import KafkaContainer  # noqa: PLC0415  # slow, and not needed elsewhere

        with KafkaContainer("confluentinc/cp-kafka:7.7.1").with_kraft() as container:
            yield Cluster(container.get_bootstrap_server())
    else:
        broker = broker_module().Broker().start()
        yield Cluster(broker.bootstrap, OURS_MS)
        broker.close()


def has_docker() -> bool:
    """Whether a Docker engine answers."""
    if shutil.which("docker") is None:
        return False
    try:
        return subprocess.run(["docker", "info"], capture_output=True, check=False, timeout=10).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def broker_module() -> Any:
    """tools/broker/broker.py, which is a script and in no package."""
    path = Path(__file__).parents[2] / "tools" / "broker" / "broker.py"
    spec = importlib.util.spec_from_file_location("kafka_broker", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def own_broker(**extra: str) -> Any:
    """A broker that a test may stop, kill and freeze. Needs Java."""
    module = broker_module()
    if module.java() is not None:
        missing()
    return module.Broker(extra={name.replace("__", "."): value for name, value in extra.items()})

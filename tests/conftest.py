"""What every test folder shares: the import path of the helpers, and hypothesis profiles."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

sys.path.insert(0, str(Path(__file__).parent))

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.register_profile("thorough", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

from support.cluster import Cluster, cluster  # noqa: E402  # found by the path above

COLLECTED = frozenset({"chaos", "conformance", "kafka"})
"""The folders whose tests hold connections. Elsewhere a collection after each test costs more than it tells."""


def pytest_collection_finish() -> None:
    """What is there before the first test is nobody's leak: else each collection looks at thousands of tests again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def kafka() -> Iterator[Cluster]:
    """A real Kafka, started with the first test that needs it."""
    yield from cluster()


@pytest.fixture(autouse=True)
def nothing_is_left_to_the_next_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """Neither a level of logging, nor what nobody closed: its warning, an error here, comes with the collection."""
    yield
    structlog.reset_defaults()
    if request.path.parent.name in COLLECTED:
        gc.collect()

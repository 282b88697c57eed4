"""What every test folder shares: the import path of the helpers, and hypothesis profiles."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
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


@pytest.fixture(scope="session")
def kafka() -> Iterator[Cluster]:
    """A real Kafka, started with the first test that needs it."""
    yield from cluster()


@pytest.fixture(autouse=True)
def whatever_is_left_open_is_told_of_its_own_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """Warnings are errors, but those of what nobody closed come with the collection: some other test would fail."""
    yield
    if request.path.parent.name in COLLECTED:
        gc.collect()

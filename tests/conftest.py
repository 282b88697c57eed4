"""What every test folder shares: the import path of the helpers, and hypothesis profiles."""

from __future__ import annotations

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


@pytest.fixture(scope="session")
def kafka() -> Iterator[Cluster]:
    """A real Kafka, started with the first test that needs it."""
    yield from cluster()

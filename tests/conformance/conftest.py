"""The logs that must conform."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from worlds import KafkaWorld, MemoryWorld, World

if TYPE_CHECKING:
    from support.cluster import Cluster


@pytest.fixture(params=["memory", "kafka"])
def world(request: pytest.FixtureRequest) -> World:
    """Where the log of this test lives."""
    if request.param == "memory":
        return MemoryWorld()
    cluster: Cluster = request.getfixturevalue("kafka")
    return KafkaWorld(cluster)

"""The logs that must conform."""

from __future__ import annotations

import pytest
from worlds import MemoryWorld, World


@pytest.fixture(params=[pytest.param(MemoryWorld, id="memory")])
def world(request: pytest.FixtureRequest) -> World:
    """Where the log of this test lives."""
    made: World = request.param()
    return made

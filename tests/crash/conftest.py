"""Fixtures of the scenarios. `CRASH_SEED=…` repeats a run's choices; each test prints its seed."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.crash.harness.process import Settings
from tests.crash.harness.world import World, open_world

# JSON has numbers of any length; only Python's reader bounds them (to 4300 digits).
sys.set_int_max_str_digits(0)


@pytest.fixture
def seed() -> int:
    """Of every choice that a scenario makes; when things happen depends on the machine as well."""
    seed = int(os.environ.get("CRASH_SEED") or random.SystemRandom().randrange(2**32))
    print(f"CRASH_SEED={seed}")
    return seed


@pytest.fixture
def tables() -> Settings:
    """Settings that a module or test changes by overriding this fixture."""
    return {}


@pytest.fixture
async def world(
    request: pytest.FixtureRequest, tmp_path: Path, seed: int, tables: Settings
) -> AsyncIterator[World]:
    marker = request.node.get_closest_marker("settings")
    name = request.node.name.removeprefix("test_")
    async with open_world(name, seed, tmp_path, marker.kwargs if marker else tables) as world:
        yield world

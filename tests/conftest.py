"""Fixtures for tests that need a listener; see `listening`."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from tests.listening import Proxy, serving, settings


@pytest.fixture
async def proxy_factory(tmp_path):
    """Starts listeners: `await proxy_factory(server={"max_request": 1000})`."""
    async with AsyncExitStack() as stack:
        started = 0

        async def start(
            *, sources=None, mapper=None, patience=None, body_timeout=30.0, **tables
        ) -> Proxy:
            nonlocal started
            started += 1
            conf = settings(tmp_path / f"buffer-{started}", sources=sources, **tables)
            return await stack.enter_async_context(
                serving(conf, mapper=mapper, patience=patience, body_timeout=body_timeout)
            )

        yield start


@pytest.fixture
async def proxy(proxy_factory) -> Proxy:
    """A listener at its defaults, with one source that is called `site`."""
    return await proxy_factory()

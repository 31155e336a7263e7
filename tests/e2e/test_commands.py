"""The operator's commands against a real proxy, as an operator runs them."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.e2e.processes import environment
from tests.e2e.stage import KEY, Stage, open_stage


class Commands:
    """Runs `edgeproxy` with the configuration of a stage."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "config.toml"

    async def __call__(self, *arguments: str, expect: int = 0) -> str:
        async with self.started(*arguments) as process:
            output, errors = await asyncio.wait_for(process.communicate(), 40)
        assert process.returncode == expect, errors.decode()
        return output.decode() + errors.decode()

    async def json(self, *arguments: str, expect: int = 0) -> list[dict[str, Any]]:
        output = await self(*arguments, "--json", expect=expect)
        return [json.loads(line) for line in output.splitlines()]

    @asynccontextmanager
    async def started(self, *arguments: str):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "edgeproxy", *arguments, "--config", str(self.config)),
            env=environment() | {"COLUMNS": "100"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    def change(self, old: str, new: str) -> None:
        text = self.config.read_text()
        assert old in text
        self.config.write_text(text.replace(old, new))


@pytest.fixture
def edgeproxy(tmp_path: Path) -> Commands:
    return Commands(tmp_path)


def event(number: int, **more: object) -> dict[str, object]:
    return {
        "type": "track",
        "event": "Ping",
        "messageId": f"m{number}",
        "anonymousId": f"user-{number % 3}",
    } | more


async def send(stage: Stage, *events: dict[str, object]) -> dict[str, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{stage.url}/v1/batch", json={"batch": events, "writeKey": KEY}) as answer,
    ):
        assert answer.status == 200
        return await answer.json()


async def test_status_and_reload_speak_to_the_proxy_of_the_configuration(
    stage: Stage, edgeproxy: Commands
):
    assert "Accepting      yes" in await edgeproxy("status")
    edgeproxy.change("interval = '50ms'", "interval = '60ms'")
    assert "Applied: " in await edgeproxy("reload")
    edgeproxy.change("interval = '60ms'", "interval = '60 parsecs'")
    output = await edgeproxy("reload", expect=78)
    assert "[flush] interval" in output
    assert "goes on with the configuration that it has" in output
    assert "Accepting      yes" in await edgeproxy("status")
    edgeproxy.change("interval = '60 parsecs'", "interval = '1s'")
    edgeproxy.change("[buffer]", "[buffer]\nmax_size = '2GiB'")
    for _ in range(2):  # it says so until it was restarted
        (result,) = await edgeproxy.json("reload")
        assert result["needs_restart"] == ["buffer.max_size"]
    (status,) = await edgeproxy.json("status")
    assert status["buffer"]["max_bytes"] == 2**30


async def first_line(stage: Stage, tail: asyncio.subprocess.Process) -> dict[str, Any]:
    """Send events until the first is shown: a bad one with each good one."""
    assert tail.stdout is not None
    reading = asyncio.create_task(tail.stdout.readline())
    number = 0
    while not reading.done():  # another process: there is nothing to wait on
        await send(stage, event(number), {"type": "track", "messageId": f"bad{number}"})
        number += 1
        await asyncio.wait([reading], timeout=0.2)
    return json.loads(reading.result())


async def test_tail_shows_events_as_they_pass(stage: Stage, edgeproxy: Commands):
    async with edgeproxy.started("tail", "--json") as process:
        first = await first_line(stage, process)
        second = json.loads(await process.stdout.readline())
        process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.wait(), 10)
    assert process.returncode == 0
    assert (first["verdict"], first["event"], first["source"]) == ("accepted", "Ping", "site")
    assert first["user"].startswith("~")
    assert first["body"]["anonymousId"] == "text"
    assert (second["verdict"], second["code"]) == ("quarantined", "missing_identity")


async def test_whoever_watches_does_not_hold_up_the_end_of_the_proxy(
    tmp_path: Path, edgeproxy: Commands
):
    async with AsyncExitStack() as stack:
        async with open_stage(tmp_path, {}) as stage:
            tail = await stack.enter_async_context(edgeproxy.started("tail", "--json"))
            await first_line(stage, tail)
            began = time.monotonic()
        assert time.monotonic() - began < 5
        await asyncio.wait_for(tail.wait(), 10)
    assert tail.returncode == 1

"""One proxy process with a relay before it and a sandbox behind it."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from edgeproxy.sandbox import Arrival, Sandbox
from tests.e2e import oracle
from tests.e2e.processes import environment, free_ports
from tests.e2e.relay import Relay

HIGHTOUCH_KEY = "the-key-at-hightouch"
KEY = "the-key-of-the-site"
PATIENCE = 20.0  # seconds for anything that should take less than one


class Stage:
    """What a test holds. `relay.url` is where SDKs send."""

    def __init__(self, sandbox: Sandbox, port: int, admin_port: int) -> None:
        self.sandbox = sandbox
        self.url = f"http://127.0.0.1:{port}"
        self.admin_url = f"http://127.0.0.1:{admin_port}"
        self.relay = Relay("127.0.0.1", port)
        self._arrived = asyncio.Event()
        sandbox.on_event = lambda _: self._arrived.set()

    @property
    def key(self) -> str:
        return KEY

    @property
    def arrivals(self) -> dict[str, Arrival]:
        """What arrived, by `messageId`."""
        return {arrival.message_id: arrival for arrival in self.sandbox.events}

    async def until(self, done: Callable[[], bool], what: str) -> None:
        """Wait for `done`, looked at after each arrival."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not done():
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            got = [(a.type, a.message_id, a.blocked) for a in self.sandbox.events]
            raise AssertionError(f"waited in vain for {what}; arrived: {got}") from None

    async def everything_arrives(self, sent: list[oracle.Sent], *, within: float = 60.0) -> None:
        """Every event of `sent`, as it was sent but for what the contract adds, exactly once,
        none blocked, and nothing else.
        """
        assert sent, "nothing was sent"
        await self.until(lambda: len(self.arrivals) >= len(sent), f"{len(sent)} events")
        arrivals = self.arrivals
        ids = [arrival.message_id for arrival in self.sandbox.events]
        assert sorted(ids) == sorted(set(ids)), "no event arrives twice"
        assert {a.message_id: a.blocked for a in arrivals.values() if a.blocked} == {}
        given = {event.message_id for event in sent if event.message_id}
        made = [message_id for message_id in ids if message_id not in given]
        assert given <= arrivals.keys()
        assert len(made) == len(sent) - len(given)
        for event in sent:
            oracle.check(event, arrivals[event.message_id or made.pop(0)].event, within=within)

    async def status(self) -> dict[str, object]:
        async with aiohttp.ClientSession() as session, session.get(f"{self.admin_url}/status") as r:
            return await r.json()


@asynccontextmanager
async def open_stage(folder: Path, tables: dict[str, object]):
    """Start everything; afterwards stop the proxy with SIGTERM and expect exit code 0."""
    sandbox = Sandbox(HIGHTOUCH_KEY)
    async with sandbox.serve() as endpoint:
        stage = Stage(sandbox, *free_ports(2))
        config = folder / "config.toml"
        config.write_text(toml(_settings(stage, endpoint, folder, tables)))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "edgeproxy", "run", "--config", str(config)),
            env=environment(),
            stderr=asyncio.subprocess.PIPE,
        )
        log = bytearray()
        reading = asyncio.create_task(_collect(process, log))
        try:
            await _ready(stage, process, log)
            async with stage.relay.serve():
                yield stage
            await _stop(process, log)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            await reading


def _settings(stage: Stage, endpoint: str, folder: Path, tables: dict[str, object]) -> dict:
    port = int(stage.url.rpartition(":")[2])
    settings: dict[str, dict | list] = {
        "hightouch": {"write_key": HIGHTOUCH_KEY, "endpoint": endpoint},
        "server": {"host": "127.0.0.1", "port": port},
        "admin": {"port": int(stage.admin_url.rpartition(":")[2])},
        "buffer": {"path": str(folder / "buffer")},
        "flush": {"interval": "50ms"},
        "retry": {"initial": "50ms", "max": "200ms"},
    }
    for name, table in tables.items():
        if isinstance(table, dict):
            settings[name] = {**settings.get(name, {}), **table}
        else:
            settings[name] = table
    settings.setdefault("sources", [{"name": "site", "write_key": KEY}])
    return settings


def toml(settings: dict) -> str:
    lines = []
    for name, value in settings.items():
        for head, table in (
            [(f"[[{name}]]", item) for item in value]
            if isinstance(value, list)
            else [(f"[{name}]", value)]
        ):
            lines.append(head)
            lines += [f"{key} = {_literal(item)}" for key, item in table.items()]
    return "\n".join(lines) + "\n"


def _literal(value: object) -> str:
    # What TOML and Python's repr of a str disagree on does not occur here.
    return str(value).lower() if isinstance(value, bool) else repr(value)


async def _ready(stage: Stage, process: asyncio.subprocess.Process, log: bytearray) -> None:
    async with aiohttp.ClientSession() as session:
        for _ in range(200):
            assert process.returncode is None, f"the proxy ended: {log.decode()}"
            try:
                async with session.get(f"{stage.url}/readyz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.05)  # another process: there is nothing to wait on
    raise AssertionError(f"the proxy did not become ready: {log.decode()}")


async def _stop(process: asyncio.subprocess.Process, log: bytearray) -> None:
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(PATIENCE):
        await process.wait()
    assert process.returncode == 0, f"exit {process.returncode}: {log.decode()[-3000:]}"


async def _collect(process: asyncio.subprocess.Process, log: bytearray) -> None:
    assert process.stderr is not None
    while chunk := await process.stderr.read(65536):
        log += chunk

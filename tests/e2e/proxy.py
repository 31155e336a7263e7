"""`edgeproxy run` as a process, for tests of its life: started, asked, signalled, killed."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

import aiohttp

from tests.e2e.processes import environment, free_ports
from tests.e2e.stage import toml

KEY = "the-key-of-the-site"
HIGHTOUCH_KEY = "the-key-at-hightouch"


def event(number: int, user: str | None = None, **more: object) -> dict[str, object]:
    return {
        "type": "track",
        "event": "Tested",
        "messageId": f"m{number}",
        "anonymousId": user or f"u{number}",
        **more,
    }


class Proxy:
    """One proxy process and its folder; `start` again after `stop` or `kill`."""

    def __init__(self, folder: Path, endpoint: str, **tables: object) -> None:
        self.folder = folder
        self.port, self.admin_port = free_ports(2)
        self.url = f"http://127.0.0.1:{self.port}"
        self.admin_url = f"http://127.0.0.1:{self.admin_port}"
        self.settings: dict[str, object] = {
            "hightouch": {"write_key": HIGHTOUCH_KEY, "endpoint": endpoint},
            "server": {"host": "127.0.0.1", "port": self.port},
            "admin": {"port": self.admin_port},
            "buffer": {"path": str(folder / "buffer")},
            "flush": {"interval": "50ms"},
            "retry": {"initial": "50ms", "max": "200ms"},
            "log": {"format": "json"},
            "sources": [{"name": "site", "write_key": KEY}],
        }
        self.change(**tables)
        self.process: asyncio.subprocess.Process | None = None
        self.session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20))
        self._log = bytearray()
        self._reading: asyncio.Task[None] | None = None

    @property
    def config(self) -> Path:
        return self.folder / "config.toml"

    def change(self, **tables: object) -> None:
        """Write the configuration, with these tables' keys changed."""
        for name, table in tables.items():
            old = self.settings.get(name)
            merge = isinstance(old, dict) and isinstance(table, dict)
            self.settings[name] = {**old, **table} if merge else table
        self.config.write_text(toml(self.settings))

    async def spawn(self, *, pass_fds: tuple[int, ...] = (), **environ: str) -> None:
        """Start the process, and no more."""
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "edgeproxy", "run", "--config", str(self.config)),
            env=environment() | environ,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=pass_fds,
        )
        self._reading = asyncio.create_task(self._collect(self.process))

    async def start(self) -> None:
        """Start the process, and wait until it serves."""
        await self.spawn()
        for _ in range(400):
            assert self.process.returncode is None, f"the proxy ended: {self._log.decode()}"
            try:
                async with self.session.get(f"{self.url}/readyz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.025)  # another process: there is nothing to wait on
        raise AssertionError(f"the proxy did not become ready: {self._log.decode()}")

    async def _collect(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        while chunk := await process.stderr.read(65536):
            self._log += chunk

    @property
    def log_text(self) -> str:
        return self._log.decode()

    def log(self, *names: str) -> list[dict[str, object]]:
        """The log's lines, or those of these names."""
        lines = [json.loads(line) for line in self._log.splitlines() if line.startswith(b"{")]
        return [line for line in lines if not names or line["event"] in names]

    async def send(self, *events: dict[str, object], key: str = KEY) -> int:
        """Send a batch; the answer's status."""
        async with self.session.post(
            f"{self.url}/v1/batch", json={"batch": events, "writeKey": key}
        ) as answer:
            return answer.status

    async def status(self) -> dict[str, object]:
        async with self.session.get(f"{self.admin_url}/status") as answer:
            return await answer.json()

    async def lane(self, name: str = "site") -> dict[str, object]:
        lanes = (await self.status())["lanes"]
        return next(lane for lane in lanes if lane["name"] == name)

    async def until_lane(self, name: str = "site", **wanted: object) -> dict[str, object]:
        """Wait until a lane shows these values."""
        lane: dict[str, object] = {}
        for _ in range(400):
            lane = await self.lane(name)
            if all(lane[key] == value for key, value in wanted.items()):
                return lane
            await asyncio.sleep(0.025)  # another process
        raise AssertionError(f"waited in vain for {wanted}: {lane}; {self.log_text[-2000:]}")

    async def until_logged(self, name: str, count: int = 1) -> dict[str, object]:
        """Wait for a line of the log."""
        for _ in range(800):
            if len(found := self.log(name)) >= count:
                return found[-1]
            await asyncio.sleep(0.025)  # another process
        raise AssertionError(f"waited in vain for {name}: {self.log_text[-2000:]}")

    async def reload(self) -> tuple[int, dict[str, object]]:
        async with self.session.post(f"{self.admin_url}/api/reload") as answer:
            return answer.status, await answer.json()

    async def ended(self, within: float = 20.0) -> int:
        """Wait for the process's end: its exit code."""
        async with asyncio.timeout(within):
            await self.process.wait()
            await self._reading
        return self.process.returncode

    async def stop(self, within: float = 20.0) -> int:
        self.process.send_signal(signal.SIGTERM)
        return await self.ended(within)

    async def kill(self) -> None:
        self.process.kill()
        await self.ended()

    async def close(self) -> None:
        if self.process is not None and self.process.returncode is None:
            await self.kill()
        await self.session.close()

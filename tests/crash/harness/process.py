"""The proxy as a process: started, watched, signalled, read afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

import apsw

from tests.crash.harness.oracle import Leftovers

__all__ = ["Proxy", "leftovers"]

_ROOT = Path(__file__).parents[3]
_OURS = ("EDGEPROXY_", "PROJECT_WRITEKEY", "WORKSPACE_REGION", "NOTIFY_", "LISTEN_", "WATCHDOG_")
_PATIENCE = 20.0  # seconds for a start or an end that should take one

Settings = dict[str, dict[str, object] | list[dict[str, object]]]


class Proxy:
    """`edgeproxy run` with a configuration file, started as often as it ends."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self.config = folder / "config.toml"
        self.buffer = folder / "buffer"
        self.prefix: Sequence[str] = ()  # a command that runs the command: strace, faketime
        self.child: dict[str, object] = {}  # what tests.crash.child is told; empty: not used
        self.environ: dict[str, str] = {}
        self.preexec: Callable[[], None] | None = None
        self.pass_fds: Sequence[int] = ()
        self.log: list[dict[str, object]] = []
        self.starts = 0
        self.codes: list[int] = []  # exit codes of those that ended
        self.addresses: dict[str, tuple[str, int]] = {}
        self.process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._serving = asyncio.Event()
        self.peak_memory_mb = 0.0
        self.write_config(settings)

    def write_config(self, settings: Settings) -> None:
        self.config.write_text(_toml(settings))
        tomllib.loads(self.config.read_text())

    @property
    def address(self) -> tuple[str, int]:
        """Where clients connect: of the last start; a port that nobody listens on before it."""
        return self.addresses.get("clients", ("127.0.0.1", 9))

    @property
    def admin(self) -> tuple[str, int]:
        return self.addresses["admin"]

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.returncode is None

    async def start(self) -> None:
        """Start and wait until it serves."""
        await self.spawn()
        await self.serving()

    async def spawn(self) -> None:
        self._serving.clear()
        self.starts += 1
        module = ("tests.crash.child",) if self.child else ("edgeproxy",)
        self.process = await asyncio.create_subprocess_exec(
            *(*self.prefix, sys.executable, "-m", *module, "run", "--config", str(self.config)),
            cwd=self.folder,
            env=self._environment(),
            stderr=asyncio.subprocess.PIPE,
            stdin=asyncio.subprocess.DEVNULL,
            preexec_fn=self.preexec,
            pass_fds=self.pass_fds,
            limit=2**22,
        )
        self._reading = asyncio.create_task(self._read(self.process))

    def _environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(_OURS)}
        ours = {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(_ROOT), "NO_PROXY": "127.0.0.1"}
        if self.child:
            ours["CRASH_CHILD"] = json.dumps(self.child)
        return kept | ours | self.environ

    async def serving(self) -> None:
        """Wait until it serves; AssertionError if it ends before that."""
        assert self.process is not None
        waiting = [
            asyncio.create_task(self._serving.wait()),
            asyncio.create_task(self.process.wait()),
        ]
        done, _ = await asyncio.wait(
            waiting, timeout=_PATIENCE, return_when=asyncio.FIRST_COMPLETED
        )
        for task in waiting:
            task.cancel()
        assert done, f"it does not become ready: {self.tail()}"
        assert self._serving.is_set(), f"it ended: {self.tail()}"

    def signal(self, number: int = signal.SIGKILL) -> None:
        if self.is_running:
            assert self.process is not None
            self.sample_memory()
            self.process.send_signal(number)

    async def ended(self, patience: float = _PATIENCE) -> int:
        """Wait for the end; the exit code (negative: the signal)."""
        assert self.process is not None
        assert self._reading is not None
        try:
            async with asyncio.timeout(patience):
                code = await self.process.wait()
                await self._reading
        except TimeoutError:
            raise AssertionError(f"it does not end within {patience} s: {self.tail()}") from None
        self.codes.append(code)
        return code

    async def stop(self, patience: float = _PATIENCE) -> int:
        self.signal(signal.SIGTERM)
        return await self.ended(patience)

    def sample_memory(self) -> None:
        """Note the most memory it had so far."""
        if not self.is_running:
            return
        assert self.process is not None
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                self.peak_memory_mb = max(self.peak_memory_mb, int(line.split()[1]) / 1024)

    async def command(self, *arguments: str) -> asyncio.subprocess.Process:
        """Start another command with this configuration; the caller waits for it or ends it."""
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "edgeproxy", *arguments, "--config", str(self.config)),
            cwd=self.folder,
            env=self._environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    async def get(self, path: str) -> tuple[int, bytes]:
        """Ask the admin listener."""
        reader, writer = await asyncio.open_connection(*self.admin, limit=2**22)
        try:
            writer.write(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
        return int(head.split(b" ")[1]), body

    async def status(self) -> dict:
        return json.loads((await self.get("/status"))[1])

    def tail(self) -> str:
        return "\n".join(json.dumps(line)[:1500] for line in self.log[-8:])

    def logged(self, event: str) -> list[dict[str, object]]:
        return [line for line in self.log if line.get("event") == event]

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        async for raw in process.stderr:
            try:
                line = json.loads(raw)
            except ValueError:
                line = {"event": "stderr", "text": raw.decode(errors="replace")}
            self.log.append(line)
            if line.get("event") == "serving":
                self.addresses = {k: tuple(line[k][0]) for k in ("clients", "admin")}
                self._serving.set()


def leftovers(folder: Path) -> Leftovers:
    """Read what a stopped proxy left, from a copy, so that looking changes nothing."""
    found = Leftovers()
    database = folder / "events.sqlite"
    if not database.exists():
        return found
    with tempfile.TemporaryDirectory() as copy:
        for suffix in ("", "-wal"):
            source = database.with_name(database.name + suffix)
            if source.exists():
                (Path(copy) / source.name).write_bytes(source.read_bytes())
        connection = apsw.Connection(str(Path(copy) / database.name))
        try:
            found.events = [
                bytes(row[0]) for row in connection.execute("select body from events order by id")
            ]
            found.dead = [
                (str(code), bytes(body))
                for code, body in connection.execute("select code, body from dead_letters")
            ]
        finally:
            connection.close()
    return found


def _toml(settings: Settings) -> str:
    lines = []
    for name, value in settings.items():
        tables = value if isinstance(value, list) else [value]
        head = f"[[{name}]]" if isinstance(value, list) else f"[{name}]"
        for table in tables:
            lines.append(head)
            lines += [f"{key} = {json.dumps(item)}" for key, item in table.items()]
    return "\n".join(lines) + "\n"

"""The real process among those who mean it harm: it stays up, small, quiet, and serves the others."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import re
import resource
import shutil
import socket
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import brotli
import pytest

from tests.e2e.conftest import missing
from tests.e2e.processes import environment, free_ports

KEY = "the-key-of-the-site"
MIB = 2**20
CONNECTIONS = 10_000

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


class Running:
    """A proxy that delivers nowhere."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, log: bytearray) -> None:
        self.process, self.port, self.log = process, port, log
        self.url = f"http://127.0.0.1:{port}"

    def memory(self, name: str = "VmRSS") -> int:
        """Bytes of resident memory: now, or (VmHWM) at most."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"{name}:\s+(\d+)", status)[1]) * 1024

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    async def send(self, session: aiohttp.ClientSession) -> float:
        """Send one sound event; seconds until its 200."""
        started = time.monotonic()
        event = {"type": "track", "event": "Order Completed", "userId": "u", "writeKey": KEY}
        async with session.post(f"{self.url}/v1/track", json=event) as answer:
            assert await answer.read() == b'{"success":true}'
        return time.monotonic() - started


@pytest.fixture
async def proxy(tmp_path):
    async with _running(tmp_path) as running:
        yield running


@asynccontextmanager
async def _running(folder: Path):
    port, admin = free_ports(2)
    config = folder / "config.toml"
    config.write_text(
        f'[hightouch]\nwrite_key = "{KEY}"\nendpoint = "http://127.0.0.1:9"\n'
        f'[server]\nhost = "127.0.0.1"\nport = {port}\n[admin]\nport = {admin}\n'
        f'[buffer]\npath = "{folder / "buffer"}"\n[flush]\ndrain_timeout = "0s"\n'
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "edgeproxy", "run", "--config", str(config)),
        env=environment(),
        stderr=asyncio.subprocess.PIPE,
    )
    log = bytearray()
    reading = asyncio.create_task(_collect(process, log))
    running = Running(process, port, log)
    try:
        await _ready(running)
        yield running
        process.terminate()
        async with asyncio.timeout(20):
            assert await process.wait() == 0
        await reading
        _look_at(log)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await reading


async def _collect(process: asyncio.subprocess.Process, log: bytearray) -> None:
    while chunk := await process.stderr.read(65536):
        log += chunk


async def _ready(running: Running) -> None:
    async with aiohttp.ClientSession() as session:
        for _ in range(400):
            assert running.process.returncode is None, running.log.decode()
            try:
                async with session.get(f"{running.url}/readyz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.05)  # another process: there is nothing to wait on
    raise AssertionError(running.log.decode())


def _look_at(log: bytearray) -> None:
    """No tracebacks, no keys, no bodies, and no line for every nuisance."""
    text = log.decode()
    assert "Traceback" not in text
    for secret in (KEY, "Order Completed", "Basic "):
        assert secret not in text
    noisy = [line for line in text.splitlines() if '"level": "error"' in line or "[error" in line]
    assert noisy == []
    assert len(text) < 100_000


def bombs():
    zeros = bytes(100 * MIB)
    return {
        "gzip": gzip.compress(zeros),
        "br": brotli.compress(zeros, quality=2),
        "zstd": zstd.compress(zeros),
    }


async def test_bombs_cost_the_bound_and_not_their_size(proxy):
    made = bombs()
    async with aiohttp.ClientSession() as session:
        await proxy.send(session)
        before = proxy.memory()
        proxy.forget_peak()
        for _ in range(5):
            for encoding, bomb in made.items():
                headers = {"Content-Encoding": encoding}
                async with session.post(f"{proxy.url}/v1/batch", data=bomb, headers=headers) as r:
                    assert (r.status, (await r.json())["code"]) == (413, "request_too_large")
        await proxy.send(session)
    assert proxy.memory("VmHWM") - before < 64 * MIB


async def test_bodies_that_are_large_once_opened_cost_little(proxy):
    count = 4 * MIB - 100
    bodies = {
        "many": b'{"batch":[%b1]}' % (b"1," * (count // 2)),
        "deep": b"[" * count,
        "objects": b'{"batch":[%b{}]}' % (b"{}," * (count // 3)),
        "string": b'["%b"%b]' % (b"a" * (count - 1000), b",[]" * 300),
        "members": gzip.compress(b"") * (count // 20),
        "context": json.dumps(
            {"context": {"a": "x" * 90_000}, "batch": [{"type": "page", "userId": "u"}] * 40_000}
        ).encode(),
        "sent_at": json.dumps({"sentAt": "x" * 90_000, "batch": [1] * 40_000}).encode(),
    }
    async with aiohttp.ClientSession() as session:
        await proxy.send(session)
        before = proxy.memory()
        proxy.forget_peak()
        for name, body in bodies.items():
            headers = {"Content-Encoding": "gzip"} if name == "members" else {}
            started = time.monotonic()
            url = f"{proxy.url}/v1/batch?writeKey={KEY}"
            async with session.post(url, data=io.BytesIO(body), headers=headers) as answer:
                assert answer.status in {400, 413}, name
                assert (await answer.json())["success"] is False
            assert time.monotonic() - started < 10, name
        await proxy.send(session)
    assert proxy.memory("VmHWM") - before < 100 * MIB


@pytest.fixture
def many_files():
    """As many open files as are permitted, here and in what is started from here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < CONNECTIONS + 500:
        pytest.skip(f"{CONNECTIONS} connections need more open files (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_ten_thousand_idle_and_half_open_connections_disturb_nobody(many_files, proxy):
    async with aiohttp.ClientSession() as session:
        await proxy.send(session)
        before = proxy.memory()
        sockets = []
        starts = [b"", b"POST /v1/track HT", b"POST /v1/track HTTP/1.1\r\nHost: x\r\n",
                  b"POST /v1/track HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"]  # fmt: skip
        for number in range(CONNECTIONS):
            sock = socket.create_connection(("127.0.0.1", proxy.port))
            sock.sendall(starts[number % 4])
            sockets.append(sock)
            if number % 50 == 0:
                await asyncio.sleep(0)
        took = [await proxy.send(session) for _ in range(20)]
        assert sorted(took)[10] < 0.5
        assert proxy.memory() - before < 120 * MIB
        for sock in sockets:
            sock.close()
        await proxy.send(session)


@pytest.mark.parametrize(
    "kind", ["-H", "-B", "-X"], ids=["slow heads", "slow bodies", "slow reads"]
)
async def test_slowhttptest_does_not_keep_others_from_being_served(proxy, kind):
    program = shutil.which("slowhttptest")
    if program is None:
        missing("slowhttptest is needed (apt-get install slowhttptest)")
    attack = await asyncio.create_subprocess_exec(
        *(program, kind, "-c", "400", "-r", "200", "-i", "1", "-l", "6", "-p", "2"),
        *("-u", f"{proxy.url}/v1/track", "-t", "POST"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    reading = asyncio.create_task(attack.stdout.read())
    try:
        took = []
        async with aiohttp.ClientSession() as session:
            while attack.returncode is None:
                took.append(await proxy.send(session))
                await asyncio.sleep(0.05)
    finally:
        if attack.returncode is None:
            attack.kill()
        await attack.wait()
        output = (await reading).decode(errors="replace")
    assert len(took) > 20, output
    assert sorted(took)[len(took) * 9 // 10] < 1.0

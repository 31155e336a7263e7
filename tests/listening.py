"""A real listener before a real buffer, in this process; nothing takes events out of the buffer."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import apsw
from aiohttp import web

from edgeproxy.buffer.base import Claimed
from edgeproxy.buffer.sqlite import SqliteBuffer
from edgeproxy.config import (
    Admin,
    Buffer,
    DeadLetters,
    Flush,
    Hightouch,
    Log,
    Retry,
    Server,
    Settings,
    Source,
    Validation,
)
from edgeproxy.events import Event, Refusal
from edgeproxy.events.intake import Receipt, dated
from edgeproxy.events.verdicts import Filtered
from edgeproxy.metrics import Metrics
from edgeproxy.server.app import ClientApp
from edgeproxy.server.intake import Intake
from edgeproxy.server.protocol import Patience, ProxyServer
from edgeproxy.server.script import ScriptService

NOW = 1_795_448_194_379  # 2026-11-23T15:36:34.379Z
KEY = "the-key-of-the-site"


class Unmapped:
    """A mapper that leaves events alone."""

    revision = "none"
    short_way = None

    def apply(self, event: Event, source: str) -> Refusal | Filtered | None:
        return None


def source(name: str = "site", key: str = KEY, **more: object) -> Source:
    return Source(name, (key,), "the-key-at-hightouch", "us-east-1", "http://127.0.0.1:9", **more)


def settings(path: Path, *, sources: tuple[Source, ...] | None = None, **tables) -> Settings:
    return Settings(
        Hightouch(),
        sources or (source(),),
        Server(host="127.0.0.1", port=0, **tables.get("server", {})),
        Admin(),
        Validation(**tables.get("validation", {})),
        Buffer(path=path, **tables.get("buffer", {})),
        Flush(),
        Retry(),
        DeadLetters(**tables.get("dead_letters", {})),
        Log(),
    )


class Answer:
    """What came back on a socket."""

    def __init__(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status = status
        self.headers = {name.lower(): value for name, value in headers}
        self.body = body

    def json(self) -> dict:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The error's code; the whole shape of an error is looked at."""
        told = self.json()
        assert set(told) == {"success", "error", "code", "message"}, told
        assert told["success"] is False
        assert all(isinstance(told[key], str) and told[key] for key in ("error", "code", "message"))
        assert self.headers["content-type"].startswith("application/json")
        return told["code"]


class Connection:
    """A socket that sends what it is given and nothing else."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, *, head_only: bool = False) -> Answer:
        async with asyncio.timeout(20):
            head = await self.reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").rstrip().split("\r\n")
            headers = [tuple(line.split(": ", 1)) for line in lines]
            status = int(first.split(" ")[1])
            length = int({n.lower(): v for n, v in headers}.get("content-length", 0))
            skip = head_only or status in {100, 204, 304}
            body = b"" if skip else await self.reader.readexactly(length)
        return Answer(status, headers, body)

    async def closed(self) -> bytes:
        """What still comes until the other side closes."""
        async with asyncio.timeout(20):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


class Proxy:
    """What a test holds."""

    def __init__(self, port: int, buffer: SqliteBuffer, intake: Intake, metrics: Metrics) -> None:
        self.port, self.buffer, self.intake, self.metrics = port, buffer, intake, metrics
        self.server: ProxyServer
        self.now = NOW

    async def connect(self) -> Connection:
        return Connection(*await asyncio.open_connection("127.0.0.1", self.port))

    async def raw(self, data: bytes, *, head_only: bool = False) -> Answer:
        """One answer to these bytes on a fresh connection."""
        connection = await self.connect()
        try:
            await connection.send(data)
            return await connection.answer(head_only=head_only)
        finally:
            await connection.close()

    async def request(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Answer:
        sent = {"Host": "edge.example.com", **(headers or {})}
        if body or method == "POST":
            sent.setdefault("Content-Length", str(len(body)))
        head = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        data = f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body
        return await self.raw(data, head_only=method == "HEAD")

    async def post(
        self,
        path: str,
        body: object,
        headers: dict[str, str] | None = None,
        *,
        key: str | None = KEY,
    ) -> Answer:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {} if key is None else {"Authorization": basic(key)}
        return await self.request("POST", path, data, {**sent, **(headers or {})})

    def stored(self, lane: str = "site") -> list[bytes]:
        """The events that are on disk, in the form that is sent; each is given once."""
        claimed: list[Claimed] = self.buffer.claim(lane, 100_000, 2**40)
        if claimed:
            self.buffer.ack(lane, claimed)  # done before the next request's commit
        return [
            dated(c.received if c.skew is None else c.received + c.skew) + c.body[1:]
            for c in claimed
        ]

    def events(self, lane: str = "site") -> list[dict]:
        return [json.loads(body) for body in self.stored(lane)]

    async def event(self, event: object, headers: dict[str, str] | None = None, **more) -> dict:
        """Send one event in a batch; give what would be sent to Hightouch."""
        answer = await self.post("/v1/batch", {"batch": [event], **more}, headers)
        assert answer.body == b'{"success":true}', answer.body
        (stored,) = self.events()
        return stored

    def letters(self) -> list[tuple[str, str, bytes]]:
        """Dead letters: code, messageId and body."""
        path = self.buffer._path / "events.sqlite"
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            return list(
                connection.execute("select code, message_id, body from dead_letters order by id")
            )
        finally:
            connection.close()


def hold_commits(proxy: Proxy, seconds: float) -> None:
    """Have every commit of the proxy's buffer take so long."""
    committer = proxy.buffer._committer
    commit = committer._commit

    def slowly() -> None:
        time.sleep(seconds)
        commit()

    committer._commit = slowly


def basic(key: str) -> str:
    return "Basic " + base64.b64encode(f"{key}:".encode()).decode()


def track(**more: object) -> dict:
    """A sound event."""
    return {
        "type": "track",
        "messageId": f"m-{time.monotonic_ns()}",
        "anonymousId": "a-1",
        "event": "Order Completed",
        "timestamp": "2026-11-23T15:36:34.000Z",
        "properties": {"total": 1.5},
        **more,
    }


@asynccontextmanager
async def serving(
    conf: Settings,
    *,
    mapper: object | None = None,
    patience: Patience | None = None,
    body_timeout: float = 30.0,
    script: ScriptService | None = None,
) -> AsyncIterator[Proxy]:
    """Serve until the block ends."""
    metrics = Metrics()
    buffer = await SqliteBuffer.open(conf.buffer.path, max_size=conf.buffer.max_size)
    intake = Intake(
        buffer,
        mapper or Unmapped(),
        conf.validation,
        metrics,
        keep_received=conf.dead_letters.keep == "received",
    )
    proxy = Proxy(0, buffer, intake, metrics)
    app = ClientApp(
        conf,
        intake,
        metrics,
        ready=buffer.full_reason,
        script=script,
        now=lambda: proxy.now,
        body_timeout=body_timeout,
    )
    server = ProxyServer(app.handle, patience, begin=app.begin)
    runner = web.ServerRunner(server, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    proxy.port = runner.addresses[0][1]
    proxy.server = server
    sweeping = asyncio.create_task(server.sweep())
    try:
        yield proxy
    finally:
        sweeping.cancel()
        await runner.cleanup()
        await buffer.close()


__all__ = ["KEY", "NOW", "Answer", "Connection", "Proxy", "Receipt", "basic", "serving", "settings", "source", "track"]  # fmt: skip

"""Passes TCP connections on unchanged and remembers every request that went through."""

from __future__ import annotations

import asyncio
import gzip
from contextlib import asynccontextmanager

from tests.e2e.oracle import Request


class Relay:
    """Between an SDK and the proxy. Bytes pass as they come, in both directions."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._streams: list[bytearray] = []
        self._open: set[asyncio.StreamWriter] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def requests(self) -> list[Request]:
        """Every complete request so far, connection by connection."""
        return [request for stream in self._streams for request in parse(bytes(stream))]

    @asynccontextmanager
    async def serve(self):
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for writer in list(self._open):
                writer.transport.abort()
            await self._idle.wait()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen = bytearray()
        self._streams.append(seen)
        self._open.add(writer)
        self._idle.clear()
        onward = None
        try:
            onward_reader, onward = await asyncio.open_connection(*self._target)
            self._open.add(onward)
            await asyncio.gather(
                _pump(reader, onward, seen),
                _pump(onward_reader, writer, None),
            )
        except OSError:
            pass  # either side is gone; the other is told by the abort below
        finally:
            for side in filter(None, (writer, onward)):
                side.transport.abort()
                self._open.discard(side)
            if not self._open:
                self._idle.set()


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: bytearray | None
) -> None:
    while data := await reader.read(65536):
        if seen is not None:
            seen += data
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


def parse(stream: bytes) -> list[Request]:
    """The requests of one connection; one that is not complete yet is left out."""
    found = []
    while b"\r\n\r\n" in stream:
        head, _, rest = stream.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        pairs = (line.partition(":") for line in lines)
        headers = [(name, value.strip()) for name, _, value in pairs]
        lower = {name.lower(): value for name, value in headers}
        taken = _body(lower, rest)
        if taken is None:
            break
        body, stream = taken
        path, _, query = target.partition("?")
        if lower.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        found.append(Request(method, path, query, headers, body))
    return found


def _body(headers: dict[str, str], rest: bytes) -> tuple[bytes, bytes] | None:
    """The body and what follows it; None while it is not complete."""
    if headers.get("transfer-encoding", "").lower() != "chunked":
        length = int(headers.get("content-length", "0"))
        return (rest[:length], rest[length:]) if len(rest) >= length else None
    body = b""
    while True:
        size, separator, rest = rest.partition(b"\r\n")
        if not separator or len(rest) < int(size, 16) + 2:
            return None
        body, rest, last = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :], int(size, 16)
        if last == 0:
            return body, rest

"""A trivial upstream: takes anything, looks at nothing, answers at once.

It only counts requests, bytes and, from gzip's own trailer, the bytes before compression.
`python -m bench.upstream PORT [STATUS]`; `GET` gives the counts.
"""

import asyncio
import json
import sys
from typing import cast

import uvloop

_COUNTS = {"requests": 0, "bytes": 0, "plain_bytes": 0}


def _answer(status: int, body: bytes) -> bytes:
    head = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (status, len(body)) + body


class Upstream(asyncio.Protocol):
    """One connection; bodies are passed over as they arrive."""

    def __init__(self, status: int) -> None:
        self._ok = _answer(status, b'{"success":true}')
        self._head = b""
        self._left = 0
        self._length = 0
        self._gzip = False
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        while data:
            data = self._body(data) if self._left else self._start(data)

    def _start(self, data: bytes) -> bytes:
        head, end, rest = (self._head + data).partition(b"\r\n\r\n")
        if not end:
            self._head = head
            return b""
        self._head = b""
        if head.startswith(b"GET"):
            self._transport.write(_answer(200, json.dumps(_COUNTS).encode()))
            return rest
        lower = head.lower()
        _, found, length = lower.partition(b"\r\ncontent-length:")
        if not found:
            self._transport.write(_answer(411, b"{}"))
            self._transport.close()
            return b""
        self._left = self._length = int(length.split(b"\r\n", 1)[0])
        self._gzip = b"\r\ncontent-encoding: gzip" in lower
        if b"\r\nexpect: 100-continue" in lower:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not self._left:
            self._done()
        return rest

    def _body(self, data: bytes) -> bytes:
        piece, rest = data[: self._left], data[self._left :]
        self._left -= len(piece)
        self._tail = (self._tail + piece[-4:])[-4:]
        if not self._left:
            self._done()
        return rest

    def _done(self) -> None:
        _COUNTS["requests"] += 1
        _COUNTS["bytes"] += self._length
        plain = int.from_bytes(self._tail, "little") if self._gzip else self._length
        _COUNTS["plain_bytes"] += plain
        self._tail = b""
        self._transport.write(self._ok)


async def _main(port: int, status: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Upstream(status), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 200))

"""HTTP/1.1 with keep-alive, one request at a time: the part of it that a load generator needs.

`AnswerReader` does no I/O: bytes in, answers out. `Connection` is the thin shell around it.
A general client costs several times what a request costs the server under test.
"""

import asyncio
import ssl
from typing import NamedTuple, cast

MAX_ANSWER = 1024 * 1024
"""An answer beyond this, head and body, is not one of an events API."""


class UnreadableAnswerError(ConnectionError):
    """What came back is not an HTTP/1.1 answer; the connection is of no more use."""


class Answer(NamedTuple):
    """One answer; `keep_alive` says whether the connection may be used again."""

    status: int
    body: bytes
    keep_alive: bool


class AnswerReader:
    """Takes the bytes of one connection; `answer` gives the answer once it is whole."""

    def __init__(self) -> None:
        self._buffer = b""
        self._closed = False

    def feed(self, data: bytes) -> None:
        """Take what was received.

        Raises:
            UnreadableAnswerError: there is more of it than an answer may have.

        """
        self._buffer = self._buffer + data if self._buffer else data
        if len(self._buffer) > MAX_ANSWER:
            raise UnreadableAnswerError("the answer is too large")

    def close(self) -> None:
        """The other side has closed: an answer without a length ends here."""
        self._closed = True

    def answer(self) -> Answer | None:
        """The answer, taken out of the buffer, or None while it is not whole.

        Raises:
            UnreadableAnswerError: the bytes are not an HTTP/1.1 answer.

        """
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        status, fields = _read_head(self._buffer[:end])
        if 100 <= status < 200:
            self._buffer = self._buffer[end + 4 :]
            return self.answer()
        body = self._body(end + 4, status, fields)
        if body is None:
            return None
        keep_alive = fields.get(b"connection", b"").lower() != b"close" and not self._closed
        return Answer(status, body, keep_alive)

    def _body(self, start: int, status: int, fields: dict[bytes, bytes]) -> bytes | None:
        if status in {204, 304}:
            return self._take(start, start)
        if b"chunked" in fields.get(b"transfer-encoding", b"").lower():
            return self._chunked(start)
        length = fields.get(b"content-length")
        if length is None:
            return self._take(start, len(self._buffer)) if self._closed else None
        if not length.isdigit():
            raise UnreadableAnswerError("Content-Length is not a number")
        end = start + int(length)
        return self._take(start, end) if len(self._buffer) >= end else None

    def _take(self, start: int, end: int) -> bytes:
        body, self._buffer = self._buffer[start:end], self._buffer[end:]
        return body

    def _chunked(self, position: int) -> bytes | None:
        chunks: list[bytes] = []
        while (line_end := self._buffer.find(b"\r\n", position)) >= 0:
            try:
                size = int(self._buffer[position:line_end].partition(b";")[0], 16)
            except ValueError:
                raise UnreadableAnswerError("a chunk has no size") from None
            position = line_end + 2
            if size == 0:
                return self._after_trailers(position, chunks)
            chunks.append(self._buffer[position : position + size])
            position += size + 2
        return None

    def _after_trailers(self, position: int, chunks: list[bytes]) -> bytes | None:
        while (line_end := self._buffer.find(b"\r\n", position)) >= 0:
            if line_end == position:
                self._buffer = self._buffer[position + 2 :]
                return b"".join(chunks)
            position = line_end + 2
        return None


def _read_head(head: bytes) -> tuple[int, dict[bytes, bytes]]:
    status_line, *lines = head.split(b"\r\n")
    if not status_line.startswith(b"HTTP/1.1 ") or not status_line[9:12].isdigit():
        raise UnreadableAnswerError("no HTTP/1.1 status line")
    fields = {}
    for line in lines:
        name, _, value = line.partition(b":")
        fields[name.lower()] = value.strip()
    return int(status_line[9:12]), fields


class Connection(asyncio.Protocol):
    """One connection. Not for more than one request at a time."""

    def __init__(self) -> None:
        self._reader = AnswerReader()
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[Answer] | None = None

    @classmethod
    async def open(cls, host: str, port: int, tls: ssl.SSLContext | None) -> "Connection":
        """Connect.

        Raises:
            OSError: nobody listens there, or the certificate is not good.

        """
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(cls, host, port, ssl=tls)
        return connection

    async def request(self, wire: bytes) -> Answer:
        """Send one request, as bytes, and wait for its answer. Cancelling closes the connection.

        Raises:
            ConnectionError: the connection ended before the answer did.

        """
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the connection is closed")
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(wire)
        try:
            answer = await self._waiting
        except BaseException:
            self.close()
            raise
        finally:
            self._waiting = None
        if not answer.keep_alive:
            self.close()
        return answer

    @property
    def usable(self) -> bool:
        """Whether another request may be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def close(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            self._settle(self._reader.answer())
        except UnreadableAnswerError as error:
            self._fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._reader.close()
        try:
            self._settle(self._reader.answer())
        except UnreadableAnswerError as error:
            self._fail(error)
        self._fail(exc or ConnectionResetError("closed before the answer"))

    def _settle(self, answer: Answer | None) -> None:
        if answer is not None and self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(answer)

    def _fail(self, error: Exception) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)

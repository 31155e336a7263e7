"""The server behind the proxy: keeps every event with the order in which it came, and misbehaves
as it is told, from before the first byte to after the last.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import ssl
import struct
import time
from base64 import b64decode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count

import msgspec

from tests.crash.harness.ledger import Delivery, Ledger

__all__ = ["FINE", "PROMPT", "Plan", "Upstream"]


class Plan(msgspec.Struct, frozen=True):
    """What is done with one request.

    `how`: "answer" it; "reset" the connection `when` ("head": once the head was read, "body": within
    the body, "read": when all was read, "answering": after the answer's first bytes); "drip" an
    answer byte by byte; "blackhole": never answer; "garbage": send `body` and close. With `unsure`
    what is sent may pass for a 2xx.
    """

    how: str = "answer"
    when: str = "read"
    status: int = 200
    headers: tuple[str, ...] = ()
    body: bytes = b'{"success":true}'
    delay: float = 0.0  # seconds before the answer, or between dripped bytes
    unsure: bool = False


FINE = Plan()

#: Seconds from a request's first byte to its answer within which no proxy gives up. What takes longer
#: here was not taken for an answer with certainty.
PROMPT = 0.2

#: Chooses a plan when a request's head was read: given the write key.
Choose = Callable[[str], Plan]
#: Chooses another once the events are known; None: as planned.
Judge = Callable[[str, list[bytes]], Plan | None]


class Upstream:
    """An HTTP/1.1 server of its own, so that it can break the protocol anywhere."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.choose: Choose = lambda _: FINE
        self.judge: Judge = lambda _key, _events: None
        self.on_answered: Callable[[], None] = lambda: None  # after a 2xx left the process
        self.address = ("127.0.0.1", 0)
        self.open = 0
        self._connections = count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://{self.address[0]}:{self.address[1]}"

    def heal(self) -> None:
        """Answer 200 to everything from now on; what hangs is reset."""
        self.choose = lambda _: FINE
        self.judge = lambda _key, _events: None
        self.on_answered = lambda: None
        for task in self._tasks:
            task.cancel()

    async def listen(
        self, sock: socket.socket | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        """Begin, or begin again on the same port; or on a socket that was made elsewhere."""
        where = self.address if sock is None else (None, None)
        self._server = await asyncio.start_server(
            self._connection,
            *where,
            sock=sock,
            limit=2**20,
            backlog=256,
            reuse_address=sock is None,
            ssl=tls,
        )
        self.address = self._server.sockets[0].getsockname()[:2]

    async def close(self) -> None:
        """Refuse connections and reset those that are open."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @asynccontextmanager
    async def serve(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[None]:
        await self.listen(tls=tls)
        try:
            yield
        finally:
            await self.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        number = next(self._connections)
        self.open += 1
        try:
            while await self._request(reader, writer, number):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            _reset(writer)
        except (AssertionError, ValueError, KeyError, EOFError, msgspec.MsgspecError) as error:
            self._ledger.complaints.append(f"the proxy sent what no server can read: {error!r}")
            _reset(writer)
        finally:
            self._tasks.discard(task)
            self.open -= 1
            writer.close()

    async def _request(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int
    ) -> bool:
        first = await reader.read(1)
        if not first:
            return False
        began, began_at = self._ledger.tick(), time.monotonic()
        head = first + await reader.readuntil(b"\r\n\r\n")
        line, *rest = head.decode("latin-1").split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (r.partition(":") for r in rest if r)}
        delivery = Delivery(len(self._ledger.deliveries), connection, began, began_at=began_at)
        self._ledger.deliveries.append(delivery)
        delivery.key = _key(headers)
        plan = self.choose(delivery.key)
        if plan.how == "reset" and plan.when == "head":
            return _reset(writer)
        assert line.startswith("POST /v1/batch HTTP/1.1"), line
        length = int(headers["content-length"])
        if plan.how == "reset" and plan.when == "body":
            await reader.readexactly(length // 2)
            return _reset(writer)
        body = await reader.readexactly(length)
        texts = _events(body, headers)
        delivery.at = time.time()
        self._ledger.arrived(delivery, texts)
        plan = self.judge(delivery.key, texts) or plan
        return await self._answer(plan, delivery, writer)

    async def _answer(self, plan: Plan, delivery: Delivery, writer: asyncio.StreamWriter) -> bool:
        if plan.how == "reset" and plan.when == "read":
            return _reset(writer)
        if plan.how == "blackhole":
            await asyncio.sleep(3600)
        if plan.unsure:
            delivery.status, delivery.uncertain = plan.status, True
            delivery.answered = self._ledger.tick()
        if plan.how == "garbage":
            writer.write(plan.body)
            await writer.drain()
            return False
        answer = _written(plan)
        if plan.how == "reset":
            writer.write(answer[:9])  # "HTTP/1.1 "
            await writer.drain()
            await asyncio.sleep(0.005)
            return _reset(writer)
        if plan.how == "drip":
            for at in range(len(answer)):
                writer.write(answer[at : at + 1])
                await writer.drain()
                await asyncio.sleep(plan.delay)
        elif plan.delay:
            await asyncio.sleep(plan.delay)
        if time.monotonic() - delivery.began_at > PROMPT or writer.is_closing():
            delivery.uncertain = True  # the proxy may have given up on it already
        # Before the write: the proxy may act on the answer before this coroutine goes on.
        delivery.status = plan.status
        delivery.answered = self._ledger.tick()
        if plan.how != "drip":
            writer.write(answer)
            await writer.drain()
        if 200 <= plan.status < 300:
            self.on_answered()
        return True


def _written(plan: Plan) -> bytes:
    head = [
        f"HTTP/1.1 {plan.status} Whatever",
        "Content-Type: application/json",
        f"Content-Length: {len(plan.body)}",
        *plan.headers,
    ]
    return "\r\n".join([*head, "", ""]).encode() + plan.body


def _reset(writer: asyncio.StreamWriter) -> bool:
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


def _key(headers: dict[str, str]) -> str:
    given = headers.get("authorization", "").removeprefix("Basic ")
    return b64decode(given).decode().partition(":")[0]


class _Envelope(msgspec.Struct, rename="camel"):
    batch: list[msgspec.Raw]
    sent_at: str
    write_key: str


def _events(body: bytes, headers: dict[str, str]) -> list[bytes]:
    """Take a body apart, strictly: what the proxy writes must be sound."""
    if headers.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    envelope = msgspec.json.decode(body, type=_Envelope)
    json.loads(body)  # what any reader can read
    assert envelope.batch, "an empty batch was sent"
    assert len(envelope.batch) <= 500, f"{len(envelope.batch)} events in one batch"
    assert len(body) <= 475_000, f"{len(body)} bytes in one batch"
    assert envelope.write_key == _key(headers)
    return [bytes(raw) for raw in envelope.batch]

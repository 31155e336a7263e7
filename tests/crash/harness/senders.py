"""Clients on raw sockets: each sends one request after the other and notes what came of it."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable

from tests.crash.harness.ledger import Attempt, Ledger, Sent
from tests.crash.harness.writing import Request, Writer

__all__ = ["IMPATIENT", "Answer", "Patience", "Sender", "answer", "exchange"]

#: Status and body; None when no whole answer could be read.
Answer = tuple[int, bytes]


class Patience:
    """How a client behaves: SDKs repeat, impatient ones do not."""

    def __init__(
        self,
        *,
        repeats: bool = True,
        timeout: float = 10.0,
        new_connections: bool = False,
        pause: float = 0.005,
        most: int = 20,
        latency: float = 0.0,
        tolerant: bool = False,
    ) -> None:
        self.repeats = repeats
        self.timeout = timeout
        self.new_connections = new_connections
        self.pause = pause  # seconds between two requests, at most
        self.most = most  # events in a request
        self.latency = latency  # seconds from a connection to the first byte of its request
        self.tolerant = tolerant  # of 500, which is then repeated like no answer


#: Sends each request once.
IMPATIENT = Patience(repeats=False)


class Sender:
    """Runs until stopped; `stop` lets it finish the request that it is at."""

    def __init__(
        self,
        ledger: Ledger,
        address: Callable[[], tuple[str, int]],
        writer: Writer,
        rng: random.Random,
        patience: Patience,
    ) -> None:
        self._ledger = ledger
        self._address = address
        self._writer = writer
        self._rng = rng
        self._patience = patience
        self._stopping = False
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    def stop(self) -> None:
        self._stopping = True

    async def run(self) -> None:
        try:
            while not self._stopping:
                await self._send(self._writer.request(self._patience.most))
                await asyncio.sleep(self._rng.uniform(0, self._patience.pause))
        finally:
            self._drop()

    async def send_batch(self, count: int) -> list[Sent]:
        """Send one batch of so many events until it is answered; instead of `run`."""
        request = self._writer.batch(count)
        try:
            await self._send(request)
        finally:
            self._drop()
        return request.events

    async def _send(self, request: Request) -> None:
        for event in request.events:
            self._ledger.sent[event.ref] = event
        while True:
            got = await self._attempt(request)
            if got is not None and self._note(request.events, *got):
                return
            if not self._patience.repeats:
                return
            await asyncio.sleep(self._rng.uniform(0.01, 0.1))

    async def _attempt(self, request: Request) -> Answer | None:
        attempt = Attempt([event.ref for event in request.events], self._ledger.tick())
        self._ledger.attempts.append(attempt)
        started = time.monotonic()
        for event in request.events:
            event.times_sent += 1
            if event.first_sent is None:
                event.first_sent = attempt.sent
        try:
            async with asyncio.timeout(self._patience.timeout):
                got = await self._exchange(request)
        except (OSError, TimeoutError, EOFError, ValueError):
            self._drop()
            attempt.seconds = time.monotonic() - started
            return None
        attempt.status = got[0]
        attempt.seconds = time.monotonic() - started
        return got

    async def _exchange(self, request: Request) -> Answer:
        close = self._patience.new_connections
        if self._streams is None or close:
            self._drop()
            self._streams = await asyncio.open_connection(*self._address())
            if self._patience.latency:
                await asyncio.sleep(self._rng.uniform(0, self._patience.latency))
        reader, writer = self._streams
        got, keep = await exchange(reader, writer, request.bytes(close=close))
        if not keep:
            self._drop()
        return got

    def _note(self, events: list[Sent], status: int, body: bytes) -> bool:
        """Whether the client is done with these events."""
        if status == 503:
            for event in events:
                event.refused = True
            return False
        if status == 500 and self._patience.tolerant:
            return False
        if status != 200:
            self._ledger.complaints.append(f"{events[0].ref}: answered {status} {body[:200]!r}")
            return True
        told = json.loads(body)
        if told.get("success") is not True:
            self._ledger.complaints.append(f"{events[0].ref}: answered 200 {body[:200]!r}")
        rejected = {entry["index"]: entry["code"] for entry in told.get("rejected", ())}
        tick, now = self._ledger.tick(), time.time()
        for index, event in enumerate(events):
            event.rejected = rejected.get(index)
            if event.rejected is None:
                event.accepted, event.accepted_wall = tick, now
        return True

    def _drop(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> tuple[Answer, bool]:
    """Write a request and read its answer; whether the connection can be used again.

    Raises EOFError or OSError when the connection ends first, ValueError when it is no HTTP.
    """
    writer.write(request)
    await writer.drain()
    return await answer(reader)


async def answer(reader: asyncio.StreamReader) -> tuple[Answer, bool]:
    """Read an answer; raises like `exchange`."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except asyncio.LimitOverrunError:
        raise ValueError("an endless head") from None
    status = int(head[0].split(" ")[1])
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:])}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return (status, body), headers.get("connection", "").lower() != "close"

"""Connections: aiohttp's, with our answers to what is not HTTP and an end to what never comes.

aiohttp waits for ever for the rest of a request's head. A sweep over the open connections closes
those whose head has been incomplete for too long; aiohttp's own timer closes those that are idle.

aiohttp answers each request in a task of its own, with a request and a response object: more work
than taking an event. So a request that is all there is offered first, before aiohttp sees any of
it, to a function (`Begin`) that may take it, and then sends the answer's bytes when it is due. What
the client sends meanwhile waits, so that nobody is answered out of turn.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler
from msgspec import Struct

from edgeproxy.server import answers
from edgeproxy.server.heads import MAX_HEAD_LINE, Head, Heads

__all__ = ["MOST_AT_HAND", "Asked", "Begin", "Patience", "ProxyServer"]

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

#: Bytes of a body that are gathered here; a larger one is read by aiohttp as it comes.
MOST_AT_HAND = 2**18
#: Seconds that such a body may take to arrive before a task waits for it.
_ARRIVING_SECONDS = 1.0
#: Bytes that wait for an answer to what came before, beyond which nothing more is read.
_MOST_HELD = 2**16
#: Seconds; while an answer is due, a connection is not idle.
_NEVER = 86_400.0


class Asked(Struct, gc=False):
    """A request that is all there."""

    head: Head
    body: bytes
    peer: str | None


#: Takes a request, or says False and does nothing. Calls its second argument once, at any time,
#: with the whole answer in HTTP/1.1; that does not raise, and does nothing where the client has gone.
Begin = Callable[[Asked, Callable[[bytes], None]], bool]


class Patience(Struct, frozen=True):
    """How long connections may take, in seconds."""

    head: float = 15.0
    """From a head's first byte to its last."""
    idle: float = 75.0
    """Without a request: longer than a load balancer keeps its connections to us (nginx and ALB
    60 s, CloudFront 5 s)."""
    sweep: float = 5.0
    """Between two looks at all connections."""
    last: float = 0.5
    """From the decision to end to the last request of a client that is connected already."""


class _Connection(RequestHandler):
    """One client's connection."""

    head_timeout: float
    heads: Heads
    begin: Begin | None = None
    waiting_since: float | None = None  # the first bytes of a head that is not complete
    _is_begun = False  # a request was taken, and its answer is not due yet
    _arriving: list[bytes] | None = None  # of a request whose body is not all there
    _missing = 0  # bytes of it
    _giving_up: asyncio.TimerHandle | None = None
    _held: list[bytes] | None = None  # what came behind a request that was taken
    _held_bytes = 0
    _left = 0  # bytes of a request's body that aiohttp is still to get
    _is_aiohttps = False
    """It was given something else than one whole request after the other. Nobody but its parser
    knows whether it holds the beginning of another one, so the connection is its own to the end."""

    def data_received(self, data: bytes) -> None:
        if self._is_begun or self._held is not None:
            self._hold(data)
        elif self._arriving is not None:
            self._gather(data)
        elif not (self._may_begin() and self._try_to_begin(data)):
            self._pass_on(data)

    def _pass_on(self, data: bytes) -> None:
        """Let aiohttp have it."""
        if not self._is_aiohttps:
            self._is_aiohttps = not self._is_of_one_request(data)
        super().data_received(data)
        if self.is_answering or self._waiter is None:  # or aiohttp is about to begin
            self.waiting_since = None
        elif data and self.waiting_since is None:
            self.waiting_since = time.monotonic()

    def _is_of_one_request(self, data: bytes) -> bool:
        """Whether these bytes are a request or belong to the one before, and nothing more."""
        if len(data) <= self._left or not data:  # aiohttp itself looks again with nothing
            self._left -= len(data)
            return True
        if self._left or self.is_answering or self.waiting_since is not None:
            return False
        end = data.find(b"\r\n\r\n") + 4
        if end == len(data):
            return True  # a head, without a body so far
        found = self.heads.look(data[:end]) if end >= 4 else None
        if found is None or end + found[1] < len(data):
            return False
        self._left = end + found[1] - len(data)
        return True

    def _may_begin(self) -> bool:
        """Whether aiohttp waits for a request and has seen nothing of it; and the client reads."""
        waiter = self._waiter
        return (
            self.begin is not None
            and not self._is_aiohttps
            and waiter is not None
            and not waiter.done()
            and self.waiting_since is None
            and not self._paused
        )

    def _try_to_begin(self, data: bytes) -> bool:
        """Have a request taken, or wait for the rest of it. False: it is aiohttp's."""
        end = data.find(b"\r\n\r\n") + 4
        found = self.heads.look(data[:end]) if end >= 4 else None
        if found is None:
            return False
        head, length = found
        missing = end + length - len(data)
        if missing > 0 and length <= MOST_AT_HAND:
            self._arriving, self._missing = [data], missing
            self._giving_up = self._loop.call_later(_ARRIVING_SECONDS, self._give_up)
            self._is_idle_after(_ARRIVING_SECONDS + self._keepalive_timeout)
            return True
        return missing == 0 and self._is_taken(Asked(head, data[end:], self._peer))

    @property
    def _peer(self) -> str | None:
        name = self.peername
        return str(name[0]) if name else None

    def _is_taken(self, asked: Asked) -> bool:
        self._is_begun = self._request_in_progress = True  # which aiohttp's shutdown waits for
        self._request_count += 1
        self._is_idle_after(_NEVER)
        try:
            taken = self.begin is not None and self.begin(asked, self._send)
        except Exception:
            if not self._is_begun:
                raise  # it is answered already
            taken = False  # it goes wrong once more, where that is logged and answered
        if not taken:
            self._is_begun = self._request_in_progress = False
            self._is_idle_after(self._keepalive_timeout)
        return taken

    def _is_idle_after(self, seconds: float) -> None:
        """Have aiohttp's timer close the connection no earlier."""
        self._next_keepalive_close_time = self._loop.time() + seconds

    def _gather(self, data: bytes) -> None:
        assert self._arriving is not None  # noqa: S101 - for the type checker
        self._arriving.append(data)
        self._missing -= len(data)
        if self._missing <= 0:
            whole = self._arrived()
            if not (self._may_begin() and self._try_to_begin(whole)):
                self._pass_on(whole)

    def _arrived(self) -> bytes:
        parts, self._arriving = self._arriving or [], None
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None
        return b"".join(parts)

    def _give_up(self) -> None:
        """Let aiohttp wait for the rest of a body."""
        so_far = self._arrived()
        if self.transport is not None and not self.transport.is_closing():
            self._pass_on(so_far)

    def _hold(self, data: bytes) -> None:
        if self._held is None:
            self._held = []
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > _MOST_HELD and self.transport is not None:
            self.transport.pause_reading()

    def _send(self, answer: bytes) -> None:
        """Answer the request that was taken, as aiohttp would end one."""
        self._is_begun = self._request_in_progress = False
        if self._handler_waiter is not None and not self._handler_waiter.done():
            self._handler_waiter.set_result(None)
        if self.transport is None or self.transport.is_closing():
            return  # the client has gone
        if self.begin is None:  # the server has begun to end meanwhile
            self.transport.write(answer.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            self.transport.close()
            return
        self.transport.write(answer)
        self._is_idle_after(self._keepalive_timeout)
        if self._held is not None:
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Look at what waited for an answer."""
        held, self._held, self._held_bytes = b"".join(self._held or ()), None, 0
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()
            self.data_received(held)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._arrived()
        super().connection_lost(exc)

    @property
    def is_answering(self) -> bool:
        """A request is being read or answered."""
        return (
            self._is_begun
            or self._arriving is not None
            or self._request_in_progress
            or self._current_request is not None
            or bool(self._messages)
        )

    @property
    def owes_an_answer(self) -> bool:
        """That, or the client has only just connected to send one, or has sent half its head."""
        return self.is_answering or self._request_count == 0 or self.waiting_since is not None

    def is_overdue(self, now: float) -> bool:
        """Say whether the client has had long enough to ask for something."""
        if self.is_answering:
            return False
        return self.waiting_since is not None and now - self.waiting_since > self.head_timeout

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what could not be parsed, or what went wrong in us, in the contract's shape."""
        if status >= 500:
            self.log_exception("Error handling request", exc_info=exc)
            response = answers.failed()
        else:
            what = (
                f"a line of the request's head is longer than {MAX_HEAD_LINE} bytes"
                if isinstance(exc, LineTooLong)
                else "this is not an HTTP request"
            )
            response = answers.error(status, "bad_request", what)
        response.force_close()
        return response


class ProxyServer(web.Server):
    """aiohttp's low-level server (no router, no middlewares) with our connections."""

    def __init__(
        self, handler: Handler, patience: Patience | None = None, *, begin: Begin | None = None
    ) -> None:
        """Serve with one handler for every request that `begin` does not take."""
        self._patience = patience or Patience()
        self._begin = begin
        self._heads = Heads()
        self._ending = False
        self._answer = handler
        super().__init__(
            self._handle,
            access_log=None,
            auto_decompress=False,  # the proxy decompresses within its own bounds
            keepalive_timeout=self._patience.idle,
            max_line_size=MAX_HEAD_LINE,
            max_field_size=MAX_HEAD_LINE,
            lingering_time=5.0,
        )

    def __call__(self) -> _Connection:
        """Make the protocol of a new connection."""
        connection = _Connection(self, loop=self._loop, **self._kwargs)
        connection.head_timeout = self._patience.head
        connection.heads = self._heads
        connection.begin = None if self._ending else self._begin
        return connection

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        response = await self._answer(request)
        if self._ending:
            response.force_close()
        return response

    async def let_finish(self, requests: float = 0.0) -> None:
        """Answer what connected clients have sent or are about to send; each answer is their last.

        Between a connection and its first request lies a round trip, and with TLS three: who closes
        it then fails a request that was never late. Returns when nobody is owed an answer; after
        `Patience.last` only requests that have begun are waited for, for `requests` seconds in all:
        once aiohttp shuts down it drops what is still on its way. Accept no more connections before.
        """
        self._ending = True
        for connection in self.connections:
            if isinstance(connection, _Connection):
                connection.begin = None  # what comes now must be told that it is the last
        started = time.monotonic()
        while self._is_waited_for(time.monotonic() - started, requests):  # noqa: ASYNC110 - aiohttp tells of no request
            await asyncio.sleep(0.01)

    def _is_waited_for(self, waited: float, requests: float) -> bool:
        connections = [each for each in self.connections if isinstance(each, _Connection)]
        if waited < self._patience.last and any(each.owes_an_answer for each in connections):
            return True
        return waited < requests and any(each.is_answering for each in connections)

    async def sweep(self) -> None:
        """Close overdue connections until cancelled."""
        while True:
            await asyncio.sleep(self._patience.sweep)
            now = time.monotonic()
            for connection in list(self.connections):
                if isinstance(connection, _Connection) and connection.is_overdue(now):
                    connection.force_close()

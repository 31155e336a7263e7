"""Connections: aiohttp's, with our answers to what is not HTTP and an end to what never comes.

aiohttp waits for ever for the rest of a request's head. A sweep over the open connections closes
those whose head has been incomplete for too long; aiohttp's own timer closes those that are idle.

aiohttp answers each request in a task of its own, with a request and a response object: more work
than taking an event. So a request that is all there is offered first to a function (`Begin`) that
may take it, and then sends the answer's bytes when it is due. aiohttp's own loop over the requests
sleeps meanwhile (its `_waiter` is kept from it), so that nobody is answered out of turn.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeGuard

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler
from msgspec import Struct
from multidict import MultiMapping

from edgeproxy.server import answers

__all__ = ["MOST_AT_HAND", "Asked", "Begin", "Patience", "ProxyServer"]

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

#: Bytes of a body that may lie here while nobody reads them; aiohttp stops reading at twice that.
MOST_AT_HAND = 2**18
#: Seconds that such a body may take to arrive before a task waits for it.
_ARRIVING_SECONDS = 1.0


class Asked(Struct, gc=False):
    """A POST that is all there."""

    path: str
    headers: MultiMapping[str]
    body: bytes
    peer: str | None


#: Takes a request, or says False and does nothing. Calls its second argument once, at any time,
#: with the whole answer in HTTP/1.1; that must not raise, and is no-op where the client has gone.
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


_MAX_HEAD_LINE = 16_384


class _Connection(RequestHandler):
    """One client's connection."""

    head_timeout: float
    waiting_since: float | None = None  # the first bytes of a head that is not complete
    begin: Begin | None = None
    _asleep: "asyncio.Future[None] | None" = None  # aiohttp's `_waiter`, while it is kept from it
    _arriving: asyncio.TimerHandle | None = None  # the rest of a body is awaited meanwhile

    def data_received(self, data: bytes) -> None:
        if self._asleep is not None:
            super().data_received(data)
            if self._arriving is not None:
                self._try_to_begin()
        elif self.begin is not None and self._waiter is not None and not self._waiter.done():
            self._asleep, self._waiter = self._waiter, None
            super().data_received(data)
            self._try_to_begin()
        else:
            super().data_received(data)
        if self.is_answering:
            self.waiting_since = None
        elif data and self.waiting_since is None:
            self.waiting_since = time.monotonic()

    def _try_to_begin(self) -> None:
        """Have the only request that came taken, if it is all there; or wake aiohttp up."""
        message, payload = self._messages[0] if len(self._messages) == 1 else _NONE
        if payload is EMPTY_PAYLOAD or not _may_be_begun(message):
            self._wake_up()
        elif payload.is_eof():
            self._begin(message, payload)
        elif self._arriving is None and _is_small(message):
            self._arriving = self._loop.call_later(_ARRIVING_SECONDS, self._wake_up)
        elif self._arriving is None or payload.exception() is not None:
            self._wake_up()

    def _begin(self, message: RawRequestMessage, payload: StreamReader) -> None:
        parts = payload._buffer  # looked at only: it may have to be read by somebody else
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        peer = self.peername
        asked = Asked(message.path, message.headers, body, str(peer[0]) if peer else None)
        self._stop_waiting_for_more()
        self._messages.clear()
        self._request_in_progress = True
        if self._is_taken(asked):
            if self._parser is not None:
                self._parser.message_consumed()
        else:
            self._request_in_progress = False
            self._messages.append((message, payload))
            self._wake_up()

    def _is_taken(self, asked: Asked) -> bool:
        try:
            return self.begin is not None and self.begin(asked, self._send)
        except Exception:
            if not self._request_in_progress:
                raise  # it is answered already
            return False  # it goes wrong once more, where that is logged and answered

    def _send(self, answer: bytes) -> None:
        """Answer the request that was begun, as aiohttp would end one."""
        self._request_in_progress = False
        if self._handler_waiter is not None and not self._handler_waiter.done():
            self._handler_waiter.set_result(None)
        if self.transport is None or self._force_close:
            return  # the client has gone
        if self.begin is None:  # the server has begun to end meanwhile
            self.transport.write(answer.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            self.transport.close()
            return
        self.transport.write(answer)
        self._next_keepalive_close_time = close = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(close, self._process_keepalive)
        self._wake_up()

    def _wake_up(self) -> None:
        """Let aiohttp have its `_waiter` back, and the request that came, if one did."""
        self._stop_waiting_for_more()
        waiter, self._asleep = self._asleep, None
        if waiter is None:
            return
        self._waiter = waiter
        if self._messages and not waiter.done():
            waiter.set_result(None)

    def _stop_waiting_for_more(self) -> None:
        if self._arriving is not None:
            self._arriving.cancel()
            self._arriving = None

    def force_close(self) -> None:
        """Close at once; what was begun goes on, and nobody hears of it."""
        if self._asleep is not None:
            self._waiter, self._asleep = self._asleep, None
        self._stop_waiting_for_more()
        super().force_close()

    @property
    def is_answering(self) -> bool:
        """A request is being read or answered."""
        return (
            self._request_in_progress or self._current_request is not None or bool(self._messages)
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
                f"a line of the request's head is longer than {_MAX_HEAD_LINE} bytes"
                if isinstance(exc, LineTooLong)
                else "this is not an HTTP request"
            )
            response = answers.error(status, "bad_request", what)
        response.force_close()
        return response


_NONE = None, EMPTY_PAYLOAD


def _may_be_begun(message: object) -> TypeGuard[RawRequestMessage]:
    return (
        isinstance(message, RawRequestMessage)
        and message.method == "POST"
        and message.version == HttpVersion11
        and not message.should_close
        and not message.upgrade
        and hdrs.EXPECT not in message.headers
    )


def _is_small(message: RawRequestMessage) -> bool:
    length = message.headers.get(hdrs.CONTENT_LENGTH)
    return length is not None and int(length) <= MOST_AT_HAND


class ProxyServer(web.Server):
    """aiohttp's low-level server (no router, no middlewares) with our connections."""

    def __init__(
        self, handler: Handler, patience: Patience | None = None, *, begin: Begin | None = None
    ) -> None:
        """Serve with one handler for every request that `begin` does not take."""
        self._patience = patience or Patience()
        self._begin = begin
        self._ending = False
        self._answer = handler
        super().__init__(
            self._handle,
            access_log=None,
            auto_decompress=False,  # the proxy decompresses within its own bounds
            keepalive_timeout=self._patience.idle,
            max_line_size=_MAX_HEAD_LINE,
            max_field_size=_MAX_HEAD_LINE,
            read_bufsize=MOST_AT_HAND,
            lingering_time=5.0,
        )

    def __call__(self) -> _Connection:
        """Make the protocol of a new connection."""
        connection = _Connection(self, loop=self._loop, **self._kwargs)
        connection.head_timeout = self._patience.head
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

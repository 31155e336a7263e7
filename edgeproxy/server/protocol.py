"""Connections: aiohttp's, with our answers to what is not HTTP and an end to what never comes.

aiohttp waits for ever for the rest of a request's head. A sweep over the open connections closes
those whose head has been incomplete for too long; aiohttp's own timer closes those that are idle.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from msgspec import Struct

from edgeproxy.server import answers

__all__ = ["Patience", "ProxyServer"]

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


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

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.is_answering:
            self.waiting_since = None
        elif data and self.waiting_since is None:
            self.waiting_since = time.monotonic()

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
            response = answers.error(status, "internal_error", "the proxy failed; try again")
        else:
            response = answers.error(status, "bad_request", "this is not an HTTP request")
        response.force_close()
        return response


class ProxyServer(web.Server):
    """aiohttp's low-level server (no router, no middlewares) with our connections."""

    def __init__(self, handler: Handler, patience: Patience | None = None) -> None:
        """Serve with one handler for every request."""
        self._patience = patience or Patience()
        self._ending = False
        self._answer = handler
        super().__init__(
            self._handle,
            access_log=None,
            auto_decompress=False,  # the proxy decompresses within its own bounds
            keepalive_timeout=self._patience.idle,
            max_line_size=_MAX_HEAD_LINE,
            max_field_size=_MAX_HEAD_LINE,
            lingering_time=5.0,
        )

    def __call__(self) -> _Connection:
        """Make the protocol of a new connection."""
        connection = _Connection(self, loop=self._loop, **self._kwargs)
        connection.head_timeout = self._patience.head
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

"""Connections: aiohttp's, with our answers to what is not HTTP and an end to what never comes.

aiohttp waits for ever for the rest of a request's head. A sweep over the open connections closes
those whose head has been incomplete for too long, and those that never sent anything.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from edgeproxy.server import answers

__all__ = ["ProxyServer"]

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

#: Seconds from a head's first byte to its last, and from a connection to its first byte.
HEAD_TIMEOUT = 15.0
FIRST_BYTE_TIMEOUT = 120.0
_SWEEP_SECONDS = 5.0
# Longer than a load balancer keeps its connections to us (nginx 60 s, CloudFront 5 s, ALB 60 s).
_KEEPALIVE_SECONDS = 75.0
_MAX_HEAD_LINE = 16_384


class _Connection(RequestHandler):
    """One client's connection."""

    opened = 0.0
    waiting_since: float | None = None  # the first bytes of a head that is not complete

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.opened = time.monotonic()
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._request_in_progress or self._messages or self._current_request is not None:
            self.waiting_since = None
        elif data and self.waiting_since is None:
            self.waiting_since = time.monotonic()

    def is_overdue(self, now: float) -> bool:
        """Say whether the client has had long enough to ask for something."""
        if self._request_in_progress or self._current_request is not None or self._messages:
            return False
        if self.waiting_since is not None:
            return now - self.waiting_since > HEAD_TIMEOUT
        return self._request_count == 0 and now - self.opened > FIRST_BYTE_TIMEOUT

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

    def __init__(self, handler: Handler) -> None:
        """Serve with one handler for every request."""
        super().__init__(
            handler,
            access_log=None,
            auto_decompress=False,  # the proxy decompresses within its own bounds
            keepalive_timeout=_KEEPALIVE_SECONDS,
            max_line_size=_MAX_HEAD_LINE,
            max_field_size=_MAX_HEAD_LINE,
            lingering_time=5.0,
        )

    def __call__(self) -> _Connection:
        """Make the protocol of a new connection."""
        return _Connection(self, loop=self._loop, **self._kwargs)

    async def sweep(self) -> None:
        """Close overdue connections until cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            now = time.monotonic()
            for connection in list(self.connections):
                if isinstance(connection, _Connection) and connection.is_overdue(now):
                    connection.force_close()

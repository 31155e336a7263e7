"""The listener for clients: one handler, in the order of a request's life."""

import asyncio
import time
from collections.abc import Callable

import msgspec
import structlog
from aiohttp import hdrs, web
from multidict import MultiMapping

from edgeproxy.buffer.base import BufferFaultError, BufferFullError
from edgeproxy.config import Settings
from edgeproxy.events.envelope import (
    Envelope,
    InvalidEnvelopeError,
    InvalidJSONError,
    open_batch,
    open_single,
)
from edgeproxy.events.intake import Receipt
from edgeproxy.metrics import Metrics
from edgeproxy.server import answers, origins
from edgeproxy.server.answers import RefusedError
from edgeproxy.server.bodies import BODY_TIMEOUT, decompress, read_body
from edgeproxy.server.clients import key_in_query
from edgeproxy.server.heads import Head
from edgeproxy.server.intake import MOST_AT_ONCE, Intake, Taken
from edgeproxy.server.others import Others
from edgeproxy.server.protocol import MOST_AT_HAND, Asked
from edgeproxy.server.reception import Reception, Seen
from edgeproxy.server.refusals import Refusals
from edgeproxy.server.routes import Route, route
from edgeproxy.server.script import ScriptService
from edgeproxy.server.sources import Sources

__all__ = ["ClientApp"]

_log = structlog.get_logger("edgeproxy.server")

#: Seconds after which a client may try again when the buffer is full.
_RETRY_AFTER = "5"
#: Larger bodies at a time: opening one can take 25 times its size in memory.
_MOST_OPENING = 2
#: What a request's envelope (its `context` above all) may add to its events all together. Without
#: a bound, 90 KB of context around 40,000 small events would be 3.6 GB.
_MOST_COPIED = 16 * 2**20


class ClientApp:
    """Answers SDKs. `handle` is the handler for `ProxyServer`."""

    def __init__(
        self,
        settings: Settings,
        intake: Intake,
        metrics: Metrics,
        *,
        ready: Callable[[], str | None],
        script: ScriptService | None,
        now: Callable[[], int],
        body_timeout: float = BODY_TIMEOUT,
    ) -> None:
        """Take what it works with.

        Args:
            ready: why events cannot be accepted at the moment; None while they can.
            script: the browser SDK's script, where this build has it.
            now: ms since 1970.
            body_timeout: seconds that a body may take once its head has arrived.
        """
        self._body_timeout = body_timeout
        self._intake = intake
        self._metrics = metrics
        self._others = Others(ready, script)
        self._opening = asyncio.Semaphore(_MOST_OPENING)
        self._now = now
        self._full_logged = 0.0
        self.refusals = Refusals()
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Apply changed settings to the requests that come from now on."""
        self._settings = settings.server
        self._sources = Sources(settings.sources)
        self._reception = Reception(settings.server, self._sources, self._now)
        self._others.configure(settings, self._sources)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        started = time.perf_counter()
        origin = request.headers.get(hdrs.ORIGIN)
        try:
            response = await self._answer(request, origin)
        except RefusedError as refused:
            response = self._refuse(refused, request.headers, request.remote)
            if refused.status in {403, 408, 503}:
                origin = None  # so that a browser counts the request as failed, and repeats it
            if refused.status in {408, 413}:
                response.force_close()  # the rest of the body is not worth reading
        if origin is not None and self._sources.all_origins.allows(origin):
            origins.allow(response.headers, origin)
        response.headers[hdrs.SERVER] = answers.SERVER
        self._metrics.request_seconds.observe(time.perf_counter() - started)
        return response

    def _refuse(
        self, refused: RefusedError, headers: MultiMapping[str], peer: str | None
    ) -> web.Response:
        response = answers.error(refused.status, refused.code, refused.message)
        response.headers.update(refused.headers)
        self._metrics.refused(refused.code)
        self.refusals.note(refused.code, refused.message, headers, peer, self._now())
        return response

    async def _answer(self, request: web.BaseRequest, origin: str | None) -> web.StreamResponse:
        path = request.rel_url.raw_path
        found = route(path)
        if found is None:
            raise RefusedError(
                404, "not_found", "no such path; events go to /v1/batch and the like"
            )
        method = request.method
        if method == "OPTIONS":
            return self._others.preflight(request, origin, found)
        if method not in found.methods:
            allowed = ", ".join(sorted(found.methods | {"OPTIONS"}))
            raise RefusedError(
                405, "method_not_allowed", f"this path takes {allowed}", {"Allow": allowed}
            )
        match found.kind:
            case "single" | "batch":
                return await self._accept(request, found)
            case "telemetry":
                await self._read(request)
                return answers.success()
            case _:
                return await self._others.answer(request, found)

    # --- events -----------------------------------------------------------------------------------

    def begin(self, asked: Asked, send: Callable[[bytes], None]) -> bool:
        """Take a request that holds events, if it is one of the usual kind: see `protocol.Begin`.

        False where anything is unusual; then nothing was done, and `handle` has to take it. `send`
        is called with the whole answer once it is due.
        """
        started = time.perf_counter()
        seen, body = asked.head.seen, asked.body
        try:
            if not isinstance(seen, Seen) or seen.reception is not self._reception:
                seen = asked.head.seen = self._reception.see(asked.head)
            found, origin = seen.found, seen.origin
            if found is None:
                return False
            if seen.encoding is not None:
                body = decompress(body, seen.encoding, self._settings.max_request)
            if len(body) > min(MOST_AT_HAND, self._settings.max_request):
                return False
            envelope = _opened(body, found)
            if len(envelope.events) > MOST_AT_ONCE:
                return False
            source = self._reception.source(seen, envelope.write_key)
            receipt = self._reception.receipt(seen, asked.peer, envelope)
            self._check_copies(receipt, len(envelope.events), len(body))
        except RefusedError:
            return False

        def told(outcome: Taken | BufferFaultError) -> None:
            self._metrics.request_seconds.observe(time.perf_counter() - started)
            try:
                answer = self._answer_bytes(outcome, asked, found, origin)
            except Exception:  # noqa: BLE001 - here it would end the commit, and the process
                _log.exception("answer_failed")
                answer = answers.as_bytes(answers.failed())
            send(answer)

        self._intake.begin(source, envelope.events, receipt, is_utf8=envelope.is_utf8, told=told)
        return True

    def _answer_bytes(
        self, outcome: Taken | BufferFaultError, asked: Asked, found: Route, origin: str | None
    ) -> bytes:
        if isinstance(outcome, BufferFaultError):
            refused = self._full(outcome)
            return answers.as_bytes(self._refuse(refused, asked.head.headers, asked.peer))
        if not outcome.rejected and origin is None:
            return answers.success_bytes()
        response = _told(outcome, found)
        if origin is not None:
            origins.allow(response.headers, origin)
        return answers.as_bytes(response)

    async def _accept(self, request: web.BaseRequest, found: Route) -> web.StreamResponse:
        body = await self._read(request)
        envelope = await self._open(body, found)
        reception = self._reception
        seen = reception.see(Head(request.rel_url.raw_path, request.headers))
        source = reception.source(seen, envelope.write_key, key_in_query(request))
        receipt = reception.receipt(seen, request.remote, envelope)
        self._check_copies(receipt, len(envelope.events), len(body))
        try:
            taken = await self._intake.take(
                source, envelope.events, receipt, is_utf8=envelope.is_utf8
            )
        except BufferFaultError as error:
            raise self._full(error) from None
        return _told(taken, found)

    async def _read(self, request: web.BaseRequest) -> bytes:
        return await read_body(request, self._settings.max_request, timeout=self._body_timeout)

    def _check_copies(self, receipt: Receipt, events: int, size: int) -> None:
        """Refuse an envelope whose fields, repeated in every event, would fill memory and disk."""
        most = max(_MOST_COPIED, 4 * self._settings.max_request)
        if size * events > most and len(msgspec.json.encode(receipt)) * events > most:
            raise RefusedError(
                413, "request_too_large", "the batch's `context` is too large for so many events"
            )

    async def _open(self, body: bytes, found: Route) -> Envelope:
        if len(body) <= MOST_AT_HAND:
            return _opened(body, found)
        # Walking a large body with something broken in it takes a while: others get their turn.
        async with self._opening:
            return await asyncio.to_thread(_opened, body, found)

    def _full(self, error: BufferFaultError) -> RefusedError:
        if time.monotonic() - self._full_logged > 10:
            self._full_logged = time.monotonic()
            _log.error("events_refused", reason=str(error))
        full = isinstance(error, BufferFullError)
        message = str(error) if full else "events cannot be stored at the moment"
        return RefusedError(503, "buffer_full", message, {"Retry-After": _RETRY_AFTER})


def _opened(body: bytes, found: Route) -> Envelope:
    try:
        return open_single(body) if found.kind == "single" else open_batch(body)
    except InvalidJSONError as error:
        raise RefusedError(400, "invalid_json", f"the body is not JSON: {error}") from None
    except InvalidEnvelopeError as error:
        raise RefusedError(400, "invalid_envelope", str(error)) from None


def _told(taken: Taken, found: Route) -> web.Response:
    if not taken.rejected:
        return answers.success()
    first = taken.rejected[0]
    if found.kind == "single":
        return answers.error(400, first.code, first.message)
    return answers.partly(
        taken.accepted,
        [
            {"index": r.index, "messageId": r.message_id, "code": r.code, "message": r.message}
            for r in taken.rejected
        ],
    )

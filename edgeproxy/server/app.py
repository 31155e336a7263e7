"""The listener for clients: one handler, in the order of a request's life."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from urllib.parse import unquote

import msgspec
import structlog
from aiohttp import hdrs, web

from edgeproxy.buffer.base import BufferFaultError, BufferFullError
from edgeproxy.config import Settings, Source
from edgeproxy.events.envelope import (
    Envelope,
    InvalidEnvelopeError,
    InvalidJSONError,
    open_batch,
    open_single,
)
from edgeproxy.events.intake import Receipt
from edgeproxy.events.times import parse_time
from edgeproxy.metrics import Metrics
from edgeproxy.server import answers, clients, origins, sdk_settings
from edgeproxy.server.answers import RefusedError
from edgeproxy.server.bodies import BODY_TIMEOUT, read_body
from edgeproxy.server.cookies import CookieService
from edgeproxy.server.intake import Intake, Taken
from edgeproxy.server.refusals import Refusals
from edgeproxy.server.routes import Route, route
from edgeproxy.server.script import ScriptService
from edgeproxy.server.sources import Sources

__all__ = ["ClientApp"]

_log = structlog.get_logger("edgeproxy.server")

#: Seconds after which a client may try again when the buffer is full.
_RETRY_AFTER = "5"
#: Bodies up to this size are walked on the loop even when something in them is broken.
_SMALL_BODY = 262_144
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
        self._ready = ready
        self._script = script
        self._cookies = CookieService()
        self._opening = asyncio.Semaphore(_MOST_OPENING)
        self._now = now
        self._full_logged = 0.0
        self.refusals = Refusals()
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Apply changed settings to the requests that come from now on."""
        self._settings = settings.server
        self._sources = Sources(settings.sources)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        started = time.perf_counter()
        origin = request.headers.get(hdrs.ORIGIN)
        try:
            response = await self._answer(request, origin)
        except RefusedError as refused:
            response = answers.error(refused.status, refused.code, refused.message)
            response.headers.update(refused.headers)
            self._metrics.refused(refused.code)
            self.refusals.note(refused.code, refused.message, request, self._now())
            if refused.status in {403, 408, 503}:
                origin = None  # so that a browser counts the request as failed, and repeats it
            if refused.status in {408, 413}:
                response.force_close()  # the rest of the body is not worth reading
        if origin is not None and self._sources.all_origins.allows(origin):
            origins.allow(response.headers, origin)
        self._metrics.request_seconds.observe(time.perf_counter() - started)
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
            return self._preflight(request, origin, found)
        if method not in found.methods:
            allowed = ", ".join(sorted(found.methods | {"OPTIONS"}))
            raise RefusedError(
                405, "method_not_allowed", f"this path takes {allowed}", {"Allow": allowed}
            )
        match found.kind:
            case "single" | "batch":
                return await self._accept(request, origin, found)
            case "telemetry":
                await self._read(request)
                return answers.success()
            case _:
                return await self._other(request, found)

    async def _other(self, request: web.BaseRequest, found: Route) -> web.StreamResponse:
        simple: dict[str, Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]] = {
            "renew": self._cookies.renew,
            "clear": self._cookies.clear,
            "script": self._serve_script,
            "healthz": self._healthz,
            "readyz": self._readyz,
        }
        if found.kind == "settings":
            return self._project_settings(request, found)
        if found.kind == "source_config":
            return self._source_config(request)
        return await simple[found.kind](request)

    # --- events -----------------------------------------------------------------------------------

    async def _accept(
        self, request: web.BaseRequest, origin: str | None, found: Route
    ) -> web.StreamResponse:
        body = await self._read(request)
        received = self._now()
        envelope = await self._open(body, found)
        basic = clients.basic_user(request.headers.get(hdrs.AUTHORIZATION))
        source = self._find_source([basic, envelope.write_key, _key_in_query(request)])
        if origin is not None and not self._sources.allows(source, origin):
            raise RefusedError(
                403, "origin_not_allowed", f"source {source.name} takes no events of this origin"
            )
        receipt = Receipt(
            received=received,
            type=found.type,
            sent_at=envelope.sent_at,
            sent_at_ms=parse_time(envelope.sent_at),
            context=envelope.context,
            ip=self._client_ip(request),
            user_agent=clients.said(request.headers.get(hdrs.USER_AGENT)) if origin else None,
            has_origin=origin is not None,
        )
        self._check_copies(receipt, len(envelope.events))
        try:
            taken = await self._intake.take(
                source, envelope.events, receipt, is_utf8=envelope.is_utf8
            )
        except BufferFaultError as error:
            raise self._full(error) from None
        return _told(taken, found)

    async def _read(self, request: web.BaseRequest) -> bytes:
        return await read_body(request, self._settings.max_request, timeout=self._body_timeout)

    def _check_copies(self, receipt: Receipt, events: int) -> None:
        """Refuse an envelope whose fields, repeated in every event, would fill memory and disk."""
        most = max(_MOST_COPIED, 4 * self._settings.max_request)
        if events > 1 and len(msgspec.json.encode(receipt)) * events > most:
            raise RefusedError(
                413, "request_too_large", "the batch's `context` is too large for so many events"
            )

    async def _open(self, body: bytes, found: Route) -> Envelope:
        opener = open_single if found.kind == "single" else open_batch
        try:
            if len(body) <= _SMALL_BODY:
                return opener(body)
            # Walking a large body with something broken in it takes a while: others get their turn.
            async with self._opening:
                return await asyncio.to_thread(opener, body)
        except InvalidJSONError as error:
            raise RefusedError(400, "invalid_json", f"the body is not JSON: {error}") from None
        except InvalidEnvelopeError as error:
            raise RefusedError(400, "invalid_envelope", str(error)) from None

    def _find_source(self, candidates: list[object]) -> Source:
        source = self._sources.find(candidates)
        if source is None:
            raise RefusedError(
                401, "unknown_key", "the write key is missing or is not one of this proxy's sources"
            )
        return source

    def _client_ip(self, request: web.BaseRequest) -> str | None:
        if self._settings.client_ip == "off":
            return None
        trusted = self._settings.trusted_proxies
        # Some proxies append to the header, others add another one.
        hops = ",".join(request.headers.getall("X-Forwarded-For", ())) if trusted else ""
        address = clients.client_address(request.remote or "", hops or None, trusted)
        if self._settings.client_ip == "truncated":
            address = clients.truncated(address)
        return address or None

    def _full(self, error: BufferFaultError) -> RefusedError:
        if time.monotonic() - self._full_logged > 10:
            self._full_logged = time.monotonic()
            _log.error("events_refused", reason=str(error))
        full = isinstance(error, BufferFullError)
        message = str(error) if full else "events cannot be stored at the moment"
        return RefusedError(503, "buffer_full", message, {"Retry-After": _RETRY_AFTER})

    # --- everything else --------------------------------------------------------------------------

    def _preflight(
        self, request: web.BaseRequest, origin: str | None, found: Route
    ) -> web.StreamResponse:
        if origin is None:
            allowed = ", ".join(sorted(found.methods | {"OPTIONS"}))
            return web.Response(status=204, headers={"Allow": allowed})
        if not self._sources.all_origins.allows(origin):
            raise RefusedError(403, "origin_not_allowed", "no source takes events of this origin")
        requested = request.headers.get("Access-Control-Request-Headers")
        return web.Response(status=204, headers=origins.preflight_headers(origin, requested))

    def _project_settings(self, request: web.BaseRequest, found: Route) -> web.StreamResponse:
        key = unquote(found.key)
        self._find_source([key])
        protocol, host = self._public_host(request, found.prefix)
        return answers.json_answer(sdk_settings.project_settings(key, f"{host}/v1", protocol))

    def _public_host(self, request: web.BaseRequest, prefix: str) -> tuple[str, str]:
        """Protocol and host with prefix, as SDKs must use them: as configured, or as asked for."""
        if self._settings.public_url:
            protocol, _, host = self._settings.public_url.rstrip("/").partition("://")
            return protocol, host
        return ("https" if request.secure else "http"), f"{clients.said(request.host)}{prefix}"

    def _source_config(self, request: web.BaseRequest) -> web.StreamResponse:
        basic = clients.basic_user(request.headers.get(hdrs.AUTHORIZATION))
        key = basic or _key_in_query(request)
        return answers.json_answer(sdk_settings.source_config(self._find_source([key]), key))

    async def _serve_script(self, request: web.BaseRequest) -> web.StreamResponse:
        if self._script is None:
            raise RefusedError(
                404, "not_found", "this build carries no browser SDK; install from a wheel or sdist"
            )
        return await self._script.script(request)

    async def _healthz(self, _request: web.BaseRequest) -> web.StreamResponse:
        return answers.json_answer(b'{"status":"ok"}')

    async def _readyz(self, _request: web.BaseRequest) -> web.StreamResponse:
        reason = self._ready()
        if reason is None:
            return answers.json_answer(b'{"status":"ready"}')
        return answers.json_answer(
            msgspec.json.encode({"status": "not_ready", "reason": reason}), 503
        )


def _key_in_query(request: web.BaseRequest) -> str:
    # Parsing a query costs more than seeing that there is none, as in most requests.
    return request.query.get("writeKey", "") if request.rel_url.raw_query_string else ""


def _told(taken: Taken, found: Route) -> web.StreamResponse:
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

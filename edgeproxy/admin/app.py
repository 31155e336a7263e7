"""The listener for operators: health, metrics, state, and what commands ask of a running proxy."""

import hmac
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from urllib.parse import urlsplit

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from edgeproxy.config import Admin
from edgeproxy.metrics import Metrics

__all__ = ["AdminApp"]

_OPEN = frozenset({"/healthz", "/readyz"})  # probes carry no token
_READING = frozenset({"GET", "HEAD"})


class AdminApp:
    """The routes of the admin listener, as an aiohttp application."""

    def __init__(
        self,
        settings: Admin,
        metrics: Metrics,
        *,
        status: Callable[[], dict[str, object]],
        not_ready: Callable[[], str | None],
        reload: Callable[[], Awaitable[dict[str, object]]],
    ) -> None:
        """Take what it shows.

        Args:
            status: the document of `/status`.
            not_ready: why events cannot be accepted at the moment; None while they can.
            reload: apply a changed configuration; what was applied or refused.
        """
        self._token = settings.token
        self._metrics = metrics
        self._status = status
        self._not_ready = not_ready
        self._reload = reload

    def application(self) -> web.Application:
        """Build the application."""
        app = web.Application(middlewares=[self._guard])
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._show_metrics)
        app.router.add_get("/status", self._show_status)
        app.router.add_post("/api/reload", self._do_reload)
        return app

    @web.middleware
    async def _guard(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        """Let in only programs that hold the token, and no page of another site."""
        if request.path in _OPEN:
            return await handler(request)
        if not self._token and not _is_local(request.headers.get("Host", "")):
            # A name that resolves to loopback: a page of that name could read the answers.
            return _refused(403, "wrong_host", "without a token, use localhost or 127.0.0.1")
        if request.method not in _READING and not _same_origin(request):
            return _refused(403, "wrong_origin", "pages of other sites may not do this")
        if self._token and not self._holds_token(request):
            return _refused(401, "unauthorized", "send Authorization: Bearer <[admin] token>")
        response = await handler(request)
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    def _holds_token(self, request: web.Request) -> bool:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(
            given.strip().encode(), self._token.encode()
        )

    async def _healthz(self, _request: web.Request) -> web.Response:
        return _json({"status": "ok"})

    async def _readyz(self, _request: web.Request) -> web.Response:
        reason = self._not_ready()
        if reason is None:
            return _json({"status": "ready"})
        return _json({"status": "not_ready", "reason": reason}, 503)

    async def _show_metrics(self, _request: web.Request) -> web.Response:
        body = generate_latest(self._metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _show_status(self, _request: web.Request) -> web.Response:
        return _json(self._status())

    async def _do_reload(self, _request: web.Request) -> web.Response:
        result = await self._reload()
        return _json(result, 200 if result.get("applied") else 409)


def _json(document: object, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(document), status=status, content_type="application/json"
    )


def _refused(status: int, code: str, message: str) -> web.Response:
    return _json({"success": False, "error": "refused", "code": code, "message": message}, status)


def _is_local(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _same_origin(request: web.Request) -> bool:
    origin = request.headers.get("Origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("Host")

"""The listener for operators: health, metrics, state, and what commands ask of a running proxy."""

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from edgeproxy.admin.access import Guard
from edgeproxy.admin.answers import NO_STORE, json_answer, refused, same_shape
from edgeproxy.admin.deadletter_routes import DeadLetterRoutes
from edgeproxy.admin.deadletters import Desk
from edgeproxy.admin.live import LiveFeed, TooManyError, Wanted
from edgeproxy.admin.page import OPEN_PATHS, Page
from edgeproxy.admin.reasons import meaning
from edgeproxy.config import Admin
from edgeproxy.metrics import Metrics

__all__ = ["AdminApp"]


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
        live: LiveFeed,
        desk: Desk,
        page: Page | None = None,
    ) -> None:
        """Take what it shows.

        Args:
            status: the document of `/status`.
            not_ready: why events cannot be accepted at the moment; None while they can.
            reload: apply a changed configuration; what was applied or refused.
            live: events as they pass; closed at shutdown.
            desk: where dead letters are worked on.
            page: the operators' page.
        """
        self._guard = Guard(settings.token, open_paths=() if page is None else OPEN_PATHS)
        self._page = page
        self._metrics = metrics
        self._status = status
        self._not_ready = not_ready
        self._reload = reload
        self._live = live
        self._dead_letters = DeadLetterRoutes(desk)

    def application(self) -> web.Application:
        """Build the application."""
        app = web.Application(middlewares=[self._guard.middleware, same_shape])
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._show_metrics)
        app.router.add_get("/status", self._show_status)
        app.router.add_post("/api/reload", self._do_reload)
        app.router.add_get("/api/live", self._stream_live)
        self._dead_letters.add_to(app)
        if self._page is not None:
            self._page.add_to(app, self._guard, self._status_document)
        app.on_shutdown.append(self._close)
        return app

    async def _close(self, _app: web.Application) -> None:
        self._live.close()

    async def _healthz(self, _request: web.Request) -> web.Response:
        return json_answer({"status": "ok"})

    async def _readyz(self, _request: web.Request) -> web.Response:
        reason = self._not_ready()
        if reason is None:
            return json_answer({"status": "ready"})
        return json_answer({"status": "not_ready", "reason": reason}, 503)

    async def _show_metrics(self, _request: web.Request) -> web.Response:
        body = generate_latest(self._metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST, **NO_STORE})

    async def _show_status(self, _request: web.Request) -> web.Response:
        document = self._status_document()
        if self._page is not None:
            history = self._page.history
            document["times"] = history.times()
            document["full_in_seconds"] = history.full_in(document["buffer"]["max_bytes"])
        return json_answer(document)

    def _status_document(self) -> dict[str, Any]:
        status: dict[str, Any] = msgspec.to_builtins(self._status())
        for lane in status["lanes"]:
            found = meaning(lane["reason"]) if lane["reason"] else None
            lane["words"] = found.words if found else ""
            lane["remedy"] = found.remedy if found else ""
        return {**status, "not_ready": self._not_ready()}

    async def _do_reload(self, _request: web.Request) -> web.Response:
        result = await self._reload()
        return json_answer(result, 200 if result.get("applied") else 409)

    async def _stream_live(self, request: web.Request) -> web.StreamResponse:
        """Events as they pass, as JSON lines; see `LiveFeed` for what bounds them."""
        try:
            wanted = msgspec.convert(dict(request.query), Wanted, strict=False)
        except msgspec.ValidationError as error:
            return refused(400, "invalid_filter", str(error))
        async with aclosing(self._live.lines(wanted)) as lines:
            try:
                first = await anext(lines)
            except TooManyError:
                return refused(503, "too_many", "too many watch already")
            response = web.StreamResponse(headers=NO_STORE)
            response.content_type = "application/x-ndjson"
            await response.prepare(request)
            try:
                await response.write(first)
                async for line in lines:
                    await response.write(line)
            except ConnectionResetError:  # whoever watched has gone
                return response
        return response

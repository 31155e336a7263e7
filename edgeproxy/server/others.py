"""The paths that take no events: preflights, what SDKs ask at their start, cookies, health."""

from collections.abc import Awaitable, Callable
from urllib.parse import unquote

import msgspec
from aiohttp import hdrs, web

from edgeproxy.config import Settings
from edgeproxy.server import answers, clients, origins, sdk_settings
from edgeproxy.server.answers import RefusedError
from edgeproxy.server.cookies import CookieService
from edgeproxy.server.routes import Route
from edgeproxy.server.script import ScriptService
from edgeproxy.server.sources import Sources

__all__ = ["Others"]


class Others:
    """Answers them. Raises RefusedError for what is refused."""

    def __init__(self, ready: Callable[[], str | None], script: ScriptService | None) -> None:
        """Take what it works with, as `ClientApp` does; `configure` comes before the first request."""
        self._ready = ready
        self._script = script
        self._cookies = CookieService()

    def configure(self, settings: Settings, sources: Sources) -> None:
        """Apply changed settings to the requests that come from now on."""
        self._settings = settings.server
        self._sources = sources

    async def answer(self, request: web.BaseRequest, found: Route) -> web.StreamResponse:
        """Answer a request that `found` says takes no events."""
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

    def preflight(
        self, request: web.BaseRequest, origin: str | None, found: Route
    ) -> web.StreamResponse:
        """Answer what a browser asks before it sends: for all sources, as it carries no key."""
        if origin is None:
            allowed = ", ".join(sorted(found.methods | {"OPTIONS"}))
            return web.Response(status=204, headers={"Allow": allowed})
        if not self._sources.all_origins.allows(origin):
            raise RefusedError(403, "origin_not_allowed", "no source takes events of this origin")
        requested = request.headers.get("Access-Control-Request-Headers")
        return web.Response(status=204, headers=origins.preflight_headers(origin, requested))

    def _project_settings(self, request: web.BaseRequest, found: Route) -> web.StreamResponse:
        key = unquote(found.key)
        self._sources.require([key])
        protocol, host = self._public_host(request, found.prefix)
        return answers.json_answer(sdk_settings.project_settings(key, f"{host}/v1", protocol))

    def _public_host(self, request: web.BaseRequest, prefix: str) -> tuple[str, str]:
        """Protocol and host with prefix, as SDKs must use them: as configured, or as asked for."""
        if self._settings.public_url:
            protocol, _, host = self._settings.public_url.rstrip("/").partition("://")
            return protocol, host
        protocol, host = ("https" if request.secure else "http"), request.host
        if clients.is_trusted(request.remote or "", self._settings.trusted_proxies):
            # What ends TLS in front of us knows what the client asked for.
            if request.headers.get("X-Forwarded-Proto") in {"http", "https"}:
                protocol = request.headers["X-Forwarded-Proto"]
            host = request.headers.get("X-Forwarded-Host", host)
        return protocol, f"{clients.said(host)}{prefix}"

    def _source_config(self, request: web.BaseRequest) -> web.StreamResponse:
        basic = clients.basic_user(request.headers.get(hdrs.AUTHORIZATION))
        key = basic or clients.key_in_query(request)
        return answers.json_answer(sdk_settings.source_config(self._sources.require([key]), key))

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

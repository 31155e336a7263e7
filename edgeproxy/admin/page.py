"""The operators' page: its files, its login, and what it asks under /api/."""

from collections.abc import Awaitable, Callable
from typing import Any

import apsw
import msgspec
from aiohttp import hdrs, web

from edgeproxy import assets
from edgeproxy.admin.access import Guard
from edgeproxy.admin.answers import json_answer, refused
from edgeproxy.admin.causes import cause, findings
from edgeproxy.admin.grouping import group, one
from edgeproxy.admin.history import History
from edgeproxy.admin.journeys import Journeys
from edgeproxy.admin.session import DAYS
from edgeproxy.admin.trying import Bench, NoSourceError, Tried

__all__ = ["FILES", "OPEN_PATHS", "Page"]

#: The page's files by path; what is in them is no secret, so they are given without a token.
FILES = {"/": "admin.html", "/admin.js": "admin.js", "/admin.css": "admin.css"}

OPEN_PATHS = frozenset({*FILES, "/api/login"})

# No inline script or style, nothing from elsewhere, no framing: an event's text that were to get
# into the page as markup could still do nothing.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
_MAX_LOGIN = 10_000
_MAX_TRIED = 1_000_000


class Page:
    """Handlers; `add_to` puts them into the admin listener's application."""

    def __init__(
        self,
        *,
        history: History,
        journeys: Journeys,
        bench: Bench,
        last: Callable[[], dict[str, dict[str, Any]]],
        setup: Callable[[], dict[str, Any]],
        reading: Callable[[], apsw.Connection],
    ) -> None:
        """Take what it shows.

        Args:
            last: what is known of the last refused request, by code, and of wrong clocks.
            setup: sources and addresses, without any key.
            reading: a connection to the buffer, to be closed.
        """
        self.history = history
        """To be run as a task."""
        self.journeys = journeys
        self._bench = bench
        self._last = last
        self._setup = setup
        self._reading = reading
        self._files: dict[str, assets.Asset] = {}

    def add_to(
        self, app: web.Application, guard: Guard, status: Callable[[], dict[str, Any]]
    ) -> None:
        """Add the routes; `status` gives the document of `/status` with its words."""
        self._session, self._tries, self._status = guard.session, guard.tries, status
        for path in FILES:
            app.router.add_get(path, self._file)
        app.router.add_post("/api/login", self._login)
        app.router.add_post("/api/logout", self._logout)
        app.router.add_get("/api/overview", self._overview)
        app.router.add_get("/api/history", self._show_history)
        app.router.add_get("/api/setup", self._show_setup)
        app.router.add_get(r"/api/journeys/{id:\d{1,15}}", self._journey)
        app.router.add_get("/api/deadletters/groups", self._groups)
        app.router.add_get(r"/api/deadletters/letters/{id:\d{1,15}}", self._letter)
        app.router.add_post("/api/try", self._explain)
        app.router.add_post("/api/try/send", self._send)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        name = FILES[request.path]
        asset = self._files.get(name)
        if asset is None:
            try:
                asset = self._files[name] = assets.read(name)
            except assets.AssetsMissingError as missing:
                return refused(404, "not_built", str(missing))
        headers = {**_HEADERS, hdrs.ETAG: f'"{asset.etag}"', hdrs.VARY: hdrs.ACCEPT_ENCODING}
        if request.headers.get(hdrs.IF_NONE_MATCH) == f'"{asset.etag}"':
            return web.Response(status=304, headers=headers)
        body = asset.plain
        if "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, ""):
            body = asset.gzip
            headers[hdrs.CONTENT_ENCODING] = "gzip"
        return web.Response(body=body, headers={**headers, hdrs.CONTENT_TYPE: asset.content_type})

    # --- login ------------------------------------------------------------------------------------

    async def _login(self, request: web.Request) -> web.StreamResponse:
        address = request.remote or ""
        wait = self._tries.wait(address)
        if wait > 0:
            answer = refused(429, "too_many_tries", "too many wrong tokens; wait and try again")
            answer.headers[hdrs.RETRY_AFTER] = str(int(wait) + 1)
            return answer
        given = await _json(request, _MAX_LOGIN)
        token = given.get("token") if isinstance(given, dict) else None
        if not isinstance(token, str) or not self._session.opens(token):
            self._tries.failed(address)
            return refused(401, "unauthorized", "this is not the token of [admin]")
        answer = json_answer({"success": True})
        answer.set_cookie(
            self._session.name,
            self._session.cookie(),
            max_age=DAYS * 86400,
            httponly=True,
            samesite="Strict",
            secure=request.secure or request.headers.get("X-Forwarded-Proto") == "https",
            path="/",
        )
        return answer

    async def _logout(self, _request: web.Request) -> web.StreamResponse:
        answer = json_answer({"success": True})
        answer.del_cookie(self._session.name, path="/", httponly=True, samesite="Strict")
        return answer

    # --- what it shows ----------------------------------------------------------------------------

    async def _overview(self, _request: web.Request) -> web.StreamResponse:
        status = self._status()
        lately = self.history.lately()
        return json_answer(
            {
                "status": status,
                "findings": findings(status, lately, self._last()),
                "times": self.history.times(),
                "fullInSeconds": self.history.full_in(status["buffer"]["max_bytes"]),
                "started": self.history.started,
                "needsLogin": self._session.is_needed,
            }
        )

    async def _show_history(self, request: web.Request) -> web.StreamResponse:
        return json_answer(self.history.columns(day=request.query.get("span") == "day"))

    async def _show_setup(self, _request: web.Request) -> web.StreamResponse:
        return json_answer(self._setup())

    async def _journey(self, request: web.Request) -> web.StreamResponse:
        found = self.journeys.detail(
            int(request.match_info["id"]), values=request.query.get("values") == "true"
        )
        if found is None:
            return refused(404, "forgotten", "this event was too long ago; newer ones are kept")
        return json_answer(found)

    async def _groups(self, request: web.Request) -> web.StreamResponse:
        groups = await group(self._reading, request.query.get("source"))
        told = [{**msgspec.to_builtins(each), "words": cause(each.code).words} for each in groups]
        return json_answer(told)

    async def _letter(self, request: web.Request) -> web.StreamResponse:
        values = request.query.get("values") == "true"
        found = await one(self._reading, request.match_info["id"], values=values)
        if found is None:
            return refused(404, "not_found", "there is no dead letter of this number any more")
        return json_answer(found)

    # --- trying -----------------------------------------------------------------------------------

    async def _explain(self, request: web.Request) -> web.StreamResponse:
        async def explain(tried: Tried) -> dict[str, Any]:
            return self._bench.explain(tried)

        return await _try(request, explain)

    async def _send(self, request: web.Request) -> web.StreamResponse:
        return await _try(request, self._bench.send)


async def _try(
    request: web.Request, do: Callable[[Tried], Awaitable[dict[str, Any]]]
) -> web.StreamResponse:
    try:
        tried = msgspec.convert(await _json(request, _MAX_TRIED), Tried)
    except msgspec.ValidationError as error:
        return refused(400, "invalid_request", str(error))
    try:
        return json_answer(await do(tried))
    except NoSourceError:
        return refused(404, "no_source", "the settings name no such source")


async def _json(request: web.Request, most: int) -> object:
    """A body as JSON; None where it is none or too large."""
    body = await request.content.read(most + 1)
    while len(body) <= most and not request.content.at_eof():
        body += await request.content.read(most + 1 - len(body))
    if len(body) > most:
        return None
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None

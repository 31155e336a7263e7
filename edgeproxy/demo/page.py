"""The shop's web server: the page, what it hears of its events, and the switch for Hightouch."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from importlib import resources
from pathlib import PurePosixPath

import msgspec
from aiohttp import web

from edgeproxy.demo.narrator import Narrator
from edgeproxy.sandbox import Faults, Sandbox

__all__ = ["Setup", "Shop"]

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_OFF = Faults(status=503)
_HEARTBEAT = 15.0  # seconds; a silent stream is closed by some browsers


class Setup(msgspec.Struct, frozen=True):
    """What the page must know; the names are those that its scripts use."""

    write_key: str = msgspec.field(name="writeKey")
    api_host: str = msgspec.field(name="apiHost")
    script: str
    links: Mapping[str, str]
    protocol: str = "http"

    def json(self) -> str:
        """As JSON that may stand inside a script element."""
        proxy = f"{self.protocol}://{self.api_host}"
        urls = {"renewUrl": f"{proxy}/ht/renew", "clearUrl": f"{proxy}/ht/clear"}
        fields = msgspec.to_builtins(self) | urls
        return msgspec.json.encode(fields).decode().replace("<", "\\u003c")


class Shop:
    """`app` serves the page under any aiohttp runner."""

    def __init__(self, setup: Setup, sandbox: Sandbox, narrator: Narrator) -> None:
        self._setup = setup
        self._sandbox = sandbox
        self._narrator = narrator
        self._closing = asyncio.Event()
        self.app = web.Application()
        self.app.router.add_get("/feed", self._feed)
        self.app.router.add_post("/upstream", self._upstream)
        self.app.router.add_get("/{name:[a-z.]*}", self._file)
        self.app.on_shutdown.append(self._close)

    async def _close(self, _app: web.Application) -> None:
        self._closing.set()

    async def _file(self, request: web.Request) -> web.Response:
        name = request.match_info["name"] or "index.html"
        file = resources.files("edgeproxy").joinpath("demo", "page", name)
        if not file.is_file():
            raise web.HTTPNotFound
        text = file.read_text(encoding="utf-8")
        if name == "index.html":
            text = text.replace("__SETUP__", self._setup.json())
            text = text.replace("__SCRIPT__", self._setup.script)
        content_type = _TYPES.get(PurePosixPath(name).suffix, "application/octet-stream")
        return web.Response(
            text=text, content_type=content_type, headers={"Cache-Control": "no-cache"}
        )

    async def _feed(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events; ends when the page is closed or the demo ends."""
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        )
        await response.prepare(request)
        with self._narrator.listen() as heard, suppress(ConnectionResetError):  # the page is gone
            on = self._sandbox.faults != _OFF
            await response.write(_message(msgspec.json.encode({"kind": "upstream", "on": on})))
            while not self._closing.is_set():
                await response.write(await self._next(heard))
        return response

    async def _next(self, heard: asyncio.Queue[bytes]) -> bytes:
        getting = asyncio.ensure_future(heard.get())
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait(
                {getting, closing}, timeout=_HEARTBEAT, return_when=asyncio.FIRST_COMPLETED
            )
            return _message(getting.result()) if getting.done() else b": still here\n\n"
        finally:
            getting.cancel()
            closing.cancel()

    async def _upstream(self, request: web.Request) -> web.Response:
        try:
            wanted = msgspec.json.decode(await request.read(), type=dict[str, bool])
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise web.HTTPBadRequest from None
        on = wanted.get("on", True)
        self._sandbox.faults = Faults() if on else _OFF
        self._narrator.upstream(on=on)
        return web.json_response({"on": on})


def _message(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"

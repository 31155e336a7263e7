"""The sandbox's HTTP: Hightouch's paths, and those to look at what arrived and to misbehave.

A request's life: faults that need no body, the body, the write key, the region, the events, the
remaining faults, the answer.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager

import msgspec
from aiohttp import web

from edgeproxy.sandbox.answers import error, faulty
from edgeproxy.sandbox.faults import Faults, FaultsError, parse_faults
from edgeproxy.sandbox.judge import TYPES, Body, MalformedError, read_body
from edgeproxy.sandbox.page import render
from edgeproxy.sandbox.requests import kept_headers, named_region, write_key
from edgeproxy.sandbox.store import DEFAULT_KEEP, Arrival, Store

_MAX_REQUEST = 64 * 1024 * 1024
_PAGE_EVENTS = 100
_BATCH = frozenset({"batch", "b", "import"})
_SINGLE = TYPES | set("itpsga")


class Sandbox:
    """A stand-in for Hightouch's events API.

    `write_key` is the key, or the keys, it takes; with none it takes any key that is not empty.
    `region` is the workspace's: a request that names another one, as the first label of its
    `Host` or as a segment of its path, is answered 200 and its events never appear.
    `on_event` is called with every event kept, before its request is answered.

    `app` serves it under any aiohttp runner; `serve` is the short way.
    """

    def __init__(
        self,
        write_key: str | Collection[str] = (),
        *,
        region: str = "us-east-1",
        keep: int = DEFAULT_KEEP,
        on_event: Callable[[Arrival], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        keys = [write_key] if isinstance(write_key, str) else write_key
        self.write_keys = frozenset(filter(None, keys))
        self.region = region
        self.store = Store(keep)
        self.on_event = on_event
        self._clock = clock
        self._chance = random.Random()  # noqa: S311  # dice, not secrets
        self._faults = Faults()
        self._faults_changed = asyncio.Event()
        self.app = self._application()

    @property
    def events(self) -> deque[Arrival]:
        """What is kept of what arrived, blocked events included, newest last."""
        return self.store.events

    @property
    def faults(self) -> Faults:
        """How it misbehaves. Setting this lets go of the connections that a blackhole held."""
        return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._faults = faults
        self._faults_changed.set()
        self._faults_changed = asyncio.Event()

    @asynccontextmanager
    async def serve(self, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
        """Listen while the context lasts; yields the base URL. An object serves once."""
        runner = web.AppRunner(
            self.app, access_log=None, handler_cancellation=True, shutdown_timeout=1
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
            bound = runner.addresses[0]
            yield f"http://{_url_host(bound[0])}:{bound[1]}"
        finally:
            await runner.cleanup()

    def _application(self) -> web.Application:
        app = web.Application(client_max_size=_MAX_REQUEST)
        app.router.add_get("/", self._get_page)
        app.router.add_get("/events", self._get_events)
        app.router.add_delete("/events", self._delete_events)
        app.router.add_get("/stats", self._get_stats)
        app.router.add_get("/faults", self._get_faults)
        app.router.add_put("/faults", self._put_faults)
        app.router.add_post("/{path:.*}", self._post)
        app.router.add_options("/{path:.*}", self._preflight)
        app.on_shutdown.append(self._let_go)
        return app

    async def _let_go(self, _app: web.Application) -> None:
        self._faults_changed.set()

    # The events API

    async def _post(self, request: web.Request) -> web.StreamResponse:
        self.store.requests += 1
        faults = self._faults
        if faults.rate < 1 and self._chance.random() >= faults.rate:
            faults = Faults(poison=faults.poison)
        if faults.blackhole:
            await self._faults_changed.wait()
            return _hang_up(request)
        if faults.drop == "before":
            return _hang_up(request)
        response = await self._answer(request, faults)
        if faults.delay:
            await asyncio.sleep(faults.delay)
        if faults.drop == "after":
            return _hang_up(request)
        self.store.answers[response.status] += 1
        response.headers["Access-Control-Allow-Origin"] = "*"
        return response

    async def _answer(self, request: web.Request, faults: Faults) -> web.Response:
        kind = request.path.rstrip("/").rpartition("/v1/")[2]
        if kind not in _BATCH and kind not in _SINGLE:
            return error(404, "not_found", "There is nothing at this path.")
        try:
            raw = await request.read()
            body = read_body(raw, is_batch=kind in _BATCH, now=self._clock())
        except web.HTTPRequestEntityTooLarge:
            return error(413, "request_too_large", "The body is too large.")
        except (MalformedError, web.RequestPayloadError) as problem:
            return error(400, "invalid_json", f"The body cannot be read: {problem}")
        if faults.status is not None and faults.status >= 300:
            return faulty(faults)
        if not self._knows(write_key(request, body.write_key)):
            return error(401, "unknown_key", "The write key is missing or not known here.")
        poison = faults.poisoned
        if poison and any(event.message_id in poison for event in body.events):
            return error(400, "poison", "The request holds a poisoned event.")
        self._keep(request, body)
        return web.json_response({"success": True}) if faults.status is None else faulty(faults)

    def _keep(self, request: web.Request, body: Body) -> None:
        named = named_region(request)
        if named is not None and named != self.region:
            self.store.wrong_region += 1
            return
        now = self._clock()
        headers = kept_headers(request)
        for event in body.events:
            arrival = Arrival(
                event=event.text,
                type=event.type,
                message_id=event.message_id,
                blocked=event.blocked,
                received_at=now,
                headers=headers,
            )
            self.store.add(arrival)
            if self.on_event is not None:
                self.on_event(arrival)

    def _knows(self, write_key: str) -> bool:
        return write_key in self.write_keys if self.write_keys else bool(write_key)

    async def _preflight(self, request: web.Request) -> web.Response:
        if "/v1/" not in request.path:
            return error(405, "method_not_allowed", "Only the events API answers browsers.")
        asked = request.headers.get("Access-Control-Request-Headers", "")
        return web.Response(
            status=204,
            headers={
                "Access-Control-Allow-Origin": "*",
                "Access-Control-Allow-Methods": "POST",
                "Access-Control-Allow-Headers": asked,
            },
        )

    # To look at it

    async def _get_page(self, _request: web.Request) -> web.Response:
        newest = self.store.select(limit=_PAGE_EVENTS)
        page = render(newest, self.store.stats(), self.region)
        return web.Response(
            text=page,
            content_type="text/html",
            headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"},
        )

    async def _get_events(self, request: web.Request) -> web.Response:
        blocked = {"true": True, "false": False, None: None}.get(request.query.get("blocked"), "?")
        if isinstance(blocked, str):
            return error(400, "invalid_query", "blocked: give true or false")
        limit = request.query.get("limit")
        if limit is not None and not (limit.isascii() and limit.isdigit() and len(limit) < 10):
            return error(400, "invalid_query", "limit: give a whole number, 0 or more")
        chosen = self.store.select(
            blocked=blocked,
            kind=request.query.get("type"),
            limit=None if limit is None else int(limit),
        )
        text = b"[" + b",\n".join(arrival.json() for arrival in chosen) + b"]"
        return web.Response(body=text, content_type="application/json")

    async def _delete_events(self, _request: web.Request) -> web.Response:
        self.store.clear()
        return web.json_response({"success": True})

    async def _get_stats(self, _request: web.Request) -> web.Response:
        stats = {**self.store.stats(), "region": self.region, "faults": self._faults}
        return web.Response(body=msgspec.json.encode(stats), content_type="application/json")

    # To make it misbehave

    async def _get_faults(self, _request: web.Request) -> web.Response:
        body = msgspec.json.encode(self._faults)
        return web.Response(body=body, content_type="application/json")

    async def _put_faults(self, request: web.Request) -> web.Response:
        try:
            self.faults = parse_faults(await request.read())
        except FaultsError as problem:
            return error(400, "invalid_faults", str(problem))
        return await self._get_faults(request)


def _hang_up(request: web.Request) -> web.Response:
    """Close the connection without an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _url_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host

"""What commands and the page ask about dead letters: JSON lines under /api/deadletters."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec
from aiohttp import web
from msgspec import Struct

from edgeproxy.admin.answers import NO_STORE, json_answer, refused
from edgeproxy.admin.deadletters import Desk
from edgeproxy.buffer.deadletters import DeadLetterFilter

__all__ = ["DeadLetterRoutes"]


class _Listing(Struct, forbid_unknown_fields=True):
    code: str | None = None
    source: str | None = None
    since: int | None = None
    user: str | None = None
    id: str | None = None
    type: str | None = None
    event: str | None = None
    ids: tuple[int, ...] | None = None
    limit: int | None = None
    bodies: bool = False
    newest_first: bool = False

    def chosen(self) -> DeadLetterFilter:
        return DeadLetterFilter(
            self.code, self.source, self.since, self.user, self.id, self.type, self.event, self.ids
        )


class DeadLetterRoutes:
    """Handlers around a desk."""

    def __init__(self, desk: Desk) -> None:
        """Ask this desk."""
        self._desk = desk

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        app.router.add_get("/api/deadletters", self._list)
        app.router.add_get("/api/deadletters/count", self._count)
        app.router.add_post("/api/deadletters/replay", self._replay)
        app.router.add_post("/api/deadletters/purge", self._purge)

    async def _list(self, request: web.Request) -> web.StreamResponse:
        try:
            asked = _asked(request)
        except msgspec.ValidationError as error:
            return refused(400, "invalid_filter", str(error))
        found = self._desk.letters(
            asked.chosen(), limit=asked.limit, bodies=asked.bodies, newest_first=asked.newest_first
        )
        return await _stream(request, found)

    async def _count(self, request: web.Request) -> web.StreamResponse:
        try:
            asked = _asked(request)
        except msgspec.ValidationError as error:
            return refused(400, "invalid_filter", str(error))
        return json_answer(await self._desk.count(asked.chosen()))

    async def _replay(self, request: web.Request) -> web.StreamResponse:
        chosen = await _chosen(request)
        if isinstance(chosen, web.Response):
            return chosen
        return await _stream(request, self._desk.replay(chosen))

    async def _purge(self, request: web.Request) -> web.StreamResponse:
        chosen = await _chosen(request)
        if isinstance(chosen, web.Response):
            return chosen
        return await _stream(request, self._desk.purge(chosen))


def _asked(request: web.Request) -> _Listing:
    """What a query asks for; several numbers stand between commas."""
    given: dict[str, Any] = dict(request.query)
    if "ids" in given:
        given["ids"] = given["ids"].split(",")
    return msgspec.convert(given, _Listing, strict=False)


async def _chosen(request: web.Request) -> DeadLetterFilter | web.Response:
    try:
        return msgspec.json.decode(await request.read(), type=DeadLetterFilter)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return refused(400, "invalid_filter", str(error))


async def _stream(request: web.Request, found: AsyncGenerator[Any, None]) -> web.StreamResponse:
    """Answer with each document on a line. Whoever goes away ends what makes them."""
    response = web.StreamResponse(headers=NO_STORE)
    response.content_type = "application/x-ndjson"
    await response.prepare(request)
    async with aclosing(found) as documents:
        try:
            async for document in documents:
                await response.write(msgspec.json.encode(document) + b"\n")
        except ConnectionResetError:
            return response
    return response

"""What the admin listener answers: JSON, never cached, and errors in the shape of all others."""

from http import HTTPStatus

import msgspec
from aiohttp import web

__all__ = ["NO_STORE", "json_answer", "refused"]

NO_STORE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def json_answer(document: object, status: int = 200) -> web.Response:
    """Answer with a document as JSON."""
    return web.Response(
        body=msgspec.json.encode(document),
        status=status,
        content_type="application/json",
        headers=NO_STORE,
    )


def refused(status: int, code: str, message: str) -> web.Response:
    """Answer that a request was not carried out."""
    error = HTTPStatus(status).phrase
    return json_answer({"success": False, "error": error, "code": code, "message": message}, status)

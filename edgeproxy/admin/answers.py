"""What the admin listener answers: JSON, never cached, and errors in the shape of all others."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus

import msgspec
from aiohttp import hdrs, web

__all__ = ["NO_STORE", "json_answer", "refused", "same_shape"]

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


_MESSAGES = {
    404: ("not_found", "no such path; the page is at /"),
    405: ("method_not_allowed", "this path does not take this method"),
    413: ("request_too_large", "the request is too large"),
}


@web.middleware
async def same_shape(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Give aiohttp's own refusals the shape of all others."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status not in _MESSAGES:
            raise
        answer = refused(error.status, *_MESSAGES[error.status])
        if hdrs.ALLOW in error.headers:
            answer.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
        return answer

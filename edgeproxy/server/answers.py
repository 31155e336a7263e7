"""What clients are told. Success is exactly one body; every error has one shape (the contract)."""

import time
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

import msgspec
from aiohttp import web

__all__ = [
    "SERVER",
    "SUCCESS",
    "RefusedError",
    "as_bytes",
    "error",
    "failed",
    "json_answer",
    "partly",
    "success",
    "success_bytes",
]

SUCCESS = b'{"success":true}'
SERVER = "edgeproxy"
"""What the `Server` header says: no versions, which would only help who looks for holes."""
_JSON = "application/json"


class RefusedError(Exception):
    """A request is refused as a whole; it leaves no trace but a count."""

    def __init__(
        self, status: int, code: str, message: str, headers: dict[str, str] | None = None
    ) -> None:
        """Take what the answer will say; `message` is for people and holds no event data."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}


class _Error(msgspec.Struct):
    error: str
    code: str
    message: str
    success: bool = False


def json_answer(body: bytes, status: int = 200) -> web.Response:
    """Answer with JSON text."""
    return web.Response(body=body, status=status, content_type=_JSON)


def success() -> web.Response:
    """Answer that everything was accepted."""
    return web.Response(body=SUCCESS, content_type=_JSON)


def partly(accepted: int, rejected: list[dict[str, object]]) -> web.Response:
    """Answer a batch of which some events were quarantined."""
    return json_answer(
        msgspec.json.encode({"success": True, "accepted": accepted, "rejected": rejected})
    )


def error(status: int, code: str, message: str) -> web.Response:
    """Answer that a request was refused."""
    body = msgspec.json.encode(_Error(HTTPStatus(status).phrase, code, message))
    return json_answer(body, status)


def failed() -> web.Response:
    """Answer that a mistake of ours kept the request from being answered; it may be sent again."""
    return error(500, "internal_error", "the proxy failed; try again")


def success_bytes() -> bytes:
    """`success` as it goes over the wire, in HTTP/1.1 and without an end to the connection."""
    return _success_in(int(time.time()))


@lru_cache(maxsize=2)
def _success_in(second: int) -> bytes:
    return as_bytes(success(), second)


def as_bytes(answer: web.Response, second: int | None = None) -> bytes:
    """An answer as it goes over the wire, likewise; `second` is the time of day that it tells."""
    body = answer.body if isinstance(answer.body, bytes) else b""
    lines = [f"HTTP/1.1 {answer.status} {answer.reason}"]
    lines += [f"{name}: {value}" for name, value in answer.headers.items()]
    date = formatdate(second, usegmt=True)
    lines += [f"Content-Length: {len(body)}", f"Date: {date}", f"Server: {SERVER}"]
    return "\r\n".join([*lines, "\r\n"]).encode("utf-8", "surrogateescape") + body

"""What clients are told. Success is exactly one body; every error has one shape (the contract)."""

from http import HTTPStatus

import msgspec
from aiohttp import web

__all__ = ["SUCCESS", "RefusedError", "error", "json_answer", "partly", "success"]

SUCCESS = b'{"success":true}'
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

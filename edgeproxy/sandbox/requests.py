"""What a request says beside its events: its write key, its region, the headers worth keeping."""

import base64
import binascii
import re

from aiohttp import web

_REGION = re.compile(r"[a-z]{2}(?:-[a-z]+)+-\d{1,2}")
_SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie"})


def write_key(request: web.Request, in_body: str) -> str:
    """The first that is not empty of: Basic user name, body, query."""
    scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            user = base64.b64decode(encoded, validate=True).decode().partition(":")[0]
        except (binascii.Error, UnicodeDecodeError):
            user = ""
        if user:
            return user
    return in_body or request.query.get("writeKey", "")


def named_region(request: web.Request) -> str | None:
    """The region a request names: `eu-west-1.…` as its host, or `/eu-west-1/` in its path."""
    host = request.host.partition(".")[0]
    prefix = request.path.rpartition("/v1/")[0]
    for label in (host, *prefix.split("/")):
        if _REGION.fullmatch(label):
            return label
    return None


def kept_headers(request: web.Request) -> dict[str, str]:
    return {
        name: "***" if name.lower() in _SECRET_HEADERS else value
        for name, value in request.headers.items()
    }

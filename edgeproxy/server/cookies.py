"""The browser SDK's cookie service: identity that outlives cookies set by scripts.

Safari and others forget what a script stores after days. The SDK therefore asks (with
`httpCookieServiceOptions`) for copies in HttpOnly cookies, which live for a year:

- renew: each identity cookie, else its server copy, is set again in both forms;
- clear: the server copies expire. The SDK removes its own.

Cookies go to the registrable domain of the request's host, because that is where the SDK keeps its
own: two cookies of one name on two levels would leave one behind on reset. A page of another site
gets no cookies at all: its browser would not send them, and it must not end another site's identity.
"""

from __future__ import annotations

import re
from functools import cached_property
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec
from aiohttp import web
from publicsuffixlist import PublicSuffixList

from edgeproxy.server.answers import success

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CookieService", "Site", "cleared", "renewed"]

IDENTITY = ("htjs_anonymous_id", "htjs_user_id")
SERVER_SUFFIX = "_srvr"
_YEAR = 31_536_000  # the SDK's own cookies live as long
# RFC 6265's cookie-octets. The SDK percent-encodes everything else, so other values are not its own.
_VALUE = re.compile(r"[!#-+\--:<-\[\]-~]{1,2048}")


class Site(msgspec.Struct, frozen=True):
    """Where cookies belong: `domain` None means the answering host alone."""

    domain: str | None
    secure: bool


class CookieService:
    """The two handlers. Holds the public suffix list, read at the first request."""

    async def renew(self, request: web.BaseRequest) -> web.Response:
        """Sets the identity cookies and their server copies again."""
        return self._answer(request, renewed)

    async def clear(self, request: web.BaseRequest) -> web.Response:
        """Lets the server copies expire."""
        return self._answer(request, cleared)

    def site(self, host: str, origin: str | None) -> Site | None:
        """The site that page and proxy share; None when they are of different sites."""
        name = urlsplit(f"//{host}").hostname or ""
        if origin is None:
            return Site(self._registrable(name), secure=False)
        page = urlsplit(origin)
        ours, theirs = self._registrable(name), self._registrable(page.hostname or "")
        if (ours or name) != (theirs or page.hostname):
            return None
        return Site(ours, secure=page.scheme == "https")

    def _answer(
        self, request: web.BaseRequest, act: Callable[[str, Site], list[str]]
    ) -> web.Response:
        response = success()
        response.headers["Cache-Control"] = "no-store"
        site = self.site(request.host, request.headers.get("Origin"))
        if site is not None:
            for cookie in act(request.headers.get("Cookie", ""), site):
                response.headers.add("Set-Cookie", cookie)
        return response

    def _registrable(self, host: str) -> str | None:
        if "." not in host or _is_address(host):
            return None
        found: str | None = self._suffixes.privatesuffix(host)
        return found

    @cached_property
    def _suffixes(self) -> PublicSuffixList:
        return PublicSuffixList()


def renewed(cookies: str, site: Site) -> list[str]:
    """The Set-Cookie values that answer a renewal; none for an identity that nobody knows."""
    known = _parsed(cookies)
    made = []
    for name in IDENTITY:
        value = known.get(name) or known.get(name + SERVER_SUFFIX)
        if value:
            made.append(_cookie(name, value, site, _YEAR, server_only=False))
            made.append(_cookie(name + SERVER_SUFFIX, value, site, _YEAR, server_only=True))
    return made


def cleared(cookies: str, site: Site) -> list[str]:
    """The Set-Cookie values that let those server copies expire that the browser sent."""
    known = _parsed(cookies)
    names = [name + SERVER_SUFFIX for name in IDENTITY]
    return [_cookie(name, "", site, 0, server_only=True) for name in names if name in known]


def _parsed(header: str) -> dict[str, str]:
    """Name to raw value. Of several with one name the first wins: the browser sends the most
    specific first. Values that the SDK cannot have written are left out.
    """
    found: dict[str, str] = {}
    for item in header.split(";"):
        name, separator, value = item.strip().partition("=")
        if separator and _VALUE.fullmatch(value):
            found.setdefault(name, value)
    return found


def _cookie(name: str, value: str, site: Site, seconds: int, *, server_only: bool) -> str:
    parts = [f"{name}={value}", f"Max-Age={seconds}", "Path=/", "SameSite=Lax"]
    if site.domain is not None:
        parts.append(f"Domain={site.domain}")
    if server_only:
        parts.append("HttpOnly")
        # The page's own cookie stays as the SDK sets it, or a script could not overwrite it.
        if site.secure:
            parts.append("Secure")
    return "; ".join(parts)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True

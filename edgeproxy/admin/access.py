"""Who may use the admin listener: programs that hold the token, and no page of another site.

Without a token only this machine may speak to it, and only under a name that cannot be another
site's: a page whose name resolves to 127.0.0.1 (DNS rebinding) is refused by its `Host`. With or
without one, requests that a browser sends on behalf of another site are refused by their `Origin`
and `Sec-Fetch-Site` (Fetch Metadata, w3.org/TR/fetch-metadata).
"""

import hmac
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

import structlog
from aiohttp import web

from edgeproxy.admin.answers import refused
from edgeproxy.admin.session import Session

__all__ = ["Guard", "Tries"]

_log = structlog.get_logger("edgeproxy.admin")

_OPEN = frozenset({"/healthz", "/readyz"})  # probes carry no token
_READING = frozenset({"GET", "HEAD"})

#: Wrong tokens of one address before it has to wait, and seconds until it has one more try.
TRIES = 10
TRY_SECONDS = 6.0
_ADDRESSES = 1000  # remembered at a time; beyond it the longest silent one is forgotten


class Tries:
    """Counts wrong tokens by address: ten at once, then one every six seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds that never go back."""
        self._clock = clock
        # When each address will have all its tries again.
        self._whole_at: OrderedDict[str, float] = OrderedDict()

    def wait(self, address: str) -> float:
        """Seconds until this address may try again; 0 when it may now."""
        owed = self._whole_at.get(_network(address), 0.0) - self._clock()
        return max(owed - (TRIES - 1) * TRY_SECONDS, 0.0)

    def failed(self, address: str) -> None:
        """Count a wrong token."""
        now = self._clock()
        network = _network(address)
        self._whole_at[network] = max(self._whole_at.get(network, 0.0), now) + TRY_SECONDS
        self._whole_at.move_to_end(network)
        if len(self._whole_at) > _ADDRESSES:
            self._whole_at.popitem(last=False)


class Guard:
    """The check before every handler of the admin listener."""

    def __init__(
        self, token: str, tries: Tries | None = None, *, open_paths: Collection[str] = ()
    ) -> None:
        """Guard with a token; an empty one lets in whoever is on this machine.

        `open_paths` need no token: the page's files and its login.
        """
        self._token = token.encode()
        self.tries = tries or Tries()
        self.session = Session(token)
        self._open = frozenset(open_paths)

    @web.middleware
    async def middleware(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        """Answer 401, 403 or 429 instead of the handler, or let the request through."""
        refusal = None if request.path in _OPEN else self.refusal(request)
        if refusal is not None:
            return refusal
        return await handler(request)

    def refusal(self, request: web.Request) -> web.Response | None:
        """Why a request is not let in; None when it is."""
        if not self._token:
            if not _is_local(request.remote or ""):
                return refused(403, "not_local", "without [admin] token only this machine may ask")
            if not _is_local(_host_name(f"//{request.headers.get('Host', '')}")):
                return refused(
                    403, "wrong_host", "without [admin] token, use 127.0.0.1 as the host"
                )
        if not _is_own_page(request):
            return refused(403, "wrong_origin", "pages of other sites may not ask this")
        if not self._token or request.path in self._open:
            return None
        if self.session.is_good(request.cookies.get(self.session.name, "")):
            return None
        return self._judge_token(request)

    def _judge_token(self, request: web.Request) -> web.Response | None:
        address = request.remote or ""
        wait = self.tries.wait(address)
        if wait > 0:
            answer = refused(429, "too_many_tries", "too many wrong tokens; wait and try again")
            answer.headers["Retry-After"] = str(int(wait) + 1)
            return answer
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        given = given.strip() if scheme.lower() == "bearer" else ""
        if hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self._token):
            return None
        if given:  # none at all is no guess
            self.tries.failed(address)
            if self.tries.wait(address) > 0:
                _log.warning("admin_tokens_refused", address=address, tries=TRIES)
        answer = refused(401, "unauthorized", "send Authorization: Bearer <[admin] token>")
        answer.headers["WWW-Authenticate"] = 'Bearer realm="edgeproxy"'
        return answer


def _is_own_page(request: web.Request) -> bool:
    """Whether a request comes from no browser, from a page of this listener, or from its user."""
    origin = request.headers.get("Origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("Host"):
        return False
    site = request.headers.get("Sec-Fetch-Site", "none")
    if site in {"none", "same-origin"}:
        return True
    # A link on another site may lead here; what it embeds or sends may not.
    return request.method in _READING and request.headers.get("Sec-Fetch-Mode") == "navigate"


def _is_local(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        address = ip_address(name)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def _host_name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # an IPv6 address without its end
        return ""


def _network(address: str) -> str:
    """An IPv6 host has 2^64 addresses of its own: its /64 counts as one."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if isinstance(found, IPv6Address) and found.ipv4_mapped is None:
        return str(int(found) >> 64)
    return str(found)

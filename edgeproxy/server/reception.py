"""What a request says of the events in it: whose they are, and how they came."""

from collections.abc import Callable

from aiohttp import hdrs
from msgspec import Struct

from edgeproxy.config import Server, Source
from edgeproxy.events.envelope import Envelope
from edgeproxy.events.intake import Receipt
from edgeproxy.events.times import parse_time
from edgeproxy.server import clients
from edgeproxy.server.answers import RefusedError
from edgeproxy.server.heads import Head
from edgeproxy.server.routes import Route, route
from edgeproxy.server.sources import Sources

__all__ = ["Reception", "Seen"]


class Seen(Struct, frozen=True):
    """What a request's head says, whatever its body holds."""

    reception: "Reception"
    """Whose settings it was looked at with."""
    found: Route | None
    """None: it takes no events."""
    origin: str | None
    encoding: str | None
    source: Source | None
    """That of the key in the head, if there is one."""
    agent: str | None
    """Of a browser."""
    forwarded_for: str | None
    """All hops, where anybody's word on them is taken."""


class Reception:
    """Looks at requests with the settings of one time."""

    def __init__(self, settings: Server, sources: Sources, now: Callable[[], int]) -> None:
        """Take the settings; `now` gives ms since 1970."""
        self._settings = settings
        self._sources = sources
        self._now = now

    def see(self, head: Head) -> Seen:
        """Look at a head. Raises RefusedError where its key is none of ours."""
        headers, found = head.headers, route(head.path)
        takes_events = found is not None and (found.type is not None or found.kind == "batch")
        origin = headers.get(hdrs.ORIGIN)
        encoding = headers.get(hdrs.CONTENT_ENCODING)
        basic = clients.basic_user(headers.get(hdrs.AUTHORIZATION))
        # Some proxies append to the header, others add another one.
        hops = ",".join(headers.getall("X-Forwarded-For", ()))
        return Seen(
            reception=self,
            found=found if takes_events else None,
            origin=origin,
            encoding=None if encoding is None else encoding.strip().lower(),
            source=self._sources.require((basic,)) if basic else None,
            agent=clients.said(headers.get(hdrs.USER_AGENT)) if origin else None,
            forwarded_for=hops if self._settings.trusted_proxies and hops else None,
        )

    def source(self, seen: Seen, *keys: object) -> Source:
        """Whose events these are: by the head's key, or else the first of `keys` that is not empty.

        Raises RefusedError where that is nobody, or takes no events of the browser's origin.
        """
        source = seen.source or self._sources.require(keys)
        if seen.origin is not None and not self._sources.allows(source, seen.origin):
            raise RefusedError(
                403, "origin_not_allowed", f"source {source.name} takes no events of this origin"
            )
        return source

    def receipt(self, seen: Seen, peer: str | None, envelope: Envelope) -> Receipt:
        """What is known of how events came."""
        return Receipt(
            received=self._now(),
            type=None if seen.found is None else seen.found.type,
            sent_at=envelope.sent_at,
            sent_at_ms=parse_time(envelope.sent_at),
            context=envelope.context,
            ip=self._client_ip(seen.forwarded_for, peer),
            user_agent=seen.agent,
            has_origin=seen.origin is not None,
        )

    def _client_ip(self, forwarded_for: str | None, peer: str | None) -> str | None:
        if self._settings.client_ip == "off":
            return None
        address = clients.client_address(peer or "", forwarded_for, self._settings.trusted_proxies)
        if self._settings.client_ip == "truncated":
            address = clients.truncated(address)
        return address or None

"""Where a request came from: the client's address, its key, and what of it may be stamped."""

import base64
import binascii
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from aiohttp import web

__all__ = ["basic_user", "client_address", "is_trusted", "key_in_query", "said", "truncated"]

Network = IPv4Network | IPv6Network


def client_address(peer: str, forwarded_for: str | None, trusted: Sequence[Network]) -> str:
    """The client's address: the peer's, or, from a trusted peer, the last one not trusted.

    `X-Forwarded-For` is read from its end, because only what trusted proxies appended is known to
    be true. An entry that is no address ends the search at the peer that reported it.
    """
    address = _plain(peer)
    if not trusted or forwarded_for is None:
        return address
    for hop in reversed(forwarded_for.split(",")):
        if not _is_trusted(address, tuple(trusted)):
            return address
        candidate = _without_port(hop.strip())
        try:
            ip_address(candidate)
        except ValueError:
            return address
        address = _plain(candidate)
    return address


def is_trusted(peer: str, trusted: Sequence[Network]) -> bool:
    """Whether a peer is one of the proxies whose headers are believed."""
    return bool(trusted) and _is_trusted(_plain(peer), tuple(trusted))


@lru_cache(maxsize=4096)
def truncated(address: str) -> str:
    """An address without what tells one user from another: its /24 or /48 network."""
    try:
        bits = 24 if ip_address(address).version == 4 else 48
    except ValueError:
        return ""
    return str(ip_network(f"{address}/{bits}", strict=False).network_address)


def said(header: str | None) -> str:
    """A header as text that can be written; its bytes need not have been UTF-8."""
    if header is None or header.isascii():
        return header or ""
    return header.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def basic_user(authorization: str | None) -> str:
    """The user name of a Basic header, where SDKs put the write key; with or without the colon."""
    if authorization is None or authorization[:6].lower() != "basic ":
        return ""
    return _decoded_user(authorization[6:].strip())


def key_in_query(request: web.BaseRequest) -> str:
    """The write key of a beacon's query."""
    # Parsing a query costs more than seeing that there is none, as in most requests.
    return request.query.get("writeKey", "") if request.rel_url.raw_query_string else ""


@lru_cache(maxsize=1024)
def _decoded_user(credentials: str) -> str:
    try:
        text = base64.b64decode(credentials, validate=False).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return ""
    return text.partition(":")[0].strip()


@lru_cache(maxsize=4096)
def _is_trusted(address: str, trusted: tuple[Network, ...]) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in trusted)


@lru_cache(maxsize=4096)
def _plain(address: str) -> str:
    """Dual-stack sockets write IPv4 addresses as ::ffff:192.0.2.1, and scopes as %eth0."""
    address = address.partition("%")[0]
    is_mapped = address[:7].lower() == "::ffff:" and "." in address
    return address[7:] if is_mapped else address


def _without_port(hop: str) -> str:
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop

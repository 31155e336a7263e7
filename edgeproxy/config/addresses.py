"""Kinds of settings that name a place in the network: URLs, networks, origins."""

import re
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from urllib.parse import SplitResult, urlsplit

from edgeproxy.config.kind import Kind, listed, show, text_of

__all__ = ["Network", "endpoint", "host", "networks", "origins", "url"]

Network = IPv4Network | IPv6Network

_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?")
_NUMBERS = re.compile(r"[0-9.]+")  # an address that is none


def _split(value: str) -> SplitResult:
    try:
        parts = urlsplit(value)
        _ = parts.port  # raises for a port that is not a number
    except ValueError as error:
        raise ValueError(f"{show(value)} is not a URL ({error})") from error
    return parts


def url(*schemes: str, example: str, login: bool = False, path: bool = False) -> Kind:
    """A URL's beginning, without a trailing slash; empty for none. A login is never shown."""

    def read(value: object) -> str:
        found = text_of(value)
        if not found:
            return ""
        parts = _split(found)
        shown = "the value" if parts.username or parts.password else show(found)
        if parts.scheme not in schemes or not parts.hostname:
            raise ValueError(f"{shown} does not begin with a scheme and a host, as {example} does")
        if (parts.username or parts.password) and not login:
            raise ValueError("holds a user name or password, which has no meaning here")
        if (parts.path.strip("/") and not path) or parts.query or parts.fragment:
            most = "a scheme, a host and a path" if path else "a scheme and a host"
            raise ValueError(f"{shown} has more than {most}; write it as {example}")
        return found.rstrip("/")

    def write(value: str) -> str:
        return show(re.sub(r"//[^/@]*@", "//…@", value))

    return Kind(read, write)


def endpoint(example: str) -> Kind:
    """Where `/v1/batch` is: a URL, with a path where something stands before Hightouch."""
    kind = url("https", "http", example=example, path=True)

    def read(value: object) -> str:
        found = str(kind.read(value))
        if found.endswith("/v1/batch"):
            raise ValueError(f"{show(found)} ends in /v1/batch, which is added to it: leave it out")
        return found

    return Kind(read, kind.write)


def host() -> Kind:
    """An address or a name of this machine; empty for every address."""

    def read(value: object) -> str:
        found = text_of(value)
        try:
            ip_address(found)
        except ValueError:
            if found and not (_HOST.fullmatch(found) and not _NUMBERS.fullmatch(found)):
                raise ValueError(
                    f'{show(found)} is not a host such as "127.0.0.1", "::1" or "localhost"'
                ) from None
        return found

    return Kind(read)


def networks() -> Kind:
    """IP networks or addresses."""

    def one(value: str) -> Network:
        try:
            return ip_network(value)
        except ValueError as error:
            raise ValueError(
                f'{show(value)} is not an address or network such as "10.0.0.0/8" ({error})'
            ) from error

    return listed(one)


def origins() -> Kind:
    """Origins as browsers send them, `https://*.example.com` for all below, or "*" for any."""

    def one(value: str) -> str:
        value = value.rstrip("/").lower()
        if value in {"*", "null"}:  # null: pages from files, as in some apps
            return value
        parts = _split(value)
        if not parts.scheme or not parts.hostname or value.count("/") != 2 or "@" in value:
            raise ValueError(f'{show(value)} is not an origin such as "https://shop.example.com"')
        return value

    return listed(one)

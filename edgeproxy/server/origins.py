"""Browsers' origins: who may read an answer, and what a preflight is told (SDKS.md, fact 11)."""

from collections.abc import Iterable

from multidict import CIMultiDict

__all__ = ["Origins", "allow", "preflight_headers"]


class Origins:
    """A set of allowed origins: exact ones, `*`, or `https://*.example.com`."""

    def __init__(self, patterns: Iterable[str]) -> None:
        """Take patterns as the settings have them."""
        patterns = [pattern.rstrip("/").lower() for pattern in patterns]
        self._any = "*" in patterns
        self._exact = {pattern for pattern in patterns if "*" not in pattern}
        self._wild = [tuple(p.split("*.", 1)) for p in patterns if "://*." in p]

    def allows(self, origin: str) -> bool:
        """Say whether pages of an origin may send events."""
        if not origin.isascii():
            return False  # no browser's, and nothing to write into an answer's head
        if self._any:
            return True
        origin = origin.lower()
        if origin in self._exact:
            return True
        return any(
            origin.startswith(head) and origin.endswith("." + tail) for head, tail in self._wild
        )


def allow(headers: CIMultiDict[str], origin: str) -> None:
    """Let the page read the answer; without these a browser counts the request as failed.

    What says itself that any page may read it stays as it is: shared caches may hold it.
    """
    if "Access-Control-Allow-Origin" in headers:
        return
    headers["Access-Control-Allow-Origin"] = origin
    headers["Access-Control-Allow-Credentials"] = "true"
    headers["Access-Control-Expose-Headers"] = "Retry-After"
    headers["Vary"] = "Origin, Access-Control-Request-Headers"


def preflight_headers(origin: str, requested: str | None) -> CIMultiDict[str]:
    """Answer a preflight; the requested headers are echoed, because retries add headers."""
    headers: CIMultiDict[str] = CIMultiDict()
    allow(headers, origin)
    headers["Access-Control-Allow-Methods"] = "GET, POST, OPTIONS"
    if requested and requested.isascii():
        headers["Access-Control-Allow-Headers"] = requested
    headers["Access-Control-Max-Age"] = "7200"
    return headers

"""The last request that was refused for each reason: what helps to find who sends it."""

from collections.abc import Mapping
from types import MappingProxyType

from aiohttp import hdrs
from msgspec import Struct
from multidict import MultiMapping

from edgeproxy.server.clients import said

__all__ = ["Refusal", "Refusals"]

_MOST = 200  # characters of what a client chose


class Refusal(Struct, frozen=True):
    """Who was refused. Never a key, never a body."""

    at: int  # ms since 1970
    origin: str
    agent: str
    address: str
    message: str


class Refusals:
    """One per code: a closed set, so bounded."""

    def __init__(self) -> None:
        """Begin with none."""
        self._last: dict[str, Refusal] = {}

    @property
    def last(self) -> Mapping[str, Refusal]:
        """The last one by code."""
        return MappingProxyType(self._last)

    def note(
        self, code: str, message: str, headers: MultiMapping[str], peer: str | None, at: int
    ) -> None:
        """Remember a request that is refused with `code` now."""
        self._last[code] = Refusal(
            at=at,
            origin=said(headers.get(hdrs.ORIGIN))[:_MOST],
            agent=said(headers.get(hdrs.USER_AGENT))[:_MOST],
            address=peer or "",
            message=message[:_MOST],
        )

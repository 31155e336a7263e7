"""Which path means what: any prefix, an optional trailing slash, routed by suffix (SDKS.md)."""

import re
from functools import lru_cache
from typing import Literal

from msgspec import Struct

__all__ = ["Route", "route"]

Kind = Literal[
    "single", "batch", "telemetry", "settings", "source_config", "renew", "clear", "script",
    "healthz", "readyz",
]  # fmt: skip

_SINGLE = {
    "track": "track", "identify": "identify", "page": "page",
    "screen": "screen", "group": "group", "alias": "alias",
    "t": "track", "i": "identify", "p": "page", "s": "screen", "g": "group", "a": "alias",
}  # fmt: skip
_POSTED: dict[str, Kind] = {"batch": "batch", "b": "batch", "import": "batch", "m": "telemetry"}

_EVENTS = re.compile(r"(?:/.*)?/v1/([a-z]+)/?")
_SETTINGS = re.compile(r"((?:/.*)?)/v1/projects/([^/]+)/settings/?")
_OTHERS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("source_config", re.compile(r"((?:/.*)?)/sourceConfig/?")),
    ("renew", re.compile(r"(?:/.*)?/ht/renew/?")),
    ("clear", re.compile(r"(?:/.*)?/ht/clear/?")),
    ("script", re.compile(r"(?:/.*)?/browser/release/[^/]+/events\.min\.js")),
    ("healthz", re.compile(r"/healthz/?")),
    ("readyz", re.compile(r"/readyz/?")),
)
_READ = frozenset({"GET", "HEAD"})
_WRITE = frozenset({"POST"})


class Route(Struct, frozen=True):
    """What a path means."""

    kind: Kind
    methods: frozenset[str]
    type: str | None = None  # of the single event
    prefix: str = ""  # what stands before our part of the path
    key: str = ""  # the write key in a settings path


@lru_cache(maxsize=512)  # clients use a handful of paths; strangers' paths push one another out
def route(path: str) -> Route | None:
    """Find what a path means; None for a path that means nothing to us."""
    if match := _EVENTS.fullmatch(path):
        word = match[1]
        if word in _SINGLE:
            return Route("single", _WRITE, type=_SINGLE[word])
        kind = _POSTED.get(word)
        return Route(kind, _WRITE) if kind else None
    if match := _SETTINGS.fullmatch(path):
        return Route("settings", _READ, prefix=match[1], key=match[2])
    for kind, pattern in _OTHERS:
        if match := pattern.fullmatch(path):
            methods = _WRITE if kind in {"renew", "clear"} else _READ
            return Route(kind, methods, prefix=match[1] if pattern.groups else "")
    return None

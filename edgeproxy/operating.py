"""What the operators' page is put together from: the parts of a running service."""

from typing import TYPE_CHECKING, Any

import msgspec

from edgeproxy import __version__
from edgeproxy.admin.history import History, Look
from edgeproxy.admin.journeys import Journeys
from edgeproxy.admin.page import Page
from edgeproxy.admin.trying import Bench
from edgeproxy.config import Settings, Source
from edgeproxy.events.intake import Receipt
from edgeproxy.server.intake import Taken

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.service import Service

__all__ = ["operators_page"]


def operators_page(service: "Service", now: "Callable[[], int]") -> Page:
    """The page of a service; `now` gives ms since 1970. Its history is to be run as a task."""

    async def take(source: Source, raw: bytes, receipt: Receipt) -> Taken:
        return await service.intake.take(source, [raw], receipt, is_utf8=False)

    return Page(
        history=History(lambda: _look(service, now())),
        journeys=Journeys(lambda: service.mapper),
        bench=Bench(lambda: service.mapper, lambda: service.settings, take, now=now),
        last=lambda: _last(service, now()),
        setup=lambda: _setup(service.settings, service.client_addresses),
        reading=service.buffer.reading,
    )


def _look(service: "Service", now: int) -> Look:
    stats = service.buffer.stats()
    return Look(
        totals=service.metrics.totals(),
        events=stats.events,
        bytes=stats.bytes,
        oldest_age=None if stats.oldest is None else max(now - stats.oldest, 0) / 1000,
        counts=service.metrics.causes(),
        times=service.metrics.times(),
    )


def _last(service: "Service", now: int) -> dict[str, dict[str, Any]]:
    found = {
        code: {**msgspec.to_builtins(refusal), "age": max(now - refusal.at, 0) / 1000}
        for code, refusal in service.clients.refusals.last.items()
    }
    for source, seconds in service.metrics.clock_skews().items():
        found[f"clock:{source}"] = {"seconds": seconds}
    return found


def _setup(settings: Settings, listening: list[tuple[str, int]]) -> dict[str, Any]:
    """Sources and addresses for the lines that are pasted into SDKs; never a key."""
    file = "config.toml" if settings.path is None else settings.path.name
    named = "sources" in _named(settings)
    return {
        "version": __version__,
        "publicUrl": settings.server.public_url.rstrip("/"),
        "port": listening[0][1] if listening else settings.server.port,
        "tls": settings.server.tls_cert is not None,
        "file": file,
        "sources": [
            {
                "name": source.name,
                "keys": len(source.write_keys),
                "where": f'[[sources]] "{source.name}" write_key'
                if named
                else "[hightouch] write_key",
                "origins": list(source.allowed_origins),
            }
            for source in settings.sources
        ],
    }


def _named(settings: Settings) -> set[str]:
    only = settings.sources[0] if len(settings.sources) == 1 else None
    own = only is not None and only.name == "default"
    return set() if own else {"sources"}

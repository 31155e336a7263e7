"""Trying an event: what would become of it, and sending it as a test event."""

import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from edgeproxy.config import Settings, Source
from edgeproxy.events import read_object
from edgeproxy.events.intake import Receipt
from edgeproxy.mapping.explaining import Explanation, Limits
from edgeproxy.mapping.mapper import Mapper

__all__ = ["Bench", "NoSourceError", "Tried"]


class NoSourceError(Exception):
    """The settings name no source of that name."""


class Tried(Struct, forbid_unknown_fields=True):
    """An event to be tried, as JSON text, for one of the sources."""

    event: str
    source: str


class _Rejected(Protocol):
    @property
    def code(self) -> str:
        """Why."""

    @property
    def message(self) -> str:
        """In words."""


class _Taken(Protocol):
    @property
    def rejected(self) -> Sequence[_Rejected]:
        """Events that became dead letters."""


#: Takes one event as if a client had sent it: the source, the bytes, the receipt.
Take = Callable[[Source, bytes, Receipt], Awaitable[_Taken]]


class Bench:
    """Where events are tried."""

    def __init__(
        self,
        mapper: Callable[[], Mapper],
        settings: Callable[[], Settings],
        take: Take,
        *,
        now: Callable[[], int],
    ) -> None:
        """Take those in force; `take` is awaited, `now` gives ms since 1970."""
        self._mapper = mapper
        self._settings = settings
        self._take = take
        self._now = now

    def explain(self, tried: Tried) -> dict[str, Any]:
        """What would become of the event if it came now. Changes and counts nothing."""
        source = self._source(tried.source)
        validation = self._settings().validation
        receipt = Receipt(self._now())
        raw = tried.event.encode("utf-8", "surrogatepass")
        limits = Limits(validation.max_event, validation.max_age)
        return _told(self._mapper().explain(raw, source.name, receipt, limits))

    async def send(self, tried: Tried) -> dict[str, Any]:
        """Send the event through everything, now, with a `messageId` that says `test-`."""
        source = self._source(tried.source)
        raw = tried.event.encode("utf-8", "surrogatepass")
        fields = read_object(raw)
        id_ = f"test-{uuid.uuid4()}"
        if fields is not None:
            for key in ("messageId", "timestamp", "originalTimestamp", "sentAt"):
                fields.pop(key, None)
            raw = msgspec.json.encode({"messageId": id_, **fields})
        taken = await self._take(source, raw, Receipt(self._now()))
        rejected = taken.rejected[0] if taken.rejected else None
        return {
            "accepted": rejected is None,
            "messageId": id_,
            "code": "" if rejected is None else rejected.code,
            "message": "" if rejected is None else rejected.message,
        }

    def _source(self, name: str) -> Source:
        for source in self._settings().sources:
            if source.name == name:
                return source
        raise NoSourceError(name)


def _told(found: Explanation) -> dict[str, Any]:
    output = None
    if found.output is not None:
        output = msgspec.json.format(found.output, indent=2).decode("utf-8", "replace")
    return {
        "verdict": found.verdict,
        "message": found.message,
        "filter": found.filter,
        "rule": found.event_rule,
        "revision": found.revision,
        "output": output,
        "size": found.size,
        "maxSize": found.max_size,
        "supplied": [msgspec.to_builtins(one) for one in found.supplied],
        "notes": [msgspec.to_builtins(note) for note in found.notes],
    }

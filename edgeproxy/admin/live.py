"""Events as they pass, for whoever watches.

Nobody watching costs nothing: the intake is only watched while somebody is. Somebody watching is
bounded: of each event that the filter may fit only a reference is kept on the event's way, at most
LOOKS a second and QUEUE_BYTES at a time; decoding, masking and writing is done by the watcher's own
task, for at most SHOWN a second. Where no more than SHOWN could be shown anyway, because the filter
tells without decoding, no more are kept. What is left out is counted, and said once a second.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from edgeproxy.admin.journeys import Attempted, Journeys
from edgeproxy.admin.masking import masked, pseudonym
from edgeproxy.events.seen import Seen

__all__ = ["LOOKS", "QUEUE_BYTES", "SHOWN", "LiveFeed", "TooManyError", "Wanted"]

LOOKS = 2_000
SHOWN = 200
QUEUE_BYTES = 8_000_000
_WATCHERS = 16
_TOLD = 256  # batches that wait to be told of
_PULSE_SECONDS = 1.0

Watch = Callable[[Callable[[str, Sequence[Seen]], None]], Callable[[], None]]
WatchAttempts = Callable[[Callable[[Attempted], None]], Callable[[], None]]


class TooManyError(Exception):
    """So many watch that one more would cost the events' way too much."""


class Wanted(Struct, frozen=True, forbid_unknown_fields=True):
    """Which events somebody wants to see (every given field fits), and how much of them."""

    source: str | None = None
    type: str | None = None
    event: str | None = None
    """The name of a track, page or screen event; part of it, in any case."""
    user: str | None = None
    """The event's anonymousId, userId or previousId."""
    verdict: str | None = None
    """accepted, duplicate, filtered, quarantined, or a quarantine code."""
    bodies: bool = False
    values: bool = False
    """False masks values: bodies show the type of each, users a pseudonym."""
    text: str | None = None
    """Part of the event's JSON text, in any case."""
    journeys: bool = False
    """Number the events, so that each one's journey can be asked for, and tell of their batches."""

    def may_fit(self, source: str, seen: Seen) -> bool:
        """Whether an event fits, as far as that can be told without decoding it."""
        return (
            self.source in {None, source}
            and self.type in {None, seen.type}
            and self.verdict in {None, seen.verdict, seen.code}
        )

    @property
    def most_looks(self) -> int:
        """Events a second that are worth a look: more than are shown only where some may not fit."""
        return SHOWN if self.event is self.user is self.text is None else LOOKS

    def fits(self, fields: dict[str, Any], body: bytes) -> bool:
        """Whether a decoded event fits, too."""
        if self.text is not None and self.text.lower().encode() not in body.lower():
            return False
        if self.event is not None and self.event.lower() not in _name(fields).lower():
            return False
        ids = (fields.get(key) for key in ("anonymousId", "userId", "previousId"))
        return self.user is None or self.user in {str(id_) for id_ in ids if id_ is not None}


class _Waiting(Struct):
    source: str
    seen: Seen
    body: bytes
    at: int


class LiveFeed:
    """Gives everybody who watches a stream of JSON lines."""

    def __init__(
        self,
        watch: Watch,
        *,
        now: Callable[[], int],
        watch_attempts: WatchAttempts | None = None,
        journeys: Journeys | None = None,
    ) -> None:
        """`watch` is the intake's, `watch_attempts` delivery's; `now` gives ms since 1970."""
        self._watch = watch
        self._watch_attempts = watch_attempts
        self._journeys = journeys
        self._now = now
        self._watching: set[_Watcher] = set()
        self._unwatch: list[Callable[[], None]] = []

    async def lines(self, wanted: Wanted) -> AsyncGenerator[bytes, None]:
        """One JSON object a line: events, and every second a pulse with counts. Ends on `close`.

        Raises TooManyError at the first step.
        """
        if len(self._watching) >= _WATCHERS:
            raise TooManyError
        watcher = _Watcher(wanted, self._journeys if wanted.journeys else None)
        self._watching.add(watcher)
        if not self._unwatch:
            self._unwatch.append(self._watch(self._hear))
            if self._watch_attempts is not None:
                self._unwatch.append(self._watch_attempts(self._hear_attempt))
        try:
            async for line in watcher.lines():
                yield line
        finally:
            self._watching.discard(watcher)
            if not self._watching:
                for unwatch in self._unwatch:
                    unwatch()
                self._unwatch.clear()
                if self._journeys is not None:
                    self._journeys.forget()

    def close(self) -> None:
        """End every stream."""
        for watcher in self._watching:
            watcher.close()

    def _hear(self, source: str, events: Sequence[Seen]) -> None:
        now = self._now()
        for watcher in self._watching:
            watcher.hear(source, events, now)

    def _hear_attempt(self, attempt: Attempted) -> None:
        if self._journeys is None or not any(w.wants_journeys for w in self._watching):
            return
        told = self._journeys.attempted(attempt)
        if told is not None:
            line = msgspec.json.encode(told) + b"\n"
            for watcher in self._watching:
                watcher.tell(line)


class _Watcher:
    """One who watches: what waits to be shown to them, and what they missed."""

    def __init__(self, wanted: Wanted, journeys: Journeys | None) -> None:
        self._wanted = wanted
        self._most_looks = wanted.most_looks
        self._journeys = journeys
        self._told: deque[bytes] = deque(maxlen=_TOLD)
        self._waiting: list[_Waiting] = []
        self._bytes = 0
        self._wake = asyncio.Event()
        self._closed = False
        self._pulse_at = time.monotonic()
        self._passed = self._looked = self._shown = self._skipped = 0

    def hear(self, source: str, events: Sequence[Seen], now: int) -> None:
        """Keep what may be wanted, within bounds."""
        self._passed += len(events)
        if self._looked >= self._most_looks:
            self._skipped += len(events)
            return
        for seen in events:
            if not self._wanted.may_fit(source, seen):
                continue
            body = seen.raw if seen.sealed is None else seen.sealed.body
            size = len(memoryview(body))
            if self._looked >= self._most_looks or self._bytes + size > QUEUE_BYTES:
                self._skipped += 1
                continue
            self._looked += 1
            self._bytes += size
            self._waiting.append(_Waiting(source, seen, bytes(body), now))
        if self._waiting:
            self._wake.set()

    @property
    def wants_journeys(self) -> bool:
        """Whether they want to hear of batches."""
        return self._journeys is not None

    def tell(self, line: bytes) -> None:
        """Pass on a line about events that were shown."""
        if self._journeys is not None:
            self._told.append(line)
            self._wake.set()

    def close(self) -> None:
        """End `lines`."""
        self._closed = True
        self._wake.set()

    async def lines(self) -> AsyncIterator[bytes]:
        """What is to be shown, as it comes."""
        yield self._pulse()
        while not self._closed:
            waiting, self._waiting = self._waiting, []
            self._bytes = 0
            for item in waiting:
                line = self._line(item)
                if line is not None:
                    yield line
            while self._told:
                yield self._told.popleft()
            rest = self._pulse_at + _PULSE_SECONDS - time.monotonic()
            if rest <= 0:
                yield self._pulse()
                continue
            try:
                async with asyncio.timeout(rest):
                    await self._wake.wait()
                self._wake.clear()
            except TimeoutError:
                continue

    def _line(self, item: _Waiting) -> bytes | None:
        fields = _fields(item.body)
        if not self._wanted.fits(fields, item.body):
            return None
        if self._shown >= SHOWN:
            self._skipped += 1
            return None
        self._shown += 1
        told = _told(item, fields, self._wanted)
        if self._journeys is not None:
            told["id"] = self._journeys.keep(item.source, item.seen, item.at)
        return msgspec.json.encode(told) + b"\n"

    def _pulse(self) -> bytes:
        line = msgspec.json.encode(
            {
                "kind": "pulse",
                "passed": self._passed,
                "shown": self._shown,
                "skipped": self._skipped,
            }
        )
        self._pulse_at = time.monotonic()
        self._passed = self._looked = self._shown = self._skipped = 0
        return line + b"\n"


def _told(item: _Waiting, fields: dict[str, Any], wanted: Wanted) -> dict[str, object]:
    seen = item.seen
    user = fields.get("userId") or fields.get("anonymousId")
    told: dict[str, object] = {
        "kind": "event",
        "at": item.at,
        "source": item.source,
        "verdict": seen.verdict,
        "code": seen.code,
        "message": seen.message,
        "type": seen.type,
        "event": _name(fields),
        "user": None if user is None else str(user) if wanted.values else pseudonym(user),
        "messageId": seen.message_id,
        "bytes": len(item.body),
        "library": _library(fields),
    }
    if not wanted.bodies:
        return told
    if wanted.values:
        # Of what is no JSON the bytes are told as text.
        told["body"] = (
            msgspec.Raw(msgspec.json.format(item.body, indent=-1))
            if fields
            else item.body.decode("utf-8", "replace")
        )
        return told
    shape = masked(fields)
    told["body"] = shape | {key: fields[key] for key in ("type", "event") if key in fields}
    return told


def _fields(body: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _library(fields: dict[str, Any]) -> str:
    """The SDK that made the event, as it calls itself."""
    context = fields.get("context")
    library = context.get("library") if isinstance(context, dict) else None
    name = library.get("name") if isinstance(library, dict) else None
    return name[:80] if isinstance(name, str) else ""


def _name(fields: dict[str, Any]) -> str:
    name = fields.get("event") or fields.get("name") or ""
    return name if isinstance(name, str) else ""

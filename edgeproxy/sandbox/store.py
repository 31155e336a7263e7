"""What arrived, newest last, within bounds; and the counts, which survive the bounds."""

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice

import msgspec

DEFAULT_KEEP = 200_000
"""Events kept by default."""

KEEP_BYTES = 512 * 1024 * 1024
"""Bytes of events kept at most, however many they are."""


class Arrival(msgspec.Struct, frozen=True):
    """One event that arrived."""

    event: bytes
    """Its JSON text as received, byte for byte."""
    type: str
    message_id: str
    blocked: str | None
    """Why Hightouch would not show it; None when it would."""
    received_at: float
    """Seconds since 1970."""
    headers: Mapping[str, str]
    """The request's headers, the write key masked; shared by all events of the request."""

    def json(self) -> bytes:
        """The entry as `GET /events` lists it, the event's text spliced in untouched."""
        tail = msgspec.json.encode(
            {
                "blocked": self.blocked,
                "receivedAt": iso(self.received_at),
                "headers": dict(self.headers),
            }
        )
        return b'{"event":' + self.event + b"," + tail[1:]


class Store:
    """Holds the newest arrivals: at most `keep` events and `keep_bytes` bytes of them."""

    def __init__(self, keep: int = DEFAULT_KEEP, keep_bytes: int = KEEP_BYTES) -> None:
        if keep < 1:
            raise ValueError(f"keep {keep}: at least one event must be kept")
        self.keep = keep
        self.keep_bytes = keep_bytes
        self.clear()

    def clear(self) -> None:
        """Forget the events and start counting anew."""
        self.events: deque[Arrival] = deque()
        self.bytes = 0
        self.requests = 0
        self.wrong_region = 0
        self.answers: Counter[int] = Counter()
        self.types: Counter[str] = Counter()
        self.blocked: Counter[str] = Counter()
        self.received = 0

    def add(self, arrival: Arrival) -> None:
        """Count an event and keep it; the oldest make room."""
        self.received += 1
        self.types[arrival.type] += 1
        if arrival.blocked:
            self.blocked[arrival.blocked] += 1
        self.events.append(arrival)
        self.bytes += len(arrival.event)
        while len(self.events) > self.keep or (
            self.bytes > self.keep_bytes and len(self.events) > 1
        ):
            self.bytes -= len(self.events.popleft().event)

    def select(
        self,
        *,
        blocked: bool | None = None,
        kind: str | None = None,
        limit: int | None = None,
    ) -> list[Arrival]:
        """The newest `limit` kept events that match, newest last."""
        matching = islice(self._newest_first(blocked, kind), limit)
        return list(matching)[::-1]

    def _newest_first(self, blocked: bool | None, kind: str | None) -> Iterator[Arrival]:
        for arrival in reversed(self.events):
            if blocked is not None and blocked != (arrival.blocked is not None):
                continue
            if kind is None or kind == arrival.type:
                yield arrival

    def stats(self) -> dict[str, object]:
        """Counts since the start or the last `clear`, and what is kept of the events."""
        blocked = self.blocked.total()
        return {
            "requests": self.requests,
            "answers": {str(status): count for status, count in sorted(self.answers.items())},
            "events": self.received,
            "shown": self.received - blocked,
            "blocked": blocked,
            "blocked_reasons": dict(self.blocked),
            "types": dict(self.types),
            "wrong_region_requests": self.wrong_region,
            "kept": len(self.events),
            "kept_bytes": self.bytes,
            "keep": self.keep,
            "keep_bytes": self.keep_bytes,
            "forgotten": self.received - len(self.events),
        }


def iso(seconds: float) -> str:
    """RFC 3339 with milliseconds, in UTC."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

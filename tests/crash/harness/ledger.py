"""What was sent, what was answered and what was received, in the order in which it happened.

Senders and the receiving server live on one event loop and share one counter (`tick`), so "before"
and "after" need no clock.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import count

import msgspec

__all__ = ["Arrival", "Attempt", "Delivery", "Ledger", "Sent", "fields"]

Fields = dict[str, msgspec.Raw]
fields = msgspec.json.Decoder(Fields).decode


class Sent(msgspec.Struct):
    """One event, written once; it may be sent several times."""

    ref: str  # its name in this ledger, a top-level field of the event
    source: str
    user: str
    text: bytes
    type: str  # what the path says, where the event does not say it
    has_id: bool
    batch_sent_at: str | None
    times_sent: int = 0
    accepted: int | None = None  # tick of the answer 200
    accepted_wall: float = 0.0  # seconds since 1970
    first_sent: int | None = None  # tick
    rejected: str | None = None  # the code it was told
    refused: bool = False  # told 503 (and never 200)


class Attempt(msgspec.Struct):
    """One request of a sender."""

    refs: list[str]
    sent: int
    status: int | None = None  # None: no answer could be read
    seconds: float = 0.0


class Arrival(msgspec.Struct):
    """One event in one request that the server read to its end."""

    ref: str
    text: bytes
    position: int
    delivery: int


class Delivery(msgspec.Struct):
    """One request that the server saw."""

    number: int
    connection: int
    began: int
    key: str = ""
    status: int | None = None  # None: it was left without a whole answer
    uncertain: bool = False  # an answer that may be taken for 2xx or for a failure
    answered: int | None = None
    at: float = 0.0  # seconds since 1970 when it was read
    began_at: float = 0.0  # seconds, monotonic
    events: int = 0


class Ledger:
    """Everything that a scenario's parts saw."""

    def __init__(self) -> None:
        self.tick = count(1).__next__
        self.sent: dict[str, Sent] = {}
        self.attempts: list[Attempt] = []
        self.deliveries: list[Delivery] = []
        self.arrivals: dict[str, list[Arrival]] = defaultdict(list)
        self.strays: list[bytes] = []  # what arrived and names no event of ours
        self.complaints: list[str] = []  # of the server about requests, of senders about answers

    def arrived(self, delivery: Delivery, texts: list[bytes]) -> None:
        """Note the events of a request that was read to its end."""
        delivery.events = len(texts)
        for position, text in enumerate(texts):
            try:
                ref = msgspec.json.decode(bytes(fields(text)["ref"]), type=str)
            except (KeyError, msgspec.DecodeError):
                self.strays.append(text)
                continue
            self.arrivals[ref].append(Arrival(ref, text, position, delivery.number))

    def delivered(self, ref: str) -> bool:
        """Say whether the server answered 2xx to a request with this event."""
        return any(self._took(arrival) for arrival in self.arrivals.get(ref, ()))

    def _took(self, arrival: Arrival) -> bool:
        status = self.deliveries[arrival.delivery].status
        return status is not None and 200 <= status < 300

    def taken(self, ref: str) -> list[Arrival]:
        """The arrivals of an event that were answered 2xx."""
        return [arrival for arrival in self.arrivals.get(ref, ()) if self._took(arrival)]

    def times_delivered(self, ref: str) -> int:
        """How often an event was answered 2xx beyond doubt, or once where there is doubt."""
        taken = self.taken(ref)
        certain = sum(1 for a in taken if not self.deliveries[a.delivery].uncertain)
        return certain or min(len(taken), 1)

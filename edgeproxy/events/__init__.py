"""What an event is, and why it is refused. Pure: no network, no disk, no loop, no clock."""

from edgeproxy.events.event import (
    Event,
    Lens,
    NotAnObjectError,
    UndecodableError,
    is_missing,
    read,
    read_object,
)
from edgeproxy.events.times import parse_time, rfc3339
from edgeproxy.events.verdicts import Refusal

__all__ = [
    "Event",
    "Lens",
    "NotAnObjectError",
    "Refusal",
    "UndecodableError",
    "is_missing",
    "parse_time",
    "read",
    "read_object",
    "rfc3339",
]

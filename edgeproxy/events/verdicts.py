"""Why an event is refused: the contract's quarantine codes, judged on what would be sent."""

from typing import Literal

from msgspec import Struct

__all__ = ["QUARANTINE_CODES", "TYPES", "Filtered", "QuarantineCode", "Refusal"]

QuarantineCode = Literal[
    "invalid_event",
    "not_an_object",
    "missing_type",
    "unknown_type",
    "missing_identity",
    "missing_event",
    "event_too_large",
    "too_old",
    "bad_type",
    "bad_timestamp",
    "rejected_upstream",
    "set_aside",  # by a filter of the operator's
]
QUARANTINE_CODES: tuple[str, ...] = QuarantineCode.__args__  # type: ignore[attr-defined]

#: The event types every SDK knows (SDKS.md, "Hightouch's events API").
TYPES = frozenset({"identify", "track", "page", "screen", "group", "alias"})


class Refusal(Struct, frozen=True):
    """One event's way ends in quarantine: a code for programs, a message for people."""

    code: str
    message: str


class Filtered(Struct, frozen=True):
    """One event's way ends because a rule of the operator's says so; counted under `rule`."""

    rule: str

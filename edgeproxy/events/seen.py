"""What became of one event on the way in: what whoever watches the intake is told."""

from typing import Literal

from msgspec import Struct

from edgeproxy.events.intake import Sealed

__all__ = ["Seen", "Verdict"]

Verdict = Literal["accepted", "duplicate", "filtered", "quarantined"]


class Seen(Struct):
    """One event of a request, after its verdict is durable."""

    verdict: Verdict
    raw: bytes
    """As it was received."""
    type: str = ""
    message_id: str = ""
    sealed: Sealed | None = None
    """The form that is sent, of an accepted one."""
    code: str = ""
    """Of a quarantined one; of a filtered one the rule."""
    message: str = ""

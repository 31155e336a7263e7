"""The buffer's verbs: what every engine promises, whatever it stores its events in.

A batch of claimed events has three fates: acknowledged (delivered, forgotten), buried (kept as
dead letters) or released (to be claimed again). An engine holds each lane's order per user: while
an event of a user is claimed, no later event of that user can be claimed.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from msgspec import Struct

from edgeproxy.events.intake import Sealed

__all__ = [
    "Buffer",
    "BufferClosedError",
    "BufferFaultError",
    "BufferFullError",
    "BufferHeldError",
    "BufferUnusableError",
    "BufferWriteError",
    "Claimed",
    "DeadLetter",
    "LaneStats",
    "Settled",
    "Stats",
]


class BufferFaultError(Exception):
    """Something is wrong with the buffer; nothing that failed was stored."""


class BufferFullError(BufferFaultError):
    """A limit or the disk is reached: ask the client to come back later."""


class BufferWriteError(BufferFaultError):
    """The disk refused a write or a sync: nothing that waited for it is acknowledged."""


class BufferClosedError(BufferFaultError):
    """The buffer is closed; the program is ending."""


class BufferHeldError(BufferFaultError):
    """Another process holds the buffer."""


class BufferUnusableError(BufferFaultError):
    """The folder cannot hold a buffer: a network file system, a newer schema, no permission."""


#: Told what became of a change: None, or why it failed.
Settled = Callable[[BufferFaultError | None], None]


class Claimed(Struct, gc=False):
    """An event as it comes out of the buffer."""

    id: int
    user: int
    received: int  # ms since 1970
    skew: int | None  # ms from receipt to the `sentAt` it came with
    age: int  # ms old at receipt
    body: bytes


class DeadLetter(Struct):
    """An event that is kept for a person, with the reason.

    `form` says what `body` holds: the event as it was received (replayed through today's mapping;
    `receipt` is what was known of its request) or as it was sent (replayed as it is).
    """

    lane: str
    code: str
    message: str
    form: Literal["received", "sent"]
    received: int  # ms since 1970
    died: int  # ms since 1970
    body: bytes
    message_id: str = ""
    revision: str = ""
    receipt: bytes = b""
    status: int | None = None  # Hightouch's answer, where there was one
    answer: str = ""
    skew: int | None = None
    age: int = 0


class LaneStats(Struct):
    """What a lane holds: claimed and unclaimed."""

    name: str
    events: int
    bytes: int
    oldest: int | None  # ms since 1970: receipt of the first event


class Stats(Struct):
    """What the whole buffer holds, counted by the rules of `max_size`."""

    events: int
    bytes: int
    oldest: int | None
    lanes: list[LaneStats]
    dead_letters: int
    dead_letter_bytes: int


class Buffer(Protocol):
    """An engine. All methods are called on the event loop; all but `stats` may raise BufferFaultError."""

    def append(
        self,
        lane: str,
        received: int,
        events: Sequence[Sealed],
        dead: Sequence[DeadLetter] = (),
        *,
        lane_max: int | None = None,
        settled: Settled | None = None,
    ) -> asyncio.Future[None]:
        """Store events and dead letters in one transaction; durable when the future is done.

        Cancelling the future cancels neither the storing nor the call of `settled`, which comes
        before anybody who awaits the future goes on. `lane_max` bounds the lane's bytes. Raises
        BufferFullError at once, or the future does, or BufferWriteError; then nothing was stored.
        """

    def claim(self, lane: str, max_events: int, max_bytes: int, overhead: int = 0) -> list[Claimed]:
        """Take the next events of a lane, in order, that no unsettled event of their user precedes.

        `max_bytes` bounds the bodies' sum, each with `overhead` bytes more, but one event is given
        if there is any. Empty when there is nothing to take now. Damaged events are not given; they
        become dead letters.
        """

    def ack(self, lane: str, events: Sequence[Claimed]) -> asyncio.Future[None]:
        """Forget delivered events. Their users may be claimed again once the future is done."""

    def release(self, lane: str, events: Sequence[Claimed]) -> None:
        """Give claimed events back; they will be claimed again in their old order."""

    def bury(
        self, lane: str, events: Sequence[Claimed], letters: Sequence[DeadLetter]
    ) -> asyncio.Future[None]:
        """Turn claimed events into dead letters, in one transaction."""

    def waiting(self, lane: str) -> tuple[int, int]:
        """Events of a lane that are not claimed, and their bytes."""

    def lanes(self) -> list[str]:
        """Names of all lanes that hold events or ever did, in the order they appeared."""

    def on_append(self, callback: Callable[[str], None]) -> None:
        """Call back on the event loop with a lane's name whenever events of it became durable."""

    def full_reason(self) -> str | None:
        """Why the buffer cannot accept at the moment, in words; None while it can."""

    def stats(self) -> Stats:
        """What the buffer holds; cheap at any size."""

    async def close(self) -> None:
        """Finish what was appended, then close. Later calls raise BufferClosedError."""

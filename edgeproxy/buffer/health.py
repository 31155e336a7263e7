"""Whether the buffer can accept, and how it gets well again.

A full disk: the reserve is given up and the WAL is written back, so that what was delivered can be
removed; nothing is accepted until the reserve can be made again.

A failed write or sync: what the page cache shows may not be on the disk, so nothing more is
acknowledged until a truncating checkpoint has succeeded. That one syncs the WAL, writes every page
of it to the database, syncs that, and only then empties the WAL.
"""

from collections.abc import Callable
from typing import Literal

import structlog

from edgeproxy.buffer.base import BufferFaultError, BufferFullError, BufferWriteError
from edgeproxy.buffer.reserve import Reserve

__all__ = ["Health"]

_log = structlog.get_logger("edgeproxy.buffer")


class Health:
    """What is wrong, if anything."""

    def __init__(self, reserve: Reserve) -> None:
        """Begin well, unless there is no space for the reserve."""
        self._reserve = reserve
        self._state: Literal["well", "full", "failing"] = "well"
        self.reason: str | None = None
        if not reserve.hold():
            self.failed(BufferFullError("disk full"))

    @property
    def is_well(self) -> bool:
        """Everything can be done."""
        return self._state == "well"

    def refuse_events(self) -> None:
        """Raise what a client must be told; nothing while events can be accepted."""
        self.refuse_writes()
        if self._state == "full":
            raise BufferFullError(self.reason)

    def refuse_writes(self) -> None:
        """Raise while nothing may be acknowledged, whatever it is."""
        if self._state == "failing":
            raise BufferWriteError(self.reason)

    def failed(self, failure: BufferFaultError) -> None:
        """Note what became of a transaction or checkpoint."""
        was = self.reason
        if isinstance(failure, BufferFullError):
            if self._state != "failing":  # which is worse
                self._state, self.reason = "full", str(failure)
        else:
            self._state, self.reason = "failing", str(failure)
        if self.reason != was:
            _log.error("buffer_not_writable", reason=self.reason)

    def recover(self, make_room: Callable[[], None]) -> None:
        """Try to get well; runs in the commit thread, between transactions.

        `make_room` does a truncating checkpoint, and gives back what is free. What it raises is
        raised: then everything stays as it is.
        """
        if self._state == "full":
            self._reserve.give_up()
        make_room()
        if self._reserve.hold():
            self._state, self.reason = "well", None
            _log.info("buffer_writable_again")
        else:
            self._state, self.reason = "full", "disk full"

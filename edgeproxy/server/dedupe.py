"""Repeats of a `messageId`: answered like the first, stored once.

SDKs repeat what they are not sure of (SDKS.md, fact 10). A repeat of an event that is not durable
yet waits for it: it must not be told 200 earlier than the first was.
"""

import asyncio
from collections import deque
from collections.abc import Sequence

__all__ = ["Dedupe"]


class Dedupe:
    """The last ids that were accepted, and those on their way to the disk. Holds hashes only."""

    def __init__(self, size: int) -> None:
        """Remember at most `size` accepted ids; 0 switches this off."""
        self._size = size
        self._order: deque[int] = deque()
        # True: accepted; a future: on its way. One look-up tells, and whole requests are noted at once.
        self._known: dict[int, asyncio.Future[None] | bool] = {}

    def resize(self, size: int) -> None:
        """Remember another number from now on."""
        self._size = size
        self._trim()

    @property
    def is_off(self) -> bool:
        """Whether repeats are let through."""
        return self._size == 0

    def seen(self, id_: int) -> asyncio.Future[None] | bool:
        """Say whether an id was accepted: True, False, or a future while it is being stored."""
        return self._known.get(id_, False)

    def storing(self, ids: Sequence[int], stored: asyncio.Future[None]) -> None:
        """Note ids that are on their way to the disk; what comes of it is taken from `stored`."""
        if self._size == 0:
            return
        self._known.update(dict.fromkeys(ids, stored))
        stored.add_done_callback(lambda done: self._finish(ids, done))

    def _finish(self, ids: Sequence[int], stored: asyncio.Future[None]) -> None:
        if stored.cancelled() or stored.exception() is not None:
            for id_ in ids:
                if self._known.get(id_) is stored:
                    del self._known[id_]
            return
        self._known.update(dict.fromkeys(ids, True))
        self._order.extend(ids)
        self._trim()

    def _trim(self) -> None:
        for _ in range(len(self._order) - self._size):
            oldest = self._order.popleft()
            if self._known.get(oldest) is True:
                del self._known[oldest]

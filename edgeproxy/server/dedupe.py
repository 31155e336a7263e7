"""Repeats of a `messageId`: answered like the first, stored once.

SDKs repeat what they are not sure of (SDKS.md, fact 10). A repeat of an event that is not durable
yet waits for it: it must not be told 200 earlier than the first was.
"""

import asyncio
from collections import deque

__all__ = ["Dedupe"]


class Dedupe:
    """The last ids that were accepted, and those on their way to the disk. Holds hashes only."""

    def __init__(self, size: int) -> None:
        """Remember at most `size` accepted ids; 0 switches this off."""
        self._size = size
        self._order: deque[int] = deque()
        self._accepted: set[int] = set()
        self._pending: dict[int, asyncio.Future[None]] = {}

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
        if id_ in self._accepted:
            return True
        return self._pending.get(id_, False)

    def storing(self, ids: list[int], stored: asyncio.Future[None]) -> None:
        """Note ids that are on their way to the disk; what comes of it is taken from `stored`."""
        if self._size == 0:
            return
        for id_ in ids:
            self._pending[id_] = stored
        stored.add_done_callback(lambda done: self._finish(ids, done))

    def _finish(self, ids: list[int], stored: asyncio.Future[None]) -> None:
        for id_ in ids:
            if self._pending.get(id_) is stored:
                del self._pending[id_]
        if stored.cancelled() or stored.exception() is not None:
            return
        self._accepted.update(ids)
        self._order.extend(ids)
        self._trim()

    def _trim(self) -> None:
        while len(self._order) > self._size:
            self._accepted.discard(self._order.popleft())

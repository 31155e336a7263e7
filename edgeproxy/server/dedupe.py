"""Repeats of a `messageId`: answered like the first, stored once.

SDKs repeat what they are not sure of (SDKS.md, fact 10). A repeat of an event that is not durable
yet waits for it: it must not be told 200 earlier than the first was.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from edgeproxy.buffer.base import BufferFaultError

__all__ = ["Dedupe", "Storing"]


class Storing:
    """Ids that are on their way to the disk together, and who waits for them."""

    def __init__(self, ids: Sequence[int], finished: Callable[["Storing"], None]) -> None:
        """Begin; `finished` is told once when it is known what came of it."""
        self.ids = ids
        self.is_done = False
        self.failure: BufferFaultError | None = None
        self._finished = finished
        self._waiting: list[asyncio.Future[None]] = []

    def settle(self, failure: BufferFaultError | None) -> None:
        """Take what came of it, whatever became of the request that sent them."""
        self.is_done, self.failure = True, failure
        self._finished(self)
        for future in self._waiting:
            if future.done():
                continue  # its request was cancelled
            if failure is None:
                future.set_result(None)
            else:
                future.set_exception(failure)

    async def wait(self) -> None:
        """Return when the ids are durable. Raises BufferFaultError where they were not stored."""
        if not self.is_done:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future
        elif self.failure is not None:
            raise self.failure


class Dedupe:
    """The last ids that were accepted, and those on their way to the disk. Holds hashes only."""

    def __init__(self, size: int) -> None:
        """Remember at most `size` accepted ids; 0 switches this off."""
        self._size = size
        self._order: deque[int] = deque()
        # True: accepted. One look-up tells, and whole requests are noted at once.
        self.known: dict[int, Storing | bool] = {}
        """Ids of which something is known; only to be looked up in."""

    def resize(self, size: int) -> None:
        """Remember another number from now on."""
        self._size = size
        self._trim()

    @property
    def is_off(self) -> bool:
        """Whether repeats are let through."""
        return self._size == 0

    def seen(self, id_: int) -> Storing | bool:
        """Say whether an id was accepted: True, False, or what is storing it at the moment."""
        return self.known.get(id_, False)

    def begin(self, ids: Sequence[int]) -> Storing:
        """Ids that are about to be stored; nothing is noted before `note`."""
        return Storing(ids, self._finish)

    def note(self, storing: Storing) -> None:
        """Note ids that are on their way to the disk, until they are settled."""
        if self._size and not storing.is_done:
            self.known.update(dict.fromkeys(storing.ids, storing))

    def _finish(self, storing: Storing) -> None:
        if storing.failure is not None or not self._size:
            for id_ in storing.ids:
                if self.known.get(id_) is storing:
                    del self.known[id_]
        else:
            self.known.update(dict.fromkeys(storing.ids, True))
            self._order.extend(storing.ids)
            self._trim()

    def _trim(self) -> None:
        for _ in range(len(self._order) - self._size):
            oldest = self._order.popleft()
            if self.known.get(oldest) is True:
                del self.known[oldest]

"""The buffer in memory: what tests use, and the plainest statement of what the verbs do.

Nothing survives the process. Transactions are put together per turn of the event loop, so that
futures resolve later than the call here, too.
"""

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Sequence

from msgspec import Struct, field

from edgeproxy.buffer.base import (
    BufferClosedError,
    BufferFullError,
    Claimed,
    DeadLetter,
    LaneStats,
    Settled,
    Stats,
)
from edgeproxy.buffer.deadletters import letter_size
from edgeproxy.buffer.order import Order
from edgeproxy.buffer.rows import ROW_OVERHEAD
from edgeproxy.events.intake import Sealed

__all__ = ["MemoryBuffer"]


class _Lane(Struct):
    order: Order
    rows: dict[int, Claimed] = field(default_factory=dict)
    ids: list[int] = field(default_factory=list)  # of rows, sorted
    next_id: int = 1

    @property
    def bytes(self) -> int:
        return sum(len(row.body) + ROW_OVERHEAD for row in self.rows.values())


class MemoryBuffer:
    """See `Buffer` for what each verb promises."""

    def __init__(self, *, max_size: int = 2**30) -> None:
        """An empty buffer; `max_size` bounds the bytes of bodies and what a row costs beside them."""
        self._max_size = max_size
        self._lanes: dict[str, _Lane] = {}
        self.dead: list[DeadLetter] = []
        """All dead letters, in the order of their death."""
        self._callbacks: list[Callable[[str], None]] = []
        self._pending_bytes: dict[str, int] = {}
        self._pending = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

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
        """See `Buffer.append`."""
        size = sum(len(event.body) + ROW_OVERHEAD for event in events)
        if events and self._used() + sum(self._pending_bytes.values()) + size > self._max_size:
            raise BufferFullError(f"the buffer has reached its {self._max_size} bytes")
        held = self._lanes[lane].bytes if lane in self._lanes else 0
        if events and lane_max is not None and held + self._pending_of(lane) + size > lane_max:
            raise BufferFullError(f"source {lane} has reached its {lane_max} bytes of the buffer")
        self._pending_bytes[lane] = self._pending_of(lane) + size

        def commit() -> None:
            self._pending_bytes[lane] -= size
            if events:
                self._store(lane, received, events)
            self.dead += dead
            if settled is not None:
                settled(None)

        return self._later(commit)

    def claim(self, lane: str, max_events: int, max_bytes: int, overhead: int = 0) -> list[Claimed]:
        """See `Buffer.claim`."""
        state = self._lanes.get(lane)
        if state is None:
            return []
        rows, ids = state.rows, state.ids

        def read(after: int, most: int, most_bytes: int) -> list[Claimed]:
            start = bisect_right(ids, after)
            found: list[Claimed] = []
            size = 0
            for id_ in ids[start : start + most]:
                found.append(rows[id_])
                size += len(rows[id_].body)
                if size >= most_bytes:
                    break
            return found

        taken = state.order.claim(max_events, max_bytes, overhead, read)
        if state.order.gave_up:
            asyncio.get_running_loop().call_soon(self._notify, lane)
        return taken

    def ack(self, lane: str, events: Sequence[Claimed]) -> asyncio.Future[None]:
        """See `Buffer.ack`."""
        return self.bury(lane, events, ())

    def release(self, lane: str, events: Sequence[Claimed]) -> None:
        """See `Buffer.release`."""
        self._lanes[lane].order.release(events)

    def bury(
        self, lane: str, events: Sequence[Claimed], letters: Sequence[DeadLetter]
    ) -> asyncio.Future[None]:
        """See `Buffer.bury`."""
        state = self._lanes[lane]
        leaving = state.order.leave(events)

        def commit() -> None:
            for event in leaving:
                del state.rows[event.id]
                state.ids.remove(event.id)
            state.order.settle(leaving)
            self.dead += letters

        future = self._later(commit)
        if self._closed:
            state.order.stay(leaving)
        return future

    def waiting(self, lane: str) -> tuple[int, int]:
        """See `Buffer.waiting`."""
        state = self._lanes.get(lane)
        if state is None:
            return 0, 0
        size = sum(len(row.body) for row in state.rows.values())
        return len(state.rows) - state.order.claimed, size - state.order.claimed_bytes

    def lanes(self) -> list[str]:
        """See `Buffer.lanes`."""
        return list(self._lanes)

    def on_append(self, callback: Callable[[str], None]) -> None:
        """See `Buffer.on_append`."""
        self._callbacks.append(callback)

    def full_reason(self) -> str | None:
        """See `Buffer.full_reason`."""
        used = self._used()
        if used >= self._max_size:
            return f"buffer is full: it holds {used} of at most {self._max_size} bytes"
        return None

    def stats(self) -> Stats:
        """See `Buffer.stats`."""
        lanes = [
            LaneStats(
                name,
                len(lane.rows),
                lane.bytes,
                lane.rows[lane.ids[0]].received if lane.ids else None,
            )
            for name, lane in self._lanes.items()
        ]
        return Stats(
            events=sum(lane.events for lane in lanes),
            bytes=self._used(),
            oldest=min((lane.oldest for lane in lanes if lane.oldest is not None), default=None),
            lanes=lanes,
            dead_letters=len(self.dead),
            dead_letter_bytes=sum(letter_size(letter) for letter in self.dead),
        )

    async def close(self) -> None:
        """See `Buffer.close`."""
        self._closed = True
        await self._idle.wait()

    def _pending_of(self, lane: str) -> int:
        return self._pending_bytes.get(lane, 0)

    def _used(self) -> int:
        return sum(lane.bytes for lane in self._lanes.values())

    def _store(self, name: str, received: int, events: Sequence[Sealed]) -> None:
        lane = self._lanes.setdefault(name, _Lane(Order(0)))
        for event in events:
            lane.rows[lane.next_id] = Claimed(
                lane.next_id, event.user, received, event.skew, event.age, event.body
            )
            lane.ids.append(lane.next_id)
            lane.next_id += 1
        self._notify(name)

    def _notify(self, name: str) -> None:
        for callback in self._callbacks:
            callback(name)

    def _later(self, commit: Callable[[], None]) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        if self._closed:
            future.set_exception(BufferClosedError("the buffer is closed"))
            future.exception()  # a caller that was cancelled may never look
            return future
        self._pending += 1
        self._idle.clear()

        def run() -> None:
            commit()
            self._pending -= 1
            if not self._pending:
                self._idle.set()
            if not future.done():
                future.set_result(None)

        loop.call_soon(run)
        return future

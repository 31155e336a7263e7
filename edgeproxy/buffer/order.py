"""Order per user: which events of a lane may be claimed now. Pure; every engine uses it.

A lane is read forward in id order into a small window. An event may be claimed when its user has
no earlier unsettled event: none claimed, none passed over in the same claim. What is passed over
stays in the window; when the window is full of users who must wait, their events are dropped from
it and the lane remembers where to read again once one of those users is free.

What is stored while the lane is read to its end is taken into the window from memory: a lane that
keeps up reads nothing back from the disk.

A claimed event is left alone by whoever may read it again until it is settled (no longer in the
store) or released. One that is on its way out of the store is *leaving*: it can no longer be
released, because it may be gone already.
"""

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import accumulate, islice

from msgspec import Struct

from edgeproxy.buffer.base import Claimed

__all__ = ["Order"]

#: Bytes of events kept in memory per lane while their users wait, beside what is claimed.
WINDOW_BYTES = 4_000_000
#: Events likewise: small events weigh more in memory than their bytes.
WINDOW_EVENTS = 5_000
#: Events looked at in one claim behind those who wait, before other work gets its turn.
SCAN_EVENTS = 10_000

#: Reads events after an id, in order: (after, most events, most bytes) -> events; fewer than there
#: are only where `most bytes` is reached; empty at the lane's end.
Read = Callable[[int, int, int], list[Claimed]]


class _Scan(Struct):
    """One claim's reading."""

    read: Read
    max_events: int
    max_bytes: int
    looked_at: int = 0
    gave_up: bool = False


class Order:
    """One lane's reading position, window, and the users that must wait."""

    def __init__(self, start: int) -> None:
        """Begin after the id `start`."""
        self._start = start
        self._cursor = start
        self._read_to = start  # the last id that was ever read
        self._window: deque[Claimed] = deque()
        self._window_bytes = 0
        self._claimed: dict[int, Claimed] = {}
        self._held: Counter[int] = Counter()  # user -> unsettled claimed events
        self._passed: set[int] = set()  # users with events dropped from the window
        self._reread: int | None = None  # id before the first of those
        self._leaving: set[int] = set()  # ids of claimed events on their way out of the store
        self.claimed_bytes = 0
        self.gave_up = False
        """The last claim stopped looking before the lane's end without having found anything."""

    @property
    def cursor(self) -> int:
        """The id behind which it reads on."""
        return self._cursor

    @property
    def is_idle(self) -> bool:
        """It has nothing that was claimed, and nothing that could be without reading on."""
        return not self._claimed and not self._window and self._reread is None

    @property
    def claimed(self) -> int:
        """How many events are claimed and not settled."""
        return len(self._claimed)

    def is_claimed(self, id_: int) -> bool:
        """Whether an event is claimed and not settled."""
        return id_ in self._claimed

    def wants(self, first_id: int, events: int, size: int) -> bool:
        """Whether these, just stored from that id on, are what would be read next, and fit."""
        return (
            first_id == self._cursor + 1
            and self._reread is None
            and len(self._window) + events <= WINDOW_EVENTS
            and self._window_bytes + size <= WINDOW_BYTES
        )

    def take_in(self, events: Sequence[Claimed], size: int) -> None:
        """Take events into the window that are durable now, and that it `wants`."""
        self._window.extend(events)
        self._window_bytes += size
        self._cursor = self._read_to = events[-1].id

    def claim(self, max_events: int, max_bytes: int, overhead: int, read: Read) -> list[Claimed]:
        """Take the next events that may be claimed; see `Buffer.claim`."""
        taken: list[Claimed] = []
        size = 0
        kept: deque[Claimed] = deque()
        scan = _Scan(read, max_events, max_bytes)
        if self._window or self._fill(kept, scan, found=False):
            taken, size = self._take_first(max_events, max_bytes, overhead)
        window, held = self._window, self._held
        while len(taken) < max_events:
            if not window and not self._fill(kept, scan, found=bool(taken)):
                break
            event = window.popleft()
            if event.user in held:
                kept.append(event)
                continue
            larger = size + len(event.body) + overhead
            if taken and larger > max_bytes:
                window.appendleft(event)
                break
            taken.append(event)
            size = larger
        self.gave_up = scan.gave_up and not taken
        window.extendleft(reversed(kept))
        self._claimed.update(zip([event.id for event in taken], taken, strict=True))
        held.update([event.user for event in taken])
        bodies = size - overhead * len(taken)
        self.claimed_bytes += bodies
        self._window_bytes -= bodies
        return taken

    def _take_first(
        self, max_events: int, max_bytes: int, overhead: int
    ) -> tuple[list[Claimed], int]:
        """Take the first events of the window, where nobody in them has to wait.

        That is the common case: a look at all of them at once is faster than one at each.
        """
        first = list(islice(self._window, max_events))
        sizes = list(accumulate([len(event.body) + overhead for event in first]))
        fitting = max(bisect_right(sizes, max_bytes), 1)
        del first[fitting:]
        if not self._held.keys().isdisjoint([event.user for event in first]):
            return [], 0
        for _ in first:
            self._window.popleft()
        return first, sizes[fitting - 1]

    def settle(self, events: Collection[Claimed]) -> None:
        """Let go of events that are no longer in the store."""
        claimed, held = self._claimed, self._held
        self._leaving.difference_update([event.id for event in events])
        read_again = False
        for event in events:
            if claimed.pop(event.id, None) is None:
                continue
            self.claimed_bytes -= len(event.body)
            user = event.user
            left = held[user] - 1
            if left:
                held[user] = left
            else:
                held.pop(user)
                read_again = read_again or user in self._passed
        if read_again:
            self._read_again()

    def release(self, events: Iterable[Claimed]) -> None:
        """Let go of events that are still in the store: they are read again from there."""
        given_back = [
            event for event in events if event.id in self._claimed and event.id not in self._leaving
        ]
        if not given_back:
            return
        first = min(event.id for event in given_back) - 1
        self._reread = first if self._reread is None else min(first, self._reread)
        self.settle(given_back)
        self._read_again()

    def leave(self, events: Iterable[Claimed]) -> list[Claimed]:
        """Those of the events that are claimed and not leaving yet; they are leaving now."""
        leaving = list(events)
        ids = [event.id for event in leaving]
        if not (self._claimed.keys() >= set(ids) and self._leaving.isdisjoint(ids)):
            leaving = [e for e in leaving if e.id in self._claimed and e.id not in self._leaving]
            ids = [event.id for event in leaving]
        self._leaving.update(ids)
        return leaving

    def stay(self, events: Iterable[Claimed]) -> None:
        """Take back `leave`: the store could not remove them. They are claimed as before."""
        self._leaving.difference_update([event.id for event in events])

    def forget(self) -> None:
        """Drop what was read but not claimed, and begin again: the store changed behind it."""
        self._reread = self._start
        self._read_again()

    def _fill(self, kept: deque[Claimed], scan: "_Scan", *, found: bool) -> bool:
        """Read on; make room first where those who wait fill the window. False: enough, or the end.

        Behind a full window of those who wait, a claim that has found something goes no further,
        and one that has not gives up after a while.
        """
        while True:
            if len(kept) >= WINDOW_EVENTS or sum([len(e.body) for e in kept]) >= WINDOW_BYTES:
                self._pass_over(kept)
            if self._passed and (found or scan.looked_at >= SCAN_EVENTS):
                scan.gave_up = True
                return False
            events = scan.read(self._cursor, scan.max_events, scan.max_bytes)
            if not events:
                return False
            scan.looked_at += len(events)
            if self._passed or events[0].id <= self._read_to:
                claimed, passed = self._claimed, self._passed
                fresh = [e for e in events if e.id not in claimed and e.user not in passed]
            else:
                fresh = events  # seen for the first time: nobody has claimed them
            self._window.extend(fresh)
            self._window_bytes += sum([len(event.body) for event in fresh])
            self._cursor = events[-1].id
            self._read_to = max(self._read_to, self._cursor)
            if self._window:
                return True

    def _pass_over(self, kept: deque[Claimed]) -> None:
        before = kept[0].id - 1
        self._reread = before if self._reread is None else min(before, self._reread)
        self._passed.update(event.user for event in kept)
        self._window_bytes -= sum([len(event.body) for event in kept])
        kept.clear()

    def _read_again(self) -> None:
        if self._reread is None:
            return
        self._cursor = min(self._cursor, self._reread)
        # Everything in the window lies behind the place that is read again, or before it: then it
        # must be read again too, or it would be claimed twice.
        if self._window:
            self._cursor = min(self._cursor, self._window[0].id - 1)
        self._window.clear()
        self._window_bytes = 0
        self._passed.clear()
        self._reread = None

"""One request's events: sorted, then stored in one transaction, then told to whoever watches."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog
from msgspec import Struct

from edgeproxy.buffer.base import BufferFaultError, DeadLetter, Settled
from edgeproxy.config import Source, Validation
from edgeproxy.events.intake import Receipt, Sealed
from edgeproxy.events.seen import Seen
from edgeproxy.metrics import Metrics
from edgeproxy.server.dedupe import Dedupe, Storing
from edgeproxy.server.sorting import Mapper, Rejected, Rules, Sorting

__all__ = ["MOST_AT_ONCE", "Intake", "Store", "Taken"]

_log = structlog.get_logger("edgeproxy.server")

#: Events sorted before others get their turn on the loop: about 5 ms.
MOST_AT_ONCE = 500
#: Milliseconds that a client's clock may be off before that is counted.
_SKEW = 300_000


class Store(Protocol):
    """What the intake needs of the buffer: see `Buffer.append`."""

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
        """Store in one transaction."""


class Taken(Struct):
    """What became of a request's events."""

    accepted: int  # repeats and filtered ones included: the sender is done with them
    rejected: list[Rejected]


class Intake:
    """Everything between an opened envelope and the buffer."""

    def __init__(
        self,
        buffer: Store,
        mapper: Mapper,
        validation: Validation,
        metrics: Metrics,
        *,
        keep_received: bool,
    ) -> None:
        """Take what it works with; `keep_received` as in `Rules`."""
        self._buffer = buffer
        self._metrics = metrics
        self._dedupe = Dedupe(validation.dedupe_ids)
        self._watchers: list[Callable[[str, Sequence[Seen]], None]] = []
        self._waiting: set[asyncio.Task[None]] = set()
        self.configure(mapper, validation, keep_received=keep_received)

    def configure(self, mapper: Mapper, validation: Validation, *, keep_received: bool) -> None:
        """Apply changed settings to the requests that come from now on."""
        self._rules = Rules(mapper, validation, keep_received)
        self._dedupe.resize(validation.dedupe_ids)

    def watch(self, watcher: Callable[[str, Sequence[Seen]], None]) -> Callable[[], None]:
        """Call with a source's name and a request's events whenever what came of them is durable.

        The request's answer waits for the call, so it must be quick and must not raise. Gives a
        function that ends it; while nobody watches nothing is gathered.
        """
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    async def take(
        self, source: Source, events: Sequence[bytes], receipt: Receipt, *, is_utf8: bool
    ) -> Taken:
        """Sort a request's events and store them; durable when this returns.

        Cancelling does not undo what is already on its way to the disk.

        Raises:
            BufferFaultError: nothing was stored.
        """
        found = self._sorting(source, receipt)
        found.add(events[:MOST_AT_ONCE], 0, is_utf8=is_utf8)
        if len(events) > MOST_AT_ONCE:
            for first in range(MOST_AT_ONCE, len(events), MOST_AT_ONCE):
                await asyncio.sleep(0)
                found.add(events[first : first + MOST_AT_ONCE], first, is_utf8=is_utf8)
            found.look_again()
        self._count_received(source.name, found)
        storing = self._dedupe.begin(found.ids)
        if found.sealed or found.letters:
            await self._store(source, receipt, found, storing, storing.settle)
        await self._wait_for_repeats(found)
        return self._taken(source, found, len(events))

    def begin(
        self,
        source: Source,
        events: Sequence[bytes],
        receipt: Receipt,
        *,
        is_utf8: bool,
        told: Callable[[Taken | BufferFaultError], None],
    ) -> None:
        """As `take`, for at most `MOST_AT_ONCE` events, without a task that waits.

        `told` is called once, with what became of them or with why nothing was stored: from within
        the commit, so it must be quick and must not raise.
        """
        found = self._sorting(source, receipt)
        found.add(events, 0, is_utf8=is_utf8)
        self._count_received(source.name, found)
        storing = self._dedupe.begin(found.ids)

        def settled(failure: BufferFaultError | None) -> None:
            storing.settle(failure)
            if failure is not None:
                told(failure)
            elif found.repeats:
                self._tell_later(source, found, len(events), told)
            else:
                told(self._taken_in_commit(source, found, len(events)))

        if not found.sealed and not found.letters:
            settled(None)
            return
        try:
            self._store(source, receipt, found, storing, settled)
        except BufferFaultError as fault:
            told(fault)

    def _sorting(self, source: Source, receipt: Receipt) -> Sorting:
        return Sorting(
            source.name, receipt, self._rules, self._dedupe, watched=bool(self._watchers)
        )

    def _count_received(self, source: str, found: Sorting) -> None:
        for type_, count in found.types.items():
            self._metrics.received(source, type_, count)

    def _store(
        self, source: Source, receipt: Receipt, found: Sorting, storing: Storing, settled: Settled
    ) -> "asyncio.Future[None]":
        stored = self._buffer.append(
            source.name,
            receipt.received,
            found.sealed,
            found.letters,
            lane_max=source.max_size,
            settled=settled,
        )
        self._dedupe.note(storing)
        return stored

    async def _wait_for_repeats(self, found: Sorting) -> None:
        """Repeats of what another request is storing wait for it, and fail where it fails."""
        for repeat in found.repeats:
            await repeat.wait()

    def _tell_later(
        self,
        source: Source,
        found: Sorting,
        events: int,
        told: Callable[[Taken | BufferFaultError], None],
    ) -> None:
        async def wait() -> None:
            try:
                await self._wait_for_repeats(found)
            except BufferFaultError as fault:
                told(fault)
            else:
                told(self._taken_in_commit(source, found, events))

        task = asyncio.get_running_loop().create_task(wait())
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    def _taken_in_commit(self, source: Source, found: Sorting, events: int) -> Taken:
        """As `_taken`. What is stored is stored: a mistake of ours in looking at it ends no commit."""
        try:
            return self._taken(source, found, events)
        except Exception:  # noqa: BLE001 - see above
            _log.exception("watching_failed", source=source.name)
            return Taken(events - len(found.rejected), found.rejected)

    def _taken(self, source: Source, found: Sorting, events: int) -> Taken:
        """Count what became of the events, tell whoever watches, and the sender."""
        self._count(source.name, found)
        if found.watched:
            for watcher in tuple(self._watchers):
                watcher(source.name, found.seen)
        return Taken(events - len(found.rejected), found.rejected)

    def _count(self, source: str, found: Sorting) -> None:
        metrics = self._metrics
        if found.sealed:
            metrics.accepted(source, len(found.sealed))
            # Without a `sentAt` only a clock that is ahead shows: by a time that is still to come.
            off = [
                -s.age if s.skew is None else s.skew
                for s in found.sealed
                if (s.age < -_SKEW if s.skew is None else not -_SKEW <= s.skew <= _SKEW)
            ]
            if off:
                metrics.skewed(source, len(off), max(off, key=abs) / 1000)
        if found.duplicates:
            metrics.duplicates(source, found.duplicates)
        for rule, count in found.filtered.items():
            metrics.filtered(source, rule, count)
        if found.rejected:
            codes = Counter(rejected.code for rejected in found.rejected)
            for code, count in codes.items():
                metrics.quarantined(source, code, count)
            _log.info("events_quarantined", source=source, codes=dict(codes))

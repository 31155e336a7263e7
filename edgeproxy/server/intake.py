"""One request's events: sorted, then stored in one transaction, then told to whoever watches."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog
from msgspec import Struct

from edgeproxy.buffer.base import DeadLetter, Settled
from edgeproxy.config import Source, Validation
from edgeproxy.events.intake import Receipt, Sealed
from edgeproxy.events.seen import Seen
from edgeproxy.metrics import Metrics
from edgeproxy.server.dedupe import Dedupe
from edgeproxy.server.sorting import Mapper, Rejected, Rules, Sorting

__all__ = ["Intake", "Storing", "Taken"]

_log = structlog.get_logger("edgeproxy.server")

#: Events sorted before others get their turn on the loop: about 5 ms.
_SLICE = 500
#: Milliseconds that a client's clock may be off before that is counted.
_SKEW = 300_000


class Storing(Protocol):
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
        buffer: Storing,
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
        watched = bool(self._watchers)
        found = Sorting(source.name, receipt, self._rules, self._dedupe, watched=watched)
        found.add(events[:_SLICE], 0, is_utf8=is_utf8)
        if len(events) > _SLICE:
            for first in range(_SLICE, len(events), _SLICE):
                await asyncio.sleep(0)
                found.add(events[first : first + _SLICE], first, is_utf8=is_utf8)
            found.look_again()
        for type_, count in found.types.items():
            self._metrics.received(source.name, type_, count)
        if found.sealed or found.letters:
            storing = self._dedupe.begin(found.ids)
            stored = self._buffer.append(
                source.name,
                receipt.received,
                found.sealed,
                found.letters,
                lane_max=source.max_size,
                settled=storing.settle,
            )
            self._dedupe.note(storing)
            await stored
        # Repeats within this very request wait for the transaction above; those of another
        # request for that one's. If it fails, the repeat fails with it.
        for repeat in found.repeats:
            await repeat.wait()
        self._count(source.name, found)
        if watched:
            for watcher in tuple(self._watchers):
                watcher(source.name, found.seen)
        return Taken(len(events) - len(found.rejected), found.rejected)

    def _count(self, source: str, found: Sorting) -> None:
        metrics = self._metrics
        if found.sealed:
            metrics.accepted(source, len(found.sealed))
            off = [s.skew for s in found.sealed if s.skew and not -_SKEW <= s.skew <= _SKEW]
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

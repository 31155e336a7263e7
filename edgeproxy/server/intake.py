"""One request's events: normalised, mapped, judged, then stored in one transaction."""

import asyncio
from collections.abc import Callable, Sequence
from itertools import compress
from typing import Protocol

import msgspec
import structlog
from msgspec import Raw, Struct

from edgeproxy.buffer.base import DeadLetter
from edgeproxy.config import Source, Validation
from edgeproxy.events import Event, Refusal
from edgeproxy.events.intake import Receipt, Sealed, normalise, seal
from edgeproxy.events.verdicts import Filtered
from edgeproxy.metrics import Metrics
from edgeproxy.server.dedupe import Dedupe

__all__ = ["Intake", "Mapper", "Rejected", "Storing", "Taken"]

_log = structlog.get_logger("edgeproxy.server")


class Mapper(Protocol):
    """What the intake needs of a compiled mapping."""

    @property
    def revision(self) -> str:
        """Which mapping set this is."""

    def apply(self, event: Event, source: str) -> Refusal | Filtered | None:
        """Turn an event into what Hightouch expects, in place."""


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
    ) -> asyncio.Future[None]:
        """Store in one transaction."""


class Rejected(Struct):
    """One event of a request that became a dead letter."""

    index: int
    message_id: str | None
    code: str
    message: str


class Taken(Struct):
    """What became of a request's events."""

    accepted: int  # repeats and filtered ones included: the sender is done with them
    rejected: list[Rejected]


class _Sorted(Struct):
    """A request's events while they are being sorted."""

    sealed: list[Sealed] = []
    ids: list[int] = []
    own: set[int] = set()  # the same, to look them up
    receipt: bytes = b""  # as dead letters keep it
    rejected: list[Rejected] = []
    letters: list[DeadLetter] = []
    repeats: set[asyncio.Future[None]] = set()
    duplicates: int = 0
    filtered: dict[str, int] = {}
    types: dict[str, int] = {}


#: Events sorted before others get their turn on the loop: about 5 ms.
_SLICE = 500


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
        now: Callable[[], int],
    ) -> None:
        """Take what it works with.

        Args:
            keep_received: False keeps only the metadata of dead letters that were never mapped.
            now: ms since 1970.
        """
        self._buffer = buffer
        self._metrics = metrics
        self._dedupe = Dedupe(validation.dedupe_ids)
        self._now = now
        self._watchers: list[Callable[[str, Sequence[Sealed]], None]] = []
        self.configure(mapper, validation, keep_received=keep_received)

    def configure(self, mapper: Mapper, validation: Validation, *, keep_received: bool) -> None:
        """Apply changed settings to the events that come from now on."""
        self.mapper = mapper
        self._validation = validation
        self._keep_received = keep_received
        self._dedupe.resize(validation.dedupe_ids)

    def watch(self, watcher: Callable[[str, Sequence[Sealed]], None]) -> None:
        """Call with a source's name and events whenever some of one request became durable.

        The request's answer waits for the call, so it must be quick and must not raise.
        """
        self._watchers.append(watcher)

    async def take(
        self, source: Source, events: Sequence[Raw | bytes], receipt: Receipt, *, is_utf8: bool
    ) -> Taken:
        """Sort a request's events and store them; durable when this returns.

        Cancelling does not undo what is already on its way to the disk.

        Raises:
            BufferFaultError: nothing was stored.
        """
        found = _Sorted()
        for index, raw in enumerate(events):
            if index % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
            self._sort(source.name, index, raw, receipt, is_utf8, found)
        if len(events) >= _SLICE:
            self._look_again(found)
        for type_, count in found.types.items():
            self._metrics.received(source.name, type_, count)
        if found.sealed or found.letters:
            stored = self._buffer.append(
                source.name,
                receipt.received,
                found.sealed,
                found.letters,
                lane_max=source.max_size,
            )
            self._dedupe.storing(found.ids, stored)
            await asyncio.shield(stored)
            for watcher in self._watchers:
                watcher(source.name, found.sealed)
        # Repeats within this very request wait for the transaction above; those of another
        # request for that one's. If it fails, the repeat fails with it.
        for repeat in found.repeats:
            await asyncio.shield(repeat)
        self._count(source.name, found)
        return Taken(len(events) - len(found.rejected), found.rejected)

    def _sort(
        self,
        source: str,
        index: int,
        raw: Raw | bytes,
        receipt: Receipt,
        is_utf8: bool,
        found: _Sorted,
    ) -> None:
        event = normalise(raw, receipt, is_utf8=is_utf8)
        if isinstance(event, Refusal):
            self._quarantine(source, index, raw, None, receipt, event, found)
            return
        type_ = event.lens.type if isinstance(event.lens.type, str) else "other"
        found.types[type_] = found.types.get(type_, 0) + 1
        id_ = hash((source, str(event.lens.messageId)))
        if self._is_repeat(id_, found):
            return
        verdict = self.mapper.apply(event, source)
        if isinstance(verdict, Filtered):
            found.filtered[verdict.rule] = found.filtered.get(verdict.rule, 0) + 1
            return
        sealed: Sealed | Refusal = verdict or seal(
            event,
            receipt,
            max_event=self._validation.max_event,
            max_age=self._validation.max_age,
        )
        if isinstance(sealed, Refusal):
            self._quarantine(source, index, raw, event, receipt, sealed, found)
            return
        found.sealed.append(sealed)
        found.ids.append(id_)
        found.own.add(id_)

    def _is_repeat(self, id_: int, found: _Sorted) -> bool:
        if self._dedupe.is_off:
            return False
        seen = self._dedupe.seen(id_)
        if seen is False and id_ not in found.own:
            return False
        if not isinstance(seen, bool):
            found.repeats.add(seen)
        found.duplicates += 1
        return True

    def _look_again(self, found: _Sorted) -> None:
        """Drop what another request began to store while this one was being sorted."""
        found.own.clear()
        fresh = [not self._is_repeat(id_, found) for id_ in found.ids]
        found.sealed = list(compress(found.sealed, fresh))
        found.ids = list(compress(found.ids, fresh))

    def _quarantine(
        self,
        source: str,
        index: int,
        raw: Raw | bytes,
        event: Event | None,
        receipt: Receipt,
        refusal: Refusal,
        found: _Sorted,
    ) -> None:
        if event is None:
            found.types["other"] = found.types.get("other", 0) + 1
        id_ = None if event is None else str(event.lens.messageId)
        found.receipt = found.receipt or msgspec.json.encode(receipt)
        found.rejected.append(Rejected(index, id_, refusal.code, refusal.message))
        found.letters.append(
            DeadLetter(
                lane=source,
                code=refusal.code,
                message=refusal.message,
                form="received",
                received=receipt.received,
                died=self._now(),
                body=bytes(raw) if self._keep_received else b"",
                message_id=id_ or "",
                revision=self.mapper.revision,
                receipt=found.receipt,
            )
        )

    def _count(self, source: str, found: _Sorted) -> None:
        metrics = self._metrics
        if found.sealed:
            metrics.accepted(source, len(found.sealed))
        if found.duplicates:
            metrics.duplicates(source, found.duplicates)
        for rule, count in found.filtered.items():
            metrics.filtered(source, rule, count)
        codes: dict[str, int] = {}
        for rejected in found.rejected:
            codes[rejected.code] = codes.get(rejected.code, 0) + 1
        for code, count in codes.items():
            metrics.quarantined(source, code, count)
        if codes:
            _log.info("events_quarantined", source=source, codes=codes)

"""One request's events, sorted: what is stored, what is a repeat, what is quarantined, and why."""

from collections.abc import Callable, Sequence
from itertools import compress
from typing import Protocol

import msgspec
from msgspec import Struct

from edgeproxy.buffer.base import DeadLetter
from edgeproxy.config import Validation
from edgeproxy.events import Event, Refusal
from edgeproxy.events.intake import Receipt, Sealed, normalise, seal
from edgeproxy.events.seen import Seen, Verdict
from edgeproxy.events.verdicts import Filtered
from edgeproxy.server.dedupe import Dedupe, Storing

__all__ = ["Mapper", "Rejected", "Rules", "Sorting"]


class Mapper(Protocol):
    """What the intake needs of a compiled mapping."""

    @property
    def revision(self) -> str:
        """Which mapping set this is."""

    @property
    def short_way(self) -> Callable[[bytes, str, Receipt, int, float], Sealed | None] | None:
        """What seals most events in one step; None where `apply` has to see every event."""

    def apply(self, event: Event, source: str) -> Refusal | Filtered | None:
        """Turn an event into what Hightouch expects, in place."""


class Rules(Struct, frozen=True):
    """The settings that events are judged by."""

    mapper: Mapper
    validation: Validation
    keep_received: bool  # False: of dead letters that were never mapped only the metadata is kept


class Rejected(Struct):
    """One event of a request that became a dead letter."""

    index: int
    message_id: str | None
    code: str
    message: str


class Sorting:
    """Sorts the events of one request of one source, one by one."""

    def __init__(
        self, source: str, receipt: Receipt, rules: Rules, dedupe: Dedupe, *, watched: bool
    ) -> None:
        """Begin with nothing sorted; `watched` notes what became of each event."""
        self._source = source
        self._receipt = receipt
        self._rules = rules
        self._dedupe = dedupe
        self.watched = watched
        self._encoded_receipt = b""
        self.sealed: list[Sealed] = []
        self.ids: list[int] = []  # theirs: hashes of source and messageId
        self._own: set[int] = set()  # the same, to look them up
        self.rejected: list[Rejected] = []
        self.letters: list[DeadLetter] = []
        self.repeats: set[Storing] = set()  # what other requests are storing
        self.duplicates = 0
        self.filtered: dict[str, int] = {}  # by rule
        self.types: dict[str, int] = {}
        self.seen: list[Seen] = []  # all of them, where somebody watches

    def add(self, events: Sequence[bytes], first: int, *, is_utf8: bool) -> None:
        """Take the next events through their way in; the first of them is the request's `first`."""
        limits = self._rules.validation
        max_event, max_age = limits.max_event, limits.max_age * 1000
        short_way = self._rules.mapper.short_way if is_utf8 else None
        source, receipt, types = self._source, self._receipt, self.types
        known, own = self._dedupe.known, self._own
        for index, raw in enumerate(events, first):
            sealed = short_way and short_way(raw, source, receipt, max_event, max_age)
            if sealed is None:
                self._add_the_long_way(index, raw, is_utf8=is_utf8)
                continue
            types[sealed.type] = types.get(sealed.type, 0) + 1
            id_ = hash((source, sealed.message_id))
            if (id_ in known or id_ in own) and self._is_repeat(id_):
                self._note("duplicate", raw, sealed.type, sealed.message_id)
            else:
                self._accept(raw, sealed, id_)

    def _add_the_long_way(self, index: int, raw: bytes, *, is_utf8: bool) -> None:
        """Normalise, map and judge one event."""
        event = normalise(raw, self._receipt, is_utf8=is_utf8)
        if isinstance(event, Refusal):
            self._quarantine(index, raw, None, event)
            return
        lens = event.lens
        type_ = lens.type if isinstance(lens.type, str) else "other"
        self.types[type_] = self.types.get(type_, 0) + 1
        id_ = hash((self._source, str(lens.messageId)))
        if self._is_repeat(id_):
            self._note_event("duplicate", raw, event)
            return
        rules = self._rules
        verdict = rules.mapper.apply(event, self._source)
        if isinstance(verdict, Filtered):
            self.filtered[verdict.rule] = self.filtered.get(verdict.rule, 0) + 1
            self._note_event("filtered", raw, event, code=verdict.rule)
            return
        limits = rules.validation
        sealed = verdict or seal(
            event, self._receipt, max_event=limits.max_event, max_age=limits.max_age
        )
        if isinstance(sealed, Refusal):
            self._quarantine(index, raw, event, sealed)
            return
        self._accept(raw, sealed, id_)

    def _accept(self, raw: bytes, sealed: Sealed, id_: int) -> None:
        self.sealed.append(sealed)
        self.ids.append(id_)
        self._own.add(id_)
        if self.watched:
            self._note("accepted", raw, sealed.type, sealed.message_id, sealed)

    def look_again(self) -> None:
        """Drop what another request began to store while this one was being sorted."""
        self._own.clear()
        fresh = [not self._is_repeat(id_) for id_ in self.ids]
        repeats = {id(s) for s, is_fresh in zip(self.sealed, fresh, strict=True) if not is_fresh}
        for seen in self.seen:
            if id(seen.sealed) in repeats:
                seen.verdict = "duplicate"
        self.sealed = list(compress(self.sealed, fresh))
        self.ids = list(compress(self.ids, fresh))

    def _is_repeat(self, id_: int) -> bool:
        seen = self._dedupe.seen(id_)
        if seen is False and (id_ not in self._own or self._dedupe.is_off):
            return False
        if not isinstance(seen, bool):
            self.repeats.add(seen)
        self.duplicates += 1
        return True

    def _quarantine(self, index: int, raw: bytes, event: Event | None, refusal: Refusal) -> None:
        if event is None:
            self.types["other"] = self.types.get("other", 0) + 1
        id_ = None if event is None else str(event.lens.messageId)
        self._encoded_receipt = self._encoded_receipt or msgspec.json.encode(self._receipt)
        self.rejected.append(Rejected(index, id_, refusal.code, refusal.message))
        self._note_event("quarantined", raw, event, code=refusal.code, message=refusal.message)
        self.letters.append(
            DeadLetter(
                lane=self._source,
                code=refusal.code,
                message=refusal.message,
                form="received",
                received=self._receipt.received,
                died=self._receipt.received,
                body=raw if self._rules.keep_received else b"",
                message_id=id_ or "",
                revision=self._rules.mapper.revision,
                receipt=self._encoded_receipt,
            )
        )

    def _note_event(
        self,
        verdict: Verdict,
        raw: bytes,
        event: Event | None,
        *,
        code: str = "",
        message: str = "",
    ) -> None:
        type_, id_ = "", ""
        if event is not None:
            type_, id_ = str(event.lens.type or ""), str(event.lens.messageId)
        self._note(verdict, raw, type_, id_, code=code, message=message)

    def _note(
        self,
        verdict: Verdict,
        raw: bytes,
        type_: str,
        id_: str,
        sealed: Sealed | None = None,
        *,
        code: str = "",
        message: str = "",
    ) -> None:
        if self.watched:
            self.seen.append(Seen(verdict, raw, type_, id_, sealed, code, message))

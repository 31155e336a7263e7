"""The whole way of the events that were shown lately: received, mapped, sent, answered.

Filled only while a page watches, with what it was shown: bounded by KEPT and KEPT_BYTES, the oldest
go first. Events are recognised when they leave by their bytes, so nothing is noted on their way.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from edgeproxy.admin.masking import masked
from edgeproxy.buffer.base import Claimed
from edgeproxy.events.seen import Seen
from edgeproxy.mapping.explaining import Explanation, differences, receipt_for
from edgeproxy.mapping.mapper import Mapper

__all__ = ["KEPT", "KEPT_BYTES", "Attempted", "Journeys"]

KEPT = 1_000
KEPT_BYTES = 16_000_000
_ATTEMPTS = 20  # of one event; the latest are told


class _Answer(Protocol):
    @property
    def status(self) -> int | None:
        """The HTTP status; None where no answer could be read."""

    @property
    def reason(self) -> str:
        """A code: `http_503`, `timeout`, …"""

    @property
    def detail(self) -> str:
        """The answer's beginning."""


class _Outcome(Protocol):
    @property
    def verdict(self) -> str:
        """What the answer means."""

    @property
    def answer(self) -> _Answer:
        """What came back."""


class Attempted(Protocol):
    """A batch that was answered; delivery tells of it."""

    @property
    def lane(self) -> str:
        """Whose it was."""

    @property
    def at(self) -> int:
        """When it was answered, ms since 1970."""

    @property
    def seconds(self) -> float:
        """How long that took."""

    @property
    def events(self) -> Sequence[Claimed]:
        """What was sent."""

    @property
    def outcome(self) -> _Outcome:
        """What came of it."""


class _Journey(Struct):
    id: int
    at: int
    source: str
    seen: Seen
    raw: bytes
    sent: bytes | None
    attempts: list[dict[str, Any]]


class Journeys:
    """Remembers events that were shown, and hears of the batches they leave in."""

    def __init__(self, mapper: Callable[[], Mapper]) -> None:
        """`mapper` gives the one in force, for explanations."""
        self._mapper = mapper
        self._kept: OrderedDict[int, _Journey] = OrderedDict()
        self._leaving: dict[bytes, _Journey] = {}
        self._bytes = 0
        self._last = 0
        self._batches = 0

    def keep(self, source: str, seen: Seen, at: int) -> int:
        """Remember an event that is being shown; the number to ask for it with."""
        raw = bytes(seen.raw)
        sent = None if seen.sealed is None else seen.sealed.body
        self._last += 1
        lean = replace(seen, raw=b"", sealed=None)
        journey = _Journey(self._last, at, source, lean, raw, sent, [])
        self._kept[self._last] = journey
        self._bytes += len(raw) + len(sent or b"")
        if sent is not None:
            self._leaving[sent] = journey
        while len(self._kept) > KEPT or self._bytes > KEPT_BYTES:
            self._forget()
        return self._last

    def attempted(self, attempt: Attempted) -> dict[str, Any] | None:
        """Note a batch; what to tell pages that watch, None where it held nothing they were shown."""
        found = [j for event in attempt.events if (j := self._leaving.get(event.body)) is not None]
        self._batches += 1
        if not found:
            return None
        outcome = attempt.outcome
        told = {
            "at": attempt.at,
            "batch": self._batches,
            "lane": attempt.lane,
            "events": len(attempt.events),
            "seconds": round(attempt.seconds, 4),
            "outcome": outcome.verdict,
            "answer": outcome.answer.reason,
            "status": outcome.answer.status,
        }
        for journey in found:
            journey.attempts.append({**told, "detail": outcome.answer.detail})
            del journey.attempts[:-_ATTEMPTS]
            if outcome.verdict == "delivered" and journey.sent is not None:
                self._leaving.pop(journey.sent, None)
        return {"kind": "attempt", **told, "ids": [journey.id for journey in found]}

    def detail(self, id_: int, *, values: bool) -> dict[str, Any] | None:
        """Everything about one event, masked unless `values`; None when it is forgotten."""
        journey = self._kept.get(id_)
        if journey is None:
            return None
        seen = journey.seen
        receipt = replace(receipt_for(journey.raw, journey.at), type=seen.type or None)
        explained = self._mapper().explain(journey.raw, journey.source, receipt)
        return {
            "id": journey.id,
            "at": journey.at,
            "source": journey.source,
            "verdict": seen.verdict,
            "code": seen.code,
            "message": seen.message if values or seen.code not in _QUOTING else "",
            "type": seen.type,
            "messageId": seen.message_id,
            "received": _shown(journey.raw, values),
            "sent": None if journey.sent is None else _shown(journey.sent, values),
            "bytes": len(journey.raw),
            "sentBytes": len(journey.sent or b""),
            "changes": list(_changes(journey, explained, values)),
            "rule": explained.event_rule,
            "revision": explained.revision,
            "attempts": journey.attempts if values else [_masked(a) for a in journey.attempts],
        }

    def forget(self) -> None:
        """Forget all: nobody watches any more."""
        self._kept.clear()
        self._leaving.clear()
        self._bytes = 0

    def _forget(self) -> None:
        _, journey = self._kept.popitem(last=False)
        self._bytes -= len(journey.raw) + len(journey.sent or b"")
        if journey.sent is not None and self._leaving.get(journey.sent) is journey:
            del self._leaving[journey.sent]


#: Codes whose message may quote the event.
_QUOTING = frozenset({"bad_type", "bad_timestamp", "invalid_event"})


def _masked(attempt: dict[str, Any]) -> dict[str, Any]:
    # An answer may quote the event.
    return {**attempt, "detail": ""}


def _shown(text: bytes, values: bool) -> str:
    """An event as text, indented; numbers keep their spelling when values are shown."""
    try:
        if values:
            return msgspec.json.format(text, indent=2).decode("utf-8", "replace")
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return text.decode("utf-8", "replace") if values else f"({len(text)} bytes, no JSON)"
    shape = masked(found)
    if isinstance(found, dict):
        shape |= {key: found[key] for key in ("type", "event") if key in found}
    return msgspec.json.format(msgspec.json.encode(shape), indent=2).decode()


def _changes(
    journey: _Journey, explained: Explanation, values: bool
) -> Iterator[dict[str, str | None]]:
    """What is sent differently from what came, with the rule that did it."""
    if journey.sent is None:
        return
    did: dict[str, tuple[str, str, str]] = {}
    for one in explained.supplied:
        did[one.key] = (one.did, one.rule, one.detail)
        if one.did == "moved" and one.input:
            did.setdefault(one.input, (f"moved to {one.key}", one.rule, ""))
    for note in explained.notes:
        did.setdefault(note.key, (note.did, note.rule, note.detail))
    came = Explanation("accepted", "", output=journey.raw)
    left = Explanation("accepted", "", output=journey.sent)
    for change in differences(came, left):
        if change.key == "sentAt":
            done = ("held back", "", "added again when it leaves, moved by the time spent here")
        else:
            done = did.get(change.key, ("on the way in", "", ""))
        yield {
            "key": change.key,
            "before": _value(change.before, values),
            "after": _value(change.after, values),
            "did": done[0],
            "rule": done[1],
            "detail": done[2] if values or change.key == "sentAt" else "",
        }


def _value(text: bytes | None, values: bool) -> str | None:
    if text is None:
        return None
    if values:
        return text.decode("utf-8", "replace")
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "…"
    shape = masked(found)
    return shape if isinstance(shape, str) else msgspec.json.encode(shape).decode()

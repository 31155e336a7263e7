"""What becomes of one dead letter when it is submitted again. Pure."""

from typing import Protocol

import msgspec

from edgeproxy.buffer.base import DeadLetter
from edgeproxy.buffer.deadletters import Replayed, StoredDeadLetter
from edgeproxy.config import Validation
from edgeproxy.events import (
    Event,
    NotAnObjectError,
    Refusal,
    UndecodableError,
    is_missing,
)
from edgeproxy.events.intake import Receipt, Sealed, normalise, seal, user_of
from edgeproxy.events.verdicts import Filtered

__all__ = ["Mapper", "resubmit"]


class Mapper(Protocol):
    """What a replay needs of a compiled mapping."""

    @property
    def revision(self) -> str:
        """Which mapping set this is."""

    def apply(self, event: Event, source: str) -> Refusal | Filtered | None:
        """Turn an event into what Hightouch expects, in place."""


def resubmit(
    stored: StoredDeadLetter, mapper: Mapper, validation: Validation, now: int
) -> Replayed | Filtered:
    """Judge a dead letter, whose body was kept, by today's rules; `now` is in ms since 1970.

    One that was received goes through today's mapping with what was known of its request; one
    that was sent goes again as it was. Both keep their messageId, and with the time of their
    receipt their age. Filtered: a rule of the operator's removes it.
    """
    letter = stored.letter
    verdict: Sealed | Refusal | Filtered
    if not stored.intact:
        verdict = Refusal("invalid_event", "damaged on disk: its checksum does not match")
    elif letter.form == "sent":
        verdict = _as_it_was(letter)
    else:
        verdict = _as_if_received_now(letter, mapper, validation)
    if isinstance(verdict, Filtered):
        return verdict
    if isinstance(verdict, Sealed):
        verdict = _not_too_old(verdict, letter.received, validation, now)
    if isinstance(verdict, Refusal):
        return Replayed(stored.id, letter.lane, letter.received, None, verdict, mapper.revision)
    return Replayed(stored.id, letter.lane, letter.received, verdict)


def _as_it_was(letter: DeadLetter) -> Sealed | Refusal:
    try:
        lens = Event(letter.body).lens
    except (UndecodableError, NotAnObjectError) as error:
        return Refusal("invalid_event", f"the event cannot be decoded: {error}")
    return Sealed(
        letter.body,
        user_of(lens),
        str(lens.messageId),
        lens.type if isinstance(lens.type, str) else "",
        letter.skew,
        letter.age,
    )


def _as_if_received_now(
    letter: DeadLetter, mapper: Mapper, validation: Validation
) -> Sealed | Refusal | Filtered:
    receipt = Receipt(letter.received)
    if letter.receipt:
        receipt = msgspec.json.decode(letter.receipt, type=Receipt)
    event = normalise(letter.body, receipt, is_utf8=False)
    if isinstance(event, Refusal):
        return event
    if letter.message_id and is_missing(Event(letter.body).lens.messageId):
        # The one that it was given then, and that its sender was told.
        event.put("messageId", msgspec.json.encode(letter.message_id))
        event.lens.messageId = letter.message_id
    verdict = mapper.apply(event, letter.lane)
    if verdict is not None:
        return verdict
    return seal(event, receipt, max_event=validation.max_event, max_age=validation.max_age)


def _not_too_old(
    sealed: Sealed, received: int, validation: Validation, now: int
) -> Sealed | Refusal:
    age = sealed.age + max(now - received, 0)
    if age <= validation.max_age * 1000:
        return sealed
    most = f"{validation.max_age:.0f}"
    return Refusal("too_old", f"the event is {age // 1000} s old by now; the most is {most} s")

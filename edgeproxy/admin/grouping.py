"""Dead letters for the page: grouped by why they died, and one at a time with the field at fault."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import apsw
import msgspec
from msgspec import Struct

from edgeproxy.admin.masking import masked
from edgeproxy.buffer import deadletters
from edgeproxy.buffer.deadletters import DeadLetterFilter, StoredDeadLetter

__all__ = ["Group", "at_fault", "group", "one"]

#: Groups that are told apart; what is beyond them counts as one, named `…`.
_MOST = 500

#: The field that each code is about; with `types = "quarantine"` the message names it.
_FIELDS = {
    "missing_event": "event",
    "missing_type": "type",
    "unknown_type": "type",
    "missing_identity": "anonymousId",
}
#: Codes whose messages quote nothing of the event.
_PLAIN = frozenset({*_FIELDS, "too_old", "event_too_large"})

#: Where an event's age is read from, the first that it has.
_TIMES = ("originalTimestamp", "timestamp", "sentAt")

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Group(Struct):
    """Letters of one source that died of one cause, with the same event name."""

    source: str
    code: str
    type: str
    event: str
    count: int
    first: int  # ms since 1970
    last: int


async def group(reading: Callable[[], apsw.Connection], source: str | None = None) -> list[Group]:
    """All groups, the latest first. Reads every letter, in a thread."""
    return await asyncio.to_thread(_group, reading, DeadLetterFilter(source=source))


def _group(reading: Callable[[], apsw.Connection], chosen: DeadLetterFilter) -> list[Group]:
    groups: dict[tuple[str, str, str, str], Group] = {}
    connection = reading()
    try:
        for stored in deadletters.iterate(connection, chosen):
            letter = stored.letter
            key = (letter.lane, letter.code, *deadletters.type_and_name(letter.body))
            if key not in groups and len(groups) >= _MOST:
                key = (letter.lane, letter.code, "", "…")
            found = groups.get(key)
            if found is None:
                found = groups[key] = Group(
                    letter.lane, letter.code, key[2], key[3], 0, letter.died, letter.died
                )
            found.count += 1
            found.last = max(found.last, letter.died)
            found.first = min(found.first, letter.died)
    finally:
        connection.close()
    return sorted(groups.values(), key=lambda found: -found.last)


async def one(
    reading: Callable[[], apsw.Connection], id_: str, *, values: bool
) -> dict[str, Any] | None:
    """A letter with its event, masked unless `values`; None when there is none of that number."""
    return await asyncio.to_thread(_one, reading, id_, values)


def _one(reading: Callable[[], apsw.Connection], id_: str, values: bool) -> dict[str, Any] | None:
    connection = reading()
    try:
        found: Iterator[StoredDeadLetter] = deadletters.iterate(
            connection, DeadLetterFilter(id=id_)
        )
        stored = next((letter for letter in found if str(letter.id) == id_), None)
    finally:
        connection.close()
    if stored is None:
        return None
    letter = stored.letter
    return {
        "id": stored.id,
        "source": letter.lane,
        "code": letter.code,
        "message": letter.message if values or letter.code in _PLAIN else "",
        "form": letter.form,
        "receivedAt": letter.received,
        "diedAt": letter.died,
        "messageId": letter.message_id,
        "revision": letter.revision,
        "status": letter.status,
        "answer": letter.answer if values else "",
        "intact": stored.intact,
        "bytes": len(letter.body),
        "field": at_fault(letter.code, letter.message, letter.body),
        "body": _shown(letter.body, values),
    }


def at_fault(code: str, message: str, body: bytes) -> str | None:
    """The top-level field that a code is about; None where it is the event as a whole."""
    match code:
        case "bad_type" | "bad_timestamp":
            quoted = message.split("`")
            return quoted[1].split(".")[0] if len(quoted) > 2 else None
        case "too_old":
            had = _fields(body)
            return next((name for name in _TIMES if name in had), None)
        case "event_too_large":
            sizes = {name: len(text) for name, text in _fields(body).items()}
            return max(sizes, key=sizes.__getitem__, default=None)
        case _:
            return _FIELDS.get(code)


def _fields(body: bytes) -> dict[str, msgspec.Raw]:
    try:
        return _object.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


def _shown(body: bytes, values: bool) -> str:
    try:
        if values:
            return msgspec.json.format(body, indent=2).decode("utf-8", "replace")
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body.decode("utf-8", "replace") if values else f"({len(body)} bytes, no JSON)"
    shape = masked(found)
    if isinstance(found, dict):
        shape |= {key: found[key] for key in ("type", "event") if isinstance(found.get(key), str)}
    return msgspec.json.format(msgspec.json.encode(shape), indent=2).decode()

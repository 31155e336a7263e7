"""The short way of most events: all that is judged is there, and is what it must be.

One strict decode says so. Nothing is looked at twice, and nothing is written but what the event
gains. An event that the short way does not take goes the long one (`events.intake`, with the
mapper between its halves) to the same end: `tests/property/test_plain.py` holds them together.
Where rules are to change events, `ruled` does what they say in the middle.
"""

import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from edgeproxy.events.intake import CLIENT_LIBRARIES, SENT_AT_SIZE, Receipt, Sealed
from edgeproxy.mapping.checking import AnyObject, strict
from edgeproxy.mapping.table import context_types

__all__ = ["UNFIT", "Plain", "ShortWay", "UnsureError", "replaced", "seal", "seal_plain"]

#: Gives an event the form that is stored and sent; None where it has to go the long way. Takes its
#: bytes (UTF-8), its source, its request, the most bytes that it may have, and the most ms that it
#: may be old.
ShortWay = Callable[[bytes, str, Receipt, int, float], Sealed | None]

_Text = Annotated[str, msgspec.Meta(min_length=1)]
_Context: Any = strict(context_types())


class Plain(Struct, gc=False):
    """An event as most are. What is null or empty, where that matters, does not fit."""

    type: Literal["alias", "group", "identify", "page", "screen", "track"]
    messageId: _Text  # noqa: N815 - the wire's own spelling
    anonymousId: _Text | None = None  # noqa: N815
    userId: _Text | None = None  # noqa: N815
    event: _Text | None = None
    originalTimestamp: _Text | UnsetType = UNSET  # noqa: N815
    timestamp: _Text | UnsetType = UNSET
    sentAt: _Text | UnsetType = UNSET  # noqa: N815
    writeKey: str | UnsetType = UNSET  # noqa: N815
    context: _Context | None = None
    properties: AnyObject | None = None
    traits: AnyObject | None = None


_decode = msgspec.json.Decoder(Plain).decode
_encode = msgspec.json.encode
_convert = msgspec.convert
_crc32 = zlib.crc32
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_MICROSECONDS = len("2026-11-23T15:36:34.379123Z")
_BACKSLASH = ord("\\")
_QUOTE = ord('"')


class UnsureError(ValueError):
    """Only a closer look can tell."""


#: What an event that does not fit raises.
UNFIT = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, UnsureError)


def seal_plain(
    raw: bytes, _source: str, receipt: Receipt, max_event: int, max_age: float
) -> Sealed | None:
    """See `ShortWay`: for events that no rule changes."""
    try:
        return seal(_decode(raw), raw, receipt, max_event, max_age)
    except UNFIT:
        return None


def seal(
    event: Plain, body: bytes, receipt: Receipt, max_event: int, max_age: float
) -> Sealed | None:
    """Judge an event and complete its bytes. In one piece, as every event passes here.

    Raises one of UNFIT, or gives None, where only a closer look can tell.
    """
    user = event.anonymousId or event.userId
    if user is None or (event.type == "track" and event.event is None) or receipt.context:
        return None
    when, head = event.originalTimestamp, b""
    if when is UNSET:
        when = event.timestamp
        if when is UNSET:
            return None
        head = b'{"originalTimestamp":"%b",' % when.encode()
    original = _ms(when)
    sent_at = receipt.sent_at_ms
    if event.sentAt is not UNSET:
        sent_at = _ms(event.sentAt)
        body = _without(body, b'"sentAt"', event.sentAt)
    if event.writeKey is not UNSET:
        body = _without(body, b'"writeKey"', event.writeKey)
    if receipt.ip is not None or receipt.has_origin:
        body = _stamped(body, event.context, receipt)
    received = receipt.received
    age = (received if sent_at is None else sent_at) - original
    if head:
        body = body.replace(b"{", head, 1)
    if age > max_age or len(body) + SENT_AT_SIZE > max_event:
        return None
    skew = None if sent_at is None else sent_at - received
    return Sealed(body, _crc32(user.encode()), event.messageId, event.type, skew, age)


def replaced(body: bytes, name: bytes, old: bytes, new: bytes) -> bytes:
    """Write another value of a top-level field; its name, in quotes, must stand nowhere else."""
    member = name + b":" + old
    at = _only(body, name, member)
    return b"".join((body[:at], name, b":", new, body[at + len(member) :]))


def _only(raw: bytes, name: bytes, beginning: bytes) -> int:
    """Where a name in quotes stands, if nowhere else and with this text from there on."""
    at = raw.find(name)
    # With an escape in it, a name or a value may be spelled otherwise.
    if (
        at < 0
        or not raw.startswith(beginning, at)
        or raw.find(name, at + 1) >= 0
        or raw.find(_BACKSLASH) >= 0
    ):
        raise UnsureError
    return at


def _ms(moment: str) -> int:
    """A time in UTC as ms since 1970.

    Offsets have spellings that RFC 3339 does not know, and more digits would be rounded.
    """
    if moment[-1] != "Z" or len(moment) > _MICROSECONDS:
        raise UnsureError
    time: timedelta = _convert(moment, datetime) - _EPOCH
    return time // _MILLISECOND


def _without(raw: bytes, name: bytes, value: str) -> bytes:
    """Take a field out of the event; its name, in quotes, must stand nowhere else."""
    member = b'%b:"%b"' % (name, value.encode())
    at = _only(raw, name, member)
    end = at + len(member)
    if raw[end : end + 1] == b",":
        return raw[:at] + raw[end + 1 :]
    if raw[at - 1 : at] == b",":
        return raw[: at - 1] + raw[end:]
    raise UnsureError


def _stamped(raw: bytes, context: Any, receipt: Receipt) -> bytes:
    """Add the client's address and user agent to the context of a user's own device's event."""
    if context is None:
        if receipt.has_origin:
            raise UnsureError
        return raw
    library = context.library
    if not receipt.has_origin and (library is None or library.name not in CLIENT_LIBRARIES):
        return raw
    added: dict[bytes, str] = {}
    if receipt.ip is not None and not context.ip:
        added[b'"ip"'] = receipt.ip
    if receipt.user_agent and receipt.has_origin and not context.userAgent:
        added[b'"userAgent"'] = receipt.user_agent
    return _put_first(raw, b'"context"', added) if added else raw


def _put_first(raw: bytes, name: bytes, added: dict[bytes, str]) -> bytes:
    """Put members at the beginning of an object of the event, that has others but none of these."""
    opening = b"%b:{" % name
    start = _only(raw, name, opening) + len(opening)
    if raw[start] != _QUOTE:
        raise UnsureError
    for key in added:
        if raw.find(key, start) >= 0:  # as null perhaps, anywhere in it
            raise UnsureError
    members = b"".join([b"%b:%b," % (key, _encode(value)) for key, value in added.items()])
    return b"%b%b%b" % (raw[:start], members, raw[start:])

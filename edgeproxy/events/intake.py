"""What happens to one event on the way in: normalised, then (after mapping) judged and sealed.

A sealed event is the form that is stored and sent: one JSON object without `sentAt`, which is
written in front of it when it leaves, moved by the time that it spent here.
"""

import uuid
import zlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct

from edgeproxy.events.event import (
    Event,
    Lens,
    NotAnObjectError,
    UndecodableError,
    is_missing,
    read,
    read_object,
    spliced,
)
from edgeproxy.events.times import parse_time, rfc3339
from edgeproxy.events.verdicts import TYPES, Refusal

__all__ = [
    "CLIENT_LIBRARIES",
    "SENT_AT_SIZE",
    "Receipt",
    "Sealed",
    "dated",
    "normalise",
    "seal",
    "user_of",
]

#: `context.library.name` of SDKs that run on a user's own device, so that the address they come
#: from is the user's. Hightouch's from captures and sources; Segment's and RudderStack's likewise.
CLIENT_LIBRARIES = frozenset(
    {
        "events-sdk-js",
        "events-sdk-swift",
        "events-sdk-kotlin",
        "events-sdk-android",
        "events-sdk-flutter",
        "@ht-sdks/events-sdk-react-native",
        "analytics.js",
        "analytics-ios",
        "analytics-swift",
        "analytics-android",
        "analytics-kotlin",
        "analytics-react-native",
        "@segment/analytics-react-native",
        "RudderLabs JavaScript SDK",
        "rudder-ios-library",
        "com.rudderstack.android.sdk.core",
        "com.rudderstack.android.sdk",
    }
)


class Receipt(Struct, frozen=True):
    """What is known of the request that an event came in; kept with a dead letter for its replay."""

    received: int  # ms since 1970
    type: str | None = None  # the single-event path's
    sent_at: Any = None  # the batch's, as it came
    sent_at_ms: int | None = None  # the same, where it is readable
    context: bytes | None = None  # the batch's, JSON text of an object
    ip: str | None = None  # None when it is not to be stamped
    user_agent: str | None = None
    has_origin: bool = False


class Sealed(Struct, gc=False):
    """An event in the form that is stored and sent."""

    body: bytes
    user: int
    message_id: str
    type: str
    skew: int | None  # ms from receipt to the `sentAt` it came with (negative: sent before)
    age: int  # ms from `originalTimestamp` to that `sentAt`, or to receipt


class _ContextLens(Struct, gc=False):
    ip: Any = UNSET
    userAgent: Any = UNSET  # noqa: N815
    library: Raw | msgspec.UnsetType = UNSET


_context_lens = msgspec.json.Decoder(_ContextLens)
_encode = msgspec.json.encode


def normalise(raw: bytes, receipt: Receipt, *, is_utf8: bool = True) -> Event | Refusal:
    """Read one event and note what it gains on the way in (the contract's "What comes in")."""
    try:
        if not is_utf8:
            raw.decode()
        event = Event(raw)
    except NotAnObjectError:
        return Refusal("not_an_object", "an event must be a JSON object")
    except (UndecodableError, UnicodeDecodeError) as error:
        return Refusal("invalid_event", f"the event cannot be decoded: {error}")
    lens = event.lens
    # What is not empty is not missing: most events need no closer look.
    if not lens.originalTimestamp or not lens.messageId:
        _complete(event, lens, receipt)
    if receipt.type is not None and not lens.type and is_missing(lens.type):
        _set(event, "type", receipt.type)
    if lens.writeKey is not UNSET:
        event.put("writeKey", None)
    if receipt.ip is not None or receipt.has_origin or receipt.context is not None:
        _enrich_context(event, lens, receipt)
    return event


def _complete(event: Event, lens: Lens, receipt: Receipt) -> None:
    """Give an event what Hightouch needs and can be made up."""
    if is_missing(lens.originalTimestamp):
        _date(event, lens, receipt)
    if is_missing(lens.messageId):
        _set(event, "messageId", str(uuid.uuid4()))


def _set(event: Event, key: str, value: object, text: bytes | None = None) -> None:
    """Give a judged field a value, in the lens and (as `text`, or encoded) in the event."""
    note = event.add if getattr(event.lens, key) is UNSET else event.put
    note(key, _encode(value) if text is None else text)
    setattr(event.lens, key, value)


def _date(event: Event, lens: Lens, receipt: Receipt) -> None:
    for key in ("timestamp", "sentAt"):
        moment = getattr(lens, key)
        if not is_missing(moment):
            # A number keeps its spelling: its own text is taken, not what Python would write.
            text = None if type(moment) is str else bytes(event.fields()[key])
            _set(event, "originalTimestamp", moment, text)
            return
    around = receipt.sent_at
    known = rfc3339(receipt.received).decode() if is_missing(around) else around
    _set(event, "originalTimestamp", known)


def _enrich_context(event: Event, lens: Lens, receipt: Receipt) -> None:
    own = b"null" if lens.context is UNSET else bytes(lens.context)
    if own == b"null":
        context = receipt.context or b"{}"
    elif own.startswith(b"{"):
        context = own if receipt.context is None else _merge(own, receipt.context)
    else:
        return  # the client's own, whatever it is
    context = _stamp(context, receipt)
    if context == own or (own == b"null" and context == b"{}"):
        return
    note = event.add if lens.context is UNSET else event.put
    note("context", context)
    lens.context = Raw(context)


def _merge(own: bytes, around: bytes) -> bytes:
    """Add to an event's context the keys of its batch's that its own lacks (or has as null)."""
    theirs, ours = read_object(around), read_object(own)
    if not theirs or ours is None:
        return own
    return _filled(own, {k: v for k, v in theirs.items() if k not in ours or _is_null(ours[k])})


def _stamp(context: bytes, receipt: Receipt) -> bytes:
    """Add the client's address and user agent where the sender is a user's own device."""
    look = _seen_before if len(context) <= _REMEMBERED_SIZE else _look
    lacks_ip, lacks_agent, is_client = look(context)
    added: dict[str, Raw | bytes] = {}
    if receipt.ip is not None and lacks_ip and (is_client or receipt.has_origin):
        added["ip"] = _encode(receipt.ip)
    if receipt.user_agent and receipt.has_origin and lacks_agent:
        added["userAgent"] = _encode(receipt.user_agent)
    return _filled(context, added)


def _look(context: bytes) -> tuple[bool, bool, bool]:
    """Whether a context lacks an address, lacks a user agent, and is of a client's library."""
    try:
        seen = _context_lens.decode(context)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False, False, False  # holds what Python cannot represent: left exactly alone
    library = None if seen.library is UNSET else read_object(seen.library)
    name = read(library["name"]) if library and "name" in library else None
    is_client = isinstance(name, str) and name in CLIENT_LIBRARIES
    return is_missing(seen.ip), is_missing(seen.userAgent), is_client


# The events of a visit, or of a server, share their context byte for byte.
_REMEMBERED_SIZE = 4096
_seen_before = lru_cache(maxsize=512)(_look)


def _filled(text: bytes, added: Mapping[str, Raw | bytes]) -> bytes:
    """Put fields into an object; it is written anew only if it has some of them, as null or empty."""
    if not added:
        return text
    fields = read_object(text) or {}
    if fields.keys().isdisjoint(added):
        return spliced(text, added)
    return _write({**fields, **added})


def _is_null(text: Raw) -> bool:
    return bytes(text) == b"null"


def _write(fields: Mapping[str, Raw | bytes]) -> bytes:
    return b"{%b}" % b",".join([b"%b:%b" % (_encode(key), text) for key, text in fields.items()])


def user_of(lens: Lens) -> int:
    """Whose event this is, as a number: order is kept among events of the same number.

    The user is `anonymousId`, else `userId`. Two users may share a number (32 bits); they then
    wait for each other, and nothing else happens.
    """
    user = lens.userId if is_missing(lens.anonymousId) else lens.anonymousId
    return zlib.crc32(str(user).encode("utf-8", "surrogatepass"))


def dated(sent_at: int) -> bytes:
    """What stands in front of a sealed event (in place of its `{`) in the form that is sent."""
    return b'{"sentAt":"%b",' % rfc3339(sent_at)


SENT_AT_SIZE = len(dated(0)) - 1
"""Bytes that its `sentAt` adds to a sealed event."""


def seal(event: Event, receipt: Receipt, *, max_event: int, max_age: float) -> Sealed | Refusal:
    """Judge what would be sent, and give it the form that is stored.

    `max_event` is in bytes, of the event with its `sentAt`; `max_age` in seconds.
    """
    lens = event.lens
    refusal = _judge(lens)
    if refusal is not None:
        return refusal
    if not lens.originalTimestamp or not lens.messageId:
        _complete(event, lens, receipt)  # once more: a rule may have found nothing but ""
    sent_at = None if lens.sentAt is UNSET else parse_time(lens.sentAt)
    if sent_at is None:
        sent_at = receipt.sent_at_ms
    original = parse_time(lens.originalTimestamp)
    reference = receipt.received if sent_at is None else sent_at
    age = 0 if original is None else reference - original
    if age > max_age * 1000:
        return Refusal("too_old", f"the event is {age // 1000} s old; the most is {max_age:.0f} s")
    if lens.sentAt is not UNSET:
        event.put("sentAt", None)
    body = event.body()
    if len(body) + SENT_AT_SIZE > max_event:
        size = len(body) + SENT_AT_SIZE
        return Refusal("event_too_large", f"the event is {size} bytes; the most is {max_event}")
    skew = None if sent_at is None else sent_at - receipt.received
    return Sealed(body, user_of(lens), str(lens.messageId), lens.type, skew, age)


def _judge(lens: Lens) -> Refusal | None:
    if is_missing(lens.type):
        return Refusal("missing_type", "`type` is missing")
    if not isinstance(lens.type, str) or lens.type not in TYPES:
        return Refusal("unknown_type", f"`type` must be one of {', '.join(sorted(TYPES))}")
    if is_missing(lens.anonymousId) and is_missing(lens.userId):
        return Refusal("missing_identity", "one of `anonymousId` and `userId` is needed")
    if lens.type == "track" and is_missing(lens.event):
        return Refusal("missing_event", "a track event needs `event`")
    return None

"""What Hightouch would do with a request's body, as far as is known. Pure.

Hightouch answers 200 to a well-formed, authenticated request even when it will not show some of
its events. Such events are *blocked*; `blocked_reason` says why, in a constant word.
"""

from datetime import UTC, datetime

import msgspec

MAX_EVENT_BYTES = 96_000
"""Hightouch's documented limit of one event."""

MAX_AGE_SECONDS = 7 * 86400.0
"""A constant in Hightouch's React Native SDK: what is older is rejected."""

TYPES = frozenset({"identify", "track", "page", "screen", "group", "alias"})

_EMPTY = frozenset({b"", b"null", b'""'})
_ABSENT = msgspec.Raw(b"")


class MalformedError(Exception):
    """The body is not what an SDK may send; the request is answered 400."""


class _Fields(msgspec.Struct):
    """Every field stays JSON text: a strange value in one must not hide the others."""

    type: msgspec.Raw = _ABSENT
    messageId: msgspec.Raw = _ABSENT  # noqa: N815  # the wire's name
    anonymousId: msgspec.Raw = _ABSENT  # noqa: N815
    userId: msgspec.Raw = _ABSENT  # noqa: N815
    event: msgspec.Raw = _ABSENT
    originalTimestamp: msgspec.Raw = _ABSENT  # noqa: N815
    sentAt: msgspec.Raw = _ABSENT  # noqa: N815
    writeKey: msgspec.Raw = _ABSENT  # noqa: N815


class _Envelope(msgspec.Struct):
    batch: list[msgspec.Raw]
    writeKey: msgspec.Raw = _ABSENT  # noqa: N815


class Judged(msgspec.Struct, frozen=True):
    """One event as it arrived: its JSON text, byte for byte, and what became of it."""

    text: bytes
    type: str
    message_id: str
    blocked: str | None


class Body(msgspec.Struct, frozen=True):
    """A readable body: its events in order, and the write key it names, if any."""

    events: list[Judged]
    write_key: str


_decode_fields = msgspec.json.Decoder(_Fields).decode
_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_any = msgspec.json.Decoder(object).decode


def read_body(body: bytes, *, is_batch: bool, now: float) -> Body:
    """Take a request's body apart. `now` is in seconds since 1970.

    Raises:
        MalformedError: the body is not JSON in UTF-8, not an object, or a batch without `batch`.

    """
    try:
        body.decode()
        if is_batch:
            envelope = _decode_envelope(body)
            texts, key = [bytes(raw) for raw in envelope.batch], envelope.writeKey
        else:
            texts, key = [body.strip()], _decode_fields(body).writeKey
    except (UnicodeDecodeError, msgspec.MsgspecError, RecursionError) as error:
        raise MalformedError(str(error)) from None
    write_key = _text(key) or (_text(_fields(texts[0]).writeKey) if texts else "")
    return Body([judge(text, now) for text in texts], write_key)


def judge(text: bytes, now: float) -> Judged:
    """Judge one event, given as JSON text."""
    fields = _fields(text)
    return Judged(
        text=text,
        type=_text(fields.type),
        message_id=_text(fields.messageId),
        blocked=_blocked_reason(text, fields, now),
    )


def _blocked_reason(text: bytes, fields: _Fields, now: float) -> str | None:
    if not text.startswith(b"{"):
        return "not_an_object"
    if _missing(fields.type):
        return "missing_type"
    kind = _text(fields.type)
    if kind not in TYPES:
        return "unknown_type"
    if _missing(fields.messageId):
        return "missing_message_id"
    if _missing(fields.anonymousId) and _missing(fields.userId):
        return "missing_identity"
    if kind == "track" and _missing(fields.event):
        return "missing_event"
    if _missing(fields.originalTimestamp):
        return "missing_original_timestamp"
    if _missing(fields.sentAt):
        return "missing_sent_at"
    if len(text) > MAX_EVENT_BYTES:
        return "event_too_large"
    return "too_old" if _age(fields, now) > MAX_AGE_SECONDS else None


def _age(fields: _Fields, now: float) -> float:
    """Seconds from the event to its sending by the sender's clock; 0 where that cannot be read."""
    original = _seconds(fields.originalTimestamp)
    if original is None:
        return 0.0
    sent = _seconds(fields.sentAt)
    return (now if sent is None else sent) - original


def _fields(text: bytes) -> _Fields:
    try:
        return _decode_fields(text)
    except msgspec.MsgspecError:
        return _Fields()


def _missing(raw: msgspec.Raw) -> bool:
    return bytes(raw) in _EMPTY


def _text(raw: msgspec.Raw) -> str:
    """The string that `raw` spells, or "" for anything else."""
    try:
        value = _decode_any(raw)
    except msgspec.MsgspecError:
        return ""
    return value if isinstance(value, str) else ""


def _seconds(raw: msgspec.Raw) -> float | None:
    """Seconds since 1970 of an ISO 8601 string; zone-less is UTC."""
    try:
        parsed = datetime.fromisoformat(_text(raw))
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None

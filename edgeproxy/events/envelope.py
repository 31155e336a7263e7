"""Requests as SDKs send them: one event, or an envelope around a batch of events.

The common case is one decode that leaves every event as its own bytes. Only when that fails is the
body walked element by element, so that one event with a NaN or broken UTF-8 does not take the
others of its batch with it.
"""

import json
import re
from collections.abc import Iterator, Sequence

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from edgeproxy.events.event import is_missing, read

__all__ = [
    "MAX_DEPTH",
    "MAX_EVENTS",
    "Envelope",
    "InvalidEnvelopeError",
    "InvalidJSONError",
    "open_batch",
    "open_single",
]

#: Objects and arrays inside one another, the body itself included (the contract's bound).
MAX_DEPTH = 128
#: Events in one request: fifty times what the most generous SDK sends (React Native, 1000), and
#: few enough that a request of `[],[],[],…` cannot fill the dead letters with a million entries.
MAX_EVENTS = 50_000


_COMMA = ord(",")
_BLANKS = b" \t\n\r"  # RFC 8259's


class InvalidJSONError(ValueError):
    """The body cannot be parsed: not JSON at all, or nested deeper than MAX_DEPTH."""


class InvalidEnvelopeError(ValueError):
    """The body is JSON, but not the shape that its path asks for."""


class Envelope(Struct):
    """What surrounds the events of one request."""

    events: Sequence[bytes]
    sent_at: object = None
    write_key: object = None
    context: bytes | None = None  # JSON text of an object
    is_utf8: bool = True  # False: each event's own encoding is still to be checked


class _Keyed(Struct):
    write_key: Raw | UnsetType = msgspec.field(name="writeKey", default=UNSET)

    def key(self) -> object:
        return None if isinstance(self.write_key, UnsetType) else read(self.write_key)


class _Batch(_Keyed, kw_only=True):
    batch: list[Raw]
    sent_at: Raw | UnsetType = msgspec.field(name="sentAt", default=UNSET)
    context: Raw | UnsetType = UNSET


_batch = msgspec.json.Decoder(_Batch)
_keyed = msgspec.json.Decoder(_Keyed)


def open_single(body: bytes) -> Envelope:
    """Open a request that is one event.

    Raises:
        InvalidJSONError: the body is no JSON. What only a lone event can be to blame for (NaN, lone
            surrogates, broken UTF-8) is left for the event's own verdict.
    """
    body = body.strip(_BLANKS)
    _check_depth(body)
    try:
        keyed = _keyed.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _open_broken_single(body)
    return Envelope([body], write_key=keyed.key(), is_utf8=_is_utf8(body))


def open_batch(body: bytes) -> Envelope:
    """Open a request that is a batch.

    Raises:
        InvalidJSONError: the body cannot be parsed; InvalidEnvelopeError: it has no list `batch`.
    """
    _check_count(body)
    if not _is_utf8(body):
        return _open_broken_batch(body)
    try:
        batch = _batch.decode(body)
    except msgspec.ValidationError as error:
        raise InvalidEnvelopeError(f"expected an object with a list `batch`: {error}") from None
    except RecursionError:
        raise _too_deep() from None
    except msgspec.DecodeError:
        return _open_broken_batch(body)
    events = [bytes(event) for event in batch.batch]
    _check_batch_depth(body, events)
    return _enveloped(batch, events, is_utf8=True)


def _enveloped(around: _Batch, events: Sequence[bytes], *, is_utf8: bool) -> Envelope:
    if len(events) > MAX_EVENTS:
        raise _too_many()
    envelope = Envelope(events, write_key=around.key(), is_utf8=is_utf8)
    if not isinstance(around.sent_at, UnsetType):
        envelope.sent_at = read(around.sent_at)
    if not isinstance(around.context, UnsetType):
        context = bytes(around.context)
        # Anything else has no keys to give to the events.
        envelope.context = context if context.startswith(b"{") else None
    if is_missing(envelope.write_key) and events:
        envelope.write_key = _first_key(events[0])
    return envelope


def _check_count(body: bytes) -> None:
    """Refuse far too many events before they become as many objects, of 100 bytes each."""
    if len(body) <= 2 * MAX_EVENTS or body.count(b",") <= MAX_EVENTS:
        return
    commas = 0
    for mark, depth in _marks(body):
        commas += mark == _COMMA and depth == 2
        if commas >= MAX_EVENTS:
            raise _too_many()


def _too_many() -> InvalidEnvelopeError:
    return InvalidEnvelopeError(f"more than {MAX_EVENTS} events in one request")


def _is_utf8(body: bytes) -> bool:
    if body.isascii():
        return True
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _first_key(event: bytes) -> object:
    try:
        return _keyed.decode(event).key()
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _check_depth(text: bytes, bound: int = MAX_DEPTH) -> None:
    """Refuse text nested deeper than `bound`: text with fewer brackets in all cannot be."""
    if _brackets(text) > bound and _depth(text) > bound:
        raise _too_deep()


def _brackets(text: bytes) -> int:
    # Taking them out and measuring is many times as fast as `count`, which goes byte by byte.
    return 2 * len(text) - len(text.replace(b"{", b"")) - len(text.replace(b"[", b""))


def _too_deep() -> InvalidJSONError:
    return InvalidJSONError(f"nested deeper than {MAX_DEPTH}")


_EVENT_DEPTH = MAX_DEPTH - 2  # within the envelope and its list
_SHALLOW = 2 * _EVENT_DEPTH


def _check_batch_depth(body: bytes, events: Sequence[bytes]) -> None:
    around = len(body) - len(events)
    for text in events:
        around -= len(text)
        # Brackets come in pairs: shorter text has too few.
        if len(text) >= _SHALLOW:
            _check_depth(text, _EVENT_DEPTH)
    if around >= 2 * MAX_DEPTH and _brackets(body) - sum(map(_brackets, events)) > MAX_DEPTH:
        _check_depth(body)


# Strings are one mark, so that brackets within them are none. Possessive, or the engine would keep
# a way back for every character of a string: 100 bytes of memory for each.
_MARK = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[{}\[\],]', re.DOTALL)


def _marks(text: bytes) -> Iterator[tuple[int, int]]:
    """Give each bracket and comma, and how deep it is nested, in time linear in the text's length."""
    depth = 0
    for match in _MARK.finditer(text):
        mark = text[match.start()]
        if mark in b"{[":
            depth += 1
            yield mark, depth
        elif mark in b"}]":
            yield mark, depth
            depth -= 1
        elif mark == _COMMA:
            yield mark, depth


def _depth(text: bytes) -> int:
    """How deep text is nested; beyond MAX_DEPTH it is not counted any further."""
    deepest = 0
    for _, depth in _marks(text):
        deepest = max(deepest, depth)
        if deepest > MAX_DEPTH:
            break
    return deepest


# --- Bodies in which something is broken ---------------------------------------------------------
#
# The standard library's scanner takes what msgspec refuses (NaN, lone surrogates, control
# characters) and says where each value ends; broken UTF-8 is carried through as surrogates. So
# each event comes out as the very bytes the client sent, to be judged alone. What is around the
# events must be sound: it is opened as in the common case.

# The values are thrown away, so numbers need not be read (Python refuses integers of 4301 digits).
_scan = json.JSONDecoder(strict=False, parse_int=bool, parse_float=bool).raw_decode
_SPACE = re.compile(r"[ \t\n\r]*")


def _value(text: str, at: int) -> tuple[object, int]:
    try:
        value: tuple[object, int] = _scan(text, at)
    except json.JSONDecodeError as error:
        what = error.msg[:1].lower() + error.msg[1:].removesuffix(" at")
        raise InvalidJSONError(f"{what} at character {error.pos}") from None
    except RecursionError:
        raise _too_deep() from None
    return value


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _expect(text: str, at: int, wanted: str) -> str:
    found = text[at : at + 1]
    if not found or found not in wanted:
        raise InvalidJSONError(f"expected {' or '.join(wanted)} at character {at}")
    return found


def _walk(text: str, at: int, opening: str, closing: str) -> Iterator[tuple[object, int, int]]:
    """Give each member of the object or array at `at`: its key (None in an array), start and end."""
    _expect(text, at, opening)
    at = _skip(text, at + 1)
    if text[at : at + 1] == closing:
        return
    while True:
        key: object = None
        if opening == "{":
            _expect(text, at, '"')
            key, at = _value(text, at)
            at = _skip(text, at)
            _expect(text, at, ":")
            at = _skip(text, at + 1)
        _, end = _value(text, at)
        yield key, at, end
        at = _skip(text, end)
        if _expect(text, at, "," + closing) == closing:
            return
        at = _skip(text, at + 1)


def _decode_anyhow(body: bytes) -> str:
    return body.decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _open_broken_single(body: bytes) -> Envelope:
    text = _decode_anyhow(body)
    value, end = _value(text, 0)
    if end != len(text):
        raise InvalidJSONError(f"trailing characters at character {end}")
    key = value.get("writeKey") if isinstance(value, dict) else None
    return Envelope([body], write_key=key, is_utf8=False)


def _open_broken_batch(body: bytes) -> Envelope:
    _check_depth(body)
    text = _decode_anyhow(body)
    start = _skip(text, 0)
    place: tuple[int, int] | None = None
    for key, at, end in _walk(text, start, "{", "}"):
        if key == "batch":
            place = at, end  # of duplicates the last counts, as ever
    if place is None:
        raise InvalidEnvelopeError("expected an object with a list `batch`")
    at, end = place
    if text[at] != "[":
        raise InvalidEnvelopeError("`batch` is not a list")
    around = _bytes(text[:at] + "[]" + text[end:])
    try:
        around.decode()
        batch = _batch.decode(around)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidJSONError(f"broken outside the events: {error}") from None
    inside = text[at:end]
    events = [_bytes(inside[start:stop]) for _, start, stop in _walk(inside, 0, "[", "]")]
    return _enveloped(batch, events, is_utf8=False)

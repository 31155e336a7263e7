"""One event on its way, judged through a lens: the client's bytes stay as they came.

The lens decodes only the fields that the proxy looks at. What normalisation adds or takes away is
noted beside the bytes and applied once, when the event is written; an event that needs nothing is
never rebuilt.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct

__all__ = [
    "Event",
    "Lens",
    "NotAnObjectError",
    "UndecodableError",
    "is_missing",
    "read",
    "read_object",
    "spliced",
]


class UndecodableError(ValueError):
    """The bytes are not JSON that could be sent on: NaN, a lone surrogate, broken UTF-8."""


class NotAnObjectError(ValueError):
    """The event is JSON, but not an object."""


class Lens(Struct, gc=False):
    """The top-level fields that the proxy judges; UNSET where the event has none."""

    type: Any = UNSET
    messageId: Any = UNSET  # noqa: N815 - the wire's own spelling
    anonymousId: Any = UNSET  # noqa: N815
    userId: Any = UNSET  # noqa: N815
    event: Any = UNSET
    timestamp: Any = UNSET
    originalTimestamp: Any = UNSET  # noqa: N815
    sentAt: Any = UNSET  # noqa: N815
    writeKey: Any = UNSET  # noqa: N815
    context: Raw | msgspec.UnsetType = UNSET
    properties: Raw | msgspec.UnsetType = UNSET
    traits: Raw | msgspec.UnsetType = UNSET


_lens = msgspec.json.Decoder(Lens)
_object = msgspec.json.Decoder(dict[str, Raw])
_any = msgspec.json.Decoder()
_encode = msgspec.json.encode

_QUOTE = ord('"')
_COLON = ord(":")
_BACKSLASH = ord("\\")
_EMPTY = re.compile(rb"\s*\}")

_RAW_FIELDS = frozenset({"context", "properties", "traits"})

# JSON text of the keys that normalisation adds most; others are encoded anew.
_KEYS: Mapping[str, bytes] = {
    key: b'"%b":' % key.encode()
    for key in (*Lens.__struct_fields__, "integrations", "name", "groupId")
}
_NAMES: Mapping[str, bytes] = {key: text[:-1] for key, text in _KEYS.items()}


def read(text: Raw | bytes) -> Any:
    """Decode one JSON value for judging it; None when it cannot be represented (`1e400`) or is broken."""
    try:
        return _any.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def read_object(text: Raw | bytes) -> dict[str, Raw] | None:
    """Decode one level of an object, leaving each value as its JSON text; None if it is no object."""
    try:
        return _object.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def is_missing(value: object) -> bool:
    """Say whether a field counts as missing: absent, null or empty (the contract's definition)."""
    if value:
        return False
    return value is UNSET or not isinstance(value, bool | int | float)


def spliced(text: bytes, added: Mapping[str, Raw | bytes]) -> bytes:
    """Add fields, that it does not have, to the front of an object's JSON text; the rest stays as it is."""
    start = text.index(b"{") + 1
    parts: list[Raw | bytes] = []
    before = b"{"
    for key, value in added.items():
        parts += (before, _key(key), value)
        before = b","
    # A quotation mark begins the first key; only without one is a closer look needed.
    if text[start] == _QUOTE or not _EMPTY.match(text, start):
        parts.append(before)
    parts.append(text[start:])
    return b"".join(parts)


_NOTHING: dict[str, Any] = {}  # never written to


class Event:
    """An event's bytes, its lens, and the top-level changes noted so far."""

    __slots__ = ("_added", "_put", "_was", "lens", "raw")

    def __init__(self, raw: bytes) -> None:
        """Look at one JSON object.

        Raises:
            UndecodableError: not decodable; NotAnObjectError: decodable, but not an object.
        """
        self.raw = raw
        try:
            self.lens = _lens.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.lens = _look(raw)
        # None until there is something to note: of most events there is little.
        self._added: dict[str, bytes] | None = None
        self._put: dict[str, bytes | None] | None = None
        self._was: dict[str, Any] = _NOTHING  # what the lens saw in the bytes, of fields put since

    def add(self, key: str, text: bytes) -> None:
        """Note a top-level field that the event does not have yet."""
        if self._added is None:
            self._added = {key: text}
        else:
            self._added[key] = text

    def put(self, key: str, text: bytes | None) -> None:
        """Note a new value for a top-level field that the event has; None removes it."""
        if self._added is not None and key in self._added:
            del self._added[key]
            if text is not None:
                self._added[key] = text
            return
        if self._put is None:
            self._put, self._was = {key: text}, {key: getattr(self.lens, key, UNSET)}
            return
        if key not in self._was:
            self._was[key] = getattr(self.lens, key, UNSET)
        self._put[key] = text

    def fields(self) -> dict[str, Raw]:
        """All top-level fields as JSON text, changes applied, in the order they will be sent."""
        # Of duplicate keys the last wins, as the decoder has it.
        fields = _object.decode(self.raw)
        if self._added:
            fields = {key: Raw(text) for key, text in self._added.items()} | fields
        for key, text in (self._put or _NOTHING).items():
            if text is None:
                fields.pop(key, None)
            else:
                fields[key] = Raw(text)
        return fields

    def replace(self, fields: Mapping[str, Raw | bytes]) -> None:
        """Take new top-level fields (after mapping); the lens is read again."""
        texts = {
            key: Raw(text) if isinstance(text, bytes) else text for key, text in fields.items()
        }
        self.raw = _encode(texts)
        self.lens = _look(self.raw)
        self._added = self._put = None
        self._was = _NOTHING

    def body(self) -> bytes:
        """The event as JSON text; the client's own bytes where nothing changed."""
        raw = self.raw
        if self._put:
            overwritten = _overwritten(raw, self._put, self._was)
            if overwritten is None:
                return _encode(self.fields())
            raw = overwritten
        return spliced(raw, self._added) if self._added else raw


def _overwritten(
    raw: bytes, put: Mapping[str, bytes | None], was: Mapping[str, Any]
) -> bytes | None:
    """Write new values over the old ones in place, which costs a third of writing all fields anew.

    Returns:
        None where it is not certain that a key's name stands nowhere but before its value.
    """
    if raw.find(_BACKSLASH) >= 0:
        return None  # a key may be spelled with an escape
    for key, text in put.items():
        old = was[key]
        kind = type(old)
        if kind is not Raw and kind is not str:
            return None
        name = _NAMES.get(key) or b'"%b"' % key.encode()
        at = raw.rfind(name)  # looking from the end is quicker than from the front
        begin = at + len(name) + 1
        value = bytes(old) if kind is Raw else _encode(old)
        end = begin + len(value)
        if at < 0 or raw[begin - 1] != _COLON or not raw.startswith(value, begin):
            return None
        if raw.find(name, 0, at) >= 0:
            return None
        if text is not None:
            raw = b"%b%b%b" % (raw[:begin], text, raw[end:])
        elif raw[end : end + 1] == b",":
            raw = raw[:at] + raw[end + 1 :]
        elif raw[at - 1 : at] == b",":
            raw = raw[: at - 1] + raw[end:]
        else:
            return None
    return raw


def _key(key: str) -> bytes:
    return _KEYS.get(key) or _encode(key) + b":"


def _look(raw: bytes) -> Lens:
    try:
        return _lens.decode(raw)
    except msgspec.ValidationError:
        return _look_closer(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UndecodableError(str(error)) from None
    except RecursionError:
        raise UndecodableError("nested too deeply") from None


def _look_closer(raw: bytes) -> Lens:
    """Look at an event whose judged fields hold what a Python value cannot: `{"userId": 1e400}`."""
    try:
        fields = _object.decode(raw)
    except msgspec.ValidationError as error:
        raise NotAnObjectError(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UndecodableError(str(error)) from None
    except RecursionError:
        raise UndecodableError("nested too deeply") from None
    seen: dict[str, Any] = {}
    for name in Lens.__struct_fields__:
        if name in fields:
            text = fields[name]
            seen[name] = text if name in _RAW_FIELDS else _representable(text)
    return Lens(**seen)


class _Spelling(str):
    """A value that Python cannot hold, as it is spelled; no text, for those who look at types."""

    __slots__ = ()


def _representable(text: Raw) -> Any:
    value = read(text)
    # A number too large for Python is still a value: its spelling stands for it.
    if value is None and bytes(text) != b"null":
        return _Spelling(bytes(text).decode("utf-8", "backslashreplace"))
    return value

"""Converting a value to the type the table wants, where nothing is lost by it.

Works on JSON text, so that a number that only changes its quotes keeps its spelling: `"1.10"`
becomes `1.10`, and `1.10` becomes `"1.10"`.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import msgspec

from edgeproxy.mapping.table import FieldType

__all__ = ["coerce", "coerce_time", "is_plain_time", "is_time", "kind_of", "suits"]

_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_INTEGER = re.compile(rb"-?(?:0|[1-9][0-9]*)")
_DAY = r"(\d{4})-(\d\d)-(\d\d)"
_CLOCK = r"([01]\d|2[0-3]):([0-5]\d):([0-5]\d|60)(\.\d+)?"
_RFC3339 = re.compile(rf"{_DAY}[Tt ]{_CLOCK}(?:[Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)", re.ASCII)
is_plain_time = re.compile(
    r"[1-9]\d{3}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d+)?Z",
    re.ASCII,
).fullmatch
"""Matches most RFC 3339 times: in UTC, on a day that every month has. What it does not match may
be one all the same."""
_ZONELESS = re.compile(rf"{_DAY}[Tt ]{_CLOCK}", re.ASCII)
_LOOSE_OFFSET = re.compile(rf"({_DAY}[Tt ]{_CLOCK})\s*([+-])(\d\d)(\d\d)?", re.ASCII)
_DATE = re.compile(_DAY, re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# An integer larger than this is not written out from its exponent (`1e400`).
_MAX_DIGITS = 40

# An epoch below the bound counts so many to the second.
_EPOCH_UNITS = ((10**11, 1), (10**14, 10**3), (10**17, 10**6), (10**20, 10**9))

_KINDS: Mapping[int, str] = {
    ord('"'): "String",
    ord("{"): "Object",
    ord("["): "Array",
    ord("t"): "Boolean",
    ord("f"): "Boolean",
    ord("n"): "null",
}


def kind_of(text: bytes) -> str:
    """The kind of a JSON value, in the table's words: also "Array", "null", and "Integer" for `5`."""
    kind = _KINDS.get(text[0])
    if kind is None:
        kind = "Integer" if _INTEGER.fullmatch(text) else "Number"
    return kind


def suits(kind: str, wanted: FieldType) -> bool:
    """Say whether a value of this kind may stand where the table wants that type; null always may."""
    return (
        kind in (wanted, "null")
        or (wanted == "Number" and kind == "Integer")
        or (wanted == "Boolean/String" and kind in ("Boolean", "String"))
    )


def coerce(text: bytes, wanted: FieldType) -> bytes | None:
    """Convert a value that does not suit; None where that would lose something."""
    return _CONVERT[wanted](text)


def _to_string(text: bytes) -> bytes | None:
    return None if text[0] in b"{[" else b'"%b"' % text


def _unquoted(text: bytes) -> bytes:
    if text[0] != ord('"'):
        return text
    return msgspec.json.decode(text, type=str).encode()


def _to_boolean(text: bytes) -> bytes | None:
    word = _unquoted(text).lower()
    if word in (b"true", b"false"):
        return word
    return {b"1": b"true", b"0": b"false"}.get(text)


def _to_number(text: bytes) -> bytes | None:
    word = _unquoted(text)
    return word if _NUMBER.fullmatch(word) else None


def _to_integer(text: bytes) -> bytes | None:
    word = _unquoted(text)
    if not _NUMBER.fullmatch(word):
        return None
    if _INTEGER.fullmatch(word):
        return word
    if len(word) > 2 * _MAX_DIGITS:
        return None
    number = Decimal(word.decode())
    if number.adjusted() > _MAX_DIGITS or number != number.to_integral_value():
        return None
    return b"%d" % int(number)


def _to_object(_: bytes) -> bytes | None:
    return None


_CONVERT: Mapping[FieldType, Callable[[bytes], bytes | None]] = {
    "String": _to_string,
    "Boolean": _to_boolean,
    "Number": _to_number,
    "Integer": _to_integer,
    "Object": _to_object,
    "Boolean/String": _to_string,
}


def is_time(text: str) -> bool:
    """Say whether a text is RFC 3339, with a zone and a day that exists."""
    if is_plain_time(text):
        return True
    if _RFC3339.fullmatch(text) is None:
        return False
    try:
        date.fromisoformat(text[:10])
    except ValueError:
        return False
    return True


def coerce_time(text: bytes) -> bytes | None:
    """Convert an epoch, a time without a zone or a day to RFC 3339 in UTC; None if it is no time."""
    word = _unquoted(text).decode().strip()
    if _NUMBER.fullmatch(word.encode()):
        return _from_epoch(word)
    if found := _ZONELESS.fullmatch(word):
        moved = f"{word.replace(' ', 'T')}Z"
    elif found := _DATE.fullmatch(word):
        moved = f"{word}T00:00:00Z"
    elif found := _LOOSE_OFFSET.fullmatch(word):
        moved = f"{found[1].replace(' ', 'T')}{found[9]}{found[10]}:{found[11] or '00'}"
    else:
        moved = word  # RFC 3339 with blanks around it
    return b'"%b"' % moved.encode() if is_time(moved) else None


def _from_epoch(word: str) -> bytes | None:
    """Seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by their size.

    As in `events.parse_time`, seconds end at 10^11 (the year 5138).
    """
    if len(word) > _MAX_DIGITS:
        return None
    number = Decimal(word)
    if number.adjusted() > _MAX_DIGITS:
        return None
    size = abs(number)
    unit = next((unit for bound, unit in _EPOCH_UNITS if size < bound), None)
    if unit is None:
        return None
    micros = number * 10**6 / unit
    try:
        moment = _EPOCH + timedelta(microseconds=int(micros))
    except OverflowError:
        return None
    spec = "milliseconds" if int(micros) % 1000 == 0 else "microseconds"
    return b'"%bZ"' % moment.replace(tzinfo=None).isoformat(timespec=spec).encode()

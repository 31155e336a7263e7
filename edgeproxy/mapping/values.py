"""Values between JSON text and Python, with numbers that keep their spelling until computed with."""

from decimal import Decimal
from math import isfinite
from typing import Any, TypeAlias

import msgspec
from msgspec import Raw

__all__ = ["Number", "Unfit", "Value", "as_text", "decimal_of", "decode", "encode"]


class Number(str):
    """A number with a fraction or exponent, as it is spelled."""

    __slots__ = ()


class Unfit(ValueError):  # noqa: N818 - it is the value that is unfit, not the program
    """A value cannot be what a rule needs; the field is left out. The text never holds the value."""


#: None, bool, int, str, Number, Decimal, or lists and dicts of these.
Value: TypeAlias = Any

_decoder = msgspec.json.Decoder(Any, float_hook=Number)
_encode = msgspec.json.encode
# Beyond this a number is not written out in digits.
_MAX_DIGITS = 400


def decode(text: Raw | bytes) -> Value:
    """Read one JSON value."""
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unfit("it cannot be decoded") from error


def encode(value: Value) -> bytes:
    """Write one JSON value. Raises Unfit for what has no JSON form."""
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return _encode(value)
    if kind is float:
        return _float_text(value)
    if kind is Number:
        return str.encode(value)
    if kind is Decimal:
        return _decimal_text(value).encode()
    if kind is list:
        return b"[%b]" % b",".join([encode(item) for item in value])
    if kind is dict:
        members = [b"%b:%b" % (_encode(key), encode(item)) for key, item in value.items()]
        return b"{%b}" % b",".join(members)
    raise Unfit(f"a {kind.__name__} has no JSON form")


def _float_text(value: float) -> bytes:
    if not isfinite(value):
        raise Unfit("it is not a finite number")
    # 120.0 is written 120, so that a column keeps one type.
    if value.is_integer() and abs(value) < 2**53:
        return b"%d" % int(value)
    return _encode(value)


def _decimal_text(value: Decimal) -> str:
    if not value.is_finite() or abs(value.adjusted()) > _MAX_DIGITS:
        raise Unfit("the number is too large")
    return format(value, "f")


def decimal_of(value: Value) -> Decimal:
    """A number, or a text that spells one, for computing with."""
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        raise Unfit("it is not a number")
    try:
        number = Decimal(value.strip() if isinstance(value, str) else value)
    except ArithmeticError:
        raise Unfit("it is not a number") from None
    _decimal_text(number)
    return number


def as_text(value: Value) -> str:
    """A scalar as text: a number as it is spelled, a boolean as `true` or `false`."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Decimal):
        return _decimal_text(value)
    raise Unfit("it is not a text, number or boolean")

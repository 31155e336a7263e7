"""Transforms: small functions from one value to another, with their options checked beforehand.

`compile_chain` turns what the settings say into one function. Each transform is described by an
entry of `TRANSFORMS`: its options with their kinds and defaults, and how it is built from them.
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from typing import Any

from msgspec import Struct

from edgeproxy.mapping.privacy import e164, normalise, truncate_ip
from edgeproxy.mapping.values import Number, Unfit, Value, as_text, decimal_of

__all__ = ["DROPPED", "TRANSFORMS", "Chain", "Option", "Transform", "run_chain"]

Step = Callable[[Value], Value]
Chain = tuple[Step, ...]


class _Dropped:
    """What `drop` gives: the field is left out on purpose."""


DROPPED = _Dropped()


class Option(Struct, frozen=True):
    """One option of a transform."""

    kind: type
    default: Any = None
    required: bool = False


class Transform(Struct, frozen=True):
    """How a transform is built. `main` is the option that may be given without naming it."""

    build: Callable[..., Step]
    options: Mapping[str, Option] = {}
    main: str | None = None
    keyed: bool = False
    """Needs the key of `[mapping] hmac_key`, or one of its own."""


def run_chain(chain: Sequence[Step], value: Value) -> Value:
    """Run a value through a chain. Raises Unfit; gives DROPPED where the chain says so."""
    for step in chain:
        value = step(value)
    return value


def _each(one: Callable[[Value], Value]) -> Step:
    """A transform of scalars; of a list it transforms each element."""

    def step(value: Value) -> Value:
        return [one(item) for item in value] if isinstance(value, list) else one(value)

    return step


def _texts(change: Callable[[str], Value]) -> Step:
    return _each(lambda value: change(as_text(value)))


# --- texts ---


def _substring(start: int, length: int | None) -> Step:
    if length is not None and length < 0:
        raise ValueError("length is below 0")

    def cut(text: str) -> str:
        # A start below zero counts from the end, as far as there is one.
        begin = start if start >= 0 else max(len(text) + start, 0)
        return text[begin:] if length is None else text[begin : begin + length]

    return _texts(cut)


def _replace(old: str, new: str) -> Step:
    if not old:
        raise ValueError("old is empty, which stands everywhere")
    return _texts(lambda text: text.replace(old, new))


def _split(separator: str) -> Step:
    if not separator:
        raise ValueError("separator is empty")

    def split(value: Value) -> Value:
        return as_text(value).split(separator)

    return split


def _join(separator: str) -> Step:
    def join(value: Value) -> Value:
        items = value if isinstance(value, list) else [value]
        return separator.join([as_text(item) for item in items if item is not None])

    return join


def _pluck(key: str) -> Step:
    def one(value: Value) -> Value:
        if not isinstance(value, dict):
            raise Unfit("it is not an object")
        return value.get(key)

    def pluck(value: Value) -> Value:
        if isinstance(value, list):
            return [item[key] for item in value if isinstance(item, dict) and key in item]
        return one(value)

    return pluck


# --- types ---


def _boolean(value: Value) -> Value:
    if isinstance(value, bool):
        return value
    word = as_text(value).strip().lower()
    if word in ("true", "1", "yes", "on"):
        return True
    if word in ("false", "0", "no", "off", ""):
        return False
    raise Unfit("it is neither true nor false")


def _float(value: Value) -> Value:
    decimal_of(value)
    return value if isinstance(value, int | Number | Decimal) else Number(_json_number(value))


_PLAIN_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)


def _json_number(text: str) -> str:
    text = text.strip()
    return text if _PLAIN_NUMBER.fullmatch(text) else format(decimal_of(text), "f")


_MOST_DIGITS = 20


def _integer(rounding: str) -> Step:
    return _each(lambda value: int(decimal_of(value).to_integral_value(rounding)))


def _truncate_float(digits: int) -> Step:
    if not 0 <= digits <= _MOST_DIGITS:
        raise ValueError(f"digits is not between 0 and {_MOST_DIGITS}")
    unit = Decimal(1).scaleb(-digits)

    def cut(value: Value) -> Value:
        try:
            return decimal_of(value).quantize(unit, ROUND_DOWN)
        except ArithmeticError:
            raise Unfit("the number is too large") from None

    return _each(cut)


# --- privacy ---


def _digest(algorithm: str) -> Callable[..., Step]:
    def build(*, normalise: bool) -> Step:
        prepare = _prepare(normalise)

        def one(text: str) -> str:
            # md5 is offered because partners ask for it, not for security.
            return hashlib.new(algorithm, prepare(text), usedforsecurity=False).hexdigest()

        return _texts(one)

    return build


def _hash(algorithm: str, *, normalise: bool) -> Step:
    if algorithm not in ("sha256", "sha512", "sha1", "md5"):
        raise ValueError(f'algorithm {algorithm!r} is not "sha256", "sha512", "sha1" or "md5"')
    return _digest(algorithm)(normalise=normalise)


def _hmac_sha256(key: str, *, normalise: bool) -> Step:
    prepare, secret = _prepare(normalise), key.encode()
    return _texts(lambda text: hmac.digest(secret, prepare(text), "sha256").hex())


def _prepare(wanted: bool) -> Callable[[str], bytes]:
    if wanted:
        return lambda text: normalise(text).encode()
    return str.encode


def _drop() -> Step:
    return lambda _: DROPPED


def _mask(start: int, end: int, character: str) -> Step:
    if start < 0 or end < 0:
        raise ValueError("start and end are how many characters stay visible: 0 or more")
    if len(character) != 1:
        raise ValueError("character is not one character")

    def mask(text: str) -> str:
        # As many as are hidden, unless nothing is shown: then the length is hidden too.
        if not start and not end:
            return character * 3
        hidden = len(text) - start - end
        # Too short to hide anything: nothing is shown.
        if hidden < 1:
            return character * len(text)
        return text[:start] + character * hidden + text[len(text) - end :]

    return _texts(mask)


def _plain(step: Step) -> Transform:
    return Transform(lambda: step)


_NORMALISE = {"normalise": Option(bool, default=True)}

TRANSFORMS: Mapping[str, Transform] = {
    "join": Transform(_join, {"separator": Option(str, default=",")}, "separator"),
    "lower": _plain(_texts(str.lower)),
    "upper": _plain(_texts(str.upper)),
    "trim": _plain(_texts(str.strip)),
    "split": Transform(_split, {"separator": Option(str, required=True)}, "separator"),
    "substring": Transform(
        _substring, {"start": Option(int, default=0), "length": Option(int)}, "start"
    ),
    "replace": Transform(
        _replace, {"old": Option(str, required=True), "new": Option(str, default="")}
    ),
    "pluck": Transform(_pluck, {"key": Option(str, required=True)}, "key"),
    "to_string": _plain(_texts(lambda text: text)),
    "to_boolean": _plain(_each(_boolean)),
    "to_float": _plain(_each(_float)),
    "round": _plain(_integer(ROUND_HALF_UP)),
    "truncate": _plain(_integer(ROUND_DOWN)),
    "truncate_float": Transform(_truncate_float, {"digits": Option(int, default=2)}, "digits"),
    "hash": Transform(
        _hash, {"algorithm": Option(str, default="sha256"), **_NORMALISE}, "algorithm"
    ),
    "sha256": Transform(_digest("sha256"), _NORMALISE),
    "hmac_sha256": Transform(_hmac_sha256, _NORMALISE, keyed=True),
    "e164": _plain(_texts(e164)),
    "drop": Transform(_drop),
    "mask": Transform(
        _mask,
        {
            "start": Option(int, default=0),
            "end": Option(int, default=0),
            "character": Option(str, default="*"),
        },
    ),
    "truncate_ip": _plain(_texts(truncate_ip)),
}

"""Kinds of settings: how each is read from TOML, from an environment variable, and written.

A kind's `read` raises ValueError with one clause that says what is wrong and what would be right.
It names the value, except for secrets. (ValueError also where a type is wrong: for whoever wrote
the file it is the value that is; hence the exceptions to TRY004.)
"""

import json
import math
import re
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

import msgspec

__all__ = [
    "Kind",
    "Network",
    "choice",
    "count",
    "duration",
    "file_name",
    "flag",
    "folder",
    "keys",
    "name",
    "networks",
    "origins",
    "pattern",
    "secret",
    "size",
    "text",
    "url",
]

_DURATIONS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12} | {
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_MEASURE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")
# What may stand in a Basic user name and in a header: visible ASCII without the colon.
_KEY = re.compile(r"[!-9;-~]+")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Network = IPv4Network | IPv6Network
N = TypeVar("N", int, float)


class Kind(msgspec.Struct, frozen=True):
    """How one setting is read and written."""

    read: Callable[[object], Any]
    """From what TOML holds. Raises ValueError."""
    write: Callable[[Any], str] = lambda value: json.dumps(value, ensure_ascii=False)
    """As it is spelled in TOML."""
    from_text: Callable[[str], object] = str
    """From the text of an environment variable or of a secret's file to what TOML would hold."""
    secret: bool = False
    """Masked wherever it is shown, and may be given as a file."""
    file: bool = False
    """A path to a file that must be readable."""


def _show(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{_show(value)} is not a text: put it in quotes")  # noqa: TRY004
    return value.strip()


def _trim(number: float) -> str:
    return f"{number:.3f}".rstrip("0").rstrip(".")


def _duration_text(seconds: float) -> str:
    if seconds <= 0:
        return '"0s"'
    for unit, factor in reversed(_DURATIONS.items()):
        # The largest unit that says it without a fraction; two days and more are days.
        if seconds >= factor and math.isclose(seconds / factor, round(seconds / factor)):
            return f'"{round(seconds / factor)}{unit}"'
    return f'"{_trim(seconds)}s"'


def _size_text(size: int | None) -> str:
    if not size:
        return '""' if size is None else '"0B"'
    best = "B"
    for unit in ("kB", "KiB", "MB", "MiB", "GB", "GiB", "TB", "TiB"):
        if size % _SIZES[unit.lower()] == 0:
            best = unit.replace("k", "K")
    return f'"{size // _SIZES[best.lower()]}{best}"'


def _measure(value: object, units: dict[str, Any], default: str, example: str) -> float:
    wrong = f"{_show(value)} is not {example}"
    if isinstance(value, bool):
        raise ValueError(wrong)  # noqa: TRY004
    if isinstance(value, int | float):
        number, unit = float(value), default
    elif isinstance(value, str) and (found := _MEASURE.fullmatch(value)):
        number, unit = float(found[1]), found[2].lower() or default
    else:
        raise ValueError(wrong)
    if unit not in units or not math.isfinite(number):
        raise ValueError(wrong)
    return number * float(units[unit])


def _bounded(value: N, low: N, high: N, write: Callable[[N], str]) -> N:
    if not low <= value <= high:
        raise ValueError(f"{write(value)} is not between {write(low)} and {write(high)}")
    return value


def duration(low: float, high: float) -> Kind:
    """Seconds as a float, from "250ms", "5s", "10m", "7d" or a number of seconds."""

    def read(value: object) -> float:
        seconds = _measure(
            value, _DURATIONS, "s", 'a duration such as "250ms", "5s", "10m" or "7d"'
        )
        return float(_bounded(round(seconds, 6), low, high, _duration_text))

    return Kind(read, _duration_text)


def size(low: int, high: int = 2**50, *, optional: bool = False) -> Kind:
    """Bytes as an int, from "96KB" (1000), "1GiB" (1024) or a number of bytes."""

    def read(value: object) -> int | None:
        if optional and value == "":
            return None
        wanted = _measure(value, _SIZES, "b", 'a size such as "96KB", "4MiB" or a number of bytes')
        return int(_bounded(int(wanted), low, high, _size_text))

    return Kind(read, _size_text)


def count(low: int, high: int) -> Kind:
    """A whole number between two bounds."""

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            wrong = f"{_show(value)} is not a whole number between {low} and {high}"
            raise ValueError(wrong)  # noqa: TRY004
        return int(_bounded(value, low, high, str))

    def from_text(value: str) -> object:
        return int(value) if re.fullmatch(r"[+-]?\d{1,18}", value.strip()) else value

    return Kind(read, str, from_text)


def flag() -> Kind:
    """True or false."""

    def read(value: object) -> bool:
        if not isinstance(value, bool):
            raise ValueError(f"{_show(value)} is not true or false")  # noqa: TRY004
        return value

    words: dict[str, object] = {"true": True, "1": True, "false": False, "0": False}
    return Kind(
        read, lambda value: str(value).lower(), lambda word: words.get(word.strip().lower(), word)
    )


def text() -> Kind:
    """Any text; surrounding space is taken off."""
    return Kind(_text)


def choice(*words: str) -> Kind:
    """One of a few words."""
    listed = " or ".join(", ".join(_show(word) for word in words).rsplit(", ", 1))

    def read(value: object) -> str:
        if value not in words:
            raise ValueError(f"{_show(value)} is not {listed}")
        return str(value)

    return Kind(read)


def pattern(expression: str, example: str) -> Kind:
    """A text of a given form; the example ends the sentence "… is not"."""

    def read(value: object) -> str:
        found = _text(value)
        if not re.fullmatch(expression, found):
            raise ValueError(f"{_show(found)} is not {example}")
        return found

    return Kind(read)


def name() -> Kind:
    """A source's name: it is a label of metrics and part of mapping tables."""
    return pattern(_NAME.pattern, "a name of letters, digits, dots, dashes and underscores")


def _split(value: str) -> SplitResult:
    try:
        parts = urlsplit(value)
        _ = parts.port  # raises for a port that is not a number
    except ValueError as error:
        raise ValueError(f"{_show(value)} is not a URL ({error})") from error
    return parts


def url(*schemes: str, example: str, login: bool = False, path: bool = False) -> Kind:
    """A URL's beginning, without a trailing slash; empty for none. A login is never shown."""

    def read(value: object) -> str:
        found = _text(value)
        if not found:
            return ""
        parts = _split(found)
        shown = "the value" if parts.username or parts.password else _show(found)
        if parts.scheme not in schemes or not parts.hostname:
            raise ValueError(f"{shown} does not begin with a scheme and a host, as {example} does")
        if (parts.username or parts.password) and not login:
            raise ValueError("holds a user name or password, which has no meaning here")
        if (parts.path.strip("/") and not path) or parts.query or parts.fragment:
            raise ValueError(f"{shown} has more than a scheme and a host; write it as {example}")
        return found.rstrip("/")

    def write(value: str) -> str:
        return _show(re.sub(r"//[^/@]*@", "//…@", value))

    return Kind(read, write)


def file_name() -> Kind:
    """A file that the process must be able to read; empty for none."""
    return Kind(
        lambda value: Path(found) if (found := _text(value)) else None,
        lambda value: _show(str(value) if value else ""),
        file=True,
    )


def folder() -> Kind:
    """A folder, which need not exist yet."""

    def read(value: object) -> Path:
        if not (found := _text(value)):
            raise ValueError("is empty: name a folder")
        return Path(found)

    return Kind(read, lambda value: _show(str(value)))


def secret() -> Kind:
    """A text that is never shown; empty for none."""

    def read(value: object) -> str:
        if not isinstance(value, str) or (value.strip() and not _KEY.fullmatch(value.strip())):
            raise ValueError("is not a text of visible ASCII characters without spaces and colons")
        return value.strip()

    return Kind(read, secret=True)


def keys() -> Kind:
    """One secret or, while keys are being rotated, a list of them."""
    one = secret().read

    def read(value: object) -> tuple[str, ...]:
        values = value if isinstance(value, list) else [value]
        return tuple(dict.fromkeys(found for found in map(one, values) if found))

    return Kind(read, _list, lambda found: list(found.split()), secret=True)


def _list(values: Sequence[object]) -> str:
    return "[" + ", ".join(_show(str(value)) for value in values) + "]"


def _listed(read_one: Callable[[str], Any]) -> Kind:
    def read(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise ValueError(f"{_show(value)} is not a list")  # noqa: TRY004
        return tuple(read_one(_text(item)) for item in value)

    return Kind(read, _list, lambda value: [item for item in re.split(r"[\s,]+", value) if item])


def networks() -> Kind:
    """IP networks or addresses."""

    def one(value: str) -> Network:
        try:
            return ip_network(value)
        except ValueError as error:
            raise ValueError(
                f'{_show(value)} is not an address or network such as "10.0.0.0/8" ({error})'
            ) from error

    return _listed(one)


def origins() -> Kind:
    """Origins as browsers send them, or "*"."""

    def one(value: str) -> str:
        if value == "*":
            return value
        parts = _split(value)
        if not parts.scheme or not parts.hostname or value.count("/") != 2 or "@" in value:
            raise ValueError(f'{_show(value)} is not an origin such as "https://shop.example.com"')
        return value.lower()

    return _listed(one)

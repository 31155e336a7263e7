"""The kinds of settings that are numbers, words, files and secrets."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from edgeproxy.config.kind import Kind, show, text_of, write_list

__all__ = [
    "choice",
    "count",
    "duration",
    "file_name",
    "flag",
    "folder",
    "keys",
    "name",
    "pattern",
    "secret",
    "size",
    "text",
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

N = TypeVar("N", int, float)


def _trim(number: float) -> str:
    return f"{number:.3f}".rstrip("0").rstrip(".")


def _duration_text(seconds: float) -> str:
    if seconds <= 0:
        return '"0s"'
    for unit, factor in reversed(_DURATIONS.items()):
        # The largest unit that says it without a fraction.
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
    wrong = f"{show(value)} is not {example}"
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
            wrong = f"{show(value)} is not a whole number between {low} and {high}"
            raise ValueError(wrong)  # noqa: TRY004
        return int(_bounded(value, low, high, str))

    def from_text(value: str) -> object:
        return int(value) if re.fullmatch(r"[+-]?\d{1,18}", value.strip()) else value

    return Kind(read, str, from_text)


def flag() -> Kind:
    """True or false."""

    def read(value: object) -> bool:
        if not isinstance(value, bool):
            raise ValueError(f"{show(value)} is not true or false")  # noqa: TRY004
        return value

    words: dict[str, object] = {"true": True, "1": True, "false": False, "0": False}
    return Kind(
        read, lambda value: str(value).lower(), lambda word: words.get(word.strip().lower(), word)
    )


def text() -> Kind:
    """Any text; surrounding space is taken off."""
    return Kind(text_of)


def choice(*words: str) -> Kind:
    """One of a few words."""
    listed = " or ".join(", ".join(show(word) for word in words).rsplit(", ", 1))

    def read(value: object) -> str:
        if value not in words:
            raise ValueError(f"{show(value)} is not {listed}")
        return str(value)

    return Kind(read)


def pattern(expression: str, example: str) -> Kind:
    """A text of a given form; the example ends the sentence "… is not"."""

    def read(value: object) -> str:
        found = text_of(value)
        if not re.fullmatch(expression, found):
            raise ValueError(f"{show(found)} is not {example}")
        return found

    return Kind(read)


def name() -> Kind:
    """A source's name: it is a label of metrics and part of mapping tables."""
    return pattern(_NAME.pattern, "a name of letters, digits, dots, dashes and underscores")


def file_name() -> Kind:
    """A file that the process must be able to read; empty for none."""
    return Kind(
        lambda value: Path(found) if (found := text_of(value)) else None,
        lambda value: show(str(value) if value else ""),
        file=True,
    )


def folder() -> Kind:
    """A folder, which need not exist yet."""

    def read(value: object) -> Path:
        if not (found := text_of(value)):
            raise ValueError("is empty: name a folder")
        return Path(found)

    return Kind(read, lambda value: show(str(value)))


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

    return Kind(read, write_list, lambda found: list(found.split()), secret=True)

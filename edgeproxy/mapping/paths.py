"""Paths into an event: `properties.total`, `context."odd.key"`, `properties.products[].price`."""

import enum
import re
from typing import Final, Literal

__all__ = ["EVERY", "Path", "Segment", "parse_path", "show_path"]


class _Every(enum.Enum):
    EVERY = "[]"


#: `[]`: every element of an array.
EVERY: Final = _Every.EVERY

Segment = str | int | Literal[_Every.EVERY]
#: Never empty, and begins with the name of a top-level field.
Path = tuple[Segment, ...]

_SEGMENT = re.compile(r'(?:^|\.)(?:"((?:[^"\\]|\\.)*)"|([^.\[\]"\s][^.\[\]"]*))|\[(\d{0,3})\]')
_PLAIN = re.compile(r'[^.\[\]"\s][^.\[\]"]*')
_MAX_SEGMENTS = 32


def parse_path(text: str) -> Path:
    """Read a path. Raises ValueError with a clause that says what is wrong."""
    segments: list[Segment] = []
    at = 0
    while at < len(text):
        found = _SEGMENT.match(text, at)
        if found is None or (at == 0 and text[0] in ".["):
            raise ValueError(f"{text!r} is not a path: near {text[at:]!r}")
        if found[3] is not None:
            segments.append(int(found[3]) if found[3] else EVERY)
        elif found[1] is not None:
            segments.append(re.sub(r"\\(.)", r"\1", found[1]))
        else:
            segments.append(found[2].rstrip())
        at = found.end()
    if not segments:
        raise ValueError("a path is empty")
    if len(segments) > _MAX_SEGMENTS:
        raise ValueError(f"{text!r} has more than {_MAX_SEGMENTS} parts")
    return tuple(segments)


def show_path(path: Path) -> str:
    """Write a path as it would be written in the settings."""
    text = ""
    for segment in path:
        if segment is EVERY:
            text += "[]"
        elif isinstance(segment, int):
            text += f"[{segment}]"
        else:
            name = segment if isinstance(segment, str) else ""
            if not _PLAIN.fullmatch(name):
                name = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
            text += f".{name}" if text else name
    return text

"""Edits as they come together: a path and a value at a time."""

from edgeproxy.mapping.objects import Edits, Text, edit
from edgeproxy.mapping.paths import EVERY, Path

__all__ = ["put_in", "take_out"]


def put_in(edits: Edits, path: Path, text: Text | None) -> None:
    """Note a new value at a path; None takes out what is there."""
    level = edits
    for at, segment in enumerate(path[:-1], 1):
        assert segment is not EVERY  # noqa: S101 - places have been filled in
        inner = level.get(segment, level)
        if inner is level:
            inner = level[segment] = {}
        if not isinstance(inner, dict):
            # An outer key was supplied as a whole: this one is written into it.
            below: Edits = {}
            put_in(below, path[at:], text)
            level[segment] = edit(inner, below)
            return
        level = inner
    last = path[-1]
    assert last is not EVERY  # noqa: S101 - as above
    level[last] = text


def take_out(edits: Edits, path: Path) -> None:
    """As `put_in` with nothing, unless something was put there or around it."""
    level = edits
    for segment in path[:-1]:
        assert segment is not EVERY  # noqa: S101 - as above
        inner = level.setdefault(segment, {})
        if not isinstance(inner, dict):
            return
        level = inner
    last = path[-1]
    assert last is not EVERY  # noqa: S101 - as above
    level.setdefault(last, None)

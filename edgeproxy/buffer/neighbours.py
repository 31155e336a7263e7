"""Buffers beside a proxy's own that nobody delivers from.

A proxy that was started alone leaves its events in `data` when `--instance 1` begins in `data/1`, and
the other way round: on disk, safe, and noticed by nobody.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
from msgspec import Struct

from edgeproxy.buffer.base import BufferUnusableError
from edgeproxy.buffer.database import DATABASE
from edgeproxy.buffer.inspecting import contents

__all__ = ["Stranded", "stranded"]


class Stranded(Struct, frozen=True):
    """Events that no process delivers."""

    folder: Path
    events: int


def stranded(folder: Path) -> list[Stranded]:
    """What lies above a buffer's folder, and in numbered folders inside it, and no process holds.

    Blocks. What cannot be read is left out.
    """
    own = folder.absolute()
    found = []
    for other in (own.parent, *_numbered(own)):
        events = _undelivered(other)
        if events:
            found.append(Stranded(other, events))
    return found


def _numbered(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.name.isdecimal())
    except OSError:
        return []


def _undelivered(folder: Path) -> int:
    try:
        with _free(folder) as is_free:
            if is_free and (folder / DATABASE).is_file():
                return sum(lane.events for lane in contents(folder).lanes)
    except (OSError, apsw.Error, BufferUnusableError):
        return 0
    return 0


@contextmanager
def _free(folder: Path) -> Iterator[bool]:
    """Hold a folder's lock if no process has it; a proxy that starts meanwhile waits for us."""
    with (folder / "lock").open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True

"""Setting a damaged database aside, before SQLite touches it.

SQLite deletes the WAL of a database that is empty or missing, and with it acknowledged events: so
the files are looked at first, and database and WAL always move together. What was set aside is
called `events.sqlite.damaged-<time>` (and `…-wal`); once everything that can be read of it is back
in the buffer, `.salvaged` is added to the name. Nothing here ever deletes one.
"""

import time
from pathlib import Path

from edgeproxy.buffer.base import BufferUnusableError
from edgeproxy.buffer.database import APPLICATION_ID, DATABASE, PAGE
from edgeproxy.buffer.folder import sync_folder

__all__ = ["AFTER", "finish", "judge", "name_for", "not_salvaged", "set_aside"]

#: In the name of a WAL that is kept for what lies behind so many frames.
AFTER = ".after-"

_MAGIC = b"SQLite format 3\0"
_WAL_HEADER = 32
_DONE = ".salvaged"


def judge(folder: Path) -> str | None:
    """Why the files in a folder must not be opened, in words; None where they can be, or are none.

    Raises BufferUnusableError for a sound database of another program: that is left alone.
    """
    path = folder / DATABASE
    wal = path.with_name(DATABASE + "-wal")
    has_wal = wal.exists() and wal.stat().st_size > _WAL_HEADER
    if not path.exists():
        return "the database is missing, its WAL is not" if has_wal else None
    with path.open("rb") as file:
        header = file.read(100)
    if not header:
        return "the database is empty"
    if len(header) < 100 or not header.startswith(_MAGIC):
        return "it is no SQLite database"
    page = int.from_bytes(header[16:18], "big")
    ours = APPLICATION_ID.to_bytes(4, "big")
    if page != PAGE and header[68:72] == ours:
        return "its page size is wrong"
    if sum(a == b for a, b in zip(header[68:72], ours, strict=True)) < 3:
        raise BufferUnusableError(f"{path}: is no buffer of edgeproxy; move it away")
    if header[68:72] != ours:
        return "its application id is wrong"
    return None


def name_for(folder: Path, suffix: str = "") -> Path:
    """A name that nothing in the folder has, for what is set aside now."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    number = 0
    while True:
        aside = folder / f"{DATABASE}.damaged-{stamp}{f'-{number}' if number else ''}{suffix}"
        if not any(folder.glob(aside.name + "*")):
            return aside
        number += 1


def set_aside(folder: Path) -> Path | None:
    """Move a database and its WAL to a name that says what they are; that of the database.

    Nothing may have them open for writing any more. None where neither is there.
    """
    aside, moved = name_for(folder), None
    # The WAL first: a database without it is salvaged as such, a WAL without its database could be
    # deleted by whoever opens a new one in between.
    for suffix in ("-wal", ""):
        source = folder / (DATABASE + suffix)
        if source.exists():
            source.rename(aside.with_name(aside.name + suffix))
            moved = aside
    (folder / (DATABASE + "-shm")).unlink(missing_ok=True)
    sync_folder(folder)
    return moved


def not_salvaged(folder: Path) -> list[Path]:
    """Databases that were set aside and are not salvaged yet, the oldest first."""
    names = {
        name.removesuffix("-wal")
        for path in folder.glob(f"{DATABASE}.damaged-*")
        if not (name := path.name).endswith(_DONE) and not path.with_name(name + _DONE).exists()
    }
    return sorted(folder / name for name in names)


def finish(aside: Path) -> None:
    """Note that everything readable is back in the buffer, durably."""
    for suffix in ("-wal", ""):
        source = aside.with_name(aside.name + suffix)
        if source.exists():
            source.rename(source.with_name(source.name + _DONE))
    sync_folder(aside.parent)

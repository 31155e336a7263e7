"""One buffer's database: making, migrating and opening it, and the three connections to it.

One connection writes (owned by the committer), one reads (on the event loop: claims), one
checkpoints in a thread of its own so that no commit waits for it. Two connections may only do that
at once with an SQLite that has the WAL-reset fix, which is why it comes with us.
"""

import os
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import apsw

from edgeproxy.buffer.base import BufferUnusableError
from edgeproxy.buffer.faults import BufferDamagedError
from edgeproxy.buffer.folder import sync_folder

__all__ = [
    "APPLICATION_ID",
    "DATABASE",
    "PAGE",
    "SCHEMA_VERSION",
    "Database",
    "connect",
    "make",
    "remove",
    "require_sqlite",
]

DATABASE = "events.sqlite"
APPLICATION_ID = 0x45445058  # "EDPX", in the database's header
SCHEMA_VERSION = 1
PAGE = 16384  # bytes; suits events of 1-2 KB

_MINIMUM_SQLITE = (3, 51, 3)  # sqlite.org/wal.html, "The WAL-Reset Bug"

#: Steps from each older schema to the next; data of events is never deleted by one.
_MIGRATIONS: dict[int, Callable[[apsw.Connection], None]] = {}


class Database:
    """The connections to one open database."""

    def __init__(self, path: Path, *, durable: bool) -> None:
        """Open and migrate; raises BufferUnusableError for one of a newer version, or apsw.Error."""
        self.path = path
        self.wal = path.with_name(path.name + "-wal")
        self._open: list[apsw.Connection] = []
        try:
            self.writer = self._connect(durable=durable)
            _check_version(self.writer, path)
            self.reader = self._connect(read_only=True)
            self.checkpointer = self._connect()
        except BaseException:
            self.close()
            raise

    def _connect(self, *, durable: bool = True, read_only: bool = False) -> apsw.Connection:
        connection = connect(self.path, durable=durable, read_only=read_only)
        self._open.append(connection)
        return connection

    @property
    def is_open(self) -> bool:
        """Not closed yet."""
        return bool(self._open)

    def further_reader(self) -> apsw.Connection:
        """Another connection that only reads; its caller closes it, before this database is closed."""
        return connect(self.path, read_only=True)

    def close(self, *, untouched: bool = False) -> None:
        """Close all connections; the last one checkpoints and removes the WAL, unless `untouched`."""
        for connection in reversed(self._open):
            if untouched:
                connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            connection.close(True)
        self._open.clear()

    # --- sizes ------------------------------------------------------------------------------------

    def pages(self) -> tuple[int, int]:
        """Free pages and all pages."""
        return (
            int(self.reader.pragma("freelist_count")),
            int(self.reader.pragma("page_count")),
        )

    def wal_size(self) -> int:
        """Bytes of the WAL file."""
        try:
            return os.stat(self.wal).st_size  # noqa: PTH116 - once a commit: the cheapest way
        except FileNotFoundError:
            return 0

    def valid_frames(self) -> int:
        """Frames of the WAL that SQLite takes as committed (walformat.html, "mxFrame")."""
        shared = self.path.with_name(self.path.name + "-shm")
        with shared.open("rb") as file:
            return int.from_bytes(file.read(20)[16:20], sys.byteorder)

    def size(self) -> int:
        """Bytes as `max_size` counts them: database plus WAL less free pages."""
        free, pages = self.pages()
        return (pages - free) * PAGE + self.wal_size()


def connect(path: Path, *, durable: bool = True, read_only: bool = False) -> apsw.Connection:
    """Open one connection to a buffer's database, set up as every connection of ours is."""
    flags = apsw.SQLITE_OPEN_READONLY if read_only else apsw.SQLITE_OPEN_READWRITE
    connection = apsw.Connection(str(path), flags=flags)
    connection.set_busy_timeout(5000)
    connection.execute(f"pragma synchronous = {'full' if durable else 'normal'}")
    connection.execute("pragma cache_size = -8000")
    connection.wal_autocheckpoint(0)  # another connection checkpoints, off the commit path
    return connection


def make(path: Path, *, first_sequence: int = 1) -> None:
    """Make a new database under another name and put it in place whole, so that none is half made.

    `first_sequence` is where lanes begin to number their events.
    """
    fresh = path.with_suffix(".new")
    for suffix in ("", "-wal", "-shm", "-journal"):
        fresh.with_name(fresh.name + suffix).unlink(missing_ok=True)
    os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    connection = apsw.Connection(str(fresh))
    connection.execute(f"pragma page_size = {PAGE}")
    # So that a drained backlog's space returns.
    connection.execute("pragma auto_vacuum = incremental")
    connection.execute("pragma journal_mode = wal")
    with connection:
        connection.execute((resources.files(__package__) / "schema.sql").read_text())
        connection.execute(
            "insert into totals values ('first_sequence', ?), ('schema', ?)",
            (first_sequence, SCHEMA_VERSION),
        )
        if first_sequence > 1:  # dead letters of an earlier database keep their numbers, too
            connection.execute(
                "insert into sqlite_sequence values ('dead_letters', ?)", (first_sequence,)
            )
        connection.execute(f"pragma application_id = {APPLICATION_ID}")
        connection.execute(f"pragma user_version = {SCHEMA_VERSION}")
    connection.close()
    fresh.rename(path)
    sync_folder(path.parent)


def remove(path: Path) -> None:
    """Delete a database that holds nothing yet, and that nothing has open. Raises OSError."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def require_sqlite() -> None:
    """Raise BufferUnusableError where the SQLite at hand loses commits."""
    version = tuple(int(part) for part in apsw.sqlite_lib_version().split("."))
    if version < _MINIMUM_SQLITE:
        raise BufferUnusableError(
            f"SQLite {apsw.sqlite_lib_version()} can lose commits (the WAL-reset bug); "
            "install a newer apsw"
        )


def _check_version(connection: apsw.Connection, path: Path) -> None:
    version = connection.pragma("user_version")
    told_twice = connection.execute("select value from totals where name = 'schema'").fetchone()
    if told_twice is None or version != told_twice[0]:
        raise BufferDamagedError(f"damaged: schema {version}, or is it {told_twice}?")
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise BufferUnusableError(
            f"{path}: was written by a newer edgeproxy (schema {version}, this one knows up to "
            f"{SCHEMA_VERSION}); install that version again to read it"
        )
    for step in range(version, SCHEMA_VERSION):
        with connection:  # one transaction a step: migrated whole or not at all
            _MIGRATIONS[step](connection)
            connection.execute(f"pragma user_version = {step + 1}")
            connection.execute("update totals set value = ? where name = 'schema'", (step + 1,))

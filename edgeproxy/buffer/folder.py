"""The folder that a buffer lives in: who may use it, what lies in it, and opening its database."""

import asyncio
import fcntl
import os
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import apsw

from edgeproxy.buffer.base import BufferHeldError, BufferUnusableError

__all__ = ["APPLICATION_ID", "DATABASE", "SCHEMA_VERSION", "Lock", "connect", "open_database"]

DATABASE = "events.sqlite"
APPLICATION_ID = 0x45445058  # "EDPX", in the database's header
SCHEMA_VERSION = 1

#: File systems whose locks or shared memory SQLite's WAL cannot trust (sqlite.org/wal.html:
#: "WAL does not work over a network filesystem").
_NETWORK = ("nfs", "cifs", "smb", "9p", "ceph", "gluster", "lustre", "afs", "fuse.sshfs", "beegfs")

#: Steps from each older schema to the next; data of events is never deleted by one.
_MIGRATIONS: dict[int, Callable[[apsw.Connection], None]] = {}


class Lock:
    """The exclusive right to a buffer's folder, held until closed; the kernel frees it on a crash."""

    def __init__(self, folder: Path) -> None:
        """Prepare the folder (mode 0700)."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._refuse_network(folder)
            self._fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise BufferUnusableError(f"{folder}: {error.strerror}; see [buffer] path") from None
        self._folder = folder

    async def acquire(self, patience: float = 10.0) -> None:
        """Wait at most `patience` seconds for another process to end; raises BufferHeldError."""
        until = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until:
                    os.close(self._fd)
                    raise BufferHeldError(
                        f"{self._folder}: held by another process (waited {patience:.0f} s); "
                        "stop that one, or give this one a folder of its own in [buffer] path"
                    ) from None
                await asyncio.sleep(0.1)
            else:
                return

    def release(self) -> None:
        """Let another process have the folder."""
        os.close(self._fd)

    @staticmethod
    def _refuse_network(folder: Path) -> None:
        kind = _file_system(folder.resolve(), Path("/proc/mounts"))
        if kind.startswith(_NETWORK):
            raise BufferUnusableError(
                f"{folder}: lies on a network file system ({kind}), where SQLite's WAL is not safe; "
                "set [buffer] path to a local disk"
            )


def _file_system(folder: Path, mounts: Path) -> str:
    """The type of the file system that holds `folder`; empty where the kernel does not tell."""
    best, kind = -1, ""
    try:
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        _, point, name, *_ = line.split(" ")
        point = point.encode().decode("unicode_escape")  # blanks are written \040
        if folder.is_relative_to(point) and len(point) >= best:
            best, kind = len(point), name
    return kind


def connect(path: Path, *, durable: bool = True, read_only: bool = False) -> apsw.Connection:
    """Open one connection to a buffer's database, set up as every connection of ours is."""
    flags = apsw.SQLITE_OPEN_READONLY if read_only else apsw.SQLITE_OPEN_READWRITE
    connection = apsw.Connection(str(path), flags=flags)
    connection.set_busy_timeout(5000)
    connection.execute(f"pragma synchronous = {'full' if durable else 'normal'}")
    connection.execute("pragma cache_size = -8000")
    connection.wal_autocheckpoint(0)  # another connection checkpoints, off the commit path
    return connection


def open_database(folder: Path, *, durable: bool) -> apsw.Connection:
    """Open a folder's database for writing, making or migrating it first.

    Raises:
        BufferUnusableError: it is of a newer version, or is no buffer of ours.
    """
    path = folder / DATABASE
    if not path.exists():
        _create(path)
    connection = connect(path, durable=durable)
    try:
        _check_version(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _create(path: Path) -> None:
    """Make a new database under another name and put it in place whole, so that none is half made."""
    fresh = path.with_suffix(".new")
    for suffix in ("", "-wal", "-shm", "-journal"):
        fresh.with_name(fresh.name + suffix).unlink(missing_ok=True)
    os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    connection = apsw.Connection(str(fresh))
    connection.execute("pragma page_size = 16384")  # suits events of 1-2 KB
    connection.execute(
        "pragma auto_vacuum = incremental"
    )  # so that a drained backlog's space returns
    connection.execute("pragma journal_mode = wal")
    with connection:
        connection.execute((resources.files(__package__) / "schema.sql").read_text())
        connection.execute(f"pragma application_id = {APPLICATION_ID}")
        connection.execute(f"pragma user_version = {SCHEMA_VERSION}")
    connection.close()
    fresh.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _check_version(connection: apsw.Connection, path: Path) -> None:
    try:
        application, version = (connection.pragma(p) for p in ("application_id", "user_version"))
    except apsw.NotADBError:
        raise BufferUnusableError(f"{path}: is no SQLite database; move it away") from None
    if application != APPLICATION_ID:
        raise BufferUnusableError(f"{path}: is no buffer of edgeproxy; move it away")
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise BufferUnusableError(
            f"{path}: was written by a newer edgeproxy (schema {version}, this one knows up to "
            f"{SCHEMA_VERSION}); install that version again to read it"
        )
    for step in range(version, SCHEMA_VERSION):
        with connection:  # one transaction a step: migrated whole or not at all
            _MIGRATIONS[step](connection)
            connection.execute(f"pragma user_version = {step + 1}")

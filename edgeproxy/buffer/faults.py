"""SQLite's errors in the words of the buffer: who must do what about them."""

import os

import apsw

from edgeproxy.buffer.base import BufferFaultError, BufferFullError, BufferWriteError

__all__ = ["DISK_FULL", "BufferDamagedError", "is_damage", "translate"]

DISK_FULL = "disk full"


class BufferDamagedError(BufferWriteError):
    """What the file holds contradicts itself: it must be set aside."""


def is_damage(error: apsw.Error) -> bool:
    """Whether an error says that the file is not what it should be, rather than the disk."""
    # A number that is taken (constraint) and a table that is missing (SQL) are damage, too: the
    # statements are right, so it is the file that is wrong.
    damage = (apsw.CorruptError, apsw.NotADBError, apsw.ConstraintError, apsw.SQLError)
    return isinstance(error, damage)


def translate(error: apsw.Error, connection: apsw.Connection) -> BufferFaultError:
    """Say what an error of a connection means to somebody who waits for a transaction."""
    if isinstance(error, apsw.FullError):
        return BufferFullError(DISK_FULL)
    if is_damage(error):
        return BufferDamagedError(f"damaged: {error}")
    cause = ""
    if isinstance(error, apsw.IOError | apsw.CantOpenError) and connection.system_errno:
        # "disk I/O error" is all that SQLite says of a disk that turned read-only.
        cause = f" ({os.strerror(connection.system_errno)})"
    return BufferWriteError(f"cannot be written: {error}{cause}")

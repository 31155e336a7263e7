"""Space that is kept for a full disk, so that what was delivered can always be removed.

SQLite needs space to delete, too: the changed pages go to the WAL first. A file of zeros holds it;
it is given up when the disk is full, and made again once there is space for it twice.
"""

import os
from pathlib import Path

__all__ = ["Reserve", "free_bytes"]

_NAME = "reserve"
_LEAST = 2**20
_MOST = 32 * 2**20


class Reserve:
    """The file, there or given up. Its methods may block for a moment; call them in a thread."""

    def __init__(self, folder: Path, max_size: int) -> None:
        """Decide how large it is: a share of the buffer, but only a small one of the disk."""
        self._path = folder / _NAME
        held = self._path.stat().st_size if self._path.exists() else 0
        room = free_bytes(folder) + held
        self.size = max(min(max_size // 32, room // 8, _MOST), _LEAST)
        self.is_held = held == self.size

    def hold(self) -> bool:
        """Make the file where the disk has space for it twice; whether it is there now."""
        if self.is_held:
            return True
        self._path.unlink(missing_ok=True)
        if free_bytes(self._path.parent) < 2 * self.size:
            return False
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, self.size)
            self.is_held = True
        except OSError:
            self._path.unlink(missing_ok=True)
        finally:
            os.close(fd)
        return self.is_held

    def make_room(self) -> None:
        """Give it up where the disk is so full that SQLite could not even open a database."""
        if free_bytes(self._path.parent) < _LEAST:
            self.give_up()

    def give_up(self) -> None:
        """Let others have the space."""
        self._path.unlink(missing_ok=True)
        self.is_held = False


def free_bytes(folder: Path) -> int:
    """What the disk under a folder has room for."""
    stats = os.statvfs(folder)
    return stats.f_bavail * stats.f_frsize

"""The folder that a buffer lives in: who may use it, one process at a time."""

import asyncio
import fcntl
import os
import time
from pathlib import Path

from edgeproxy.buffer.base import BufferHeldError, BufferUnusableError

__all__ = ["Lock", "sync_folder"]

#: File systems whose locks or shared memory SQLite's WAL cannot trust (sqlite.org/wal.html:
#: "WAL does not work over a network filesystem").
_NETWORK = ("nfs", "cifs", "smb", "9p", "ceph", "gluster", "lustre", "afs", "fuse.sshfs", "beegfs")

#: Of this process: /proc/mounts, a link to it by another way, is hidden by ProcSubset=pid.
_MOUNTS = Path("/proc/self/mounts")


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
        kind = _file_system(folder.resolve(), _MOUNTS)
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


def sync_folder(folder: Path) -> None:
    """Make what was renamed, made or removed in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

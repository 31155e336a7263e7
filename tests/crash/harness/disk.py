"""A disk of our own: ext4 in a file, which can be made read-only under a process that writes.

The kernel refuses `remount,ro` while files are open for writing; what really happens is that ext4
gives up after an error (`errors=remount-ro`). `remount,abort` does that on purpose.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.crash.harness.machine import NotPermittedError

__all__ = ["Disk", "open_disk"]

_SIZE = 48 * 2**20


class Disk:
    """Mounted at `folder` until the block of `open_disk` ends."""

    def __init__(self, image: Path, folder: Path) -> None:
        self.folder = folder
        self._image = image

    def make(self) -> None:
        with self._image.open("wb") as file:
            file.truncate(_SIZE)
        _run("mkfs.ext4", "-q", "-O", "^metadata_csum", str(self._image))
        self.mount()
        (self.folder / "lost+found").rmdir()
        self.folder.chmod(0o700)

    def mount(self) -> None:
        """Mount it, or again: that is what a repair after such an error ends with."""
        _run("mount", "-o", "loop,errors=remount-ro", str(self._image), str(self.folder))

    def unmount(self) -> None:
        _run("umount", str(self.folder))

    def turn_read_only(self) -> None:
        """From now on every write and sync fails with EROFS, of open files too."""
        _run("mount", "-o", "remount,abort", str(self.folder))

    def repair(self) -> None:
        """What an operator does; nothing may have files on it open."""
        self.unmount()
        subprocess.run(["e2fsck", "-p", str(self._image)], check=False, capture_output=True)
        self.mount()


@contextlib.contextmanager
def open_disk(image: Path, folder: Path) -> Iterator[Disk]:
    """Make a disk and mount it; afterwards it is not mounted, whatever has files on it open."""
    if os.geteuid() != 0:
        raise NotPermittedError("mounting needs root")
    folder.mkdir(mode=0o700)
    disk = Disk(image, folder)
    try:
        disk.make()
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        raise NotPermittedError(f"needs {command[0]}") from None
    if done.returncode:
        raise NotPermittedError(f"{' '.join(command)}: {done.stderr.strip()}")

"""A control group whose memory is bounded: beyond it the kernel kills with SIGKILL."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from tests.crash.harness.machine import NotPermittedError

__all__ = ["Group", "open_group"]

_ROOT = Path("/sys/fs/cgroup")


class Group:
    """Of either version of control groups; made and removed by `open_group`."""

    def __init__(self) -> None:
        self._is_v2 = (_ROOT / "cgroup.controllers").exists()
        root = _ROOT if self._is_v2 else _ROOT / "memory"
        self._path = root / f"crash-{os.getpid()}-{secrets.token_hex(4)}"

    def make(self) -> None:
        try:
            self._path.mkdir()
            self.limit(2**40)
        except OSError as error:
            raise NotPermittedError(f"cannot make a control group: {error}") from None

    def remove(self) -> None:
        for _ in range(100):  # the kernel needs a moment for what was killed in it
            try:
                self._path.rmdir()
            except FileNotFoundError:
                return
            except OSError:
                time.sleep(0.02)
            else:
                return

    def join(self) -> None:
        """Move the calling process here: for `preexec_fn`."""
        (self._path / "cgroup.procs").write_text(str(os.getpid()))

    def used(self) -> int:
        """Bytes in use, files in memory included."""
        name = "memory.current" if self._is_v2 else "memory.usage_in_bytes"
        return int((self._path / name).read_text())

    def limit(self, size: int) -> None:
        """Bound what is used, without swap where there is any."""
        name = "memory.max" if self._is_v2 else "memory.limit_in_bytes"
        (self._path / name).write_text(str(size))
        if self._is_v2:
            with contextlib.suppress(FileNotFoundError):
                (self._path / "memory.swap.max").write_text("0")
        else:
            (self._path / "memory.swappiness").write_text("0")

    def kills(self) -> int:
        """Processes that the kernel killed for memory."""
        name = "memory.events" if self._is_v2 else "memory.oom_control"
        counts = dict(line.split() for line in (self._path / name).read_text().splitlines())
        return int(counts["oom_kill"])


@contextlib.contextmanager
def open_group() -> Iterator[Group]:
    """Make a group; its processes must have ended when the block ends."""
    group = Group()
    try:
        group.make()
        yield group
    finally:
        group.remove()

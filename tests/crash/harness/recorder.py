"""What a disk holds after a power cut, worked out from what a process asked of the kernel.

strace records every write, truncation, sync, rename and removal in a folder. After a cut, a disk
holds what was synced before it; of what was written since the last sync of a file, any part, in any
order, in pieces of a sector. `Recording.cut` makes such a folder.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from pathlib import Path

import msgspec

__all__ = ["Recording", "recording"]

_SECTOR = 4096
_CALLS = "pwrite64,write,ftruncate,fdatasync,fsync,unlink,rename,openat"


def recording(prefix: Path) -> tuple[str, ...]:
    """Run a command and record what its threads do: a file for each."""
    return (
        *("strace", "-D", "-ff", "-qq", "-y", "-ttt", "-T", "-xx", "-s", "2000000"),
        *("--seccomp-bpf", "-e", f"trace={_CALLS}", "-o", str(prefix)),
    )


class Write(msgspec.Struct):
    """One change of a file's content: data at an offset, or (data None) its new length."""

    began: float
    ended: float
    offset: int
    data: bytes | None


class Sync(msgspec.Struct):
    began: float
    ended: float


_LINE = re.compile(
    r"(?P<at>\d+\.\d+) (?P<call>\w+)\((?P<arguments>.*)\)\s+= (?P<result>-?\d+)\S*.* <(?P<took>[\d.]+)>"
)
_FD = re.compile(r"\d+<(?P<path>[^>]*)>(?P<rest>.*)", re.DOTALL)


class Recording:
    """Everything that was done to the files of one folder, by path."""

    def __init__(self, prefix: Path, folder: Path, since: float) -> None:
        """Read strace's files; `since` (seconds since 1970) begins with the files as in `base`."""
        self.writes: dict[str, list[Write]] = defaultdict(list)
        self.syncs: dict[str, list[Sync]] = defaultdict(list)
        self.removed: dict[str, list[float]] = defaultdict(list)
        self.moments: list[float] = []
        for file in prefix.parent.glob(prefix.name + ".*"):
            with file.open() as lines:
                for line in lines:
                    if (match := _LINE.match(line)) and float(match["at"]) >= since:
                        self._note(match, folder)
        self.moments.sort()

    def _note(self, match: re.Match[str], folder: Path) -> None:
        began = float(match["at"])
        ended = began + float(match["took"])
        if int(match["result"]) < 0:
            return
        call, arguments = match["call"], match["arguments"]
        if call in {"unlink", "rename", "openat"}:
            if call == "unlink" and (path := _text(arguments)).startswith(str(folder)):
                self.removed[Path(path).name].append(ended)
            return
        described = _FD.match(arguments)
        if described is None:
            return
        path = _unescaped(described["path"])
        if not path.startswith(str(folder)):
            return
        name = Path(path).name
        if call in {"fdatasync", "fsync"}:
            self.syncs[name].append(Sync(began, ended))
        elif call == "pwrite64":
            text, _, offset = described["rest"].rsplit(", ", 2)
            data = bytes.fromhex(text[3:].strip('"').replace("\\x", ""))
            assert len(data) == int(match["result"]), "a short write, or strace cut it"
            self.writes[name].append(Write(began, ended, int(offset), data))
        elif call == "ftruncate":
            length = int(described["rest"].rpartition(", ")[2])
            self.writes[name].append(Write(began, ended, length, None))
        self.moments.append(ended)

    def cut(self, base: Path, target: Path, moment: float, rng: random.Random) -> None:
        """Write to `target` what the disk holds when the power fails at `moment`."""
        for name in ("events.sqlite", "events.sqlite-wal"):
            start = base / name
            content = bytearray(start.read_bytes() if start.exists() else b"")
            removed = max((at for at in self.removed[name] if at <= moment), default=0.0)
            if removed:
                content.clear()
            done = [sync.began for sync in self.syncs[name] if sync.ended <= moment]
            synced = max(done, default=0.0)
            whole = rng.random() < 0.3  # the cut after which nothing unsynced is there
            for write in sorted(self.writes[name], key=lambda write: write.ended):
                if write.began > moment or write.ended < removed:
                    continue
                if write.ended <= synced:
                    _apply(content, write)
                elif not whole:
                    _apply_partly(content, write, rng)
            (target / name).write_bytes(content)


def _apply(content: bytearray, write: Write) -> None:
    if write.data is None:
        del content[write.offset :]
        content.extend(bytes(write.offset - len(content)))
        return
    if len(content) < write.offset:
        content.extend(bytes(write.offset - len(content)))
    content[write.offset : write.offset + len(write.data)] = write.data


def _apply_partly(content: bytearray, write: Write, rng: random.Random) -> None:
    if write.data is None:
        if rng.random() < 0.5:
            _apply(content, write)
        return
    end = write.offset + len(write.data)
    at = write.offset
    while at < end:
        stop = min(at - at % _SECTOR + _SECTOR, end)
        if rng.random() < 0.5:
            piece = write.data[at - write.offset : stop - write.offset]
            _apply(content, Write(write.began, write.ended, at, piece))
        at = stop


def _unescaped(text: str) -> str:
    if "\\x" not in text:
        return text
    return bytes.fromhex(text.replace("\\x", "")).decode()


def _text(arguments: str) -> str:
    return _unescaped(arguments.strip('"'))

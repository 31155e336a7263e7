"""Lanes' names beside the database, so that damage to it cannot make events nobody's."""

import json
import os
import zlib
from pathlib import Path

from edgeproxy.buffer.folder import sync_folder

__all__ = ["read_names", "write_names"]

_NAME = "lanes.json"


def read_names(folder: Path) -> dict[int, str]:
    """Names by lane number; empty where the file is missing or is itself damaged."""
    try:
        told = json.loads((folder / _NAME).read_bytes())
        names = {int(number): str(name) for number, name in told["lanes"].items()}
        return names if told["checksum"] == _checksum(names) else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def write_names(folder: Path, names: dict[int, str]) -> None:
    """Replace the file, durably; raises OSError."""
    fresh = folder / (_NAME + ".new")
    text = json.dumps({"lanes": names, "checksum": _checksum(names)})
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(folder / _NAME)
    sync_folder(folder)


def _checksum(names: dict[int, str]) -> int:
    return zlib.crc32(repr(sorted(names.items())).encode())

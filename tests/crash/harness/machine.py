"""What this machine permits: a container's root seldom may do what root may."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

__all__ = ["NotPermittedError", "injecting", "needs_strace", "unavailable"]

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")

_ADMINISTER_NETWORKS, _ADMINISTER = 12, 21  # CAP_NET_ADMIN, CAP_SYS_ADMIN (capabilities(7))


class NotPermittedError(Exception):
    """The machine does not let us do what a scenario needs."""


def unavailable(reason: NotPermittedError) -> NoReturn:
    """Skip; but fail in CI where the kernel says that we may administer the machine."""
    if os.environ.get("CI") == "true" and _is_real_root():
        raise reason
    pytest.skip(str(reason))


def _is_real_root() -> bool:
    status = Path("/proc/self/status").read_text().splitlines()
    granted = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))
    return bool(granted >> _ADMINISTER & 1 and granted >> _ADMINISTER_NETWORKS & 1)


def injecting(calls: str, error: str, when: str) -> tuple[str, ...]:
    """A command that runs the command and lets its system calls fail (strace(1), "Tampering")."""
    return (
        *("strace", "-D", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null"),
        *("-e", f"trace={calls}", "-e", f"inject={calls}:error={error}:when={when}"),
    )

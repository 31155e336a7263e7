"""What this machine permits: a container's root seldom may do what root may."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest

__all__ = ["NotPermittedError", "unavailable"]

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

"""How long the disk takes to make 16 KiB durable: the unit that commits are measured in."""

import os
import time
from pathlib import Path

from edgeproxy.load.report import quantile


def fdatasync_ms(folder: Path, writes: int = 300) -> dict[str, float]:
    """p50 and p99 of `fdatasync` after appending 16 KiB to a file in `folder`, in ms."""
    path = folder / "fdatasync.probe"
    block = os.urandom(16384)
    taken = []
    with path.open("wb", buffering=0) as file:
        for _ in range(writes):
            file.write(block)
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - started)
    path.unlink()
    taken.sort()
    return {"p50": 1000 * quantile(taken, 0.5), "p99": 1000 * quantile(taken, 0.99)}

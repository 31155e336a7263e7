"""What is measured, as data. A row more is an entry more in `CASES`."""

from dataclasses import dataclass
from typing import Literal

from bench import mappings

EVENT_BYTES = 1300
USERS = 100_000
MAX_MEMORY_MB = 120.0
MIN_DELIVERED = 0.9
"""Share of what was accepted that is delivered two seconds after the load ends."""
P99_SYNCS = 10
"""A request's p99 may be the baseline's plus this many times the disk's fdatasync p99."""
MAX_IDLE_MB = 100.0
MAX_BACKLOG_COST = 0.10
"""Share of ingest that a backlog may cost."""
MAX_START_SECONDS = 1.0


@dataclass(frozen=True)
class Case:
    """Ingest under one shape of load."""

    name: str
    batch: int
    """Events per request; 1 sends them to their own path."""
    connections: int
    baseline: str
    """What it is held against: "http", "floor", or the name of a case further up."""
    least: float
    """Events/s, as a share of the baseline's: the least that is acceptable."""
    aim: float
    config: str = ""
    """More TOML for the proxy."""
    bounds_p99: bool = False


CASES = (
    Case("single", batch=1, connections=64, baseline="http", least=0.5, aim=0.8, bounds_p99=True),
    Case("batch", batch=50, connections=16, baseline="floor", least=0.45, aim=0.8),
    # The batch case again: "batch" has the default mapping, "unmapped" has none.
    Case("unmapped", 50, 16, baseline="floor", least=0.45, aim=0.8, config=mappings.NONE),
    Case("default mapping", 50, 16, baseline="unmapped", least=0.9, aim=0.95),
    Case("ecommerce", 50, 16, baseline="unmapped", least=0.75, aim=0.8, config=mappings.ECOMMERCE),
    Case("expression", 50, 16, baseline="unmapped", least=0.5, aim=0.6, config=mappings.EXPRESSION),
)

Extra = Literal["drain", "idle", "backlog"]
EXTRAS: tuple[Extra, ...] = ("drain", "idle", "backlog")

"""What happened lately: rates for the page's charts, and how long things took.

Looks at the counters every five seconds and keeps a bounded past: 15 minutes by five seconds, a day
by two minutes. Nothing on an event's way knows of it. A restart begins anew.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct

__all__ = ["STEP", "Buckets", "History", "Look", "quantile"]

#: Seconds between two looks.
STEP = 5.0
_FINE = 181  # looks kept: 15 minutes and the one before them
_COARSE_EVERY = 24  # one look in so many is kept for a day: two minutes
_COARSE = 721
#: Seconds that quantiles and counts of causes look back.
RECENT = 900.0
_STUCK = 20.0  # seconds that an event waits where nothing gets through
_TIMED = 61  # looks at histograms that are kept: five minutes
_RATES = ("received", "accepted", "delivered", "quarantined")

Buckets = tuple[tuple[float, float], ...]
"""A histogram: upper bounds in seconds with the count of what was at most that, in order."""


class Look(Struct, frozen=True):
    """What the program's counters and gauges said at one moment."""

    totals: Mapping[str, int]
    events: int
    bytes: int
    oldest_age: float | None
    counts: Mapping[tuple[str, ...], float]
    """Counters by name and labels: what was refused or set aside, and why."""
    times: Mapping[str, Buckets]


class _Kept(Struct, frozen=True):
    at: float  # seconds since 1970
    look: Look


class History:
    """The past that the page shows. `run` fills it; the rest reads it."""

    def __init__(
        self,
        look: Callable[[], Look],
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`look` reads the program's counters; `now` gives seconds since 1970."""
        self._look = look
        self._now = now
        self._fine: deque[_Kept] = deque(maxlen=_FINE)
        self._coarse: deque[_Kept] = deque(maxlen=_COARSE)
        self._looks = 0
        self.started = now()

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            self.step()
            await asyncio.sleep(STEP)

    def step(self) -> None:
        """Look once."""
        kept = _Kept(self._now(), self._look())
        self._fine.append(kept)
        if self._looks % _COARSE_EVERY == 0:
            # Causes and times of a day ago are not asked for.
            self._coarse.append(_Kept(kept.at, _lean(kept.look)))
        self._looks += 1

    def columns(self, *, day: bool = False) -> dict[str, list[float | None]]:
        """15 minutes (or a day) as columns, ready for a chart; rates are events a second."""
        if not day:
            return _columns(self._fine)
        return _columns([*self._coarse, *list(self._fine)[-1:]])

    def lately(self) -> dict[tuple[str, ...], int]:
        """How much each counter grew within the last 15 minutes; only those that did."""
        if not self._fine:
            return {}
        then, now = self._fine[0].look.counts, self._look().counts
        # A counter whose first appearance was seen grew from nothing; the first look of all may
        # have come after the first events of this process.
        base = then if self._looks > len(self._fine) else {}
        grown = {key: int(value - base.get(key, 0)) for key, value in now.items()}
        return {key: count for key, count in grown.items() if count > 0}

    def times(self) -> dict[str, dict[str, float | None]]:
        """Median and 99th percentile of each histogram over five minutes, in seconds."""
        if not self._fine:
            return {}
        now = self._look().times
        then = self._fine[max(len(self._fine) - _TIMED, 0)].look.times if self._looks > 1 else {}
        found = {}
        for name, buckets in now.items():
            spent = _grown(then.get(name, ()), buckets)
            found[name] = {"p50": quantile(spent, 0.5), "p99": quantile(spent, 0.99)}
        return found

    def full_in(self, limit: int) -> float | None:
        """Seconds until the buffer reaches its limit if it goes on growing; None if it does not."""
        if len(self._fine) < 2:
            return None
        now = self._fine[-1]
        then = self._fine[max(len(self._fine) - _TIMED, 0)]
        # A lane that works has events waiting, too, now more and now fewer; not old ones.
        stuck = (now.look.oldest_age or 0) > _STUCK and now.look.events > then.look.events
        grows = stuck and now.look.bytes > then.look.bytes
        if not grows or now.at <= then.at:
            return None
        rate = (now.look.bytes - then.look.bytes) / (now.at - then.at)
        return max(limit - now.look.bytes, 0) / rate


def quantile(buckets: Buckets, share: float) -> float | None:
    """The value that `share` of what was observed does not exceed, as Prometheus estimates it.

    None where nothing was observed. What is beyond the last bound counts as that bound.
    """
    total = buckets[-1][1] if buckets else 0
    if total <= 0:
        return None
    wanted = share * total
    low, below = 0.0, 0.0
    for bound, count in buckets:
        if count >= wanted:
            if bound == float("inf"):
                return low
            within = count - below
            return low + (bound - low) * ((wanted - below) / within if within else 1.0)
        low, below = bound, count
    return low


def _lean(look: Look) -> Look:
    return Look(look.totals, look.events, look.bytes, look.oldest_age, {}, {})


def _grown(then: Buckets, now: Buckets) -> Buckets:
    before = dict(then)
    return tuple((bound, count - before.get(bound, 0)) for bound, count in now)


def _columns(kept: Iterable[_Kept]) -> dict[str, list[float | None]]:
    columns: dict[str, list[float | None]] = {
        name: [] for name in ("at", *_RATES, "events", "bytes", "age")
    }
    before: _Kept | None = None
    for item in kept:
        if before is not None and item.at > before.at:
            columns["at"].append(round(item.at, 1))
            for name in _RATES:
                grown = item.look.totals[name] - before.look.totals[name]
                columns[name].append(round(max(grown, 0) / (item.at - before.at), 2))
            columns["events"].append(item.look.events)
            columns["bytes"].append(item.look.bytes)
            columns["age"].append(item.look.oldest_age)
        before = item
    return columns

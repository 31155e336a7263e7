"""The dead letters' limits: the oldest go first, counted, and logged once a minute at most."""

import time
from collections.abc import Callable

import structlog

from edgeproxy.buffer.base import BufferFaultError
from edgeproxy.buffer.commit import Committer
from edgeproxy.buffer.ledger import Ledger

__all__ = ["Expiry"]

_log = structlog.get_logger("edgeproxy.buffer")

_AT_A_TIME = 500  # letters a transaction
_AGE_TICKS = 10  # between looks at the oldest letter's age
_LOG_SECONDS = 60.0


class Expiry:
    """Removes what is beyond the limits, if there are any."""

    def __init__(
        self,
        ledger: Callable[[], Ledger],
        committer: Committer,
        on_expired: Callable[[str, int], None],
        *,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what it works with.

        Args:
            on_expired: called with a lane and how many of its letters went.
            now: seconds since 1970.
            clock: seconds, for the log.
        """
        self._ledger = ledger
        self._committer = committer
        self._on_expired = on_expired
        self._now = now
        self._clock = clock
        self._max_age: float | None = None
        self._max_size = 1 << 62
        self._pruning = False
        self._ticks = 0
        self._unlogged: dict[str, int] = {}
        self._logged = -_LOG_SECONDS

    def limit(self, max_age: float, max_size: int) -> None:
        """Keep letters for `max_age` seconds, and at most `max_size` bytes of them."""
        self._max_age, self._max_size = max_age, max_size
        self._prune()

    def after_commit(self) -> None:
        """Prune when there are too many bytes."""
        if self._ledger().dead_bytes > self._max_size:
            self._prune()

    def tick(self) -> None:
        """Look at ages now and then, and log; to be called every second."""
        self._ticks += 1
        if self._ticks % _AGE_TICKS == 0 and self._ledger().dead_letters:
            self._prune()
        if self._clock() - self._logged >= _LOG_SECONDS:
            self._log()

    def close(self) -> None:
        """Log what was not logged yet."""
        self._log()

    def _prune(self) -> None:
        if self._pruning or self._max_age is None:
            return
        self._pruning = True
        before = int((self._now() - self._max_age) * 1000)
        removed: dict[str, int] = {}

        def job() -> None:
            removed.update(self._ledger().prune_dead(before, self._max_size, _AT_A_TIME))

        def settled(failure: BufferFaultError | None) -> None:
            self._pruning = False
            if failure is not None:
                return
            for lane, letters in removed.items():
                self._on_expired(lane, letters)
                self._unlogged[lane] = self._unlogged.get(lane, 0) + letters
            if sum(removed.values()) == _AT_A_TIME:
                self._prune()

        self._committer.submit(job, settled)

    def _log(self) -> None:
        for lane, letters in self._unlogged.items():
            _log.warning("dead_letters_expired", lane=lane, dead_letters=letters)
            self._logged = self._clock()
        self._unlogged.clear()

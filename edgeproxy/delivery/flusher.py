"""All lanes: one for every source that the settings name, and for every other that has events."""

import asyncio
from collections.abc import Callable

from edgeproxy.buffer.base import Buffer
from edgeproxy.config import Settings
from edgeproxy.delivery.lane import Lane, LaneStatus
from edgeproxy.delivery.upstream import Upstream
from edgeproxy.metrics import Metrics

__all__ = ["Flusher"]


class Flusher:
    """Runs the lanes; they do not wait for each other."""

    def __init__(
        self,
        buffer: Buffer,
        upstream: Upstream,
        metrics: Metrics,
        *,
        now: Callable[[], int],
        revision: Callable[[], str],
    ) -> None:
        """Take what the lanes work with; see `Lane`."""
        self._buffer = buffer
        self._upstream = upstream
        self._metrics = metrics
        self._now = now
        self._revision = revision
        self._lanes: dict[str, Lane] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        buffer.on_append(self._wake)

    def configure(self, settings: Settings) -> None:
        """Apply settings to the batches that are sent from now on; parked lanes try at once."""
        self._settings = settings
        self._upstream.timeout = settings.flush.timeout
        self._upstream.compression = settings.flush.compression
        for name in [source.name for source in settings.sources] + self._buffer.lanes():
            self._lane(name)
        for lane in self._lanes.values():
            lane.configure(settings)

    async def run(self) -> None:
        """Deliver until cancelled. An error in any lane ends all."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for name, lane in self._lanes.items():
                self._tasks[name] = group.create_task(lane.run(), name=f"lane {name}")
            await asyncio.get_running_loop().create_future()  # until cancelled

    async def drain(self) -> None:
        """Return when every lane that can deliver has nothing left to send.

        Lanes that are backing off or parked are not waited for.
        """
        for lane in self._lanes.values():
            lane.drain()
        while any(lane.is_busy for lane in self._lanes.values()):
            await asyncio.sleep(0.02)  # noqa: ASYNC110 - at shutdown only; lanes know no "idle" event

    def status(self) -> list[LaneStatus]:
        """All lanes as `/status` shows them."""
        return [lane.status() for lane in self._lanes.values()]

    def _wake(self, name: str) -> None:
        self._lane(name).wake()

    def _lane(self, name: str) -> Lane:
        lane = self._lanes.get(name)
        if lane is None:
            lane = Lane(
                name,
                self._buffer,
                self._upstream,
                self._metrics,
                now=self._now,
                revision=self._revision,
            )
            lane.configure(self._settings)
            self._lanes[name] = lane
            if self._group is not None:
                self._tasks[name] = self._group.create_task(lane.run(), name=f"lane {name}")
        return lane

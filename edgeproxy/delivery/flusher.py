"""All lanes: one for every source that the settings name, and for every other that has events."""

import asyncio
from collections.abc import Callable

from edgeproxy.buffer.base import Buffer
from edgeproxy.config import Settings
from edgeproxy.delivery.lane import Attempt, Lane, LaneStatus
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
        self._watchers: list[Callable[[Attempt], None]] = []
        self._end: Callable[[Lane], None] = lambda _: None
        buffer.on_append(self._wake)

    def configure(self, settings: Settings) -> None:
        """Apply settings to the batches that are sent from now on; lanes that wait try at once."""
        self._settings = settings
        self._upstream.timeout = settings.flush.timeout
        self._upstream.compression = settings.flush.compression
        for name in [source.name for source in settings.sources] + self._buffer.lanes():
            self._lane(name)
        for lane in self._lanes.values():
            lane.configure(settings)

    def watch(self, watcher: Callable[[Attempt], None]) -> Callable[[], None]:
        """Call with each batch that was answered, on the loop; gives a function that ends it.

        The call must be quick and must not raise.
        """
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    def _attempted(self, attempt: Attempt) -> None:
        for watcher in tuple(self._watchers):
            watcher(attempt)

    async def run(self) -> None:
        """Deliver until cancelled. An error in any lane ends all."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for name, lane in self._lanes.items():
                self._tasks[name] = group.create_task(lane.run(), name=f"lane {name}")
            await asyncio.get_running_loop().create_future()  # until cancelled

    async def drain(self) -> None:
        """Send what lanes that work can send now; return when all have ended.

        Cancelling leaves them at work; `finish` is the next step then.
        """
        self._end = Lane.drain
        await self._ended()

    async def finish(self) -> None:
        """Begin nothing more; return when what is under way is settled."""
        self._end = Lane.finish
        await self._ended()

    async def _ended(self) -> None:
        for lane in self._lanes.values():
            self._end(lane)
        if self._tasks:
            await asyncio.wait(self._tasks.values())

    def busy(self) -> list[Lane]:
        """Lanes with a batch on its way."""
        return [lane for lane in self._lanes.values() if lane.pacing.in_flight]

    def status(self) -> list[LaneStatus]:
        """All lanes as `/status` shows them; those that the settings dropped only with events."""
        return [lane.status() for lane in self._lanes.values() if not lane.is_abandoned]

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
                attempted=self._attempted,
            )
            lane.configure(self._settings)
            self._end(lane)
            self._lanes[name] = lane
            if self._group is not None:
                self._tasks[name] = self._group.create_task(lane.run(), name=f"lane {name}")
        return lane

"""The salvage of what was set aside, run beside everything else."""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import apsw
import structlog

from edgeproxy.buffer import aside
from edgeproxy.buffer.base import (
    BufferClosedError,
    BufferFaultError,
    BufferWriteError,
    Claimed,
)
from edgeproxy.buffer.commit import Committer
from edgeproxy.buffer.ledger import Ledger
from edgeproxy.buffer.names import read_names
from edgeproxy.buffer.salvage import (
    Chunk,
    forget_settled,
    lane_names,
    note_settled,
    read_chunks,
    settled,
    store,
)

__all__ = ["Restoring"]

_log = structlog.get_logger("edgeproxy.buffer")

_PAUSE = 1.0  # seconds before trying again on a disk that is full or fails


class Restoring:
    """Salvages a folder's damaged databases, one after the other."""

    def __init__(
        self,
        folder: Path,
        ledger: Callable[[], Ledger],
        committer: Committer,
        done: Callable[[], None],
        *,
        refuse: Callable[[], None],
    ) -> None:
        """Take what it works with.

        Args:
            done: called when claims may begin.
            refuse: raises while no events may be stored: what is kept free on a full disk is for
                removing what was delivered.
        """
        self._folder = folder
        self._ledger = ledger
        self._committer = committer
        self._done = done
        self._refuse = refuse
        self._task: asyncio.Task[None] | None = None
        self._again = False
        self._settled: set[int] = set()
        self.is_holding = False
        """Nothing may be claimed: an event that is older may still come back."""

    def start(self) -> None:
        """Begin, if there is anything to salvage."""
        if not aside.not_salvaged(self._folder):
            return
        self.is_holding = True
        self._know_settled(self._committer.connection)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="salvage")
        else:
            self._again = True

    def begin(self) -> None:
        """Note from now on what is settled: it must not come back."""
        self.is_holding = True

    def settling(self, events: Sequence[Claimed]) -> None:
        """Events that were claimed before are settled in the transaction that is open."""
        if self.is_holding or self._task is not None:
            ids = [event.id for event in events]
            self._settled.update(ids)
            note_settled(self._committer.connection, ids)

    def letters_leaving(self, ids: Sequence[int]) -> None:
        """Dead letters are removed or replayed in the transaction that is open."""
        if self.is_holding or self._task is not None:
            note_settled(self._committer.connection, [-id_ for id_ in ids])

    def _know_settled(self, connection: apsw.Connection) -> None:
        """Take over what was settled before a restart, and before this database replaced another."""
        noted = settled(connection)
        if self._settled - noted:
            with connection:  # between transactions: one of its own
                note_settled(connection, self._settled)
        self._settled |= noted

    def not_settled(self, events: Sequence[Claimed]) -> None:
        """That transaction failed."""
        self._settled.difference_update([event.id for event in events])

    async def stop(self) -> None:
        """End; what is missing is done after the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            self._again = False
            for path in aside.not_salvaged(self._folder):
                await self._salvage_until_done(path)
            if not self._again:
                break
        self._task = None
        self._settled.clear()
        self._committer.submit(lambda: forget_settled(self._committer.connection))
        self._go_on()

    def _go_on(self) -> None:
        for lane in self._ledger().lanes.values():
            lane.order.forget()  # what came back may lie before what was read meanwhile
        self.is_holding = False
        self._done()

    async def _salvage_until_done(self, path: Path) -> None:
        while True:
            try:
                await self._salvage(path)
            except BufferClosedError:
                return
            except (BufferFaultError, OSError) as error:
                _log.error("salvage_interrupted", file=path.name, reason=str(error))
                if not isinstance(error, BufferWriteError):  # while it fails nothing is settled
                    # Delivering makes space; waiting for the old events would not.
                    self._go_on()
                await asyncio.sleep(_PAUSE)
            else:
                return

    async def _salvage(self, path: Path) -> None:
        started = time.monotonic()
        names = await asyncio.to_thread(lane_names, path, read_names(self._folder))
        chunks = read_chunks(path)
        events = letters = damaged = 0
        while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
            added = await self._store(chunk, names)
            events += added[0]
            letters += added[1]
            damaged += len(chunk.damaged)
        await asyncio.to_thread(aside.finish, path)
        _log.warning(
            "buffer_salvaged",
            file=path.name,
            events=events,
            dead_letters=letters,
            damaged=damaged,
            seconds=round(time.monotonic() - started, 3),
        )

    async def _store(self, chunk: Chunk, names: dict[int, str]) -> tuple[int, int]:
        added = (0, 0)

        def job() -> None:
            nonlocal added
            self._refuse()
            now = time.time_ns() // 1_000_000
            gone = self._settled | settled(self._committer.connection)
            added = store(self._ledger(), chunk, names, gone, now)

        await asyncio.shield(self._committer.submit(job))
        return added

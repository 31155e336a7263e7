"""The salvage of what was set aside, run beside everything else."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import ParamSpec, TypeVar

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
_LONG_PAUSE = 60.0  # likewise after an error that nobody thought of
#: Times that a file is gone through for what the disk refused to read.
_ATTEMPTS = 3


_P = ParamSpec("_P")
_T = TypeVar("_T")


class _UnreadableError(OSError):
    """The disk refused to read some of a file."""


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
        self.settled: set[int] = set()
        """Events and dead letters that must not come back, as `salvage.store` takes them."""
        self.is_holding = False
        """Nothing may be claimed: an event that is older may still come back."""

    @property
    def is_running(self) -> bool:
        """Events may still come back."""
        return self.is_holding or self._task is not None

    def start(self, noted: Iterable[int] = ()) -> None:
        """Begin, if there is anything to salvage; `noted` was settled before a restart."""
        self.is_holding = bool(aside.not_salvaged(self._folder))
        if not self.is_holding:
            return
        self.settled.update(noted)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="salvage")
        else:
            self._again = True

    def begin(self) -> None:
        """Note from now on what is settled: it must not come back."""
        self.is_holding = True

    def settling(self, events: Sequence[Claimed]) -> None:
        """Events that were claimed before are settled in the transaction that is open."""
        if self.is_running:
            ids = [event.id for event in events]
            self.settled.update(ids)
            note_settled(self._committer.connection, ids)

    def letters_leaving(self, ids: Sequence[int]) -> None:
        """Dead letters are removed or replayed in the transaction that is open."""
        if self.is_running:
            note_settled(self._committer.connection, [-id_ for id_ in ids])

    def not_settled(self, events: Sequence[Claimed]) -> None:
        """That transaction failed."""
        self.settled.difference_update([event.id for event in events])

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
        self.settled.clear()
        self._committer.submit(lambda: forget_settled(self._committer.connection))
        self._go_on()

    def _go_on(self) -> None:
        for lane in self._ledger().lanes.values():
            lane.order.forget()  # what came back may lie before what was read meanwhile
        self.is_holding = False
        self._done()

    async def _salvage_until_done(self, path: Path) -> None:
        refused = 0
        while True:
            try:
                await self._salvage(path, is_last=refused + 1 >= _ATTEMPTS)
            except BufferClosedError:
                return
            except (BufferFaultError, OSError) as error:
                _log.error("salvage_interrupted", file=path.name, reason=str(error))
                refused += isinstance(error, _UnreadableError)
                # While writing fails nothing is settled, and what is read again is soon at an end.
                if not isinstance(error, BufferWriteError | _UnreadableError):
                    # Delivering makes space; waiting for the old events would not.
                    self._go_on()
                await asyncio.sleep(_PAUSE)
            except Exception:  # noqa: BLE001 - it is logged
                # A mistake of ours must not keep back everything that is sound.
                _log.exception("salvage_failed", file=path.name)
                self._go_on()
                await asyncio.sleep(_LONG_PAUSE)
            else:
                return

    async def _salvage(self, path: Path, *, is_last: bool) -> None:
        """Store what can be read. Raises OSError where the disk refused some, and this is not the last try."""
        started = time.monotonic()
        names = await _in_thread(lane_names, path, read_names(self._folder))
        events = letters = damaged = unreadable = 0
        with closing(read_chunks(path)) as chunks:
            while (chunk := await _in_thread(next, chunks, None)) is not None:
                added = await self._store(chunk, names)
                events += added[0]
                letters += added[1]
                damaged += len(chunk.damaged)
                unreadable += chunk.unreadable
        if unreadable and not is_last:
            raise _UnreadableError(f"the disk refused {unreadable} reads")
        await _in_thread(aside.finish, path)
        _log.warning(
            "buffer_salvaged",
            file=path.name,
            events=events,
            dead_letters=letters,
            damaged=damaged,
            unreadable=unreadable,
            seconds=round(time.monotonic() - started, 3),
        )

    async def _store(self, chunk: Chunk, names: dict[int, str]) -> tuple[int, int]:
        added = (0, 0)

        def job() -> None:
            nonlocal added
            self._refuse()
            now = time.time_ns() // 1_000_000
            gone = self.settled | settled(self._committer.connection)
            added = store(self._ledger(), chunk, names, gone, now)

        await asyncio.shield(self._committer.submit(job))
        return added


async def _in_thread(call: Callable[_P, _T], *arguments: _P.args, **more: _P.kwargs) -> _T:
    """Run a call in a thread. Cancelled, it waits for its end: the call has files open."""
    running = asyncio.ensure_future(asyncio.to_thread(call, *arguments, **more))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise

"""The buffer on disk: one SQLite database in WAL mode, `synchronous = full`.

The verbs are here; what they stand on has files of its own: `commit` (transactions), `ledger`
(tables and counters), `order` (who may be claimed), `upkeep` (checkpoints, space), `health` (full
and failing disks), `opening` and `salvage` (damage), `erasing` (purges and replays).
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from pathlib import Path

import apsw
import structlog

from edgeproxy.buffer import folder as buffer_folder
from edgeproxy.buffer.base import (
    BufferFaultError,
    BufferFullError,
    BufferUnusableError,
    BufferWriteError,
    Claimed,
    DeadLetter,
    LaneStats,
    Settled,
    Stats,
)
from edgeproxy.buffer.commit import Committer
from edgeproxy.buffer.database import require_sqlite
from edgeproxy.buffer.deadletters import DeadLetterFilter, Purged, Replayed
from edgeproxy.buffer.erasing import Erasing, Step
from edgeproxy.buffer.expiry import Expiry
from edgeproxy.buffer.faults import DISK_FULL, BufferDamagedError, is_damage
from edgeproxy.buffer.health import Health
from edgeproxy.buffer.ledger import Lane
from edgeproxy.buffer.names import write_names
from edgeproxy.buffer.opening import Opened, begin_afresh, open_folder
from edgeproxy.buffer.reading import Reading
from edgeproxy.buffer.reserve import Reserve, free_bytes
from edgeproxy.buffer.restoring import Restoring
from edgeproxy.buffer.rows import ROW_OVERHEAD
from edgeproxy.buffer.salvage import settled
from edgeproxy.buffer.upkeep import Upkeep
from edgeproxy.events.intake import Sealed

__all__ = ["SqliteBuffer"]

_log = structlog.get_logger("edgeproxy.buffer")

_TICK = 1.0  # seconds between looks at space, limits and health
_BUSY_TICK = 0.05  # while there is more to give back
_MEASURE_PAUSE = 0.05  # seconds between two looks at what the files hold, while they are not near …
_NEAR = 64_000_000  # … their limit: bytes, ten times what can be stored in that time
#: Times its size that the disk must have room for what is stored: it is written twice, to the WAL and
#: from there to the database, on pages that may be half empty. A WAL that cannot be written back is
#: never emptied again, and nothing that was delivered leaves the buffer. The reserve covers what is
#: smaller than it.
_SPACE = 4


class SqliteBuffer:
    """See `Buffer` for what each verb promises. Open one with `SqliteBuffer.open`."""

    def __init__(
        self,
        path: Path,
        lock: buffer_folder.Lock,
        opened: Opened,
        reserve: Reserve,
        *,
        max_size: int,
        durable: bool,
        on_commit: Callable[[float], None],
        on_expired: Callable[[str, int], None],
    ) -> None:
        """Take over a locked folder and its open database; prefer `open`."""
        self._path = path
        self._lock = lock
        self._database, self._ledger = opened.database, opened.ledger
        self._max_size = max_size
        self._durable = durable
        self._on_commit = on_commit
        self._callbacks: list[Callable[[str], None]] = []
        self._pending: dict[str, int] = {}  # bytes on their way in, by lane
        self._committer = Committer(
            self._database.writer,
            finish=self._write_counters,
            committed=self._after_commit,
            rolled_back=self._after_rollback,
        )
        self._reserve = reserve
        self._health = Health(reserve)
        self._upkeep = Upkeep(
            self._database, self._committer, failed=self._failed, wal_limit=reserve.size
        )
        self._reading = Reading(self._bury_damaged)
        self._expiry = Expiry(lambda: self._ledger, self._committer, on_expired)
        self._restoring = Restoring(
            path,
            lambda: self._ledger,
            self._committer,
            self._notify_all,
            refuse=self._health.refuse_events,
        )
        self._erasing = Erasing(
            lambda: self._ledger,
            self._committer,
            self._health,
            self.reading,
            self._restoring.letters_leaving,
        )
        self._used = self._measure()
        self._measure_at = 0.0
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._committer.run(), name="committer")
        self._ticking = self._loop.call_later(_TICK, self._tick)
        self._restoring.start(settled(self._database.writer))

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        max_size: int,
        durable: bool = True,
        patience: float = 10.0,
        on_commit: Callable[[float], None] = lambda _: None,
        on_expired: Callable[[str, int], None] = lambda _lane, _letters: None,
    ) -> "SqliteBuffer":
        """Lock a folder and open the buffer in it, making, migrating or replacing it first.

        Args:
            path: the folder, made with mode 0700 if absent.
            max_size: bytes on disk beyond which appends are refused.
            durable: False answers before the sync.
            patience: seconds to wait for another process to let go.
            on_commit: called with the seconds each commit took.
            on_expired: called with a lane and how many of its dead letters their limits removed.

        Raises:
            BufferHeldError: another process holds it; BufferUnusableError: it cannot be used.
        """
        require_sqlite()
        lock = buffer_folder.Lock(path)
        await lock.acquire(patience)
        try:
            reserve = Reserve(path, max_size)
            reserve.make_room()
            opened = open_folder(path, durable=durable)
            return cls(
                path,
                lock,
                opened,
                reserve,
                max_size=max_size,
                durable=durable,
                on_commit=on_commit,
                on_expired=on_expired,
            )
        except (apsw.Error, OSError) as error:
            lock.release()
            raise BufferUnusableError(f"{path}: cannot be opened: {error}") from error
        except BaseException:
            lock.release()
            raise

    # --- the verbs --------------------------------------------------------------------------------

    def append(
        self,
        lane: str,
        received: int,
        events: Sequence[Sealed],
        dead: Sequence[DeadLetter] = (),
        *,
        lane_max: int | None = None,
        settled: Settled | None = None,
    ) -> asyncio.Future[None]:
        """See `Buffer.append`."""
        size = sum([len(event.body) for event in events]) + ROW_OVERHEAD * len(events)
        self._health.refuse_events()
        if events:
            self._admit(lane, size, lane_max)

        def job() -> None:
            self._health.refuse_events()
            if events:
                self._ledger.insert(lane, received, events, size)
            if dead:
                self._ledger.insert_dead(dead)

        def no_longer_pending(failure: BufferFaultError | None) -> None:
            self._pending[lane] -= size
            if settled is not None:
                settled(failure)

        self._pending[lane] = self._pending.get(lane, 0) + size
        return self._committer.submit(job, no_longer_pending)

    def claim(self, lane: str, max_events: int, max_bytes: int, overhead: int = 0) -> list[Claimed]:
        """See `Buffer.claim`. While a damaged database is being salvaged, nothing is given."""
        state = self._ledger.lanes.get(lane)
        if state is None or self._restoring.is_holding:
            return []

        def read(after: int, most: int, most_bytes: int) -> list[Claimed]:
            return self._reading.read(self._database.reader, state, after, most, most_bytes)

        try:
            taken = state.order.claim(max_events, max_bytes, overhead, read)
        except (apsw.Error, UnicodeDecodeError) as error:
            state.order.forget()
            self._cannot_read(lane, error)
            return []
        if state.order.gave_up:
            self._notify_soon(lane)
        elif not taken and state.shown[0] and not state.order.claimed:
            self._find_the_rest(lane)
        return taken

    def ack(self, lane: str, events: Sequence[Claimed]) -> asyncio.Future[None]:
        """See `Buffer.ack`."""
        return self.bury(lane, events, ())

    def bury(
        self, lane: str, events: Sequence[Claimed], letters: Sequence[DeadLetter]
    ) -> asyncio.Future[None]:
        """See `Buffer.bury`."""
        order = self._ledger.lanes[lane].order
        leaving = order.leave(events)

        def job() -> None:
            self._health.refuse_writes()
            if leaving:
                self._ledger.delete(lane, leaving)
                self._restoring.settling(leaving)
            if letters:
                self._ledger.insert_dead(letters)

        def settled(failure: BufferFaultError | None) -> None:
            if failure is None:
                order.settle(leaving)
            else:
                self._restoring.not_settled(leaving)
                order.stay(leaving)

        return self._committer.submit(job, settled)

    def release(self, lane: str, events: Sequence[Claimed]) -> None:
        """See `Buffer.release`."""
        self._ledger.lanes[lane].order.release(events)

    def waiting(self, lane: str) -> tuple[int, int]:
        """See `Buffer.waiting`."""
        state = self._ledger.lanes.get(lane)
        if state is None:
            return 0, 0
        events, size = state.shown
        return (
            max(events - state.order.claimed, 0),
            max(size - ROW_OVERHEAD * events - state.order.claimed_bytes, 0),
        )

    def lanes(self) -> list[str]:
        """See `Buffer.lanes`."""
        return list(self._ledger.lanes)

    def on_append(self, callback: Callable[[str], None]) -> None:
        """See `Buffer.on_append`."""
        self._callbacks.append(callback)

    def full_reason(self) -> str | None:
        """See `Buffer.full_reason`."""
        if self._health.reason is not None:
            return self._health.reason
        if self._used >= self._max_size:
            return f"buffer is full: it holds {self._used} of at most {self._max_size} bytes"
        return None

    def stats(self) -> Stats:
        """See `Buffer.stats`."""
        reader = self._database.reader
        lanes = [
            LaneStats(lane.name, *lane.shown, self._reading.oldest(reader, lane))
            for lane in self._ledger.lanes.values()
        ]
        oldest = [lane.oldest for lane in lanes if lane.oldest is not None]
        with suppress(apsw.Error):  # then it is what it was
            self._used = self._measure()
        return Stats(
            events=sum(lane.events for lane in lanes),
            bytes=self._used + self._ledger.dead_bytes,
            oldest=min(oldest, default=None),
            lanes=lanes,
            dead_letters=self._ledger.dead_letters,
            dead_letter_bytes=self._ledger.dead_bytes,
        )

    async def close(self) -> None:
        """See `Buffer.close`."""
        self._ticking.cancel()
        await self._restoring.stop()
        self._committer.close()
        try:
            await self._task
        finally:
            self._upkeep.close()
            self._expiry.close()
            self._database.close()
            self._lock.release()

    # --- beside the verbs -------------------------------------------------------------------------

    async def watch(self) -> None:
        """Run until the buffer is closed; raises what ended its committer, if anything did."""
        await asyncio.shield(self._task)

    def limit_dead(self, max_age: float, max_size: int) -> None:
        """Keep dead letters for at most `max_age` seconds, and of the newest `max_size` bytes."""
        self._expiry.limit(max_age, max_size)

    def reading(self) -> apsw.Connection:
        """A further connection, only for reading, for one other thread; its caller closes it.

        Raises BufferWriteError while there is no database.
        """
        if not self._database.is_open:
            raise BufferWriteError(self._health.reason)
        return self._database.further_reader()

    async def purge_dead(self, chosen: DeadLetterFilter) -> int:
        """See `Erasing.purge_dead`."""
        return await self._erasing.purge_dead(chosen)

    async def remove_dead(self, ids: Sequence[int]) -> int:
        """See `Erasing.remove_dead`."""
        return await self._erasing.remove_dead(ids)

    async def purge_user(self, user: str) -> Purged:
        """See `Erasing.purge_user`."""
        return await self._erasing.purge_user(user)

    def purge_events(
        self, *, source: str | None = None, user: str | None = None
    ) -> AsyncGenerator[Step, None]:
        """See `Erasing.purge_events`."""
        return self._erasing.purge_events(source=source, user=user)

    async def replay(self, moves: Sequence[Replayed]) -> int:
        """See `Erasing.replay`."""
        return await self._erasing.replay(moves)

    # --- around a transaction ---------------------------------------------------------------------

    def _admit(self, lane: str, size: int, lane_max: int | None) -> None:
        pending = sum(self._pending.values()) + size
        if self._used + pending > self._max_size:
            raise BufferFullError(f"the buffer has reached its {self._max_size} bytes")
        if pending * _SPACE > self._reserve.size and pending * _SPACE > free_bytes(self._path):
            raise BufferFullError(DISK_FULL)
        if lane_max is None:
            return
        state = self._ledger.lanes.get(lane)
        held = 0 if state is None else state.shown[1]
        if held + self._pending.get(lane, 0) + size > lane_max:
            raise BufferFullError(f"source {lane} has reached its {lane_max} bytes of the buffer")

    def _write_counters(self) -> None:
        self._ledger.write_counters()

    def _after_commit(self, seconds: float) -> None:
        self._on_commit(seconds)
        found = self._ledger.committed(may_be_claimed=not self._restoring.is_holding)
        if found.lane_added:
            self._write_names()
        self._measure_now_and_then()
        for name in found.appended:
            self._notify(name)
        if found.emptied:
            self._expect_empty(found.emptied)
        self._upkeep.after_commit()
        self._expiry.after_commit()

    def _after_rollback(self, failure: BufferFaultError) -> None:
        if not self._database.is_open:
            return  # what failed is that there is none
        if isinstance(failure, BufferDamagedError):
            self._replace(str(failure))
            return
        self._failed(failure)
        try:
            self._ledger.load()
        except (apsw.Error, BufferDamagedError, UnicodeDecodeError) as error:
            self._replace(f"the counters cannot be read: {error}")

    def _failed(self, failure: BufferFaultError) -> None:
        if isinstance(failure, BufferDamagedError):
            self._replace_soon(str(failure))
        else:
            self._health.failed(failure)

    def _measure_now_and_then(self) -> None:
        """Measure; far from the limit not after every commit, of which there are hundreds a second."""
        now = self._loop.time()
        if now >= self._measure_at or self._max_size - self._used < _NEAR:
            self._measure_at = now + _MEASURE_PAUSE
            try:
                self._used = self._measure()
            except apsw.Error as error:
                self._cannot_read(None, error)

    def _measure(self) -> int:
        """Bytes as `max_size` counts them; dead letters have a limit of their own."""
        return max(self._database.size() - self._ledger.dead_bytes, 0)

    def _write_names(self) -> None:
        names = {lane.number: lane.name for lane in self._ledger.lanes.values()}
        try:
            write_names(self._path, names)
        except OSError as error:
            _log.warning("lane_names_not_written", reason=str(error))

    def _notify(self, lane: str) -> None:
        for callback in self._callbacks:
            callback(lane)

    def _notify_soon(self, lane: str) -> None:
        self._loop.call_soon(self._notify, lane)

    def _notify_all(self) -> None:
        for lane in self.lanes():
            self._notify(lane)

    def _tick(self) -> None:
        pause = _TICK
        if not self._database.is_open:
            self._committer.submit_alone(self._replace_again, in_thread=False)
        elif self._health.is_well:
            try:
                pause = _BUSY_TICK if self._upkeep.tidy() else _TICK
                self._used = self._measure()
            except apsw.Error as error:
                self._cannot_read(None, error)
            self._expiry.tick()
        else:
            self._committer.submit_alone(lambda: self._health.recover(self._upkeep.make_room))
        self._ticking = asyncio.get_running_loop().call_later(pause, self._tick)

    # --- damage -----------------------------------------------------------------------------------

    def _cannot_read(self, lane: str | None, error: Exception) -> None:
        """Replace a damaged database; otherwise the disk may do better in a second."""
        if not isinstance(error, apsw.Error) or is_damage(error):
            self._replace_soon(f"damaged: {error}")
            return
        _log.error("buffer_not_readable", lane=lane, reason=str(error))
        if lane is not None:
            self._loop.call_later(_TICK, self._notify, lane)

    def _replace_soon(self, reason: str) -> None:
        damaged = self._database

        def job() -> None:
            if self._database is damaged and damaged.is_open:
                self._replace(reason)

        self._committer.submit_alone(job, in_thread=False)

    def _replace_again(self) -> None:
        if not self._database.is_open:
            self._replace("of a damaged one")

    def _replace(self, reason: str) -> None:
        """Set the database aside and go on with a fresh one, between transactions.

        Where none can be made there is none, until this is tried again, once a second.
        """
        self._upkeep.wait()
        self._database.close(untouched=True)
        self._restoring.begin()
        try:
            self._reserve.make_room()
            opened = begin_afresh(
                self._path,
                durable=self._durable,
                reason=reason,
                known=self._ledger.lanes.values(),
                settled=self._restoring.settled,
            )
        except (apsw.Error, OSError, BufferFaultError) as error:
            why = f"a new database cannot take a damaged one's place: {error}"
            self._health.failed(BufferWriteError(why))
            return
        self._database, self._ledger = opened.database, opened.ledger
        self._committer.connection = self._database.writer
        self._upkeep.attach(self._database)
        with suppress(apsw.Error):  # measured anew within a second
            self._used = self._measure()
        self._write_names()
        self._restoring.start()

    def _bury_damaged(
        self, lane: Lane, events: Sequence[Claimed], done: Callable[[], None]
    ) -> None:
        """Turn rows whose checksum is wrong into dead letters."""
        _log.error("events_damaged", lane=lane.name, events=len(events))
        now = time.time_ns() // 1_000_000
        letters = [self._reading.letter(lane.name, event, now) for event in events]
        read_from = self._database

        def job() -> None:
            self._health.refuse_writes()
            if self._database is not read_from:
                return  # set aside meanwhile: its salvage meets them again
            self._ledger.insert_dead(
                [letters[at] for at in self._ledger.take_out(lane.name, events)]
            )

        def read_again() -> None:
            done()
            # With a damaged number, what was read last may not be how far the lane was read.
            lane.order.forget()
            self._notify(lane.name)

        def settled(failure: BufferFaultError | None) -> None:
            self._loop.call_later(0 if failure is None else _TICK, read_again)

        self._committer.submit(job, settled)

    def _expect_empty(self, lanes: Sequence[Lane]) -> None:
        """A counter that damage has made too small would keep a lane's last events for ever."""
        with suppress(apsw.Error):  # then nobody can tell
            for lane in lanes:
                if self._reading.has_more(self._database.reader, lane, lane.first_id):
                    self._replace_soon(f"damaged: {lane.name} has more events than it counts")

    def _find_the_rest(self, name: str) -> None:
        """Deal with a lane that has nothing more to claim though its counters say otherwise.

        Damage to numbers, or between the pages, hides events from those who look for them by their
        numbers. A salvage goes through all pages, and finds them.
        """

        def job() -> None:  # between transactions, when counters and rows agree
            lane = self._ledger.lanes.get(name)
            if lane is None or not lane.shown[0] or not lane.order.is_idle:
                return
            if self._reading.is_busy or self._restoring.is_running:
                return  # after which the lane is read from its beginning
            with suppress(apsw.Error):  # a claim will find that out and do something about it
                if not self._reading.has_more(self._database.reader, lane, lane.order.cursor):
                    self._replace(f"damaged: {lane.shown[0]} events of {name} are not found")

        self._committer.submit_alone(job, in_thread=False)

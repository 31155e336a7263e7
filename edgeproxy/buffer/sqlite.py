"""The buffer on disk: one SQLite database in WAL mode, `synchronous = full`.

Three connections: one writes (owned by the committer), one reads (on the event loop: claims), one
checkpoints in a thread of its own so that no commit waits for it. Two connections may only do that
at once with an SQLite that has the WAL-reset fix, which is why it comes with us.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import cast

import apsw
import structlog
from msgspec import Struct

from edgeproxy.buffer import deadletters
from edgeproxy.buffer import folder as buffer_folder
from edgeproxy.buffer.base import (
    BufferFaultError,
    BufferFullError,
    BufferUnusableError,
    Claimed,
    DeadLetter,
    LaneStats,
    Stats,
)
from edgeproxy.buffer.commit import Committer
from edgeproxy.buffer.deadletters import DeadLetterFilter, Purged, Replayed
from edgeproxy.buffer.order import Order
from edgeproxy.buffer.rows import (
    DELETE,
    INSERT,
    LANE_SHIFT,
    ROW_OVERHEAD,
    SELECT,
    checksum,
    every_event,
    ranges,
)
from edgeproxy.events.intake import Sealed

__all__ = ["SqliteBuffer"]

_log = structlog.get_logger("edgeproxy.buffer")

_PAGE = 16384
_CHECKPOINT_PAGES = 256  # 4 MiB of WAL: then a checkpoint begins beside the commits
_RESTART_PAGES = 4096  # 64 MiB: checkpoints cannot keep up, so commits wait for one
_VACUUM_PAGES = 512  # given back at a time: 8 MiB
_TIDY_SECONDS = 1.0
_QUIET_COMMITS = 20  # in that time: then nobody notices a checkpoint
_MINIMUM_SQLITE = (3, 51, 3)  # sqlite.org/wal.html, "The WAL-Reset Bug"

_PURGE_ROWS = 500  # looked at or removed at a time


class _Lane(Struct):
    number: int
    name: str
    next_sequence: int
    events: int
    bytes: int
    order: Order

    @property
    def first_id(self) -> int:
        return self.number << LANE_SHIFT

    @property
    def end_id(self) -> int:
        return (self.number + 1) << LANE_SHIFT


class SqliteBuffer:
    """See `Buffer` for what each verb promises. Open one with `SqliteBuffer.open`."""

    def __init__(
        self,
        path: Path,
        lock: buffer_folder.Lock,
        writer: apsw.Connection,
        *,
        max_size: int,
        on_commit: Callable[[float], None],
    ) -> None:
        """Take over a locked folder and its connection; prefer `open`."""
        self._path = path
        self._lock = lock
        self._max_size = max_size
        self._on_commit = on_commit
        self._writer = writer
        database = path / buffer_folder.DATABASE
        self._wal = database.with_name(database.name + "-wal")
        self._reader = buffer_folder.connect(database, read_only=True)
        self._checkpointer = buffer_folder.connect(database)
        self._checkpoint_thread = ThreadPoolExecutor(1, "edgeproxy-checkpoint")
        self._checkpointing: asyncio.Future[None] | None = None
        self._wal_pages = 0
        writer.set_wal_hook(self._note_wal)
        self._lanes: dict[str, _Lane] = {}
        self._totals: dict[str, int] = {}
        self._changed: set[str] = set()
        self._appended: set[str] = set()
        self._callbacks: list[Callable[[str], None]] = []
        self._failure: str | None = None
        self._commits = 0  # since the last tidying
        self._pending_bytes = 0
        self._load()
        self._used = self._measure()
        self._committer = Committer(
            writer,
            finish=self._write_counters,
            committed=self._after_commit,
            rolled_back=self._after_rollback,
        )
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._committer.run(), name="committer")
        self._tidying = loop.call_later(_TIDY_SECONDS, self._tidy)

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        max_size: int,
        durable: bool = True,
        patience: float = 10.0,
        on_commit: Callable[[float], None] = lambda _: None,
    ) -> "SqliteBuffer":
        """Lock a folder and open the buffer in it, making or migrating it first.

        Args:
            path: the folder, made with mode 0700 if absent.
            max_size: bytes on disk beyond which appends are refused.
            durable: False answers before the sync.
            patience: seconds to wait for another process to let go.
            on_commit: called with the seconds each commit took.

        Raises:
            BufferHeldError: another process holds it; BufferUnusableError: it cannot be used.
        """
        _require_sqlite()
        lock = buffer_folder.Lock(path)
        await lock.acquire(patience)
        try:
            writer = buffer_folder.open_database(path, durable=durable)
            return cls(path, lock, writer, max_size=max_size, on_commit=on_commit)
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
    ) -> asyncio.Future[None]:
        """See `Buffer.append`."""
        size = sum([len(event.body) for event in events]) + ROW_OVERHEAD * len(events)
        self._admit(lane, size + sum([len(letter.body) for letter in dead]), lane_max)
        self._pending_bytes += size

        def job() -> None:
            if events:
                self._insert(lane, received, events, size)
            if dead:
                self._insert_dead(dead)

        future = self._committer.submit(job)
        future.add_done_callback(lambda _: self._no_longer_pending(size))
        return future

    def claim(self, lane: str, max_events: int, max_bytes: int, overhead: int = 0) -> list[Claimed]:
        """See `Buffer.claim`."""
        state = self._lanes.get(lane)
        if state is None:
            return []

        def read(after: int, most: int, most_bytes: int) -> list[Claimed]:
            return self._read(state, after, most, most_bytes)

        try:
            return state.order.claim(max_events, max_bytes, overhead, read)
        except apsw.Error as error:
            raise BufferFaultError(f"the database cannot be read: {error}") from error

    def ack(self, lane: str, events: Sequence[Claimed]) -> asyncio.Future[None]:
        """See `Buffer.ack`."""
        return self._remove(lane, events, ())

    def bury(
        self, lane: str, events: Sequence[Claimed], letters: Sequence[DeadLetter]
    ) -> asyncio.Future[None]:
        """See `Buffer.bury`."""
        return self._remove(lane, events, letters)

    def release(self, lane: str, events: Sequence[Claimed]) -> None:
        """See `Buffer.release`."""
        self._lanes[lane].order.release(events)

    def waiting(self, lane: str) -> tuple[int, int]:
        """See `Buffer.waiting`."""
        state = self._lanes.get(lane)
        if state is None:
            return 0, 0
        claimed = state.order.claimed
        return (
            state.events - claimed,
            state.bytes - state.order.claimed_bytes - ROW_OVERHEAD * claimed,
        )

    def lanes(self) -> list[str]:
        """See `Buffer.lanes`."""
        return list(self._lanes)

    def on_append(self, callback: Callable[[str], None]) -> None:
        """See `Buffer.on_append`."""
        self._callbacks.append(callback)

    def full_reason(self) -> str | None:
        """See `Buffer.full_reason`."""
        if self._failure is not None:
            return self._failure
        if self._used >= self._max_size:
            return f"the buffer holds {self._used} of at most {self._max_size} bytes"
        return None

    def stats(self) -> Stats:
        """See `Buffer.stats`."""
        lanes = [
            LaneStats(lane.name, lane.events, lane.bytes, self._oldest(lane))
            for lane in self._lanes.values()
        ]
        oldest = [lane.oldest for lane in lanes if lane.oldest is not None]
        return Stats(
            events=sum(lane.events for lane in lanes),
            bytes=self._used,
            oldest=min(oldest, default=None),
            lanes=lanes,
            dead_letters=self._totals["dead_letters"],
            dead_letter_bytes=self._totals["dead_letter_bytes"],
        )

    async def close(self) -> None:
        """See `Buffer.close`."""
        self._tidying.cancel()
        self._committer.close()
        await self._task
        if self._checkpointing is not None:
            await asyncio.wait([self._checkpointing])
        self._checkpoint_thread.shutdown()
        self._reader.close()
        self._checkpointer.close()
        self._writer.close()  # the last connection checkpoints and removes the WAL
        self._lock.release()

    # --- dead letters and erasure -----------------------------------------------------------------

    def reading(self) -> apsw.Connection:
        """A further connection, only for reading, for one other thread; its caller closes it."""
        return buffer_folder.connect(self._path / buffer_folder.DATABASE, read_only=True)

    async def purge_dead(self, chosen: DeadLetterFilter) -> int:
        """Remove the dead letters that a filter fits; how many.

        They go some hundred at a time, each time durably; cancelling stops between two such steps.
        """
        removed = 0
        connection = self.reading()
        try:
            found = (stored.id for stored in deadletters.iterate(connection, chosen))
            while ids := await asyncio.to_thread(_some, found):
                removed += await self._remove_dead(ids)
        finally:
            connection.close()
        return removed

    async def replay(self, moves: Sequence[Replayed]) -> int:
        """Turn dead letters into events again, all in one transaction; how many were moved.

        A letter that is gone meanwhile is left out, so that none is moved twice. Cancelling does
        not stop it. Raises BufferFullError or BufferWriteError: then nothing was moved.
        """
        moved = 0

        def job() -> None:
            nonlocal moved
            for move in moves:
                if not self._delete_dead([move.id]):
                    continue
                moved += 1
                if move.event is not None:
                    size = len(move.event.body) + ROW_OVERHEAD
                    self._insert(move.lane, move.received, [move.event], size)

        self._admit("", 0, None)
        await asyncio.shield(self._committer.submit(job))
        return moved

    async def purge_user(self, user: str) -> Purged:
        """Erase everything of a user: events and dead letters that name them.

        The user is an anonymousId or a userId. What is in flight at this moment may arrive.
        """
        events = 0
        connection = self.reading()
        try:
            for lane in list(self._lanes.values()):
                found = (
                    stored.event.id
                    for stored in every_event(connection, lane.name)
                    if deadletters.is_of_user(stored.event.body, user)
                )
                while ids := await asyncio.to_thread(_some, found):
                    events += await self._purge(lane, ids)
        finally:
            connection.close()
        return Purged(events, await self.purge_dead(DeadLetterFilter(user=user)))

    async def _remove_dead(self, ids: Sequence[int]) -> int:
        removed = 0

        def job() -> None:
            nonlocal removed
            removed = self._delete_dead(ids)

        await asyncio.shield(self._committer.submit(job))
        return removed

    def _delete_dead(self, ids: Sequence[int]) -> int:
        removed = size = 0
        for id_ in ids:
            row = self._writer.execute(
                "select length(body) from dead_letters where id = ?", (id_,)
            ).fetchone()
            if row is not None:
                self._writer.execute("delete from dead_letters where id = ?", (id_,))
                removed += 1
                size += cast("int", row[0])
        self._totals["dead_letters"] -= removed
        self._totals["dead_letter_bytes"] -= size
        self._changed.add("")
        return removed

    async def _purge(self, lane: _Lane, ids: Sequence[int]) -> int:
        before = 0

        def job() -> None:
            nonlocal before
            before = self._writer.total_changes()
            self._writer.executemany(DELETE, [(id_, id_) for id_ in ids])
            before = self._writer.total_changes() - before
            self._recount(lane)
            self._changed.add(lane.name)

        await asyncio.shield(self._committer.submit(job))
        lane.order.forget()
        return before

    # --- inside a transaction ---------------------------------------------------------------------

    def _insert(self, name: str, received: int, events: Sequence[Sealed], size: int) -> None:
        lane = self._lanes.get(name) or self._add_lane(name)
        id_ = lane.first_id + lane.next_sequence
        rows = []
        for event in events:
            user, skew, age, body = event.user, event.skew, event.age, event.body
            check = checksum(id_, user, received, skew, age, body)
            rows.append((id_, user, received, skew, age, check, body))
            id_ += 1
        self._writer.executemany(INSERT, rows)
        lane.next_sequence += len(rows)
        lane.events += len(rows)
        lane.bytes += size
        self._changed.add(name)
        self._appended.add(name)

    def _insert_dead(self, letters: Sequence[DeadLetter]) -> None:
        deadletters.insert(self._writer, letters)
        self._totals["dead_letters"] += len(letters)
        self._totals["dead_letter_bytes"] += sum(len(letter.body) for letter in letters)
        self._changed.add("")

    def _remove(
        self, name: str, events: Sequence[Claimed], letters: Sequence[DeadLetter]
    ) -> asyncio.Future[None]:
        lane = self._lanes[name]

        def job() -> None:
            before = self._writer.total_changes()
            self._writer.executemany(DELETE, ranges([event.id for event in events]))
            if self._writer.total_changes() - before == len(events):
                lane.events -= len(events)
                lane.bytes -= sum([len(e.body) for e in events]) + ROW_OVERHEAD * len(events)
            else:
                self._recount(lane)  # some were purged meanwhile
            self._changed.add(name)
            if letters:
                self._insert_dead(letters)

        def settle(future: asyncio.Future[None]) -> None:
            if not future.cancelled() and future.exception() is None:
                lane.order.settle(events)

        future = self._committer.submit(job)
        future.add_done_callback(settle)
        return future

    def _recount(self, lane: _Lane) -> None:
        row = self._writer.execute(
            "select count(*), coalesce(sum(length(body) + ?), 0) from events where id > ? and id < ?",
            (ROW_OVERHEAD, lane.first_id, lane.end_id),
        ).fetchone()
        lane.events, lane.bytes = row or (0, 0)

    def _add_lane(self, name: str) -> _Lane:
        self._writer.execute("insert into lanes (name) values (?)", (name,))
        number = self._writer.last_insert_rowid()
        lane = _Lane(number, name, 1, 0, 0, Order(number << LANE_SHIFT))
        self._lanes[name] = lane
        return lane

    def _write_counters(self) -> None:
        for name in self._changed:
            if name:
                lane = self._lanes[name]
                self._writer.execute(
                    "update lanes set next_sequence = ?, events = ?, bytes = ? where number = ?",
                    (lane.next_sequence, lane.events, lane.bytes, lane.number),
                )
            else:
                self._writer.executemany(
                    "update totals set value = ? where name = ?",
                    [(value, total) for total, value in self._totals.items()],
                )
        self._changed.clear()

    # --- around a transaction ---------------------------------------------------------------------

    def _admit(self, lane: str, size: int, lane_max: int | None) -> None:
        if self._failure is not None:
            raise BufferFullError(self._failure)
        if self._used + self._pending_bytes + size > self._max_size:
            raise BufferFullError(f"the buffer has reached its {self._max_size} bytes")
        state = self._lanes.get(lane)
        if lane_max is not None and size + (0 if state is None else state.bytes) > lane_max:
            raise BufferFullError(f"source {lane} has reached its {lane_max} bytes of the buffer")

    def _no_longer_pending(self, size: int) -> None:
        self._pending_bytes -= size

    def _after_commit(self, seconds: float) -> None:
        self._failure = None
        self._on_commit(seconds)
        self._used = self._measure()
        appended, self._appended = self._appended, set()
        for name in appended:
            for callback in self._callbacks:
                callback(name)
        if self._wal_pages >= self._checkpoint_at():
            self._checkpoint()
        self._commits += 1

    def _after_rollback(self, failure: BufferFaultError) -> None:
        _log.error("buffer_write_failed", reason=str(failure))
        self._appended.clear()
        self._changed.clear()
        self._load()

    def _load(self) -> None:
        """Read the counters; what is claimed stays claimed."""
        known = self._lanes
        self._lanes = {}
        for number, name, next_sequence, events, size in self._writer.execute(
            "select number, name, next_sequence, events, bytes from lanes order by number"
        ):
            order = known[name].order if name in known else Order(number << LANE_SHIFT)
            self._lanes[name] = _Lane(number, name, next_sequence, events, size, order)
        self._totals = dict(self._writer.execute("select name, value from totals"))

    def _note_wal(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _checkpoint_at(self) -> int:
        # A small buffer must not fill itself with a WAL that waits.
        return min(_CHECKPOINT_PAGES, max(self._max_size // _PAGE // 8, 4))

    def _checkpoint(self) -> None:
        if self._wal_pages >= _RESTART_PAGES:
            self._committer.submit_alone(
                lambda: self._run_checkpoint(self._writer, apsw.SQLITE_CHECKPOINT_TRUNCATE)
            )
            self._wal_pages = 0
        elif self._checkpointing is None or self._checkpointing.done():
            self._checkpointing = asyncio.get_running_loop().run_in_executor(
                self._checkpoint_thread,
                self._run_checkpoint,
                self._checkpointer,
                apsw.SQLITE_CHECKPOINT_PASSIVE,
            )

    @staticmethod
    def _run_checkpoint(connection: apsw.Connection, mode: int) -> None:
        try:
            connection.wal_checkpoint(mode=mode)
        except apsw.BusyError:
            return  # a reader is in the way; the next one will do it
        except apsw.Error as error:
            _log.warning("checkpoint_failed", reason=str(error))

    def _tidy(self) -> None:
        """Give back what a drained backlog leaves: free pages at any time, the WAL in quiet ones."""
        free, pages = self._free_pages()
        quiet, self._commits = self._commits < _QUIET_COMMITS, 0
        pause = _TIDY_SECONDS
        if free > _VACUUM_PAGES and free > pages // 4:
            self._committer.submit_alone(self._vacuum)
            pause = _TIDY_SECONDS / 20
        elif quiet and self._wal_size() > self._checkpoint_at() * _PAGE:
            self._committer.submit_alone(
                lambda: self._run_checkpoint(self._writer, apsw.SQLITE_CHECKPOINT_TRUNCATE)
            )
        self._used = self._measure()
        self._tidying = asyncio.get_running_loop().call_later(pause, self._tidy)

    def _vacuum(self) -> None:
        # Every step gives back one page: the statement is run to its end.
        self._writer.execute(f"pragma incremental_vacuum({_VACUUM_PAGES})").fetchall()

    # --- reading ----------------------------------------------------------------------------------

    def _read(self, lane: _Lane, after: int, most: int, most_bytes: int) -> list[Claimed]:
        events: list[Claimed] = []
        size = 0
        damaged: list[Claimed] = []
        for id_, user, received, skew, age, check, body in self._reader.execute(
            SELECT, (after, lane.end_id, most)
        ):
            event = Claimed(id_, user, received, skew, age, body)
            if check != checksum(id_, user, received, skew, age, body):
                damaged.append(event)
                continue
            events.append(event)
            size += len(body)
            if size >= most_bytes:
                break
        if damaged:
            self._bury_damaged(lane.name, damaged)
        return events

    def _bury_damaged(self, lane: str, events: Iterable[Claimed]) -> None:
        events = list(events)
        _log.error("events_damaged", lane=lane, events=len(events))
        now = time.time_ns() // 1_000_000
        self._remove(
            lane,
            events,
            [
                DeadLetter(
                    lane=lane,
                    code="invalid_event",
                    message="damaged on disk: its checksum does not match",
                    form="sent",
                    received=event.received,
                    died=now,
                    body=event.body,
                )
                for event in events
            ],
        )

    def _oldest(self, lane: _Lane) -> int | None:
        if not lane.events:
            return None
        row = self._reader.execute(
            "select received from events where id > ? and id < ? order by id limit 1",
            (lane.first_id, lane.end_id),
        ).fetchone()
        return None if row is None else int(row[0])

    def _free_pages(self) -> tuple[int, int]:
        return (
            int(self._reader.pragma("freelist_count")),
            int(self._reader.pragma("page_count")),
        )

    def _measure(self) -> int:
        """Bytes as `max_size` counts them: database plus WAL less free pages."""
        free, pages = self._free_pages()
        return (pages - free) * _PAGE + self._wal_size()

    def _wal_size(self) -> int:
        try:
            return os.stat(self._wal).st_size  # noqa: PTH116 - once a commit: the cheapest way
        except FileNotFoundError:
            return 0


def _some(ids: Iterator[int]) -> list[int]:
    return list(islice(ids, _PURGE_ROWS))


def _require_sqlite() -> None:
    version = tuple(int(part) for part in apsw.sqlite_lib_version().split("."))
    if version < _MINIMUM_SQLITE:
        raise BufferUnusableError(
            f"SQLite {apsw.sqlite_lib_version()} can lose commits (the WAL-reset bug); "
            "install a newer apsw"
        )

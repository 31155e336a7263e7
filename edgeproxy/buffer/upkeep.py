"""Checkpoints, and giving space back: what a buffer needs beside its transactions."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import apsw
import structlog

from edgeproxy.buffer.base import BufferFaultError
from edgeproxy.buffer.commit import Committer
from edgeproxy.buffer.database import PAGE, Database
from edgeproxy.buffer.faults import translate

__all__ = ["Upkeep"]

_log = structlog.get_logger("edgeproxy.buffer")

_CHECKPOINT_PAGES = 256  # 4 MiB of WAL: then a checkpoint begins beside the commits
_VACUUM_PAGES = 512  # given back at a time: 8 MiB
_FULL_PAGES = 32  # likewise on a full disk: 512 KiB
_FULL_STEPS = 64  # of those, before other work gets its turn
_QUIET_COMMITS = 20  # between two tidyings: then nobody notices a checkpoint


class Upkeep:
    """Keeps one database's files small; a database can follow on another."""

    def __init__(
        self,
        database: Database,
        committer: Committer,
        *,
        failed: Callable[[BufferFaultError], None],
        wal_limit: int,
    ) -> None:
        """Take what it works with.

        Args:
            failed: told about checkpoints that fail.
            wal_limit: bytes of WAL from which on commits wait for a checkpoint.
        """
        self._committer = committer
        self._failed = failed
        self._restart_pages = max(wal_limit // PAGE, 8)
        self._checkpoint_pages = max(min(_CHECKPOINT_PAGES, self._restart_pages // 2), 4)
        self._thread = ThreadPoolExecutor(1, "edgeproxy-checkpoint")
        self._running: asyncio.Future[BufferFaultError | None] | None = None
        self._commits = 0  # since the last tidying
        self.attach(database)

    def attach(self, database: Database) -> None:
        """Look after another database from now on."""
        self._database = database
        self._wal_pages = 0
        database.writer.set_wal_hook(self._note_wal)

    def wait(self) -> None:
        """Block until no checkpoint runs."""
        self._thread.submit(lambda: None).result()

    def close(self) -> None:
        """Wait for a checkpoint that runs, and begin no further one."""
        self._thread.shutdown()

    def after_commit(self) -> None:
        """Begin a checkpoint when the WAL is long."""
        self._commits += 1
        if self._wal_pages >= self._restart_pages:
            self._wal_pages = 0
            self._alone(self.truncate)
        elif self._wal_pages >= self._checkpoint_pages and self._running is None:
            loop = asyncio.get_running_loop()
            self._running = loop.run_in_executor(self._thread, self._checkpoint, self._database)
            self._running.add_done_callback(self._checkpointed)

    def tidy(self) -> bool:
        """Give back what a drained backlog leaves: free pages at any time, the WAL in quiet ones.

        To be called every second; whether there is more to give back soon.
        """
        free, pages = self._database.pages()
        quiet, self._commits = self._commits < _QUIET_COMMITS, 0
        if free > _VACUUM_PAGES and free > pages // 4:
            self._alone(self._vacuum)
            return True
        long = self._database.wal_size() > self._checkpoint_pages * PAGE
        # A file is cut to its pages only when the WAL that says so is written back.
        if quiet and (long or self._database.path.stat().st_size > pages * PAGE):
            self._alone(self.truncate)
        return False

    def truncate(self) -> None:
        """Write the WAL back and empty it; between transactions only. Raises apsw.Error."""
        self.wait()  # two checkpoints at once: the second is refused without waiting
        self._database.writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def make_room(self) -> None:
        """On a full disk: write the WAL back, and give back free pages a few at a time.

        Giving back needs space itself, in the WAL, which is emptied after every step. Between
        transactions only. Raises apsw.Error.
        """
        self.truncate()
        for _ in range(_FULL_STEPS):
            if not self._database.writer.pragma("freelist_count"):
                return
            self._vacuum(_FULL_PAGES)
            self.truncate()

    def _alone(self, job: Callable[[], None]) -> None:
        def tell(done: asyncio.Future[None]) -> None:
            error = None if done.cancelled() else done.exception()
            if isinstance(error, BufferFaultError):
                self._tell(error)

        def unless_busy() -> None:
            try:
                job()
            except apsw.BusyError:
                return  # a reader is in the way; the next one will do it

        self._committer.submit_alone(unless_busy).add_done_callback(tell)

    def _vacuum(self, pages: int = _VACUUM_PAGES) -> None:
        # Every step gives back one page: the statement is run to its end.
        statement = f"pragma incremental_vacuum({pages})"
        self._database.writer.execute(statement).fetchall()

    @staticmethod
    def _checkpoint(database: Database) -> BufferFaultError | None:
        try:
            database.checkpointer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.BusyError:
            return None
        except apsw.Error as error:
            return translate(error, database.checkpointer)
        return None

    def _checkpointed(self, done: "asyncio.Future[BufferFaultError | None]") -> None:
        self._running = None
        failure = None if done.cancelled() else done.result()
        if failure is not None:
            self._tell(failure)

    def _tell(self, failure: BufferFaultError) -> None:
        _log.warning("checkpoint_failed", reason=str(failure))
        self._failed(failure)

    def _note_wal(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

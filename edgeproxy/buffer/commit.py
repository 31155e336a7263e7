"""Group commit: everything that waits shares one transaction and one sync.

Jobs queue up while a commit is under way. Their statements run on the event loop, where nothing
competes with them for the interpreter (a row a call, each of them microseconds in cached pages);
only COMMIT, which waits for the disk, runs in a thread. One task owns the connection, so there
is never more than one transaction, and cancelling a caller never leaves one open.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import apsw

from edgeproxy.buffer.base import (
    BufferClosedError,
    BufferFaultError,
    BufferFullError,
    BufferWriteError,
)

__all__ = ["Committer"]

Job = Callable[[], None]


class Committer:
    """The one owner of a writing connection."""

    def __init__(
        self,
        connection: apsw.Connection,
        *,
        finish: Callable[[], None],
        committed: Callable[[float], None],
        rolled_back: Callable[[BufferFaultError], None],
    ) -> None:
        """Take over a connection.

        Args:
            connection: for writing; used by nobody else from now on.
            finish: runs at the end of each transaction, before its COMMIT.
            committed: called after each commit with the seconds that it took.
            rolled_back: called after a transaction failed, with what its callers are told.
        """
        self._connection = connection
        self._finish = finish
        self._committed = committed
        self._rolled_back = rolled_back
        self._jobs: list[tuple[Job, asyncio.Future[None]]] = []
        self._alone: list[tuple[Job, asyncio.Future[None]]] = []
        self._wake = asyncio.Event()
        self._closing = False
        self._thread = ThreadPoolExecutor(1, "edgeproxy-commit")
        self._loop = asyncio.get_running_loop()

    def submit(self, job: Job) -> asyncio.Future[None]:
        """Run a job's statements in the next transaction; done when that is committed.

        Cancelling the future does not stop the job.
        """
        return self._enqueue(self._jobs, job)

    def submit_alone(self, job: Job) -> asyncio.Future[None]:
        """Run a job in the thread, between transactions: a checkpoint, or giving space back."""
        return self._enqueue(self._alone, job)

    def _enqueue(
        self, queue: list[tuple[Job, asyncio.Future[None]]], job: Job
    ) -> asyncio.Future[None]:
        future = self._loop.create_future()
        if self._closing:
            future.set_exception(BufferClosedError("the buffer is closed"))
        else:
            queue.append((job, future))
            self._wake.set()
        return future

    async def run(self) -> None:
        """Commit until `close` was called and nothing waits any more."""
        while not self._closing or self._jobs or self._alone:
            await self._wake.wait()
            self._wake.clear()
            while self._jobs or self._alone:
                if self._jobs:
                    jobs, self._jobs = self._jobs, []
                    await self._transaction(jobs)
                if self._alone:
                    await self._run_alone(*self._alone.pop(0))
        self._thread.shutdown()

    def close(self) -> None:
        """Take no more jobs, and let `run` end once those that wait are committed."""
        self._closing = True
        self._wake.set()

    async def _transaction(self, jobs: list[tuple[Job, asyncio.Future[None]]]) -> None:
        started = self._loop.time()
        try:
            self._connection.execute("begin immediate")
            for job, _ in jobs:
                job()
            self._finish()
            await self._loop.run_in_executor(self._thread, self._connection.execute, "commit")
        except apsw.Error as error:
            failure = _translate(error)
            self._roll_back()
            self._rolled_back(failure)
            _settle(jobs, failure)
        except BaseException as error:
            self._roll_back()
            _settle(jobs, BufferWriteError(f"{type(error).__name__} in a transaction"))
            raise
        else:
            self._committed(self._loop.time() - started)
            _settle(jobs, None)

    async def _run_alone(self, job: Job, future: asyncio.Future[None]) -> None:
        try:
            await self._loop.run_in_executor(self._thread, job)
        except apsw.Error as error:
            _settle([(job, future)], _translate(error))
        else:
            _settle([(job, future)], None)

    def _roll_back(self) -> None:
        # SQLite itself rolls back after some errors (lang_transaction.html).
        if self._connection.in_transaction:
            try:
                self._connection.execute("rollback")
            except apsw.Error:
                # The original error is the one to tell; the next "begin" shows if this one lasts.
                return


def _translate(error: apsw.Error) -> BufferFaultError:
    if isinstance(error, apsw.FullError):
        return BufferFullError("the disk is full")
    return BufferWriteError(f"the database cannot be written: {error}")


def _settle(jobs: list[tuple[Job, asyncio.Future[None]]], failure: BufferFaultError | None) -> None:
    for _, future in jobs:
        if future.done():
            continue  # its caller was cancelled
        if failure is None:
            future.set_result(None)
        else:
            future.set_exception(failure)
            # A caller that was cancelled may never look: that is no "exception never retrieved".
            future.exception()

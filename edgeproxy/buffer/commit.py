"""Group commit: everything that waits shares one transaction and one sync.

Jobs queue up while a commit is under way. Their statements run on the event loop, where nothing
competes with them for the interpreter (a row a call, each of them microseconds in cached pages);
only COMMIT, which waits for the disk, runs in a thread. One task owns the connection, so there
is never more than one transaction, and cancelling a caller never leaves one open.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread

import apsw
from msgspec import Struct

from edgeproxy.buffer.base import (
    BufferClosedError,
    BufferFaultError,
    BufferWriteError,
    Settled,
)
from edgeproxy.buffer.faults import translate

__all__ = ["Committer"]

#: A job may raise BufferFaultError before its first statement: then it alone is left out.
Job = Callable[[], None]


class _Waiting(Struct):
    job: Job
    future: "asyncio.Future[None]"
    settled: Settled | None
    in_thread: bool = False

    def settle(self, failure: BufferFaultError | None) -> None:
        if self.settled is not None:
            self.settled(failure)
        if self.future.done():
            return  # its caller was cancelled
        if failure is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(failure)
            # A caller that was cancelled may never look: that is no "exception never retrieved".
            self.future.exception()


#: A busy server gathers requests for so long before it commits them together.
_GATHER_SECONDS = 0.002
#: Turns of the loop from a request's bytes to its job: so many without a new one, and none is near.
_IDLE_TURNS = 3


class _CommitThread:
    """One thread for one call at a time. An executor does the same at three times the cost."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: SimpleQueue[tuple[Callable[[], object], asyncio.Future[None]] | None]
        self._calls = SimpleQueue()
        self._thread = Thread(target=self._run, name="edgeproxy-commit", daemon=True)
        self._thread.start()

    def run(self, call: Callable[[], object]) -> "asyncio.Future[None]":
        """Run a call; the future is done when it has ended, and has its error if it raised one."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._calls.put((call, future))
        return future

    def end(self) -> None:
        """End when what was begun has ended; waits for it."""
        self._calls.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (item := self._calls.get()) is not None:
            call, future = item
            failure: BaseException | None = None
            try:
                call()
            except BaseException as error:  # noqa: BLE001 - raised where it is awaited
                failure = error
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(_resolve, future, failure)


def _resolve(future: "asyncio.Future[None]", failure: BaseException | None) -> None:
    if future.cancelled():
        return
    if failure is None:
        future.set_result(None)
    else:
        future.set_exception(failure)


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
            rolled_back: called after a transaction failed, with what its callers are told next.
        """
        self.connection = connection
        """May be replaced by a job that runs between transactions."""
        self._finish = finish
        self._committed = committed
        self._rolled_back = rolled_back
        self._jobs: list[_Waiting] = []
        self._alone: list[_Waiting] = []
        self._wake = asyncio.Event()
        self._closing = False
        self._loop = asyncio.get_running_loop()
        self._thread = _CommitThread(self._loop)

    def submit(self, job: Job, settled: Settled | None = None) -> asyncio.Future[None]:
        """Run a job's statements in the next transaction; done when that is committed.

        Cancelling the future stops neither the job nor the call of `settled`, which comes before
        anybody who awaits the future goes on.
        """
        return self._enqueue(self._jobs, job, settled)

    def submit_alone(self, job: Job, *, in_thread: bool = True) -> asyncio.Future[None]:
        """Run a job between transactions: a checkpoint, giving space back, another connection."""
        return self._enqueue(self._alone, job, None, in_thread=in_thread)

    def _enqueue(
        self, queue: list[_Waiting], job: Job, settled: Settled | None, *, in_thread: bool = False
    ) -> asyncio.Future[None]:
        waiting = _Waiting(job, self._loop.create_future(), settled, in_thread)
        if self._closing:
            waiting.settle(BufferClosedError("the buffer is closed"))
        else:
            queue.append(waiting)
            self._wake.set()
        return waiting.future

    async def run(self) -> None:
        """Commit until `close` was called and nothing waits any more."""
        while not self._closing or self._jobs or self._alone:
            await self._wake.wait()
            self._wake.clear()
            while self._jobs or self._alone:
                if self._alone:
                    await self._run_alone(self._alone.pop(0))
                if self._jobs:
                    await self._gather()
                    jobs, self._jobs = self._jobs, []
                    await self._transaction(jobs)
        self._thread.end()

    async def _gather(self) -> None:
        """Let what has already arrived take part: each commit costs as much as several requests.

        It looks again for as long as new jobs come with every turn of the loop, so one client alone
        waits for some turns that do nothing, and a busy server commits a few hundred times a second.
        """
        until = self._loop.time() + _GATHER_SECONDS
        idle_turns = 0
        while idle_turns < _IDLE_TURNS and self._loop.time() < until:
            waiting = len(self._jobs)
            await asyncio.sleep(0)
            idle_turns = 0 if len(self._jobs) > waiting else idle_turns + 1

    def close(self) -> None:
        """Take no more jobs, and let `run` end once those that wait are committed."""
        self._closing = True
        self._wake.set()

    async def _transaction(self, jobs: list[_Waiting]) -> None:
        started = self._loop.time()
        taking_part = jobs
        try:
            self.connection.execute("begin immediate")
            taking_part = self._run_jobs(jobs)
            self._finish()
            await self._thread.run(self._commit)
        except apsw.Error as error:
            failure = translate(error, self.connection)
            self._roll_back()
            self._rolled_back(failure)
            _settle(taking_part, failure)
        except BaseException as error:
            self._roll_back()
            _settle(taking_part, BufferWriteError(f"{type(error).__name__} in a transaction"))
            raise
        else:
            self._committed(self._loop.time() - started)
            _settle(taking_part, None)

    def _commit(self) -> None:
        self.connection.execute("commit")

    @staticmethod
    def _run_jobs(jobs: list[_Waiting]) -> list[_Waiting]:
        taking_part = []
        refused: list[tuple[_Waiting, BufferFaultError]] = []
        for waiting in jobs:
            try:
                waiting.job()
            except BufferFaultError as refusal:
                refused.append((waiting, refusal))
            else:
                taking_part.append(waiting)
        for waiting, why in refused:
            waiting.settle(why)
        return taking_part

    async def _run_alone(self, waiting: _Waiting) -> None:
        try:
            if waiting.in_thread:
                await self._thread.run(waiting.job)
            else:
                waiting.job()
        except apsw.Error as error:
            waiting.settle(translate(error, self.connection))
        except BufferFaultError as error:
            waiting.settle(error)
        else:
            waiting.settle(None)

    def _roll_back(self) -> None:
        try:
            # SQLite itself rolls back after some errors (lang_transaction.html).
            if self.connection.in_transaction:
                self.connection.execute("rollback")
        except apsw.Error:
            # The original error is the one to tell; the next "begin" shows if this one lasts.
            return


def _settle(jobs: list[_Waiting], failure: BufferFaultError | None) -> None:
    for waiting in jobs:
        waiting.settle(failure)

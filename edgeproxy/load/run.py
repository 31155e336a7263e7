"""Sends requests over a number of connections and measures the answers."""

import asyncio
import ssl
import time
from collections.abc import Callable, Iterator

import msgspec

from edgeproxy.load.client import Answer, Connection
from edgeproxy.load.report import Report
from edgeproxy.load.traffic import Request, Target

_PAUSE_AFTER_ERROR = 0.1
_SUCCESS = b'{"success":true}'


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much, how fast, for how long."""

    connections: int = 16
    rate: float = 0.0
    """Events per second over all connections; 0 means as fast as the answers come."""
    duration: float | None = None
    """Seconds; requests under way when they are over are waited for."""
    count: int | None = None
    """Stop once this many events were sent; whole requests, so up to one batch more."""
    timeout: float = 30.0


async def run(
    target: Target,
    requests: Iterator[Request],
    plan: Plan,
    report: Report,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Send `requests` as `plan` says; `report` is kept up to date on the way.

    With a rate, a request's latency counts from when it was due, so that a server that stalls
    does not make its own figures look better by being asked less. Cancelling stops at once, and
    the report then holds what was measured so far.

    Raises:
        OSError: not even the first connection could be made.
        ValueError: `requests` raised it (a broken line of a file).

    """
    sender = _Sender(target, requests, plan, report, clock)
    (await sender.connect()).close()
    started = clock()
    try:
        await sender.run(started)
    finally:
        report.seconds = clock() - started


class _Sender:
    """What the workers, one per connection, share: the source, the pace and the report."""

    def __init__(
        self,
        target: Target,
        requests: Iterator[Request],
        plan: Plan,
        report: Report,
        clock: Callable[[], float],
    ) -> None:
        self._target = target
        self._tls = ssl.create_default_context() if target.tls else None
        self._requests = requests
        self._plan = plan
        self._report = report
        self._clock = clock
        self._started = 0.0

    async def connect(self) -> Connection:
        return await Connection.open(self._target.host, self._target.port, self._tls)

    async def run(self, started: float) -> None:
        self._started = started
        workers = [asyncio.create_task(self._work()) for _ in range(self._plan.connections)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self) -> None:
        connection: Connection | None = None
        try:
            while (next_one := self._next()) is not None:
                request, due = next_one
                if (wait := due - self._clock()) > 0:
                    await asyncio.sleep(wait)
                connection = await self._send(connection, request, due)
        finally:
            if connection is not None:
                connection.close()

    def _next(self) -> tuple[Request, float] | None:
        """The next request and when it is due, or None when it is time to stop."""
        plan, sent = self._plan, self._report.sent
        now = self._clock()
        due = self._started + sent / plan.rate if plan.rate else now
        if plan.count is not None and sent >= plan.count:
            return None
        if plan.duration is not None and max(due, now) >= self._started + plan.duration:
            return None
        request = next(self._requests, None)
        if request is None:
            return None
        self._report.sent += request.events
        return request, due

    async def _send(
        self, connection: Connection | None, request: Request, due: float
    ) -> Connection | None:
        """Send one request, over a new connection where there is none; returns the usable one."""
        report = self._report
        try:
            async with asyncio.timeout(self._plan.timeout):
                if connection is None or not connection.usable:
                    connection = await self.connect()
                report.bytes_sent += len(request.wire)
                answer = await connection.request(request.wire)
        except TimeoutError:
            report.errors["timeout"] += 1
            return None
        except OSError as error:
            report.errors[type(error).__name__] += 1
            await asyncio.sleep(_PAUSE_AFTER_ERROR)
            return None
        rejected = _rejected(answer)
        report.answered(answer.status, request.events, rejected, self._clock() - due)
        return connection if connection.usable else None


class _Partial(msgspec.Struct):
    rejected: list[msgspec.Raw] = []


def _rejected(answer: Answer) -> int:
    """How many events of a batch an answer of 200 says were not accepted."""
    if answer.body == _SUCCESS or answer.status != 200:
        return 0
    try:
        return len(msgspec.json.decode(answer.body, type=_Partial).rejected)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return 0

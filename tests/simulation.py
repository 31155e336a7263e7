"""A lane under a clock that jumps: hours of an outage take milliseconds.

The lane is the real one; the loop's time is virtual, the buffer is a few lines over the real order
per user, and Hightouch is a function from events to an answer.
"""

import asyncio
import itertools
import random
from collections.abc import Callable, Sequence

import structlog

from edgeproxy.buffer.base import Claimed, DeadLetter
from edgeproxy.buffer.order import Order
from edgeproxy.config import load
from edgeproxy.delivery.lane import Lane
from edgeproxy.delivery.outcome import Answer
from edgeproxy.metrics import Metrics

OK = Answer(200, "http_200")


def status(code, retry_after=None):
    return Answer(code, f"http_{code}", retry_after=retry_after)


class StuckError(Exception):
    """Nothing will ever happen again, or the loop turns without time passing."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 1000.0
        self.turns = 0
        self._turns_now = 0
        self._real_select = self._selector.select
        self._selector.select = self._jump

    def time(self) -> float:
        return self._now

    def _jump(self, timeout: float | None):
        self.turns += 1
        self._turns_now += 1
        if self._turns_now > 2_000:
            raise StuckError("the loop turns without time passing")
        if timeout is None:
            raise StuckError("everything sleeps for ever")
        if timeout > 0:
            self._now += timeout
            self._turns_now = 0
        return self._real_select(0)


class ModelBuffer:
    """Lane `site`: a list of events, and the real order per user."""

    def __init__(self) -> None:
        self.events: dict[int, Claimed] = {}
        self.acked: list[int] = []
        self.buried: dict[int, DeadLetter] = {}
        self.order = Order(0)
        self._last = 0
        self.unsettled: dict[int, dict[int, None]] = {}  # user -> ids, in order

    def put(self, users: Sequence[int], *, received: int = 0, body: bytes = b'{"a":1}') -> None:
        for user in users:
            self._last += 1
            self.events[self._last] = Claimed(self._last, user, received, 0, 0, body)
            self.unsettled.setdefault(user, {})[self._last] = None

    def claim(self, _lane, max_events, max_bytes, overhead=0):
        def read(after, most, _most_bytes):
            ids = itertools.islice(
                (i for i in range(after + 1, self._last + 1) if i in self.events), most
            )
            return [self.events[id_] for id_ in ids]

        return self.order.claim(max_events, max_bytes, overhead, read)

    def ack(self, _lane, events):
        self.acked += [event.id for event in events]
        return self._settle(events)

    def bury(self, _lane, events, letters):
        self.buried.update(zip([event.id for event in events], letters, strict=True))
        return self._settle(events)

    def _settle(self, events):
        for event in events:
            del self.events[event.id]
            del self.unsettled[event.user][event.id]
        self.order.settle(events)
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def release(self, _lane, events):
        self.order.release(events)

    def waiting(self, _lane):
        count = len(self.events) - self.order.claimed
        return count, count * 7


class Hightouch:
    """Answers by a function of (events' ids, seconds since the start); keeps what was asked of it,
    and watches the laws.
    """

    def __init__(self, buffer, answer: Callable, *, latency=0.05, max_in_flight=4) -> None:
        self.buffer = buffer
        self.answer = answer
        self.latency = latency
        self.max_in_flight = max_in_flight
        self.requests: list[tuple[float, list[int], int | None]] = []
        self.in_flight: list[list[Claimed]] = []
        self.most_in_flight = 0
        self.started = asyncio.get_running_loop().time()

    async def send(self, _destination, events, _now):
        self._watch(events)
        loop = asyncio.get_running_loop()
        at = loop.time() - self.started
        ids = [event.id for event in events]
        self.in_flight.append(events)
        self.most_in_flight = max(self.most_in_flight, len(self.in_flight))
        try:
            answer = self.answer(ids, at)
            self.requests.append((at, ids, answer.status))
            await asyncio.sleep(self.latency)
        finally:
            self.in_flight.remove(events)
        return answer

    def _watch(self, events):
        assert len(self.in_flight) < self.max_in_flight, "too many in flight"
        ids = [event.id for event in events]
        assert ids == sorted(set(ids)), "in order, each once"
        own: set[int] = set()
        for event in events:
            if event.user not in own:
                first = next(iter(self.buffer.unsettled[event.user]))
                assert first == event.id, "an earlier event of the user is unsettled"
                own.add(event.user)
        flying = {event.user for batch in self.in_flight for event in batch}
        assert flying.isdisjoint(own), "a user's events are in flight twice"


class Simulation:
    """One lane; `run` for so many seconds."""

    def __init__(self, answer, *, latency=0.05, seed=0, **tables) -> None:
        flush = {"max_events": 500, "max_in_flight": 4, **tables.get("flush", {})}
        self._environ = {
            "EDGEPROXY_HIGHTOUCH__WRITE_KEY": "k",
            **{f"EDGEPROXY_FLUSH__{key.upper()}": str(value) for key, value in flush.items()},
            **{
                f"EDGEPROXY_{table.upper()}__{key.upper()}": str(value)
                for table, values in tables.items()
                if table != "flush"
                for key, value in values.items()
            },
        }
        self.settings = load(None, self._environ)
        self.buffer = ModelBuffer()
        self.hightouch = Hightouch(
            self.buffer, answer, latency=latency, max_in_flight=flush["max_in_flight"]
        )
        self.metrics = Metrics()
        self.now_ms = 0
        self.lane = Lane(
            "default",
            self.buffer,
            self.hightouch,
            self.metrics,
            now=lambda: self.now_ms,
            revision=lambda: "r1",
            chance=random.Random(seed).random,
        )
        self.lane.configure(self.settings)
        self._task: asyncio.Task | None = None

    def put(self, users, **more):
        self.buffer.put(users, **more)
        self.lane.wake()

    async def run(self, seconds: float) -> None:
        """Let so much time pass."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self.lane.run())
        await asyncio.wait([self._task], timeout=seconds)
        if self._task.done():
            self._task.result()

    async def until(self, done: Callable[[], bool], within: float) -> float:
        """Run until `done`; seconds that took."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        while not done():
            assert loop.time() - started < within, self.describe()
            await self.run(0.25)
        return loop.time() - started

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def describe(self) -> str:
        pacing = self.lane.pacing
        batches = [(b.events[0].id, len(b.events), b.tries, b.in_flight) for b in pacing.batches]
        return (
            f"left {len(self.buffer.events)}, {pacing.state} {pacing.reason}, "
            f"{len(self.hightouch.requests)} requests, batches {batches[:20]}"
        )


def simulate(scenario: Callable) -> object:
    """Run a coroutine function under the virtual clock."""
    structlog.configure(processors=[_drop])
    loop = VirtualLoop()
    try:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            return runner.run(scenario())
    finally:
        structlog.reset_defaults()


def _drop(_logger, _name, _event):
    raise structlog.DropEvent

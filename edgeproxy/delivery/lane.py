"""One source's way to its destination: claims, sends, settles, and waits when it must."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Literal

import structlog
from msgspec import Struct

from edgeproxy.buffer.base import Buffer, BufferFaultError, Claimed
from edgeproxy.config import Settings
from edgeproxy.delivery.outcome import Outcome, judge
from edgeproxy.delivery.pacing import Batch, Pacing
from edgeproxy.delivery.settling import BUFFER_PAUSE, Settling
from edgeproxy.delivery.upstream import EVENT_OVERHEAD, Destination, Upstream, envelope_overhead
from edgeproxy.metrics import Metrics

__all__ = ["Attempt", "Lane", "LaneStatus"]

_log = structlog.get_logger("edgeproxy.delivery")

#: The reason shown for a lane whose source the settings no longer name; a reload can bring it back.
_NO_DESTINATION = "source_removed"
#: Batches that were answered and wait for the buffer, beyond which nothing more is sent: they are
#: in memory, and sent again if the power fails now.
_UNSETTLED = 16


_system_chance = random.SystemRandom().random


class LaneStatus(Struct):
    """One lane as `/status` shows it."""

    name: str
    endpoint: str | None
    state: str
    reason: str | None
    detail: str
    in_flight: int
    delivered: int
    next_attempt_seconds: float | None


class Attempt(Struct, frozen=True):
    """One batch that was sent, and what came back: for whoever watches."""

    lane: str
    at: int  # ms since 1970, when it was answered
    seconds: float
    events: list[Claimed]
    outcome: Outcome


class Lane:
    """Runs until cancelled or drained; what is claimed then is released."""

    def __init__(
        self,
        name: str,
        buffer: Buffer,
        upstream: Upstream,
        metrics: Metrics,
        *,
        now: Callable[[], int],
        revision: Callable[[], str],
        chance: Callable[[], float] = _system_chance,
        attempted: Callable[[Attempt], None] = lambda _: None,
    ) -> None:
        """Take what it works with; `configure` must be called before `run`.

        Args:
            now: ms since 1970. Pauses are measured by the loop's clock, which never steps.
            revision: of the mapping in force, for dead letters.
            chance: numbers from 0 to 1, for the jitter.
            attempted: told of each batch that was answered; must be quick and must not raise.
        """
        self.name = name
        self._buffer = buffer
        self._upstream = upstream
        self._metrics = metrics
        self._now = now
        self._chance = chance
        self._attempted = attempted
        self._clock = asyncio.get_running_loop().time
        self._settling = Settling(name, buffer, metrics, now=now, revision=revision)
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending: Literal["drain", "finish"] | None = None
        self._first_waiting: float | None = None
        self._unreadable_until: float | None = None  # the buffer could not be read
        self._destination: Destination | None = None
        self._pacing: Pacing | None = None
        # What the log last said; a reload makes the pace afresh and says nothing.
        self._reported: tuple[str, str | None] = ("ok", None)

    def configure(self, settings: Settings) -> None:
        """Apply settings; a lane that waits, or whose destination changed, tries at once.

        Also where Hightouch asked to be left alone: who reloads knows more than was known then.
        """
        self._settings = settings
        was = self._destination
        self._destination = _destination(settings, self.name)
        if self._pacing is None:
            self._pacing = Pacing(settings.retry, settings.flush.max_in_flight, self._chance)
        else:
            self._pacing.configure(settings.retry, settings.flush.max_in_flight)
            waits = self._pacing.state != "ok" or self._pacing.next_attempt(self._clock())
            if waits or self._destination != was:
                self._pacing.unpark()
            self._give_back_what_is_too_large()
        self._wake.set()

    def wake(self) -> None:
        """Look again: events arrived."""
        self._wake.set()

    def drain(self) -> None:
        """Send what there is without waiting for fuller batches, then end `run`.

        A lane in trouble ends at once: what it has is on disk. Once `finish` was called this is
        too late.
        """
        self._ending = self._ending or "drain"
        self._wake.set()

    def finish(self) -> None:
        """Begin nothing more, and end `run` when what is under way is settled."""
        self._ending = "finish"
        self._wake.set()

    @property
    def pacing(self) -> Pacing:
        """The lane's pace; there once it is configured."""
        assert self._pacing is not None, "configure() comes first"  # noqa: S101 - for the type checker
        return self._pacing

    @property
    def is_abandoned(self) -> bool:
        """The settings do not name its source, and nothing of it is left."""
        return (
            self._destination is None
            and not self.pacing.batches
            and self._buffer.waiting(self.name)[0] <= 0
        )

    def status(self) -> LaneStatus:
        """The lane as `/status` shows it."""
        pacing = self.pacing
        state: str = pacing.state
        reason = pacing.reason if state != "ok" else None
        wait = pacing.next_attempt(self._clock())
        if self._destination is None:
            state, reason, wait = "parked", _NO_DESTINATION, None
        return LaneStatus(
            name=self.name,
            endpoint=None if self._destination is None else self._destination.endpoint,
            state=state,
            reason=reason,
            detail=pacing.detail if reason else "",
            in_flight=pacing.in_flight,
            delivered=self._metrics.delivered_by(self.name),
            next_attempt_seconds=None if wait is None else round(wait, 3),
        )

    # --- the loop ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Deliver until cancelled or drained. An unexpected error ends it, and with it the process."""
        try:
            while True:
                self._wake.clear()
                self._reap()
                pause = self._send_what_may_go()
                if self._ending is not None and not self._tasks:
                    return
                try:
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
                except TimeoutError:
                    continue
        finally:
            await self._stop()

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for batch in self.pacing.batches:
            self._buffer.release(self.name, batch.events)
        self.pacing.batches.clear()

    def _reap(self) -> None:
        for task in [task for task in self._tasks if task.done()]:
            self._tasks.discard(task)
            task.result()  # an error of ours ends the lane

    def _send_what_may_go(self) -> float | None:
        """Start the attempts that may start now; how long until more may, None: until woken."""
        pacing = self.pacing
        if self._destination is None or self._ending == "finish":
            return None
        if self._ending == "drain" and pacing.state != "ok":
            return None
        now = self._clock()
        while pacing.may_send(now) and len(self._tasks) < self._most_tasks():
            batch = (
                self._pick(now, before_new=True)
                or self._claim_if_due(now)
                or self._pick(now, before_new=False)
            )
            if batch is None:
                break
            self._start(self._attempt(batch))
        waits = (pacing.next_attempt(now), self._linger(now), self._unreadable_for(now))
        return min([wait for wait in waits if wait], default=None)

    def _most_tasks(self) -> int:
        return self._settings.flush.max_in_flight + _UNSETTLED

    def _linger(self, now: float) -> float | None:
        """Seconds until there is a batch worth sending: 0 now, None while nothing is buffered."""
        events, size = self._buffer.waiting(self.name)
        if events <= 0:
            self._first_waiting = None
            return None
        flush = self._settings.flush
        if self._first_waiting is None:
            self._first_waiting = now
        if self._ending is not None or events >= flush.max_events or size >= flush.max_bytes:
            return 0.0
        return max(self._first_waiting + flush.interval - now, 0.0)

    def _unreadable_for(self, now: float) -> float | None:
        return None if self._unreadable_until is None else max(self._unreadable_until - now, 0.0)

    def _pick(self, now: float, *, before_new: bool) -> Batch | None:
        """Take a batch that waited; what grew too old meanwhile is buried instead."""
        while batch := self.pacing.pick(now, before_new=before_new):
            fresh = self._bury_aged(batch.events)
            if not fresh:
                self.pacing.give_up(batch)
                continue
            if len(fresh) < len(batch.events):
                batch.hold(fresh)
            return batch
        return None

    def _claim_if_due(self, now: float) -> Batch | None:
        """Claim a batch; events that grew too old while they waited are buried instead."""
        flush = self._settings.flush
        most = self.pacing.claimable(flush.max_events)
        if not most or self._linger(now) != 0 or self._unreadable_for(now):
            return None
        try:
            events = self._buffer.claim(self.name, most, self._room(), EVENT_OVERHEAD)
        except BufferFaultError as error:
            if self._unreadable_until is None:
                _log.error("claim_failed", lane=self.name, reason=str(error))
            self._unreadable_until = now + BUFFER_PAUSE
            return None
        self._unreadable_until = self._first_waiting = None
        fresh = self._bury_aged(events)
        return self.pacing.add(fresh, now) if fresh else None

    def _room(self) -> int:
        """Bytes of events that fit into one batch beside what surrounds them."""
        key = self._destination.write_key if self._destination is not None else ""
        return self._settings.flush.max_bytes - envelope_overhead(key)

    def _give_back_what_is_too_large(self) -> None:
        """Release batches that the limits of today would not allow; they are claimed anew.

        With them the later ones of their user, which would be sent before them otherwise.
        """
        most, room = self._settings.flush.max_events, self._room()
        given_back: set[int] = set()
        for batch in list(self.pacing.batches):
            size = batch.size + EVENT_OVERHEAD * len(batch.events)
            is_too_large = len(batch.events) > most or (size > room and len(batch.events) > 1)
            if (is_too_large or batch.only_user in given_back) and not batch.in_flight:
                self.pacing.give_up(batch)
                self._buffer.release(self.name, batch.events)
                if batch.only_user is not None:
                    given_back.add(batch.only_user)

    # --- one attempt ------------------------------------------------------------------------------

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._wake.set())

    async def _attempt(self, batch: Batch) -> None:
        """Send one batch and settle it."""
        destination = self._destination
        if destination is None:  # since a moment ago
            batch.in_flight = False
            return
        started = self._clock()
        answer = await self._upstream.send(destination, batch.events, self._now())
        seconds = self._clock() - started
        outcome = judge(answer, datetime.now(UTC))
        events = batch.events
        step = self.pacing.settle(batch, outcome, self._clock())
        self._metrics.delivery_seconds.observe(seconds)
        self._metrics.attempted(self.name, outcome.verdict)
        self._report(len(events), outcome, seconds)
        self._attempted(Attempt(self.name, self._now(), seconds, events, outcome))
        self._wake.set()  # the next may go while this one is settled
        if step.ack:
            await self._settling.delivered(events)
        if step.bury:
            await self._settling.refused(events, answer)

    def _bury_aged(self, events: list[Claimed]) -> list[Claimed]:
        """Bury what is older than `max_age` by now; what is left."""
        limit = self._settings.validation.max_age * 1000
        now = self._now()
        aged = [event for event in events if event.age + max(now - event.received, 0) > limit]
        if not aged:
            return events
        self._start(self._settling.aged(aged))
        gone = {event.id for event in aged}
        return [event for event in events if event.id not in gone]

    def _report(self, events: int, outcome: Outcome, seconds: float) -> None:
        """One line a batch, and one a change of state."""
        answer = outcome.answer
        log = _log.info if outcome.verdict == "delivered" else _log.warning
        log(
            "batch_" + outcome.verdict,
            lane=self.name,
            events=events,
            seconds=round(seconds, 4),
            answer=answer.reason,
            # An answer's body may quote events, and those never reach a log.
            **({"detail": answer.detail} if answer.status is None else {}),
        )
        state = self.pacing.state
        reason = self.pacing.reason if state != "ok" else None
        was, self._reported = self._reported, (state, reason)
        if was != self._reported:
            log = _log.info if state == "ok" else _log.warning
            log("lane_state", lane=self.name, state=state, was=was[0], reason=reason)


def _destination(settings: Settings, name: str) -> Destination | None:
    """Where a source's events go; None when the settings do not name it."""
    for source in settings.sources:
        if source.name == name:
            return Destination(
                source.endpoint,
                source.hightouch_write_key,
                settings.hightouch.proxy,
                settings.hightouch.ca_file,
            )
    return None

"""One source's way to its destination: claims, sends, settles, and waits when it must."""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime

import structlog
from msgspec import Struct

from edgeproxy.buffer.base import Buffer, BufferFaultError, Claimed, DeadLetter
from edgeproxy.config import Settings
from edgeproxy.delivery.outcome import Outcome, judge
from edgeproxy.delivery.pacing import Batch, Pacing
from edgeproxy.delivery.upstream import Destination, Upstream
from edgeproxy.events.event import read, read_object
from edgeproxy.metrics import Metrics

__all__ = ["Lane", "LaneStatus"]

_log = structlog.get_logger("edgeproxy.delivery")

#: The reason shown for a lane whose source the settings no longer name; a reload can bring it back.
_NO_DESTINATION = "source_removed"
#: Seconds after which reading or settling is tried again when the buffer's disk fails.
_BUFFER_PAUSE = 1.0


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


class Lane:
    """Runs until cancelled; what is claimed then is released."""

    def __init__(
        self,
        name: str,
        buffer: Buffer,
        upstream: Upstream,
        metrics: Metrics,
        *,
        now: Callable[[], int],
        revision: Callable[[], str],
    ) -> None:
        """Take what it works with; `configure` must be called before `run`.

        Args:
            now: ms since 1970.
            revision: of the mapping in force, for dead letters.
        """
        self.name = name
        self._buffer = buffer
        self._upstream = upstream
        self._metrics = metrics
        self._now = now
        self._revision = revision
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False
        self._first_waiting: float | None = None
        self._destination: Destination | None = None
        self._pacing: Pacing | None = None

    def configure(self, settings: Settings) -> None:
        """Apply settings; a lane that was parked tries at once."""
        self._settings = settings
        source = next((s for s in settings.sources if s.name == self.name), None)
        self._destination = None
        if source is not None:
            self._destination = Destination(
                source.endpoint,
                source.hightouch_write_key,
                settings.hightouch.proxy,
                settings.hightouch.ca_file,
            )
        if self._pacing is None:
            chance = random.SystemRandom().random
            self._pacing = Pacing(settings.retry, settings.flush.max_in_flight, chance)
        else:
            self._pacing.configure(settings.retry, settings.flush.max_in_flight)
            self._pacing.unpark()
        self._wake.set()

    def wake(self) -> None:
        """Look again: events arrived."""
        self._wake.set()

    def drain(self) -> None:
        """From now on send what there is without waiting for fuller batches."""
        self._draining = True
        self._wake.set()

    @property
    def pacing(self) -> Pacing:
        """The lane's pace; there once it is configured."""
        assert self._pacing is not None, "configure() comes first"  # noqa: S101 - for the type checker
        return self._pacing

    @property
    def is_busy(self) -> bool:
        """An attempt is under way or its outcome is being settled, or more can be sent now."""
        if self._tasks:
            return True
        return (
            self._destination is not None
            and self.pacing.state == "ok"
            and bool(self._buffer.waiting(self.name)[0] > 0 or self.pacing.batches)
        )

    def status(self) -> LaneStatus:
        """The lane as `/status` shows it."""
        pacing = self.pacing
        state: str = pacing.state
        reason = pacing.reason if state != "ok" else None
        if self._destination is None:
            state, reason = "parked", _NO_DESTINATION
        wait = pacing.next_attempt(time.monotonic())
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
        """Deliver until cancelled. An unexpected error ends it, and with it the process."""
        try:
            while True:
                self._wake.clear()
                self._reap()
                pause = self._send_what_may_go()
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
        if self._destination is None:
            return None
        pacing = self.pacing
        now = time.monotonic()
        while pacing.may_send(now):
            batch = (
                pacing.pick(now, fresh=True)
                or self._claim_if_due(now)
                or pacing.pick(now, fresh=False)
            )
            if batch is None:
                break
            self._start(self._attempt(batch))
        waits = (pacing.next_attempt(now), self._linger(now) if pacing.may_send(now) else None)
        return min([wait for wait in waits if wait], default=None)

    def _linger(self, now: float) -> float | None:
        """Seconds until there is a batch worth sending: 0 now, None while nothing is buffered."""
        events, size = self._buffer.waiting(self.name)
        if events <= 0:
            self._first_waiting = None
            return None
        flush = self._settings.flush
        if self._first_waiting is None:
            self._first_waiting = now
        if self._draining or events >= flush.max_events or size >= flush.max_bytes:
            return 0.0
        return max(self._first_waiting + flush.interval - now, 0.0)

    def _claim_if_due(self, now: float) -> Batch | None:
        """Claim a batch; events that grew too old while they waited are buried instead."""
        if not self.pacing.wants_more() or self._linger(now) != 0:
            return None
        flush = self._settings.flush
        room = flush.max_bytes - _ENVELOPE_BYTES - len(self._key())
        events = self._buffer.claim(self.name, flush.max_events, room, _DATED_BYTES)
        self._first_waiting = None
        fresh = self._bury_aged(events) if events else events
        return self.pacing.add(fresh) if fresh else None

    def _key(self) -> str:
        return self._destination.write_key if self._destination is not None else ""

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._wake.set())

    async def _attempt(self, batch: Batch) -> None:
        """Send one batch and settle it."""
        fresh = self._bury_aged(batch.events) if batch.failures else batch.events
        if len(fresh) != len(batch.events):
            self.pacing.drop(batch)
            if not fresh:
                return
            batch = self.pacing.add(fresh)
        destination = self._destination
        if destination is None:
            batch.in_flight = False
            return
        started = time.monotonic()
        answer = await self._upstream.send(destination, batch.events, self._now())
        seconds = time.monotonic() - started
        outcome = judge(answer, datetime.now(UTC))
        was = self.pacing.state, self.pacing.reason
        step = self.pacing.settle(batch, outcome, time.monotonic())
        self._metrics.delivery_seconds.observe(seconds)
        self._metrics.attempted(self.name, outcome.verdict)
        self._report(batch, outcome, seconds, was)
        if step.ack:
            await self._settled(lambda: self._buffer.ack(self.name, batch.events))
            self._metrics.delivered(self.name, len(batch.events))
            lag = max(self._now() - batch.events[0].received, 0)
            self._metrics.delivery_lag_seconds.observe(lag / 1000)
        for refused, why in step.bury:
            await self._bury_refused(refused, why)

    # --- settling ---------------------------------------------------------------------------------

    async def _settled(self, settle: Callable[[], "asyncio.Future[None]"]) -> None:
        """Repeat until the buffer took it: what was delivered must not be sent again for a full disk."""
        while True:
            try:
                await asyncio.shield(settle())
            except BufferFaultError as error:
                _log.error("settling_failed", lane=self.name, reason=str(error))
                await asyncio.sleep(_BUFFER_PAUSE)
            else:
                return

    async def _bury_refused(self, batch: Batch, outcome: Outcome) -> None:
        answer = outcome.answer
        letters = [
            self._letter(
                event,
                "rejected_upstream",
                f"Hightouch answered {answer.status}",
                status=answer.status,
                answer=answer.detail,
            )
            for event in batch.events
        ]
        await self._settled(lambda: self._buffer.bury(self.name, batch.events, letters))
        self._metrics.quarantined(self.name, "rejected_upstream", len(letters))
        _log.warning("events_rejected", lane=self.name, events=len(letters), status=answer.status)

    def _bury_aged(self, events: list[Claimed]) -> list[Claimed]:
        """Bury what is older than `max_age` by now; what is left."""
        limit = self._settings.validation.max_age * 1000
        now = self._now()
        aged = [e for e in events if e.age + max(now - e.received, 0) > limit]
        if not aged:
            return events
        letters = [
            self._letter(event, "too_old", "grew older than validation.max_age in the buffer")
            for event in aged
        ]
        self._start(self._settled(lambda: self._buffer.bury(self.name, aged, letters)))
        self._metrics.quarantined(self.name, "too_old", len(aged))
        self._metrics.expired(self.name, len(aged))
        _log.warning("events_expired", lane=self.name, events=len(aged))
        gone = {event.id for event in aged}
        return [event for event in events if event.id not in gone]

    def _letter(
        self, event: Claimed, code: str, message: str, status: int | None = None, answer: str = ""
    ) -> DeadLetter:
        fields = read_object(event.body) or {}
        id_ = read(fields["messageId"]) if "messageId" in fields else ""
        return DeadLetter(
            lane=self.name,
            code=code,
            message=message,
            form="sent",
            received=event.received,
            died=self._now(),
            body=event.body,
            message_id=str(id_),
            revision=self._revision(),
            status=status,
            answer=answer,
            skew=event.skew,
            age=event.age,
        )

    def _report(
        self, batch: Batch, outcome: Outcome, seconds: float, was: tuple[str, str | None]
    ) -> None:
        """One line a batch, and one a change of state."""
        answer = outcome.answer
        log = _log.info if outcome.verdict == "delivered" else _log.warning
        log(
            "batch_" + outcome.verdict,
            lane=self.name,
            events=len(batch.events),
            seconds=round(seconds, 4),
            answer=answer.reason,
            # An answer's body may quote events, and those never reach a log.
            **({"detail": answer.detail} if answer.status is None else {}),
        )
        pacing = self.pacing
        if (pacing.state, pacing.reason) != was:
            _log.warning(
                "lane_state",
                lane=self.name,
                state=pacing.state,
                was=was[0],
                reason=pacing.reason,
            )


# What surrounds the events of a batch, and what dating adds to each (with the comma between two).
_ENVELOPE_BYTES = len(b'{"batch":[],"sentAt":"2026-11-23T15:36:34.379Z","writeKey":""}')
_DATED_BYTES = len(b'"sentAt":"2026-11-23T15:36:34.379Z",') + 1

"""One lane's pace and the fate of its batches: pure, so that hours of an outage are a test of
milliseconds. Time (monotonic seconds) and chance come in as arguments.

The laws it keeps:
- Attempts never use an event up. A batch is delivered, or refused alone while others get through.
- A failing lane is tried with one batch at a time, at full-jitter exponential pauses; a working one
  grows from one batch in flight to `max_in_flight`.
- What a batch does to Hightouch is held against that batch: five failures halve it, so that one
  event that breaks Hightouch ends up alone, and waits alone.
"""

from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from edgeproxy.buffer.base import Claimed
from edgeproxy.config import Retry
from edgeproxy.delivery.outcome import Outcome

__all__ = ["Batch", "Pacing", "State", "Step"]

State = Literal["ok", "backing_off", "parked"]

#: A batch that failed so often is halved for its next attempts (the contract).
HALVE_AFTER = 5
#: Something of the lane was answered 2xx at most so long ago: then a refusal is the event's own.
TRUST_SECONDS = 60.0
#: Single events refused, with nothing delivered between them, before the lane is parked: enough to
#: see that it is not the events, few enough not to hammer.
REFUSED_ALONE = 3
#: What a lane keeps claimed while it waits to be tried again; beyond it nothing more is claimed.
WAITING_BYTES = 8_000_000
WAITING_BATCHES = 4_096


class Batch:
    """Claimed events that are sent together, and how that went so far."""

    def __init__(self, events: list[Claimed], failures: int = 0, not_before: float = 0.0) -> None:
        """Begin with events in the order of their ids."""
        self.events = events
        self.size = sum(len(event.body) for event in events)
        self.users = frozenset(event.user for event in events)
        self.in_flight = False
        self.failures = failures
        self.strikes = 0  # failures since it was last halved
        self.not_before = not_before
        self.refused_alone: Outcome | None = None

    @property
    def order(self) -> int:
        """Batches that share a user are sent in this order."""
        return self.events[0].id

    @property
    def is_fresh(self) -> bool:
        """Nothing is held against it."""
        return self.failures == 0 and self.refused_alone is None


class Step(Struct):
    """What to do with a batch after an attempt."""

    ack: bool = False
    bury: list[tuple[Batch, Outcome]] = []


class Pacing:
    """Decides what one lane sends next."""

    def __init__(self, retry: Retry, max_in_flight: int, chance: Callable[[], float]) -> None:
        """Begin healthy, with one in flight; `chance` gives numbers from 0 to 1."""
        self.configure(retry, max_in_flight)
        self._chance = chance
        self.batches: list[Batch] = []  # claimed and unsettled
        self._limit = 1
        self._failures = 0  # attempts that failed since the last success
        self._gate = 0.0  # nothing is sent before
        self._last_success: float | None = None
        self.parked: str | None = None
        self.reason: str | None = None
        self.detail = ""

    def configure(self, retry: Retry, max_in_flight: int) -> None:
        """Apply changed settings."""
        self._retry = retry
        self._max_in_flight = max_in_flight

    @property
    def state(self) -> State:
        """What `status` shows."""
        if self.parked is not None:
            return "parked"
        return "backing_off" if self._failures else "ok"

    @property
    def in_flight(self) -> int:
        """Batches on their way."""
        return sum(1 for batch in self.batches if batch.in_flight)

    def next_attempt(self, now: float) -> float | None:
        """Seconds until something that waits may be sent; None while nothing waits for time."""
        waits = [batch.not_before for batch in self.batches if not batch.in_flight]
        until = max(self._gate, min(waits, default=0.0))
        return until - now if until > now else None

    # --- what to send -----------------------------------------------------------------------------

    def may_send(self, now: float) -> bool:
        """Say whether the lane may start another attempt."""
        limit = 1 if self._failures or self.parked is not None else self._limit
        return now >= self._gate and self.in_flight < limit

    def wants_more(self) -> bool:
        """Say whether to claim: nothing fresh waits, and what waits leaves room in memory.

        Beside batches that fail or are refused, other events are tried: it may be the batches.
        """
        waiting = [batch for batch in self.batches if not batch.in_flight]
        return (
            not any(batch.is_fresh for batch in waiting)
            and sum(batch.size for batch in waiting) < WAITING_BYTES
            and len(waiting) < WAITING_BATCHES
        )

    def add(self, events: list[Claimed]) -> Batch:
        """Take newly claimed events, to be sent at once."""
        batch = Batch(events)
        batch.in_flight = True
        self.batches.append(batch)
        return batch

    def pick(self, now: float, *, fresh: bool) -> Batch | None:
        """Take the batch to send: least failed, then oldest, never past an earlier one of its users.

        With `fresh` only among those that nothing is held against.
        """
        best: Batch | None = None
        blocked: set[int] = set()
        self.batches.sort(key=_order)
        for batch in self.batches:
            ready = not batch.in_flight and batch.not_before <= now
            wanted = ready and (batch.is_fresh or not fresh) and blocked.isdisjoint(batch.users)
            if wanted and (best is None or _rank(batch) < _rank(best)):
                best = batch
            blocked |= batch.users
        if best is not None:
            best.in_flight = True
        return best

    # --- what came of it --------------------------------------------------------------------------

    def settle(self, batch: Batch, outcome: Outcome, now: float) -> Step:
        """Take an attempt's outcome and decide; the batch is in flight no more."""
        batch.in_flight = False
        match outcome.verdict:
            case "delivered":
                self.batches.remove(batch)
                return self._delivered(now)
            case "retry":
                self._failed(batch, outcome, now)
            case "park":
                self._park(outcome.answer.reason, outcome.answer.detail, now)
            case "refuse":
                return self._refused(batch, outcome, now)
        return Step()

    def drop(self, batch: Batch) -> None:
        """Forget a batch: its events are settled in another way, or given back."""
        self.batches.remove(batch)

    def unpark(self) -> None:
        """Try at once: the settings changed."""
        self.parked = None
        self._gate = 0.0
        self._failures = 0
        self._limit = 1
        for batch in self.batches:
            batch.not_before = 0.0

    def _delivered(self, now: float) -> Step:
        self.parked = self.reason = None
        self.detail = ""
        self._failures = 0
        self._gate = 0.0
        self._last_success = now
        self._limit = min(self._limit + 1, self._max_in_flight)
        # Something got through: what was refused alone before is refused for what it is.
        condemned = [
            (batch, batch.refused_alone)
            for batch in self.batches
            if batch.refused_alone is not None and not batch.in_flight
        ]
        for batch, _ in condemned:
            self.batches.remove(batch)
        return Step(ack=True, bury=condemned)

    def _failed(self, batch: Batch, outcome: Outcome, now: float) -> None:
        self._failures += 1
        self._limit = 1
        asked = outcome.retry_after or 0.0
        if self.parked is None:
            self.reason, self.detail = outcome.answer.reason, outcome.answer.detail
            self._gate = now + max(self._pause(self._failures), asked)
        else:
            self._gate = now + max(self._retry.max, asked)
        batch.failures += 1
        if outcome.answer.reached:  # what never arrived cannot be the batch's fault
            batch.strikes += 1
        batch.not_before = now + max(self._pause(batch.failures), asked)
        if batch.strikes >= HALVE_AFTER and len(batch.events) > 1:
            self._halve(batch, failures=batch.failures)

    def _refused(self, batch: Batch, outcome: Outcome, now: float) -> Step:
        answer = outcome.answer
        if len(batch.events) > 1:
            self._halve(batch, failures=0)
            if self.parked is not None:
                self._gate = now + self._retry.max
            return Step()
        if self._last_success is not None and now - self._last_success <= TRUST_SECONDS:
            self.batches.remove(batch)
            return Step(bury=[(batch, outcome)])
        batch.refused_alone = outcome
        alone = sum(1 for other in self.batches if other.refused_alone is not None)
        if self.parked is not None or alone >= REFUSED_ALONE or alone == len(self.batches):
            self._park("refuses_everything", f"{answer.reason} {answer.detail}".strip(), now)
        return Step()

    def _park(self, reason: str, detail: str, now: float) -> None:
        self.parked = reason
        self.reason, self.detail = reason, detail
        self._limit = 1
        self._gate = now + self._retry.max

    def _halve(self, batch: Batch, *, failures: int) -> None:
        """Split a batch by users where it has several, so that its halves can go independently.

        One user's events are split in order; the later half then waits for the earlier.
        """
        self.batches.remove(batch)
        for events in _halves(batch.events):
            self.batches.append(Batch(events, failures, batch.not_before))

    def _pause(self, failures: int) -> float:
        """Full jitter (Brooker, "Exponential Backoff And Jitter"): a random part of a doubling cap.

        Retry libraries wrap a call in a loop of their own; here a pause is a value among others.
        """
        cap = min(self._retry.max, self._retry.initial * 2 ** min(failures - 1, 60))
        return float(self._chance() * cap)


def _order(batch: Batch) -> int:
    return batch.order


def _rank(batch: Batch) -> tuple[bool, int, int]:
    return batch.refused_alone is not None, batch.failures, batch.order


def _halves(events: list[Claimed]) -> tuple[list[Claimed], list[Claimed]]:
    by_user: dict[int, int] = {}
    for event in events:
        by_user[event.user] = by_user.get(event.user, 0) + 1
    if len(by_user) == 1:
        middle = len(events) // 2
        return events[:middle], events[middle:]
    first: set[int] = set()
    taken = 0
    for user, count in by_user.items():
        if first and taken + count > len(events) // 2:
            break
        first.add(user)
        taken += count
    return [e for e in events if e.user in first], [e for e in events if e.user not in first]

"""One lane's pace and the fate of its batches: pure, so that hours of an outage are a test of
milliseconds. Time (monotonic seconds) and chance come in as arguments.

The laws it keeps:
- Attempts never use an event up. A batch is delivered, or refused alone while others get through.
- A failing lane is tried with one batch at a time, at full-jitter exponential pauses; a working one
  grows from one batch in flight to `max_in_flight`.
- What a batch does to Hightouch is held against that batch: five failures halve it, so that one
  event that breaks Hightouch ends up alone, and waits alone.
- No batch is sent while an earlier one of its users is unsettled.
"""

from bisect import insort
from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from edgeproxy.buffer.base import Claimed
from edgeproxy.config import Retry
from edgeproxy.delivery.outcome import Outcome

__all__ = ["REFUSES_EVERYTHING", "Batch", "Pacing", "State", "Step"]

State = Literal["ok", "backing_off", "parked"]

#: The reason of a lane that is parked because Hightouch refuses whatever it sends.
REFUSES_EVERYTHING = "refuses_everything"

#: A batch that failed so often is halved for its next attempts (the contract).
HALVE_AFTER = 5
#: The more batches fail alike, the less it is theirs: with each so many, halving takes as many
#: failures again. An outage of days then leaves hundreds of pieces and not one an event.
MANY_BATCHES = 16
#: Something of the lane was answered 2xx at most so long ago: then a refusal is the event's own.
TRUST_SECONDS = 60.0
#: Single events refused in a row, nothing delivered between them, before the lane is parked: enough
#: to see that it is not the events, few enough not to hammer.
REFUSED_IN_A_ROW = 3
#: Events buried in a row, nothing delivered between them, before the lane is parked all the same:
#: a Hightouch that begins to refuse everything must not bury what it took a minute ago.
BURIED_IN_A_ROW = 25
#: What a lane keeps claimed while it waits to be tried again; beyond it nothing more is claimed.
WAITING_BYTES = 8_000_000
WAITING_BATCHES = 4_096


class Batch:
    """Claimed events that are sent together, and how that went so far."""

    def __init__(self, events: list[Claimed], not_before: float = 0.0) -> None:
        """Begin with events in the order of their ids."""
        self.in_flight = False
        self.sent_at: float | None = None  # when the last attempt began
        self.tries = 0  # attempts that failed or were refused, of this very batch
        self.strikes = 0  # of those, failures that may be the batch's fault
        self.not_before = not_before
        self.failed_at: float | None = None  # when it first failed, or what it was part of
        self.refused_at: float | None = None  # when it was first refused, alone
        self.order = events[0].id  # its place among the lane's; it keeps it, whatever it loses
        self.hold(events)

    def hold(self, events: list[Claimed]) -> None:
        """Take other events in their place; what is known of the batch stays."""
        self.events = events
        self.size = sum([len(event.body) for event in events])
        first = events[0].user
        self.only_user = first if all(event.user == first for event in events) else None


class Step(Struct):
    """What to do with the batch after an attempt."""

    ack: bool = False
    bury: bool = False


class Pacing:
    """Decides what one lane sends next."""

    def __init__(self, retry: Retry, max_in_flight: int, chance: Callable[[], float]) -> None:
        """Begin healthy, with one in flight; `chance` gives numbers from 0 to 1."""
        self.configure(retry, max_in_flight)
        self._chance = chance
        self.batches: list[Batch] = []  # claimed and unsettled, in order
        self._limit = 1
        self._failures = 0  # rounds of attempts that failed since the last success
        self._failed_at = 0.0
        self._gate = 0.0  # nothing is sent before
        self._asked_until = 0.0  # Hightouch asked to be left alone until then
        self._last_success: float | None = None
        self._refused = 0  # single events refused since the last success, and of those
        self._buried = 0  # how many became dead letters
        self._probes_new = True  # whose turn it is where everything is refused
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
        return sum([batch.in_flight for batch in self.batches])

    def next_attempt(self, now: float) -> float | None:
        """Seconds until something that waits may be sent; None while nothing waits for time."""
        due = min([batch.not_before for batch in self._heads()], default=0.0)
        until = max(self._gate, due)
        return until - now if until > now else None

    # --- what to send -----------------------------------------------------------------------------

    def may_send(self, now: float) -> bool:
        """Say whether the lane may start another attempt."""
        limit = self._limit if self.state == "ok" else 1
        return now >= self._gate and self.in_flight < limit

    def claimable(self, max_events: int) -> int:
        """How many events to claim at most: 0 when what waits leaves no room.

        Beside batches that fail or are refused, other events are tried: it may be the batches.
        Where everything is refused, one event at a time: alone it tells most.
        """
        waiting = [batch for batch in self.batches if not batch.in_flight]
        most = MANY_BATCHES if self._failures else WAITING_BATCHES
        if len(waiting) >= most or sum([batch.size for batch in waiting]) >= WAITING_BYTES:
            return 0
        return 1 if self.parked == REFUSES_EVERYTHING else max_events

    def add(self, events: list[Claimed], now: float) -> Batch:
        """Take newly claimed events, to be sent at once."""
        batch = Batch(events)
        insort(self.batches, batch, key=_order)
        return self._send(batch, now)

    def pick(self, now: float, *, before_new: bool) -> Batch | None:
        """Take the batch to send, never past an earlier one of its users; None where none is due.

        What waits goes before new events (`before_new`) while the lane works. In trouble new
        events tell more than what failed before; then the least tried goes first.
        """
        due = [batch for batch in self._heads() if batch.not_before <= now]
        if before_new and self.parked == REFUSES_EVERYTHING and self._probes_new:
            return None
        if before_new and self.state != "ok" and self.parked != REFUSES_EVERYTHING:
            due = [batch for batch in due if not batch.tries]
        best = min(due, key=self._preference(), default=None)
        return None if best is None else self._send(best, now)

    def _preference(self) -> Callable[[Batch], tuple[int, int]]:
        """The oldest, if all is well; after failures the least tried.

        After refusals what is farthest from those: neighbours tend to share what is wrong.
        """
        if self.parked == REFUSES_EVERYTHING or (self._refused and not self._buried):
            return lambda batch: (batch.tries, -batch.order)
        if self.state == "ok":
            return lambda batch: (0, batch.order)
        return lambda batch: (batch.tries, batch.order)

    def _heads(self) -> list[Batch]:
        """Batches that wait for nothing but time.

        The buffer gives no events of users whose earlier events are claimed, and halving keeps
        users together; so only batches of a single user can have another of that user before them.
        """
        heads: list[Batch] = []
        taken: set[int] = set()
        for batch in self.batches:
            if not batch.in_flight and batch.only_user not in taken:
                heads.append(batch)
            if batch.only_user is not None:
                taken.add(batch.only_user)
        return heads

    @staticmethod
    def _send(batch: Batch, now: float) -> Batch:
        batch.in_flight = True
        batch.sent_at = now
        return batch

    # --- what came of it --------------------------------------------------------------------------

    def settle(self, batch: Batch, outcome: Outcome, now: float) -> Step:
        """Take an attempt's outcome and decide; the batch is in flight no more."""
        batch.in_flight = False
        self._probes_new = not self._probes_new
        match outcome.verdict:
            case "delivered":
                self._delivered(now)
                self.batches.remove(batch)
                return Step(ack=True)
            case "retry":
                self._failed(batch, outcome, now)
            case "park":
                self._park(outcome.answer.reason, outcome.answer.detail, now)
            case "refuse":
                return self._refused_by(batch, outcome, now)
        return Step()

    def give_up(self, batch: Batch) -> None:
        """Forget a batch: its events are settled in another way, or given back."""
        self.batches.remove(batch)

    def unpark(self) -> None:
        """Try at once: the settings changed."""
        self.parked = None
        self._gate = self._asked_until = 0.0
        self._failures = self._refused = self._buried = 0
        self._limit = 1
        for batch in self.batches:
            batch.not_before = 0.0

    def _delivered(self, now: float) -> None:
        if self._refused:
            # Something got through. What was refused alone is tried again: if it is refused now,
            # then for what it is.
            for batch in self.batches:
                if batch.refused_at is not None:
                    batch.not_before = 0.0
        self.parked = self.reason = None
        self.detail = ""
        self._failures = self._refused = self._buried = 0
        self._gate = self._asked_until
        self._last_success = now
        self._limit = min(self._limit + 1, self._max_in_flight)

    def _failed(self, batch: Batch, outcome: Outcome, now: float) -> None:
        asked = outcome.retry_after or 0.0
        self._asked_until = max(self._asked_until, now + asked)
        is_its_own = self._others_got_through_since(batch)
        batch.tries += 1
        batch.failed_at = now if batch.failed_at is None else batch.failed_at
        batch.not_before = now + max(self._pause(batch.tries), asked)
        if outcome.answer.reached:  # what never arrived cannot be the batch's fault
            batch.strikes += 1
        if self.parked is not None:
            self._gate = now + self._retry.max
        elif not is_its_own:
            self._back_off(batch, outcome, now)
        self._gate = max(self._gate, self._asked_until)
        alike = len(self.batches) if self._failures else 0
        if batch.strikes >= HALVE_AFTER * max(1, alike // MANY_BATCHES):
            self._halve(batch)

    def _others_got_through_since(self, batch: Batch) -> bool:
        """It failed before, others did not since: that says nothing about the lane."""
        return (
            batch.failed_at is not None
            and not self._failures
            and self._last_success is not None
            and self._last_success > batch.failed_at
        )

    def _back_off(self, batch: Batch, outcome: Outcome, now: float) -> None:
        if not self._failures or (batch.sent_at or 0.0) >= self._failed_at:
            self._failures += 1  # those that were under way together fail as one
        self._failed_at = now
        self._limit = 1
        self.reason, self.detail = outcome.answer.reason, outcome.answer.detail
        self._gate = max(self._gate, now + self._pause(self._failures))

    def _refused_by(self, batch: Batch, outcome: Outcome, now: float) -> Step:
        if self.parked == REFUSES_EVERYTHING:
            self._gate = now + self._retry.max
        else:
            self.parked = None  # whatever it was, Hightouch reads events again
        if len(batch.events) > 1:
            self._halve(batch)
            return Step()
        self._refused += 1
        if self._is_its_own_fault(batch, now):
            self._buried += 1
            self.batches.remove(batch)
            return Step(bury=True)
        batch.tries += 1
        batch.not_before = now + self._pause(batch.tries)
        if batch.refused_at is None:
            batch.refused_at = now
        if self._refused >= REFUSED_IN_A_ROW:
            answer = outcome.answer
            self._park(REFUSES_EVERYTHING, f"{answer.reason} {answer.detail}".strip(), now)
        return Step()

    def _is_its_own_fault(self, batch: Batch, now: float) -> bool:
        """Something else of the lane got through within the last minute, or meanwhile."""
        if self._last_success is None or self._buried >= BURIED_IN_A_ROW:
            return False
        meanwhile = batch.refused_at is not None and self._last_success > batch.refused_at
        return meanwhile or now - self._last_success <= TRUST_SECONDS

    def _park(self, reason: str, detail: str, now: float) -> None:
        self.parked = reason
        self.reason, self.detail = reason, detail
        self._failures = 0
        self._limit = 1
        self._gate = max(now + self._retry.max, self._asked_until)

    def _halve(self, batch: Batch) -> None:
        """Split a batch by users where it has several, so that its halves can go independently.

        One user's events are split in order; the later half then waits for the earlier.
        """
        if len(batch.events) == 1:
            return
        self.batches.remove(batch)
        for events in _halves(batch.events):
            half = Batch(events, batch.not_before)
            half.failed_at, half.sent_at = batch.failed_at, batch.sent_at
            insort(self.batches, half, key=_order)

    def _pause(self, failures: int) -> float:
        """Full jitter (Brooker, "Exponential Backoff And Jitter"): a random part of a doubling cap.

        Retry libraries wrap a call in a loop of their own; here a pause is a value among others.
        """
        cap = min(self._retry.max, self._retry.initial * 2 ** min(failures - 1, 60))
        return float(self._chance() * cap)


def _order(batch: Batch) -> int:
    return batch.order


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
        if not first or (taken + count <= len(events) // 2 and len(first) + 1 < len(by_user)):
            first.add(user)
            taken += count
    return [e for e in events if e.user in first], [e for e in events if e.user not in first]

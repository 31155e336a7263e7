"""Any sequence of verbs, on every engine, against the plainest model of what they promise.

The model knows of each event only whether it is coming, stored, claimed, leaving or gone. Nothing of
the engines' own code is in it. Windows are made tiny, so that users who wait are passed over all the
time.
"""

import asyncio
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edgeproxy.buffer import order
from edgeproxy.buffer.base import BufferFullError
from tests.buffers import ENGINES, event, letter, numbers

ALL = 10**9
LANES = st.sampled_from(["shop", "shop", "shop", "blog"])
USERS = st.lists(st.integers(1, 4), min_size=3, max_size=12)
MOST = st.sampled_from([1, 2, 3, 5, 8, 50])
# One draw, however many events are claimed: with a real disk that is a matter of time as well.
SOME = st.integers(0, 2**32).map(Random)


@dataclass
class Known:
    """One event as the model sees it."""

    number: int
    lane: str
    user: int
    state: str = "coming"
    claimed: object = field(default=None, repr=False)


class Verbs(RuleBasedStateMachine):
    """Drives one engine; subclasses say which."""

    engine = None

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="verbs-"))
        self.runner = asyncio.Runner()
        self.events: list[Known] = []
        self.futures: list[tuple[asyncio.Future, list[Known], str]] = []
        self.letters = 0
        self.limits = {name: getattr(order, name) for name in _LIMITS}
        self.buffer = self.run(self.engine.open(self.folder / "buffer"))

    def run(self, coroutine):
        return self.runner.run(coroutine)

    @initialize(
        events=st.integers(1, 9), size=st.sampled_from([50, 150, ALL]), scan=st.integers(1, 12)
    )
    def set_windows(self, events, size, scan):
        order.WINDOW_EVENTS, order.WINDOW_BYTES, order.SCAN_EVENTS = events, size, scan

    def of(self, lane, *states):
        return [e for e in self.events if e.lane == lane and e.state in states]

    # --- rules ------------------------------------------------------------------------------------

    @rule(lane=LANES, users=USERS, cancel=st.booleans(), dead=st.integers(0, 2))
    def append(self, lane, users, cancel, dead):
        fresh = [Known(len(self.events) + n, lane, user) for n, user in enumerate(users)]

        async def submit():
            sealed = [event(e.user, e.number) for e in fresh]
            future = self.buffer.append(lane, 1, sealed, [letter()] * dead)
            if cancel:
                future.cancel()
            return future

        self.futures.append((self.run(submit()), fresh, "stored"))
        self.events += fresh
        self.letters += dead

    @rule(lane=LANES, users=USERS)
    def append_beyond_the_lanes_limit(self, lane, users):
        async def submit():
            sealed = [event(user, 10**6) for user in users]
            with pytest.raises(BufferFullError):
                await self.buffer.append(lane, 1, sealed, [letter()], lane_max=1)

        self.run(submit())

    @rule(lane=LANES, most=MOST, size=st.sampled_from([1, 60, 120, 200, ALL, ALL]))
    def claim(self, lane, most, size):
        async def take():
            return self.buffer.claim(lane, most, size, 3)

        could = self.claimable(lane)
        taken = self.run(take())
        for _ in range(60):  # a claim may give up looking; it goes on where it stopped
            if taken or not could:
                break
            taken = self.run(take())
        assert taken or not could, f"{could} could be claimed"
        assert len(taken) <= most
        assert len(taken) == 1 or sum(len(c.body) + 3 for c in taken) <= size
        assert [c.id for c in taken] == sorted(c.id for c in taken)
        self.note_claimed(lane, taken)

    def claimable(self, lane):
        """Numbers of events that are surely stored, and whose user surely holds nothing earlier."""
        held = {e.user for e in self.of(lane, "claimed", "leaving")}
        return [e.number for e in self.of(lane, "stored") if e.user not in held]

    def note_claimed(self, lane, taken):
        for number, claimed in zip(numbers(taken), taken, strict=True):
            known = self.events[number]
            assert known.lane == lane
            assert known.user == claimed.user
            assert known.state in {"stored", "coming"}, f"{known} was given again"
            before = [e for e in self.events[:number] if (e.lane, e.user) == (lane, known.user)]
            unsettled = [e for e in before if e.state in {"coming", "stored"}]
            assert not unsettled, f"{known} overtook {unsettled}"
            known.state = "claimed now"
            known.claimed = claimed
        for number in numbers(taken):
            known = self.events[number]
            rivals = [e for e in self.of(lane, "claimed") if e.user == known.user]
            assert not rivals, f"{known} was given while {rivals} are claimed"
        for number in numbers(taken):
            self.events[number].state = "claimed"

    def some_claimed(self, lane, random):
        claimed = self.of(lane, "claimed")
        return random.sample(claimed, random.choice([1, len(claimed)])) if claimed else []

    @rule(lane=LANES, random=SOME, cancel=st.booleans())
    def ack(self, lane, random, cancel):
        self.settle(self.some_claimed(lane, random), cancel, lambda c: self.buffer.ack(lane, c))

    @rule(lane=LANES, random=SOME, cancel=st.booleans())
    def bury(self, lane, random, cancel):
        chosen = self.some_claimed(lane, random)
        letters = [letter(body=e.claimed.body) for e in chosen]
        self.settle(chosen, cancel, lambda c: self.buffer.bury(lane, c, letters))
        self.letters += len(letters)

    def settle(self, chosen, cancel, verb):
        if not chosen:
            return

        async def submit():
            future = verb([e.claimed for e in chosen])
            if cancel:
                future.cancel()
            return future

        self.futures.append((self.run(submit()), chosen, "gone"))
        for known in chosen:
            known.state = "leaving"

    @rule(lane=LANES, random=SOME)
    def release(self, lane, random):
        chosen = self.some_claimed(lane, random)
        leaving = self.of(lane, "leaving")  # these can no longer be given back
        if chosen or leaving:
            self.buffer.release(lane, [e.claimed for e in chosen + leaving])
        for known in chosen:
            known.state = "stored"

    @rule(lane=LANES, random=SOME)
    def ack_and_wait(self, lane, random):
        self.settle(self.some_claimed(lane, random), False, lambda c: self.buffer.ack(lane, c))
        self.wait_for_everything()

    @rule(steps=st.integers(1, 4))
    def let_some_time_pass(self, steps):
        async def turn():
            for _ in range(steps):
                await asyncio.sleep(0)

        self.run(turn())

    @rule()
    def wait_for_everything(self):
        async def wait():
            # What comes last is committed last, whoever was cancelled before.
            await self.buffer.append("shop", 1, [], [letter()])
            for future, _, _ in self.futures:
                if not future.cancelled():
                    await future

        self.run(wait())
        self.letters += 1
        for _, known, state in self.futures:
            for one in known:
                # An event may be claimed, and more, before whoever appended it looks again.
                if state == "gone" or one.state == "coming":
                    one.state = state
        self.futures.clear()

    @precondition(lambda self: self.engine.on_disk)
    @rule()
    def restart(self):
        self.wait_for_everything()
        self.run(self.buffer.close())
        self.buffer = self.run(self.engine.open(self.folder / "buffer"))
        for known in self.events:
            if known.state == "claimed":
                known.state = "stored"

    # --- what always holds ------------------------------------------------------------------------

    @invariant()
    def counts_are_right_when_nothing_is_under_way(self):
        if self.futures:
            return
        for lane in ("shop", "blog"):
            assert self.buffer.waiting(lane)[0] == len(self.of(lane, "stored"))
        stats = self.buffer.stats()
        assert stats.events == sum(e.state in {"stored", "claimed"} for e in self.events)
        assert stats.dead_letters == self.letters

    def teardown(self):
        try:
            self.drain()
        finally:
            self.run(self.buffer.close())
            self.runner.close()
            shutil.rmtree(self.folder)
            for name, value in self.limits.items():
                setattr(order, name, value)

    def drain(self):
        """Everything that is not gone comes out, once, in its users' order."""
        self.wait_for_everything()
        for lane in ("shop", "blog"):
            claimed = self.of(lane, "claimed")
            self.settle(claimed, False, lambda c, lane=lane: self.buffer.ack(lane, c))
            self.wait_for_everything()
            while self.of(lane, "stored"):
                self.claim(lane, 5, ALL)
                self.settle(
                    self.of(lane, "claimed"), False, lambda c, lane=lane: self.buffer.ack(lane, c)
                )
                self.wait_for_everything()
            assert self.run(_claim(self.buffer, lane)) == []


async def _claim(buffer, lane):
    return buffer.claim(lane, 10, ALL)


_LIMITS = ("WINDOW_EVENTS", "WINDOW_BYTES", "SCAN_EVENTS")


def _case(engine, examples):
    machine = type(f"{engine.name.title()}Verbs", (Verbs,), {"engine": engine})
    case = machine.TestCase
    case.settings = settings(
        max_examples=examples,
        stateful_step_count=50,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    return case


TestMemory = _case(ENGINES[0], examples=400)
TestSqlite = _case(ENGINES[1], examples=25)

"""Which events may be claimed, walked at random for long: `Order` alone against a list.

The state machine over whole buffers explores verbs and cancellation; this walk is faster by far and
finds what needs a rare coincidence of windows, releases and late acknowledgements.
"""

import random

import pytest

from edgeproxy.buffer import order
from edgeproxy.buffer.base import Claimed
from edgeproxy.buffer.order import Order

ALL = 10**9


class Walk:
    """A lane as a list, an Order over it, and claims that are settled in any order."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.users = self.random.randint(1, 6)
        self.stored: list[Claimed] = []
        self.claimed: list[Claimed] = []
        self.leaving: list[list[Claimed]] = []
        self.order = Order(0)
        self.next_id = 1
        self.steps = {
            self.append: 3,
            self.claim: 4,
            self.begin_to_settle: 2,
            self.finish_settling: 2,
            self.fail_settling: 0.3,
            self.release: 1,
            self.forget: 0.2,
        }

    def go(self, steps):
        for _ in range(steps):
            (step,) = self.random.choices(list(self.steps), list(self.steps.values()))
            step()
        while self.leaving:
            self.finish_settling()
        self.release(everything=True)
        while self.stored:
            assert self.claim(), "what is stored must come out in the end"
            self.begin_to_settle(everything=True)
            self.finish_settling()

    def append(self):
        for _ in range(self.random.randint(1, 10)):
            user = self.random.randint(1, self.users)
            body = b"x" * self.random.randint(1, 20)
            self.stored.append(Claimed(self.next_id, user, 1, None, 0, body))
            self.next_id += 1

    def read(self, after, most, most_bytes):
        found, size = [], 0
        for event in self.stored:
            if event.id > after:
                found.append(event)
                size += len(event.body)
                if len(found) == most or size >= most_bytes:
                    break
        return found

    def claim(self):
        held = {event.user for event in self.claimed} | {e.user for s in self.leaving for e in s}
        ids = {event.id for event in self.claimed} | {e.id for s in self.leaving for e in s}
        free = [e for e in self.stored if e.user not in held and e.id not in ids]
        most = self.random.choice([1, 2, 3, 8, 50])
        size = self.random.choice([1, 30, ALL])
        for _ in range(200):
            taken = self.order.claim(most, size, 1, self.read)
            if taken or not self.order.gave_up:
                break
        assert bool(taken) == bool(free)
        assert len(taken) <= most
        for event in taken:
            assert event in self.stored, "given though it is gone"
            earlier = [e for e in self.stored if e.user == event.user and e.id < event.id]
            assert event.user not in held
            assert all(e in taken for e in earlier), "an earlier event of the user is unsettled"
        assert [e.id for e in taken] == sorted({e.id for e in taken})
        self.claimed += taken
        assert self.order.claimed == len(self.claimed) + sum(len(s) for s in self.leaving)
        return taken

    def some(self, *, everything=False):
        count = len(self.claimed) if everything else self.random.randint(0, len(self.claimed))
        chosen = self.random.sample(self.claimed, count)
        self.claimed = [event for event in self.claimed if event not in chosen]
        return chosen

    def begin_to_settle(self, *, everything=False):
        chosen = self.some(everything=everything)
        if chosen:
            assert self.order.leave(chosen) == chosen
            assert self.order.leave(chosen) == []
            self.leaving.append(chosen)

    def finish_settling(self):
        if self.leaving:
            gone = self.leaving.pop(0)
            self.stored = [event for event in self.stored if event not in gone]
            self.order.settle(gone)

    def fail_settling(self):
        if self.leaving:
            back = self.leaving.pop(0)
            self.order.stay(back)
            self.claimed += back

    def release(self, *, everything=False):
        chosen = self.some(everything=everything)
        self.order.release(chosen + [event for events in self.leaving for event in events])

    def forget(self):
        self.order.forget()


@pytest.mark.parametrize("window", [1, 2, 4, 9, 1000])
@pytest.mark.parametrize("scan", [1, 5, 1000])
def test_order_per_user_holds_on_any_walk(window, scan, monkeypatch):
    monkeypatch.setattr(order, "WINDOW_EVENTS", window)
    monkeypatch.setattr(order, "SCAN_EVENTS", scan)
    for seed in range(30):
        monkeypatch.setattr(order, "WINDOW_BYTES", [15, 60, ALL][seed % 3])
        Walk(seed).go(150)

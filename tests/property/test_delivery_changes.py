"""The laws hold while settings change and events grow too old in the middle of trouble."""

import random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.delivery.outcome import Answer
from tests.simulation import OK, Simulation, simulate, status

TROUBLES = [status(500), status(503), status(400), status(401), Answer(None, "timeout")]


class Changes:
    """One lane, and what somebody does to it; every choice comes from one generator."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.trouble = OK
        choice = self.chance.choice
        self.sim = Simulation(
            lambda _ids, _at: self.trouble if self.chance.random() < 0.95 else OK,
            latency=choice([0.01, 0.5, 3.0]),
            seed=seed,
            flush={"max_in_flight": choice([1, 4, 8]), "max_events": choice([7, 50, 500])},
            retry={"initial": "100ms", "max": "5s"},
            validation={"max_age": "1h"},
        )
        self.users = choice([1, 1, 2, 3, 5])

    def put(self) -> None:
        """Events of any size, so that halves of a batch differ in size."""
        for _ in range(self.chance.randrange(25)):
            size = self.chance.choice([1, 1, 60_000, 90_000])
            user = self.chance.randrange(self.users)
            body = b'{"a":"%b"}' % (b"x" * size)
            self.sim.put([user], received=self.sim.now_ms, body=body)

    def reload(self) -> None:
        sizes = self.chance.choice([50, 500]), self.chance.choice([97_000, 200_000, 475_000])
        flush = msgspec.structs.replace(
            self.sim.settings.flush, max_events=sizes[0], max_bytes=sizes[1]
        )
        self.sim.settings = msgspec.structs.replace(self.sim.settings, flush=flush)
        self.sim.lane.configure(self.sim.settings)

    def misbehave(self) -> None:
        self.trouble = self.chance.choice([*TROUBLES, OK, OK])

    def age(self) -> None:
        self.sim.now_ms += self.chance.choice([1_000, 1_200_000, 3_000_000])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_changes_in_the_middle_of_trouble_break_no_law(seed):
    async def scenario():
        changes = Changes(seed)
        sim = changes.sim
        for _ in range(12):
            changes.put()
            act = changes.chance.choice(
                [changes.reload, changes.reload, changes.misbehave, changes.misbehave, changes.age]
            )
            act()
            await sim.run(changes.chance.choice([0.1, 5, 60, 300]))
        changes.trouble = OK
        await sim.until(lambda: not sim.buffer.events, 600)
        ended = [*sim.buffer.acked, *sim.buffer.buried]
        assert sorted(ended) == list(range(1, len(ended) + 1)), "each ends once, in one way"
        await sim.close()

    simulate(scenario)

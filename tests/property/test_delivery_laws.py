"""Any mixture of events, users and misbehaviour, under the laws of the contract."""

import random
from collections import deque

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Struct

from edgeproxy.delivery.outcome import Answer
from tests.simulation import OK, Simulation, simulate, status

HOUR = 3600.0
TROUBLES = (
    status(503),
    status(429, "20"),
    status(401),
    status(302),
    status(400),
    Answer(None, "connect", reached=False),
    Answer(None, "timeout"),
)


class World(Struct):
    """What happens to one lane: `events` of `users`, then misbehaviour until `peace`."""

    seed: int
    events: int
    users: int
    refused: set[int]  # events answered 400
    breaking: set[int]  # events answered 500
    outages: list[tuple[float, float, int]]  # from, seconds, which trouble
    failing: float  # share of requests answered 503
    latency: float
    max_events: int
    max_in_flight: int

    @property
    def peace(self) -> float:
        return max([start + length for start, length, _ in self.outages], default=0.0)


def worlds():
    def build(events, share, **rest):
        chosen = random.Random(rest["seed"])
        ids = list(range(1, events + 1))
        refused = set(chosen.sample(ids, min(events, share[0])))
        breaking = set(chosen.sample(ids, min(events, share[1]))) - refused
        return World(events=events, refused=refused, breaking=breaking, **rest)

    outage = st.tuples(st.floats(0, 300), st.floats(1, 3 * HOUR), st.integers(0, len(TROUBLES) - 1))
    return st.builds(
        build,
        st.integers(1, 1500),
        st.tuples(st.integers(0, 20), st.integers(0, 5)),
        seed=st.integers(0, 2**32),
        users=st.sampled_from([1, 2, 10, 100, 5000]),
        outages=st.lists(outage, max_size=3),
        failing=st.sampled_from([0.0, 0.0, 0.1, 0.7]),
        latency=st.sampled_from([0.01, 0.2, 3.0]),
        max_events=st.sampled_from([1, 7, 50, 500]),
        max_in_flight=st.sampled_from([1, 2, 4, 16]),
    )


def misbehave(world, chosen):
    def answer(ids, at):
        if at < world.peace:
            for start, length, trouble in world.outages:
                if start <= at < start + length:
                    return TROUBLES[trouble]
            if chosen.random() < world.failing:
                return status(503)
        if not world.refused.isdisjoint(ids):
            return status(400)
        return OK if world.breaking.isdisjoint(ids) else status(500)

    return answer


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(worlds())
def test_whatever_hightouch_does_each_event_ends_rightly_and_in_order(world):
    async def scenario():
        chosen = random.Random(world.seed)
        sim = Simulation(
            misbehave(world, chosen),
            latency=world.latency,
            seed=world.seed,
            flush={"max_events": world.max_events, "max_in_flight": world.max_in_flight},
        )
        users = [chosen.randrange(world.users) for _ in range(world.events)]
        first = world.events // 2
        sim.put(users[:first])
        await sim.run(world.peace / 2)
        sim.put(users[first:])
        await sim.run(world.peace / 2)
        requests = len(sim.hightouch.requests)
        # Pieces may each take a request; beside that a lane in trouble is tried a few times a minute.
        assert requests < 40 + 12 * world.events + world.peace * 12
        held = held_back(world, users)
        # Somebody else comes by now and then: where all that is left is refused, only that tells.
        done = False
        for _ in range(200):
            sim.put([1_000_000])
            await sim.run(120)
            done = set(sim.buffer.events) <= held
            if done:
                break
        assert done, sim.describe()
        check_ends(world, users, held, sim)
        await sim.close()

    simulate(scenario)


def held_back(world, users):
    """Events that break Hightouch, and what their users sent after them."""
    stuck: set[int] = set()
    held: set[int] = set()
    for id_, user in enumerate(users, 1):
        if id_ in world.breaking:
            stuck.add(user)
        if user in stuck:
            held.add(id_)
    return held


def check_ends(world, users, held, sim):
    buffer = sim.buffer
    assert len(buffer.acked) == len(set(buffer.acked)), "each delivered once"
    own = range(1, world.events + 1)
    refused_by_outage = any(TROUBLES[trouble].status == 400 for _, _, trouble in world.outages)
    for id_ in buffer.buried:
        assert id_ in world.refused or refused_by_outage, "only what was refused is buried"
    if refused_by_outage:
        # A Hightouch that begins to refuse everything costs a few events at most, each time.
        begun = sum(TROUBLES[trouble].status == 400 for _, _, trouble in world.outages)
        assert len(set(buffer.buried) - world.refused) <= 30 * begun + 30
    assert set(buffer.acked) & world.refused == set()
    assert set(own) - held <= set(buffer.acked) | set(buffer.buried)
    delivered: dict[int, deque[int]] = {}
    for id_ in buffer.acked:
        if id_ in own:
            delivered.setdefault(users[id_ - 1], deque()).append(id_)
    for ids in delivered.values():
        assert list(ids) == sorted(ids), "in order per user"

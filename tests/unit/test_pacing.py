"""A lane's pace, simulated: see tests/simulation.py."""

import itertools
import random

import msgspec
import pytest

from edgeproxy.buffer.base import Claimed
from edgeproxy.config import Retry
from edgeproxy.delivery.outcome import Answer, Outcome
from edgeproxy.delivery.pacing import REFUSES_EVERYTHING, WAITING_BYTES, Pacing
from tests.simulation import OK, Simulation, simulate, status

HOUR = 3600.0
NO_ROUTE = Answer(None, "connect", reached=False)


def refusing(poison, code=400):
    poison = set(poison)
    return lambda ids, _at: status(code) if poison & set(ids) else OK


def claimed(id_, user):
    return Claimed(id_, user, 0, 0, 0, b"{}")


def simulated(test):
    """Run an async test under the virtual clock."""

    def run():
        simulate(test)

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@pytest.mark.parametrize("down", [status(503), NO_ROUTE, Answer(None, "timeout")])
def test_an_outage_of_72_hours_ends_without_a_stampede(down):
    async def scenario():
        sim = Simulation(lambda _ids, at: down if at < 72 * HOUR else OK)
        sim.put(range(10_000))
        await sim.run(72 * HOUR)
        during = [at for at, _, _ in sim.hightouch.requests]
        # Pauses are half of retry.max on average.
        assert 72 * HOUR / 60 < len(during) < 72 * HOUR / 60 * 2 * 1.2
        assert sim.hightouch.most_in_flight == 1
        assert sim.buffer.buried == {}
        assert sum(batch.size for batch in sim.lane.pacing.batches) < WAITING_BYTES + 500_000
        sim.hightouch.requests.clear()
        took = await sim.until(lambda: not sim.buffer.events, 10 * 60)
        assert took < 3 * 60
        assert sorted(sim.buffer.acked) == list(range(1, 10_001))
        assert len(sim.hightouch.requests) < 400
        assert sim.hightouch.most_in_flight == 4
        await sim.close()

    simulate(scenario)


@simulated
async def test_the_number_in_flight_starts_at_one_and_grows():
    sim = Simulation(lambda _ids, _at: OK, latency=1.0, flush={"max_in_flight": 4})
    sim.put(range(10_000))
    await sim.run(20)
    times = [at for at, _, _ in sim.hightouch.requests]
    at_once = [len(list(group)) for _, group in itertools.groupby(times, round)]
    assert at_once[:4] == [1, 2, 4, 4]
    await sim.close()


@simulated
async def test_a_poison_event_among_500_is_alone_after_halvings_and_then_buried():
    sim = Simulation(refusing([137]))
    sim.put(range(500))
    await sim.until(lambda: not sim.buffer.events, 60)
    assert list(sim.buffer.buried) == [137]
    assert sim.buffer.buried[137].code == "rejected_upstream"
    assert sim.buffer.buried[137].status == 400
    assert len(sim.hightouch.requests) <= 2 * 10 + 1
    await sim.close()


@pytest.mark.parametrize("poison", [range(1, 11), range(491, 501), range(7, 500, 50)])
def test_ten_poison_events_in_500_are_buried_and_the_rest_arrives(poison):
    async def scenario():
        sim = Simulation(refusing(poison))
        sim.put(range(500))
        await sim.until(lambda: not sim.buffer.events, 300)
        assert sorted(sim.buffer.buried) == list(poison)
        assert len(sim.buffer.acked) == 490
        assert len(sim.hightouch.requests) < 150
        await sim.close()

    simulate(scenario)


@simulated
async def test_where_everything_is_refused_the_lane_parks_and_nothing_is_buried():
    sim = Simulation(lambda _ids, at: status(400) if at < 10 * HOUR else OK)
    sim.put(range(500))
    await sim.run(60)
    assert sim.lane.pacing.parked == REFUSES_EVERYTHING
    assert sim.lane.status().state == "parked"
    assert sim.lane.status().reason == REFUSES_EVERYTHING
    assert len(sim.hightouch.requests) < 25
    sim.put(range(500, 1000))
    before = len(sim.hightouch.requests)
    await sim.run(10 * HOUR - 120)
    probes = sim.hightouch.requests[before:]
    assert 590 <= len(probes) <= 600
    assert any(id_ > 500 for _, ids, _ in probes for id_ in ids), "other events are tried too"
    assert sim.buffer.buried == {}
    await sim.until(lambda: not sim.buffer.events, 300)
    assert len(sim.buffer.acked) == 1000
    await sim.close()


@simulated
async def test_a_single_poison_event_waits_until_something_else_gets_through():
    sim = Simulation(refusing([1]))
    sim.put([1])
    await sim.run(2 * HOUR)
    assert sim.buffer.buried == {}
    assert sim.lane.pacing.parked == REFUSES_EVERYTHING
    assert len(sim.hightouch.requests) < 130
    sim.put([2])
    await sim.until(lambda: not sim.buffer.events, 130)
    assert list(sim.buffer.buried) == [1]
    assert sim.buffer.acked == [2]
    await sim.close()


@simulated
async def test_a_poison_event_is_found_among_those_of_one_user_and_order_is_kept():
    sim = Simulation(refusing([3]))
    sim.put([7] * 20 + [8])
    await sim.until(lambda: not sim.buffer.events, 300)
    assert list(sim.buffer.buried) == [3]
    own = [id_ for id_ in sim.buffer.acked if id_ != 21]
    assert own == sorted(own)
    await sim.close()


@simulated
async def test_hightouch_that_begins_to_refuse_everything_buries_a_few_and_parks():
    sim = Simulation(lambda _ids, at: OK if at < 100 else status(400))
    sim.put(range(10))
    await sim.run(100)
    sim.put(range(5000))
    await sim.run(300)
    assert sim.lane.pacing.parked == REFUSES_EVERYTHING
    assert len(sim.buffer.buried) <= 25
    await sim.close()


@simulated
async def test_an_event_that_breaks_hightouch_is_found_and_holds_back_only_its_user():
    sim = Simulation(refusing([137], 500))
    sim.put(range(500))
    took = await sim.until(lambda: len(sim.buffer.events) == 1, HOUR)
    assert took < 5 * 60
    assert list(sim.buffer.events) == [137]
    first = next(len(ids) for _, ids, _ in sim.hightouch.requests[5:])
    assert first < 500 <= len(sim.hightouch.requests[4][1])
    sim.put([136, 1, 2, 3])  # 136 is the user of event 137
    await sim.until(lambda: len(sim.buffer.events) == 2, 30)
    assert sorted(sim.buffer.events) == [137, 501]
    await sim.run(24 * HOUR)
    alone = [at for at, ids, _ in sim.hightouch.requests if ids == [137]]
    assert 24 * 60 < len(alone) < 24 * 60 * 2.2, "it is tried for ever, at retry.max"
    assert sim.buffer.buried == {}
    assert sim.lane.status().state == "ok"
    await sim.close()


@simulated
async def test_with_a_backlog_a_batch_that_failed_does_not_wait_for_its_end():
    failed: list[float] = []

    def answer(ids, at):
        if 1 in ids and not failed:
            failed.append(at)
            return status(503)
        return OK

    sim = Simulation(answer, latency=1.0)
    sim.put(range(100_000))
    await sim.until(lambda: 1 in sim.buffer.acked, 10)
    assert len(sim.buffer.events) > 90_000
    await sim.close()


@simulated
async def test_many_events_that_break_hightouch_do_not_slow_the_others():
    poison = range(5, 2000, 100)
    sim = Simulation(refusing(poison, 500))
    sim.put(range(2000))
    await sim.until(lambda: len(sim.buffer.events) == len(poison), 2 * HOUR)
    sim.put(range(10_000, 110_000))
    took = await sim.until(lambda: len(sim.buffer.events) == len(poison), 60)
    assert took < 6
    await sim.close()


@pytest.mark.parametrize("code", [401, 403, 404, 405, 410, 302])
def test_a_parked_lane_is_probed_once_every_retry_max_and_resumes_when_configured(code):
    async def scenario():
        right = False
        sim = Simulation(lambda _ids, _at: OK if right else status(code))
        sim.put(range(1200))
        await sim.run(10 * HOUR)
        assert 595 <= len(sim.hightouch.requests) <= 602
        state = sim.lane.status()
        assert (state.state, state.reason) == ("parked", f"http_{code}")
        assert 0 < state.next_attempt_seconds <= 60
        assert sim.buffer.buried == {}
        right = True
        sim.lane.configure(sim.settings)
        assert await sim.until(lambda: not sim.buffer.events, 5) < 3
        assert sim.lane.status().state == "ok"
        await sim.close()

    simulate(scenario)


@simulated
async def test_retry_after_holds_although_others_get_through():
    asked: list[float] = []

    def answer(ids, at):
        if 1 in ids and not asked:
            asked.append(at)
            return status(429, "120")
        return OK

    sim = Simulation(answer, latency=1.0)
    sim.put(range(4000))
    await sim.until(lambda: not sim.buffer.events, 300)
    later = [at for at, _, _ in sim.hightouch.requests if at > asked[0] + 1.0]
    assert min(later) >= asked[0] + 121
    await sim.close()


@simulated
async def test_failures_of_one_users_halves_do_not_put_the_lane_to_sleep():
    sim = Simulation(lambda _ids, at: status(500) if at < HOUR else OK)
    sim.put([7] * 40)
    await sim.run(HOUR)
    await sim.until(lambda: not sim.buffer.events, 300)
    assert sim.buffer.acked == list(range(1, 41))
    await sim.close()


@simulated
async def test_events_that_grow_too_old_while_they_wait_become_dead_letters():
    sim = Simulation(lambda _ids, _at: status(401), validation={"max_age": "1h"})
    sim.put(range(10))
    await sim.run(60)
    sim.now_ms = 3_600_001
    await sim.until(lambda: not sim.buffer.events, 200)
    assert {letter.code for letter in sim.buffer.buried.values()} == {"too_old"}
    assert {letter.form for letter in sim.buffer.buried.values()} == {"sent"}
    await sim.close()


@simulated
async def test_an_idle_lane_does_not_turn():
    import asyncio

    sim = Simulation(lambda _ids, _at: OK)
    sim.put(range(10))
    await sim.until(lambda: not sim.buffer.events, 10)
    loop = asyncio.get_running_loop()
    before = loop.turns
    await sim.run(24 * HOUR)
    assert loop.turns - before < 10
    await sim.close()


def test_pauses_are_fully_jittered_between_nothing_and_a_doubling_cap():
    for chance in (0.0, 0.5, 0.999):
        pacing = Pacing(Retry(0.5, 60.0), 4, lambda chance=chance: chance)
        caps = [pacing._pause(failures) for failures in (1, 2, 3, 4, 7, 8, 60, 10_000)]
        assert caps == [chance * cap for cap in (0.5, 1, 2, 4, 32, 60, 60, 60)]


def test_batches_that_fail_together_count_as_one_failure():
    pacing = Pacing(Retry(0.5, 60.0), 4, lambda: 1.0)
    batches = [pacing.add([claimed(n, n)], 10.0) for n in range(1, 5)]
    for batch in batches:
        pacing.settle(batch, Outcome("retry", status(503)), 11.0)
    assert pacing.next_attempt(11.0) == 0.5


@simulated
async def test_smaller_batches_after_a_reload_keep_a_users_halves_in_order():
    broken = True
    sim = Simulation(lambda _ids, _at: status(500) if broken else OK)
    sim.put([7] * 4, body=b'{"a":"%b"}' % (b"x" * 90_000))
    sim.put([7] * 4)
    await sim.until(lambda: len(sim.lane.pacing.batches) == 2, HOUR)
    await sim.until(lambda: not sim.lane.pacing.in_flight, 60)
    # The first half is too large by now, the second is not.
    sim.lane.configure(_with(sim.settings, max_bytes=200_000))
    broken = False
    await sim.until(lambda: not sim.buffer.events, HOUR)
    assert sim.buffer.acked == list(range(1, 9))
    await sim.close()


def _with(settings, **flush):
    return msgspec.structs.replace(settings, flush=msgspec.structs.replace(settings.flush, **flush))


def test_halves_stay_in_order_whatever_grew_too_old():
    for seed in (99, 202, 413, 939):  # found among some thousand
        chance = random.Random(seed)
        users, pacing = chance.randint(3, 8), Pacing(Retry(0.5, 60.0), 16, lambda: 0.0)
        events = range(1, chance.randint(8, 40) + 1)
        batch = pacing.add([claimed(id_, chance.randrange(users)) for id_ in events], 0.0)
        batch.in_flight = False
        oldest = 0
        for _ in range(30):
            if not pacing.batches:
                break
            batch = chance.choice(pacing.batches)
            if chance.random() < 0.3:
                oldest = max(oldest, chance.choice(events))
            fresh = [event for event in batch.events if event.id > oldest]
            if not fresh:
                pacing.give_up(batch)
                continue
            if len(fresh) < len(batch.events):
                batch.hold(fresh)
            pacing._halve(batch)
            for user in range(users):
                own = [e.id for batch in pacing.batches for e in batch.events if e.user == user]
                assert own == sorted(own), seed

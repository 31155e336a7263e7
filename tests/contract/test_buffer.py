"""What every buffer engine promises: one suite over all of them."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from edgeproxy.buffer import order
from edgeproxy.buffer.base import BufferClosedError, BufferFullError, LaneStats
from edgeproxy.buffer.deadletters import letter_size
from tests.buffers import ENGINES, event, letter, numbers

ALL = 10**9
BY_NAME = [pytest.param(engine, id=engine.name) for engine in ENGINES]
ON_DISK = [pytest.param(engine, id=engine.name) for engine in ENGINES if engine.on_disk]


@asynccontextmanager
async def opened(engine, folder, **limits):
    buffer = await engine.open(folder / "buffer", **limits)
    try:
        yield buffer
    finally:
        await buffer.close()


@pytest.fixture(params=BY_NAME)
async def buffer(request, tmp_path):
    async with opened(request.param, tmp_path) as opened_buffer:
        yield opened_buffer


async def fill(buffer, *users, lane="shop"):
    """One event a user given, numbered 0, 1, 2 …, in one append."""
    await buffer.append(lane, 1, [event(user, n) for n, user in enumerate(users)])


# --- append and claim -----------------------------------------------------------------------------


async def test_what_was_appended_is_claimed_unchanged(buffer):
    sent = [event(7, 0, skew=-250, age=12), event(8, 1)]
    await buffer.append("shop", 1234, sent)
    first, second = buffer.claim("shop", 10, ALL)
    assert (first.user, first.received, first.skew, first.age) == (7, 1234, -250, 12)
    assert first.body == sent[0].body
    assert (second.user, second.skew, second.age, second.body) == (8, None, 0, sent[1].body)
    assert first.id < second.id


async def test_any_bytes_and_numbers_survive(buffer):
    odd = event(2**32 - 1, 0)
    odd.body = bytes(range(256)) * 400  # 100 KB
    odd.skew, odd.age = -(2**45), -(2**45)
    await buffer.append("shop", 2**42, [odd])
    (claimed,) = buffer.claim("shop", 1, ALL)
    assert claimed.body == odd.body
    assert (claimed.user, claimed.skew, claimed.age) == (2**32 - 1, -(2**45), -(2**45))


async def test_nothing_is_claimed_of_an_unknown_or_empty_lane(buffer):
    assert buffer.claim("nobody", 10, ALL) == []
    assert buffer.waiting("nobody") == (0, 0)
    await buffer.append("shop", 1, [])
    assert buffer.claim("shop", 10, ALL) == []


async def test_claims_follow_the_order_of_the_appends(buffer):
    waits = [buffer.append("shop", 1, [event(n, n)]) for n in range(50)]
    await asyncio.gather(*waits)
    assert numbers(buffer.claim("shop", 100, ALL)) == list(range(50))


async def test_an_event_is_claimed_once(buffer):
    await fill(buffer, 1, 2, 3)
    assert numbers(buffer.claim("shop", 2, ALL)) == [0, 1]
    assert numbers(buffer.claim("shop", 2, ALL)) == [2]
    assert buffer.claim("shop", 2, ALL) == []


async def test_a_claim_keeps_to_its_number_of_events(buffer):
    await fill(buffer, *range(10))
    assert len(buffer.claim("shop", 3, ALL)) == 3


async def test_a_claim_keeps_to_its_bytes_with_what_each_event_costs_beside_them(buffer):
    await fill(buffer, 1, 2, 3, 4)
    size = len(event(1, 0).body)
    assert len(buffer.claim("shop", 10, 2 * size + 2 * 5, 5)) == 2
    assert len(buffer.claim("shop", 10, 2 * size + 2 * 5 - 1, 5)) == 1


async def test_an_event_larger_than_the_bytes_asked_for_is_given_alone(buffer):
    await buffer.append("shop", 1, [event(1, 0, size=5000), event(2, 1)])
    assert numbers(buffer.claim("shop", 10, 100)) == [0]
    assert numbers(buffer.claim("shop", 10, 100)) == [1]


async def test_lanes_do_not_see_each_others_events(buffer):
    await fill(buffer, 1, 1, lane="shop")
    await fill(buffer, 1, lane="blog")
    assert len(buffer.claim("shop", 10, ALL)) == 2
    assert len(buffer.claim("blog", 10, ALL)) == 1
    assert buffer.lanes() == ["shop", "blog"]


# --- order per user -------------------------------------------------------------------------------


async def test_events_of_one_user_may_be_in_one_claim_in_order(buffer):
    await fill(buffer, 1, 1, 2, 1)
    assert numbers(buffer.claim("shop", 10, ALL)) == [0, 1, 2, 3]


async def test_a_user_with_a_claimed_event_is_passed_over(buffer):
    await fill(buffer, 1, 1, 2, 1, 3)
    assert numbers(buffer.claim("shop", 1, ALL)) == [0]
    assert numbers(buffer.claim("shop", 10, ALL)) == [2, 4]
    assert buffer.claim("shop", 10, ALL) == []


async def test_an_acknowledged_event_lets_the_next_of_its_user_go(buffer):
    await fill(buffer, 1, 1, 1)
    first = buffer.claim("shop", 1, ALL)
    await buffer.ack("shop", first)
    assert numbers(buffer.claim("shop", 10, ALL)) == [1, 2]


async def test_a_user_waits_until_all_its_claimed_events_are_settled(buffer):
    await fill(buffer, 1, 1, 1)
    first, second = buffer.claim("shop", 2, ALL)
    await buffer.ack("shop", [first])
    assert buffer.claim("shop", 10, ALL) == []
    await buffer.ack("shop", [second])
    assert numbers(buffer.claim("shop", 10, ALL)) == [2]


async def test_a_user_waits_for_events_that_come_while_it_is_held(buffer):
    await fill(buffer, 1)
    held = buffer.claim("shop", 1, ALL)
    await buffer.append("shop", 2, [event(1, 10), event(2, 11)])
    assert numbers(buffer.claim("shop", 10, ALL)) == [11]
    await buffer.ack("shop", held)
    assert numbers(buffer.claim("shop", 10, ALL)) == [10]


async def test_released_events_are_claimed_again_before_what_follows_them(buffer):
    await fill(buffer, 1, 2, 1, 3)
    taken = buffer.claim("shop", 2, ALL)
    buffer.release("shop", taken)
    assert numbers(buffer.claim("shop", 10, ALL)) == [0, 1, 2, 3]


async def test_part_of_a_claim_can_be_released(buffer):
    await fill(buffer, 1, 2, 1, 3)
    first, second = buffer.claim("shop", 2, ALL)
    buffer.release("shop", [first])
    await buffer.ack("shop", [second])
    assert numbers(buffer.claim("shop", 10, ALL)) == [0, 2, 3]


async def test_a_buried_event_holds_nobody_back(buffer):
    await fill(buffer, 1, 1)
    taken = buffer.claim("shop", 1, ALL)
    await buffer.bury("shop", taken, [letter(body=taken[0].body)])
    assert numbers(buffer.claim("shop", 10, ALL)) == [1]


async def test_a_window_full_of_one_users_events_does_not_hide_other_users(buffer, monkeypatch):
    monkeypatch.setattr(order, "WINDOW_EVENTS", 4)
    monkeypatch.setattr(order, "SCAN_EVENTS", 6)
    await fill(buffer, *[1] * 40, 2)
    woken = asyncio.Event()
    buffer.on_append(lambda _: woken.set())
    first = buffer.claim("shop", 1, ALL)
    for _ in range(20):  # a claim that gives up looking says so, and the next one goes on
        found = buffer.claim("shop", 3, ALL)
        if found:
            break
        await asyncio.wait_for(woken.wait(), 5)
        woken.clear()
    assert numbers(found) == [40]
    await buffer.ack("shop", first)
    assert numbers(buffer.claim("shop", 3, ALL)) == [1, 2, 3]


# --- settling -------------------------------------------------------------------------------------


async def test_acknowledged_events_are_gone(buffer):
    await fill(buffer, 1, 2, 3)
    await buffer.ack("shop", buffer.claim("shop", 2, ALL))
    assert buffer.stats().events == 1
    assert buffer.waiting("shop")[0] == 1
    assert numbers(buffer.claim("shop", 10, ALL)) == [2]


async def test_acknowledging_twice_changes_nothing(buffer):
    await fill(buffer, 1, 1)
    taken = buffer.claim("shop", 1, ALL)
    await asyncio.gather(buffer.ack("shop", taken), buffer.ack("shop", taken))
    await buffer.ack("shop", taken)
    assert buffer.stats().events == 1
    assert numbers(buffer.claim("shop", 10, ALL)) == [1]


async def test_what_is_being_acknowledged_can_not_be_released(buffer):
    await fill(buffer, 1, 1)
    taken = buffer.claim("shop", 1, ALL)
    acknowledged = buffer.ack("shop", taken)
    buffer.release("shop", taken)
    assert buffer.claim("shop", 10, ALL) == []
    await acknowledged
    assert numbers(buffer.claim("shop", 10, ALL)) == [1]


async def test_an_acknowledgement_without_events_is_done(buffer):
    await fill(buffer, 1)
    await buffer.ack("shop", [])
    assert buffer.stats().events == 1


async def test_buried_events_are_counted_as_dead_letters(buffer):
    await fill(buffer, 1, 2)
    taken = buffer.claim("shop", 1, ALL)
    await buffer.bury("shop", taken, [letter(body=taken[0].body)])
    stats = buffer.stats()
    assert (stats.events, stats.dead_letters) == (1, 1)
    assert stats.dead_letter_bytes == letter_size(letter(body=taken[0].body))


async def test_dead_letters_can_come_with_events_or_alone(buffer):
    await buffer.append("shop", 1, [event(1)], [letter()])
    await buffer.append("shop", 1, [], [letter(), letter()])
    stats = buffer.stats()
    assert (stats.events, stats.dead_letters) == (1, 3)


# --- cancellation ---------------------------------------------------------------------------------


async def test_a_cancelled_append_is_stored_all_the_same(buffer):
    told = []
    buffer.append("shop", 1, [event(1, 0)], settled=told.append).cancel()
    await buffer.append("shop", 1, [event(1, 1)])
    assert told == [None]
    assert numbers(buffer.claim("shop", 10, ALL)) == [0, 1]


async def test_a_cancelled_acknowledgement_settles_all_the_same(buffer):
    await fill(buffer, 1, 1)
    buffer.ack("shop", buffer.claim("shop", 1, ALL)).cancel()
    await buffer.append("shop", 1, [event(2, 5)])
    assert buffer.waiting("shop")[0] == 2
    assert numbers(buffer.claim("shop", 10, ALL)) == [1, 5]


async def test_a_cancelled_burial_buries_all_the_same(buffer):
    await fill(buffer, 1, 1)
    taken = buffer.claim("shop", 1, ALL)
    task = asyncio.ensure_future(buffer.bury("shop", taken, [letter()]))
    task.cancel()
    await buffer.append("shop", 1, [event(2, 5)])
    assert buffer.stats().dead_letters == 1
    assert numbers(buffer.claim("shop", 10, ALL)) == [1, 5]


# --- what it holds --------------------------------------------------------------------------------


async def test_waiting_counts_what_is_not_claimed(buffer):
    await fill(buffer, 1, 2, 3)
    size = len(event(1, 0).body)
    assert buffer.waiting("shop") == (3, 3 * size)
    taken = buffer.claim("shop", 2, ALL)
    assert buffer.waiting("shop") == (1, size)
    buffer.release("shop", taken[:1])
    assert buffer.waiting("shop") == (2, 2 * size)
    await buffer.ack("shop", taken[1:])
    assert buffer.waiting("shop") == (2, 2 * size)


async def test_stats_tell_what_each_lane_holds_claimed_or_not(buffer):
    await buffer.append("shop", 10, [event(1, 0)])
    await buffer.append("shop", 20, [event(2, 1)])
    await buffer.append("blog", 15, [event(3, 2)])
    buffer.claim("shop", 1, ALL)
    stats = buffer.stats()
    assert (stats.events, stats.oldest) == (3, 10)
    assert [(lane.name, lane.events, lane.oldest) for lane in stats.lanes] == [
        ("shop", 2, 10),
        ("blog", 1, 15),
    ]
    assert all(lane.bytes > 0 for lane in stats.lanes)


async def test_an_empty_buffer_has_no_oldest_event(buffer):
    assert (buffer.stats().events, buffer.stats().oldest) == (0, None)
    await fill(buffer, 1)
    await buffer.ack("shop", buffer.claim("shop", 1, ALL))
    stats = buffer.stats()
    assert (stats.events, stats.oldest) == (0, None)
    assert stats.lanes == [LaneStats("shop", 0, 0, None)]


async def test_appends_are_called_back_once_they_can_be_claimed(buffer):
    seen = []
    buffer.on_append(lambda lane: seen.append((lane, numbers(buffer.claim(lane, 10, ALL)))))
    await buffer.append("shop", 1, [event(1, 0), event(2, 1)])
    await buffer.append("blog", 1, [], [letter()])
    assert seen == [("shop", [0, 1])]


async def append_until_refused(buffer, *, size, lane_max=None, together=False):
    """Append single events until one is refused; how many were stored, and the refusal."""
    waits = []
    try:
        for number in range(10_000):
            waits.append(
                buffer.append("shop", 1, [event(number, number, size=size)], lane_max=lane_max)
            )
            if not together:
                await waits[-1]
    except BufferFullError as refusal:
        await asyncio.gather(*waits)
        return len(waits), str(refusal)
    raise AssertionError("nothing was refused")


# --- limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", BY_NAME)
async def test_a_full_buffer_refuses_and_accepts_again_once_it_is_drained(engine, tmp_path):
    async with opened(engine, tmp_path, max_size=2_000_000) as buffer:
        accepted, _ = await append_until_refused(buffer, size=5_000)
        assert 100 < accepted < 400
        assert buffer.stats().events == accepted
        while taken := buffer.claim("shop", 100, ALL):
            await buffer.ack("shop", taken)
        async with asyncio.timeout(20):
            while True:
                try:
                    await buffer.append("shop", 1, [event(1, 0, size=5_000)])
                    break
                except BufferFullError:
                    await asyncio.sleep(0.05)
        assert buffer.full_reason() is None
        assert buffer.stats().events == 1


@pytest.mark.parametrize("engine", BY_NAME)
async def test_appends_that_are_under_way_count_against_the_limit(engine, tmp_path):
    async with opened(engine, tmp_path, max_size=2_000_000) as buffer:
        accepted, _ = await append_until_refused(buffer, size=5_000, together=True)
        assert 100 < accepted < 410


@pytest.mark.parametrize("engine", BY_NAME)
async def test_a_full_buffer_still_takes_dead_letters_and_settles(engine, tmp_path):
    async with opened(engine, tmp_path, max_size=2_000_000) as buffer:
        await append_until_refused(buffer, size=5_000)
        await buffer.append("shop", 1, [], [letter()])
        await buffer.bury("shop", buffer.claim("shop", 1, ALL), [letter()])
        await buffer.ack("shop", buffer.claim("shop", 1, ALL))
        assert buffer.stats().dead_letters == 2


async def test_a_lane_is_bounded_by_its_own_limit_alone(buffer):
    size = 10_000
    _, reason = await append_until_refused(buffer, size=1000, lane_max=size)
    assert "shop" in reason
    held = buffer.stats().lanes[0].bytes
    assert size - 1200 < held <= size
    await buffer.append("blog", 1, [event(1, 0, size=1000)], lane_max=size)
    await buffer.ack("shop", buffer.claim("shop", 1, ALL))
    await buffer.append("shop", 1, [event(1, 99, size=900)], lane_max=size)


async def test_a_lanes_appends_that_are_under_way_count_against_its_limit(buffer):
    await append_until_refused(buffer, size=1000, lane_max=10_000, together=True)
    assert buffer.stats().lanes[0].bytes <= 10_000


async def test_what_is_refused_leaves_nothing_behind(buffer):
    with pytest.raises(BufferFullError):
        await buffer.append("shop", 1, [event(1, 0, size=1000)], [letter()], lane_max=500)
    await buffer.append("blog", 1, [event(1, 0)])
    assert buffer.lanes() == ["blog"]
    assert buffer.stats().dead_letters == 0


# --- the end --------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", BY_NAME)
async def test_closing_finishes_what_was_appended_and_refuses_what_comes_later(engine, tmp_path):
    buffer = await engine.open(tmp_path / "buffer")
    appended = buffer.append("shop", 1, [event(1)])
    await buffer.close()
    assert appended.done()
    assert appended.exception() is None
    with pytest.raises(BufferClosedError):
        await buffer.append("shop", 1, [event(1)])


@pytest.mark.parametrize("engine", ON_DISK)
async def test_a_restart_finds_every_event_in_its_order(engine, tmp_path):
    async with opened(engine, tmp_path) as buffer:
        await fill(buffer, 1, 2, 1)
        await fill(buffer, 5, lane="blog")
        await buffer.append("shop", 1, [], [letter()])
        taken = buffer.claim("shop", 2, ALL)
        await buffer.ack("shop", taken[:1])
        before = buffer.stats()
    async with opened(engine, tmp_path) as buffer:
        after = buffer.stats()
        assert after.lanes == before.lanes
        assert (after.events, after.oldest) == (before.events, before.oldest)
        assert (after.dead_letters, after.dead_letter_bytes) == (1, letter_size(letter()))
        assert buffer.lanes() == ["shop", "blog"]
        assert numbers(buffer.claim("shop", 10, ALL)) == [1, 2]
        assert numbers(buffer.claim("blog", 10, ALL)) == [0]


@pytest.mark.parametrize("engine", ON_DISK)
async def test_numbers_are_not_used_again_after_a_restart(engine, tmp_path):
    async with opened(engine, tmp_path) as buffer:
        await fill(buffer, 1, 2)
        taken = buffer.claim("shop", 2, ALL)
        await buffer.ack("shop", taken)
    async with opened(engine, tmp_path) as buffer:
        await fill(buffer, 1)
        assert buffer.claim("shop", 1, ALL)[0].id > max(old.id for old in taken)


@pytest.mark.parametrize("engine", ON_DISK)
async def test_its_folder_is_its_owners_alone(engine, tmp_path):
    async with opened(engine, tmp_path):
        folder = tmp_path / "buffer"
        assert folder.stat().st_mode & 0o777 == 0o700
        for path in folder.iterdir():
            assert path.stat().st_mode & 0o077 == 0, path.name

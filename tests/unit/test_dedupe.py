"""Repeats: stored once, answered like the first, never earlier than the first."""

import asyncio
import json

import pytest

from edgeproxy.buffer.base import BufferWriteError
from edgeproxy.config import Validation
from edgeproxy.events.intake import Receipt
from edgeproxy.metrics import Metrics
from edgeproxy.server.dedupe import Dedupe
from edgeproxy.server.intake import Intake
from tests.listening import NOW, Unmapped, source, track


async def test_a_repeat_is_answered_200_and_stored_once(proxy):
    event = track(messageId="m")
    for path, body in [("/v1/track", event), ("/v1/batch", {"batch": [event, event]})] * 2:
        assert (await proxy.post(path, body)).body == b'{"success":true}'
    assert len(proxy.events()) == 1
    assert proxy.metrics.totals()["duplicates"] == 5
    assert proxy.metrics.totals()["accepted"] == 1


async def test_a_repeat_within_one_batch_is_stored_once(proxy):
    batch = [track(messageId="m", n=n) for n in range(3)]
    answer = await proxy.post("/v1/batch", {"batch": batch})
    assert answer.body == b'{"success":true}'
    assert [e["n"] for e in proxy.events()] == [0]


async def test_another_source_may_use_the_same_id(proxy_factory):
    proxy = await proxy_factory(sources=(source(), source("second", "second-key")))
    for key in ("the-key-of-the-site", "second-key"):
        await proxy.post("/v1/track", track(messageId="m"), key=key)
    assert len(proxy.events("site")) == len(proxy.events("second")) == 1


async def test_events_without_an_id_are_never_repeats(proxy):
    event = track()
    del event["messageId"]
    await proxy.post("/v1/batch", {"batch": [event, event]})
    ids = [e["messageId"] for e in proxy.events()]
    assert len(set(ids)) == 2


async def test_a_quarantined_event_may_be_sent_again_when_it_is_right(proxy):
    assert (await proxy.post("/v1/track", track(messageId="m", event=""))).status == 400
    assert (await proxy.post("/v1/track", track(messageId="m"))).status == 200
    assert len(proxy.events()) == 1


async def test_zero_switches_it_off(proxy_factory):
    proxy = await proxy_factory(validation={"dedupe_ids": 0})
    event = track(messageId="m")
    await proxy.post("/v1/batch", {"batch": [event, event]})
    await proxy.post("/v1/track", event)
    assert len(proxy.events()) == 3


async def test_only_the_last_ids_are_remembered(proxy_factory):
    proxy = await proxy_factory(validation={"dedupe_ids": 2})
    for id_ in ("a", "b", "c", "a", "c"):
        await proxy.post("/v1/track", track(messageId=id_))
    assert [e["messageId"] for e in proxy.events()] == ["a", "b", "c", "a"]


# --- what is not on disk yet ----------------------------------------------------------------------


class Slow:
    """A buffer whose commits end when the test says so."""

    def __init__(self):
        self.appended = []
        self.came = asyncio.Semaphore(0)

    def append(self, lane, received, events, dead=(), *, lane_max=None, settled=None):
        stored = asyncio.get_running_loop().create_future()
        self.appended.append((events, Commit(stored, settled)))
        self.came.release()
        return stored


class Commit:
    """Ends as the test says, whether or not its sender still waits."""

    def __init__(self, future, settled):
        self.future, self.settled = future, settled

    def set_result(self, result):
        self.settled(None)
        if not self.future.done():
            self.future.set_result(result)

    def set_exception(self, failure):
        self.settled(failure)
        if not self.future.done():
            self.future.set_exception(failure)


@pytest.fixture
def slow():
    buffer = Slow()
    intake = Intake(buffer, Unmapped(), Validation(), Metrics(), keep_received=True)

    def take(*ids):
        events = [json.dumps(track(messageId=id_)).encode() for id_ in ids]
        return asyncio.create_task(
            intake.take(source(), events, Receipt(received=NOW), is_utf8=True)
        )

    return buffer, take


async def test_a_repeat_waits_for_the_firsts_commit(slow):
    buffer, take = slow
    first, repeat = take("m"), take("m")
    await asyncio.sleep(0.01)
    assert len(buffer.appended) == 1
    assert not first.done()
    assert not repeat.done()
    buffer.appended[0][1].set_result(None)
    assert (await repeat).accepted == (await first).accepted == 1


async def test_a_repeat_fails_with_the_firsts_commit_and_may_be_tried_again(slow):
    buffer, take = slow
    first, repeat = take("m"), take("m")
    await asyncio.sleep(0.01)
    buffer.appended[0][1].set_exception(BufferWriteError("no"))
    for task in (first, repeat):
        with pytest.raises(BufferWriteError):
            await task
    again = take("m")
    await asyncio.sleep(0.01)
    buffer.appended[1][1].set_result(None)
    assert (await again).accepted == 1


async def test_a_sender_that_goes_away_does_not_take_its_event_along(slow):
    buffer, take = slow
    first, repeat = take("m"), take("m")
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.sleep(0.01)
    assert not repeat.done()
    buffer.appended[0][1].set_result(None)
    assert (await repeat).accepted == 1


async def test_large_batches_that_are_sorted_in_turns_store_each_event_once(slow):
    buffer, take = slow
    ids = [f"m-{n}" for n in range(2000)]
    tasks = [take(*ids), take(*reversed(ids)), take(*ids, "one-more")]
    await buffer.came.acquire()
    await buffer.came.acquire()
    await asyncio.sleep(0.1)
    stored = [event.message_id for events, _ in buffer.appended for event in events]
    assert sorted(stored) == sorted([*ids, "one-more"])
    assert not any(task.done() for task in tasks)
    for _, future in buffer.appended:
        future.set_result(None)
    assert [(await task).accepted for task in tasks] == [2000, 2000, 2001]


@pytest.mark.timeout(20)
async def test_the_largest_batch_is_sorted_in_good_time(slow):
    buffer, take = slow
    task = take(*[f"m-{n}" for n in range(20_000)])
    await buffer.came.acquire()
    buffer.appended[0][1].set_result(None)
    assert (await task).accepted == 20_000


async def test_a_smaller_size_forgets_the_oldest():
    dedupe = Dedupe(10)
    storing = dedupe.begin([1, 2, 3])
    dedupe.note(storing)
    assert dedupe.seen(1) is storing
    storing.settle(None)
    await storing.wait()
    assert [dedupe.seen(n) for n in (1, 2, 3, 4)] == [True, True, True, False]
    dedupe.resize(1)
    assert [dedupe.seen(n) for n in (1, 2, 3)] == [False, False, True]
    assert not dedupe.is_off

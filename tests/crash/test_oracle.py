"""The oracle can fail: each promise is broken on purpose, and it notices."""

from __future__ import annotations

import pytest

from tests.crash.harness.oracle import Rules
from tests.crash.harness.senders import Patience
from tests.crash.harness.upstream import Plan
from tests.crash.harness.world import OracleError, World


async def _crash_and_judge(world: World, rules: Rules) -> None:
    await world.proxy.start()
    world.load(4)
    await world.pass_time(0.6)
    world.proxy.signal()
    await world.proxy.ended()
    await world.proxy.start()
    await world.stop_senders()
    await world.proxy.stop()
    world.judge(rules)


@pytest.mark.parametrize(
    "fault", ["ack_before_the_commit", "delete_before_delivery", "drop_the_wal"]
)
async def test_a_buffer_that_loses_events_is_noticed(world: World, fault: str):
    world.proxy.child = {"break": fault}
    # What is delivered cannot be lost: let some of it wait.
    world.upstream.choose = lambda _: Plan(status=503, body=b"")
    with pytest.raises(OracleError, match="accepted events were lost"):
        await _crash_and_judge(world, Rules(duplicates="crash"))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("reverse_batches", "of the same user was settled"),
        ("change_a_number", "differs"),
        ("repeat_batches", "delivered . times"),
    ],
)
async def test_a_buffer_that_breaks_another_promise_is_noticed(
    world: World, fault: str, words: str
):
    world.proxy.child = {"break": fault}
    world.upstream.choose = lambda _: Plan(delay=world.rng.uniform(0, 0.1))
    await world.proxy.start()
    world.load(4, patience=Patience(most=10), users=1)
    await world.pass_time(0.6)
    await world.stop_senders()
    await world.proxy.stop()
    with pytest.raises(OracleError, match=words):
        world.judge()


async def test_without_a_fault_it_finds_nothing(world: World):
    await world.proxy.start()
    world.load(6)
    await world.pass_time(1.5)
    figures = await world.settle()
    assert figures.accepted == figures.sent == figures.delivered > 100
    assert figures.repeated == figures.dead == figures.left == 0

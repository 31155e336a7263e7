"""kill -9, at random moments and at the worst ones."""

from __future__ import annotations

import asyncio

import pytest

from tests.crash.harness.oracle import Rules
from tests.crash.harness.upstream import Plan
from tests.crash.harness.world import World

_AFTER_CRASHES = Rules(duplicates="crash")

# 255 is what asyncio reports where the kernel's word was taken by another waiter.
KILLED = {-9, 255}


async def _killed_at_random(world: World, times: int) -> None:
    await world.proxy.start()
    world.load(6)
    for _ in range(times):
        await world.pass_time(0.05, 0.6)
        world.proxy.signal()
        assert await world.proxy.ended() in KILLED
        await world.proxy.start()
    figures = await world.settle(_AFTER_CRASHES)
    assert figures.accepted > 20 * times, "too little load to mean anything"


async def test_killed_ten_times_under_load_it_loses_nothing(world: World):
    await _killed_at_random(world, 10)


@pytest.mark.torture
@pytest.mark.timeout(900)
async def test_killed_a_hundred_and_fifty_times_under_load_it_loses_nothing(world: World):
    await _killed_at_random(world, 150)


async def _killing_itself(world: World, place: str, every: int, times: int) -> None:
    for number in range(times):
        world.proxy.child = {"kill": place, "every": every, "seed": world.seed + number}
        await world.proxy.start()
        if number == 0:
            world.load(6)
        assert await world.proxy.ended() in KILLED
    world.proxy.child = {}
    await world.settle(_AFTER_CRASHES)


@pytest.mark.parametrize(("place", "every"), [("after_commit", 40), ("before_delete", 8)])
async def test_killed_at_the_worst_moment_it_loses_nothing(world: World, place: str, every: int):
    await _killing_itself(world, place, every, 3)


@pytest.mark.torture
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("place", "every"), [("after_commit", 40), ("before_delete", 8)])
async def test_killed_often_at_the_worst_moment_it_loses_nothing(
    world: World, place: str, every: int
):
    await _killing_itself(world, place, every, 40)


@pytest.mark.torture
async def test_killed_while_the_upstreams_answer_is_on_its_way_it_loses_nothing(world: World):
    await world.proxy.start()
    world.load(6)
    loop = asyncio.get_running_loop()
    for _ in range(3):
        await world.pass_time(0.1, 0.3)
        delay = world.rng.uniform(0, 0.004)
        world.upstream.on_answered = lambda delay=delay: loop.call_later(delay, world.proxy.signal)
        assert await world.proxy.ended() in KILLED
        world.upstream.on_answered = lambda: None
        await world.proxy.start()
    await world.settle(_AFTER_CRASHES)


@pytest.mark.torture
async def test_killed_while_it_starts_it_loses_nothing(world: World):
    world.upstream.choose = lambda _: Plan(status=503, body=b"")
    await world.proxy.start()
    world.load(4, padding=4_000)
    await world.pass_time(1.0)
    for _ in range(4):
        world.proxy.signal()
        await world.proxy.ended()
        await world.proxy.spawn()
        await world.pass_time(0.3, 1.2)
    await world.settle(_AFTER_CRASHES)

"""SIGTERM and SIGSTOP at random moments."""

from __future__ import annotations

import asyncio
import signal

import pytest

from tests.crash.harness.oracle import Rules
from tests.crash.harness.senders import Patience
from tests.crash.harness.upstream import Plan
from tests.crash.harness.world import World


async def _stopped_at_random(world: World, times: int) -> None:
    await world.proxy.start()
    world.upstream.choose = lambda _: Plan(delay=world.rng.uniform(0, 0.1))
    world.load(6)
    for _ in range(times):
        await world.pass_time(0.05, 0.8)
        assert await world.proxy.stop() == 0
        await world.proxy.start()
    figures = await world.settle()
    assert figures.accepted > 20 * times, "too little load to mean anything"


async def test_stopped_three_times_under_load_it_loses_and_repeats_nothing(world: World):
    await _stopped_at_random(world, 3)


@pytest.mark.torture
@pytest.mark.timeout(900)
async def test_stopped_a_hundred_times_under_load_it_loses_and_repeats_nothing(world: World):
    await _stopped_at_random(world, 100)


@pytest.mark.torture
@pytest.mark.settings(flush={"interval": "20ms", "timeout": "30s", "drain_timeout": "500ms"})
async def test_stopped_while_nobody_answers_it_ends_in_time(world: World):
    await world.proxy.start()
    world.upstream.choose = lambda _: Plan("blackhole")
    world.load(4)
    await world.pass_time(0.5)
    started = asyncio.get_running_loop().time()
    assert await world.proxy.stop() == 0
    assert asyncio.get_running_loop().time() - started < 5
    world.upstream.heal()
    await world.settle()


async def _frozen(world: World, seconds: float) -> None:
    await world.proxy.start()
    world.load(6, patience=Patience(timeout=seconds / 2))
    await world.pass_time(0.3)
    world.proxy.signal(signal.SIGSTOP)
    await world.pass_time(seconds)
    world.proxy.signal(signal.SIGCONT)
    await world.pass_time(0.5)
    # What was under way for longer than flush.timeout counts as unanswered, whatever has come since.
    await world.settle(Rules(duplicates="crash"))


async def test_frozen_for_three_seconds_it_goes_on(world: World):
    await _frozen(world, 3.0)


@pytest.mark.torture
@pytest.mark.timeout(200)
async def test_frozen_for_a_minute_it_goes_on(world: World):
    await _frozen(world, 60.0)


async def test_stopped_while_it_starts_it_ends_without_harm(world: World):
    await world.proxy.start()
    world.load(3)
    await world.pass_time(0.3)
    await world.proxy.stop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        await world.proxy.spawn()
        await world.pass_time(0.1, 1.0)
        world.proxy.signal(number)
        if number == signal.SIGHUP:
            await world.pass_time(0.5)
            world.proxy.signal(signal.SIGTERM)
        # Before it hears signals, one ends it as it ends any process (Python makes SIGINT an error).
        assert await world.proxy.ended() in {0, -number, 1 if number == signal.SIGINT else 0}
    await world.settle()


@pytest.mark.torture
async def test_a_second_process_on_the_same_folder_ends_and_disturbs_nobody(world: World):
    await world.proxy.start()
    world.load(4)
    second = await world.proxy.command("run")
    output, _ = await asyncio.wait_for(second.communicate(), 30)
    assert second.returncode == 1
    assert b"held by another process" in output
    await world.settle()

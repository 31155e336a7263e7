"""What operators do while it runs: reloads without end, replays that are broken off, checks."""

from __future__ import annotations

import asyncio
import signal
import socket

import msgspec
import pytest

from tests.crash.harness.ledger import fields
from tests.crash.harness.oracle import Rules
from tests.crash.harness.process import Settings
from tests.crash.harness.senders import Patience
from tests.crash.harness.upstream import Plan
from tests.crash.harness.world import World


@pytest.fixture
def tables() -> Settings:
    """Commands find the admin listener by its port in the file."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return {"admin": {"port": probe.getsockname()[1]}}


async def test_reloads_without_end_fail_no_request_and_change_no_order(world: World):
    await world.proxy.start()
    world.load(6, patience=Patience(repeats=False, timeout=5.0))
    for number in range(24):
        settings = world.settings()
        if number % 3 == 2:
            settings["flush"] = {"interval": "never"}
        else:
            settings["flush"] = {"max_in_flight": 1 + number % 4, "interval": f"{number}ms"}
            settings["sources"] = settings["sources"][:: 1 if number % 2 else -1]
        world.proxy.write_config(settings)
        world.proxy.signal(signal.SIGHUP)
        await world.pass_time(0.05, 0.15)
    world.proxy.write_config(world.settings())
    world.proxy.signal(signal.SIGHUP)
    figures = await world.settle()
    assert len(world.proxy.logged("reloaded")) > 5
    assert len(world.proxy.logged("reload_refused")) > 2
    assert figures.failed_requests == figures.refused_requests == 0


def _is_poison(text: bytes) -> bool:
    ref = msgspec.json.decode(bytes(fields(text)["ref"]), type=str)
    return int(ref.rpartition(".")[2]) % 7 == 3


async def _with_dead_letters(world: World, least: int = 20) -> int:
    refused = Plan(status=400, body=b"{}")
    world.upstream.judge = lambda _, texts: refused if any(map(_is_poison, texts)) else None
    await world.proxy.start()
    world.load(4, users=20, patience=Patience(pause=0.05))
    await world.pass_time(1.2)
    await world.stop_senders()
    await world.empty()
    world.upstream.heal()
    dead = (await world.proxy.status())["dead_letters"]["count"]
    assert dead >= least
    return dead


async def test_a_replay_that_is_broken_off_neither_loses_nor_doubles_anything(world: World):
    await _with_dead_letters(world)
    for _ in range(2):
        replay = await world.proxy.command("deadletters", "replay", "--yes")
        await world.pass_time(0.2, 0.7)
        if replay.returncode is None:
            replay.kill()
        await replay.communicate()
    replay = await world.proxy.command("deadletters", "replay", "--yes")
    output, _ = await replay.communicate()
    assert replay.returncode == 0, output
    figures = await world.settle(Rules(order=False))
    assert figures.dead == 0
    assert figures.delivered == figures.accepted


@pytest.mark.torture
async def test_killed_during_a_replay_it_loses_nothing(world: World):
    await _with_dead_letters(world)
    for _ in range(2):
        replay = await world.proxy.command("deadletters", "replay", "--yes")
        await world.pass_time(0.3, 0.6)
        world.proxy.signal()
        await world.proxy.ended()
        await replay.communicate()
        check = await world.proxy.command("buffer", "check")
        output, _ = await check.communicate()
        assert check.returncode == 0, output
        await world.proxy.start()
    replay = await world.proxy.command("deadletters", "replay", "--yes")
    await replay.communicate()
    figures = await world.settle(Rules(order=False, duplicates="crash"))
    assert figures.dead == 0
    assert figures.delivered == figures.accepted


@pytest.mark.torture
async def test_a_replay_while_the_proxy_is_stopped_works_on_the_files(world: World):
    await _with_dead_letters(world)
    await world.proxy.stop()
    for _ in range(3):
        replay = await world.proxy.command("deadletters", "replay", "--yes")
        await asyncio.sleep(world.rng.uniform(0.2, 0.8))
        if replay.returncode is None:
            replay.kill()
        await replay.communicate()
    replay = await world.proxy.command("deadletters", "replay", "--yes")
    output, _ = await replay.communicate()
    assert replay.returncode == 0, output
    figures = await world.settle(Rules(order=False))
    assert figures.dead == 0


@pytest.mark.settings(dead_letters={"max_size": "20KB"})
async def test_dead_letters_beyond_their_limit_are_counted_every_one(world: World):
    dead = await _with_dead_letters(world, least=1)
    status = await world.proxy.status()
    expired = status["totals"]["expired"]
    poison = [s for s in world.ledger.sent.values() if s.accepted and _is_poison(s.text)]
    assert dead + expired == len(poison)
    assert expired > 20
    assert len(world.proxy.logged("dead_letters_expired")) <= 2  # a lane a minute
    figures = await world.settle(Rules(expired=expired))
    assert figures.dead == dead
    assert (
        sum(int(str(line["dead_letters"])) for line in world.proxy.logged("dead_letters_expired"))
        == expired
    )

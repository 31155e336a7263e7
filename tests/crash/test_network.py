"""A network that drops packets without a word: the server lies in another network namespace."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from itertools import pairwise

import pytest

from tests.crash.harness.machine import NotPermittedError, unavailable
from tests.crash.harness.network import Network, open_network
from tests.crash.harness.oracle import Rules
from tests.crash.harness.senders import Patience
from tests.crash.harness.upstream import Plan
from tests.crash.harness.world import World

_QUICK = {"interval": "20ms", "timeout": "500ms"}
#: An answer that was sent and never came: the batch is repeated, as after a crash.
_UNANSWERED = Rules(duplicates="crash")


@pytest.fixture
def network() -> Iterator[Network]:
    try:
        with open_network() as network:
            yield network
    except NotPermittedError as error:
        unavailable(error)


@pytest.fixture
async def far(world: World, network: Network) -> AsyncIterator[World]:
    """A world whose server lies behind the router."""
    await world.upstream.close()
    await world.upstream.listen(network.listener())
    world.proxy.write_config(world.settings())
    return world


def _delivered(world: World) -> int:
    return sum(1 for ref in world.ledger.sent if world.ledger.delivered(ref))


def _late_copies(world: World, calm: list[tuple[int, int]]) -> list[str]:
    """Events that came, were answered and came again while no packet was lost: what the kernel
    still sent of an attempt that the proxy had given up."""
    found = []
    for ref in world.ledger.arrivals:
        taken = [world.ledger.deliveries[arrival.delivery] for arrival in world.ledger.taken(ref)]
        for first, again in pairwise(taken):
            if first.uncertain or first.answered is None:
                continue
            if any(since < first.began and again.began < until for since, until in calm):
                found.append(ref)
    return found


async def _cut_off(world: World, network: Network, times: int, seconds: float) -> None:
    # Slow answers, so that at any moment some batch has been read and is not yet answered.
    world.upstream.choose = lambda _: Plan(delay=world.rng.uniform(0, 0.05))
    await world.proxy.start()
    world.load(4, patience=Patience(pause=0.05))
    calm = []
    for _ in range(times):
        mended, before = world.ledger.tick(), _delivered(world)
        await world.until(lambda before=before: _delivered(world) > before + 50, "deliveries")
        calm.append((mended, world.ledger.tick()))
        network.cut()
        await world.pass_time(seconds / 2, seconds)
        status = await world.proxy.status()
        assert {lane["state"] for lane in status["lanes"]} == {"backing_off"}
        assert status["buffer"]["events"] > 0
        network.mend()
        mended = world.ledger.tick()
        await world.pass_time(1.5)  # within which the kernel would try again
        calm.append((mended, world.ledger.tick()))
    figures = await world.settle(_UNANSWERED)
    assert figures.failed_requests == figures.refused_requests == figures.dead == 0
    assert not _late_copies(world, calm)


@pytest.mark.settings(flush=_QUICK)
async def test_packets_that_vanish_in_the_middle_of_deliveries_lose_nothing(
    far: World, network: Network
):
    await _cut_off(far, network, times=1, seconds=1.5)


@pytest.mark.torture
@pytest.mark.timeout(200)
@pytest.mark.settings(flush=_QUICK)
async def test_packets_that_vanish_again_and_again_lose_nothing(far: World, network: Network):
    await _cut_off(far, network, times=15, seconds=3.0)

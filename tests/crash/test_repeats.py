"""The same event many times at once."""

from __future__ import annotations

import asyncio

import pytest

from tests.crash.harness.senders import exchange
from tests.crash.harness.world import World
from tests.crash.harness.writing import Request, Writer


async def _at_once(world: World, request: Request, connections: int) -> None:
    for event in request.events:
        world.ledger.sent[event.ref] = event

    async def one() -> None:
        reader, writer = await asyncio.open_connection(*world.proxy.address)
        answer, _ = await exchange(reader, writer, request.bytes(close=True))
        assert answer == (200, b'{"success":true}')
        for event in request.events:
            event.times_sent += 1
            event.accepted = event.accepted or world.ledger.tick()
        writer.close()

    await asyncio.gather(*[one() for _ in range(connections)])


@pytest.mark.parametrize(("most", "rounds"), [(1, 20), (20, 10), (2_000, 2)])
async def test_the_same_events_from_fifty_connections_at_once_are_delivered_once(
    world: World, most: int, rounds: int
):
    await world.proxy.start()
    writer = Writer(world.rng, "same", source="web", key="key-web", users=3)
    for _ in range(rounds):
        request = writer.request(most)
        while len(request.events) < most // 2 or not all(e.has_id for e in request.events[:1]):
            request = writer.request(most)
        for event in request.events:
            assert event.has_id or most > 1
        await _at_once(world, request, 50 if most < 1_000 else 8)
    await world.settle()

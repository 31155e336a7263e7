"""Clocks that step, and events with impossible dates."""

from __future__ import annotations

import asyncio
import json
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.crash.harness.oracle import Rules
from tests.crash.harness.senders import exchange
from tests.crash.harness.upstream import FINE, Plan
from tests.crash.harness.world import World

_DAY = 86_400.0


@pytest.mark.parametrize(
    "steps",
    [(_DAY, 0.0, -_DAY, 0.0), pytest.param((3.0, -3.0, 0.5, 0.0), marks=pytest.mark.torture)],
)
async def test_the_clock_steps_and_nothing_is_lost_or_expired(
    world: World, tmp_path: Path, steps: tuple[float, ...]
):
    clock = tmp_path / "clock"
    clock.write_bytes(struct.pack("d", 0.0))
    world.proxy.child = {"clock": str(clock)}
    world.upstream.choose = lambda _: world.rng.choice(
        [FINE, Plan(status=503, body=b""), Plan(status=429, headers=("Retry-After: 0",))]
    )
    await world.proxy.start()
    world.load(4)
    for step in steps:
        await world.pass_time(0.4)
        with clock.open("r+b") as file:
            file.write(struct.pack("d", step))
    await world.pass_time(0.4)
    figures = await world.settle(Rules(clock_slack=_DAY + 60))
    assert figures.dead == 0


@pytest.mark.parametrize("step", [-_DAY, pytest.param(_DAY, marks=pytest.mark.torture)])
async def test_a_clock_that_steps_during_a_pause_makes_it_neither_shorter_nor_longer(
    world: World, tmp_path: Path, step: float
):
    clock = tmp_path / "clock"
    clock.write_bytes(struct.pack("d", 0.0))
    world.proxy.child = {"clock": str(clock)}
    world.upstream.choose = lambda _: Plan(status=503, headers=("Retry-After: 1",))
    await world.proxy.start()
    await world.send_batch(5)
    await world.until(lambda: bool(world.ledger.deliveries), "the first attempt")
    await world.until_lane("web", "backing_off", "http_503")
    with clock.open("r+b") as file:
        file.write(struct.pack("d", step))
    await world.until(lambda: len(world.ledger.deliveries) > 1, "the second attempt")
    first, second, *_ = world.ledger.deliveries
    assert 1.0 <= second.began_at - first.began_at < 2.5
    figures = await world.settle(Rules(clock_slack=_DAY + 60))
    assert figures.dead == 0


async def test_events_of_1970_are_told_too_old_and_those_of_2100_are_delivered(world: World):
    await world.proxy.start()
    now = datetime.now(UTC)
    wanted = {
        "1970-01-01T00:00:00Z": "too_old",
        (now - timedelta(days=6, hours=23)).isoformat(): None,
        (now - timedelta(days=7, hours=1)).isoformat(): "too_old",
        "2100-01-01T00:00:00Z": None,
        "0001-01-01T00:00:00Z": "too_old",
        "9999-12-31T23:59:59.999Z": None,
        "yesterday": None,
    }
    for stamp, code in wanted.items():
        event = {"type": "page", "anonymousId": "a", "messageId": stamp, "timestamp": stamp}
        body = json.dumps({"writeKey": "key-web", "batch": [event]}).encode()
        head = f"POST /v1/batch HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        reader, writer = await asyncio.open_connection(*world.proxy.address)
        (status, answer), _ = await exchange(reader, writer, head.encode() + body)
        writer.close()
        assert status == 200
        codes = [entry["code"] for entry in json.loads(answer).get("rejected", ())]
        assert codes == ([] if code is None else [code]), stamp
    await world.empty()
    assert await world.proxy.stop() == 0
    arrived = [json.loads(text)["messageId"] for text in world.ledger.strays]
    assert arrived == [stamp for stamp, code in wanted.items() if code is None]
    assert not world.ledger.complaints

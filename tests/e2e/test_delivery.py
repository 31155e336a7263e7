"""What goes out, of a real process: the size of batches, lanes, Retry-After, a task that dies."""

from __future__ import annotations

import asyncio
import json
import signal

import pytest
from aiohttp import web

from edgeproxy import service
from edgeproxy.config import load
from edgeproxy.delivery.lane import Lane
from edgeproxy.sandbox import Sandbox
from edgeproxy.sandbox.faults import Faults
from tests.e2e.proxy import HIGHTOUCH_KEY, KEY, Proxy, event
from tests.e2e.test_process import until


@pytest.fixture
async def hightouch():
    """Takes everything: its address, and the bodies that came (aiohttp has decompressed them)."""
    app = web.Application(client_max_size=10**8)
    bodies: list[bytes] = []

    async def accept(request):
        bodies.append(await request.read())
        return web.json_response({"success": True})

    app.router.add_post("/v1/batch", accept)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", bodies
    await runner.cleanup()


async def test_no_batch_holds_more_than_its_limits(hightouch, tmp_path):
    url, bodies = hightouch
    proxy = Proxy(tmp_path, url, flush={"max_events": 40, "max_bytes": 100_000})
    await proxy.start()
    try:
        sizes = [1, 90_000, 5_000, 95_000, 20, 49_000, 49_000, 300, 60_000]
        events = [event(n, filler="x" * size) for n, size in enumerate(sizes)]
        events += [event(100 + n) for n in range(200)]
        assert await proxy.send(*events) == 200

        def batches():
            return [(len(body), json.loads(body)["batch"]) for body in bodies]

        await until(lambda: sum(len(b) for _, b in batches()) == len(events), "delivery")
        assert max(size for size, _ in batches()) <= 100_000
        assert max(len(batch) for _, batch in batches()) <= 40
    finally:
        await proxy.close()


async def test_one_lane_is_dead_while_another_flows(tmp_path):
    dead, alive = Sandbox("k1"), Sandbox("k2")
    async with dead.serve() as dead_url, alive.serve() as alive_url:
        dead.faults = Faults(blackhole=True)
        sources = [
            {"name": "a", "write_key": "ka", "hightouch_write_key": "k1", "endpoint": dead_url},
            {"name": "b", "write_key": KEY, "hightouch_write_key": "k2", "endpoint": alive_url},
        ]
        proxy = Proxy(tmp_path, alive_url, sources=sources)
        await proxy.start()
        try:
            for number in range(30):
                assert await proxy.send(event(number), key="ka") == 200
                assert await proxy.send(event(number)) == 200
            await until(lambda: len(alive.events) == 30, "the other lane flows")
            assert len(dead.events) == 0
            dead.faults = Faults(status=503)
            await proxy.until_lane("a", state="backing_off", reason="disconnected")
            dead.faults = Faults()
            await until(lambda: len(dead.events) == 30, "it resumes by itself")
        finally:
            await proxy.close()


async def test_an_endpoint_with_a_path_gets_the_batches_below_it(tmp_path):
    paths: list[str] = []

    async def note(request):
        paths.append(request.path)
        return web.json_response({"success": True})

    app = web.Application()
    app.router.add_post("/{path:.*}", note)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    proxy = Proxy(tmp_path, f"http://127.0.0.1:{runner.addresses[0][1]}/edge/")
    await proxy.start()
    try:
        assert await proxy.send(event(1)) == 200
        await until(lambda: bool(paths), "a batch")
        assert paths == ["/edge/v1/batch"]
    finally:
        await proxy.close()
        await runner.cleanup()


async def test_retry_after_is_honoured(tmp_path):
    sandbox = Sandbox(HIGHTOUCH_KEY)
    async with sandbox.serve() as url:
        sandbox.faults = Faults(status=429, retry_after=2.0)
        proxy = Proxy(tmp_path, url)
        await proxy.start()
        try:
            assert await proxy.send(event(1)) == 200
            await proxy.until_lane(state="backing_off", reason="http_429")
            sandbox.faults = Faults()
            asked = asyncio.get_running_loop().time()
            await until(lambda: len(sandbox.events) == 1, "delivery")
            assert asyncio.get_running_loop().time() - asked > 1.5
        finally:
            await proxy.close()


async def test_a_reload_ends_the_wait_that_hightouch_asked_for(tmp_path):
    sandbox = Sandbox(HIGHTOUCH_KEY)
    async with sandbox.serve() as url:
        sandbox.faults = Faults(status=429, retry_after=999_999)
        proxy = Proxy(tmp_path, url)
        await proxy.start()
        try:
            assert await proxy.send(event(1)) == 200
            lane = await proxy.until_lane(state="backing_off", reason="http_429")
            assert lane["next_attempt_seconds"] > 3500
            sandbox.faults = Faults()
            await proxy.reload()
            await until(lambda: len(sandbox.events) == 1, "delivery")
        finally:
            await proxy.close()


async def test_the_log_tells_of_trouble_and_recovery_once_each(tmp_path):
    sandbox = Sandbox(HIGHTOUCH_KEY)
    async with sandbox.serve() as url:
        sandbox.faults = Faults(status=401)
        proxy = Proxy(tmp_path, url)
        await proxy.start()
        try:
            assert await proxy.send(event(1)) == 200
            await proxy.until_lane(state="parked", reason="http_401")
            await proxy.reload()
            await proxy.until_logged("batch_park", 2)
            sandbox.faults = Faults()
            await proxy.reload()
            await proxy.until_logged("lane_state", 2)
            told = [
                (s["level"], s["state"], s["was"], s["reason"]) for s in proxy.log("lane_state")
            ]
            assert told == [("warning", "parked", "ok", "http_401"), ("info", "ok", "parked", None)]
        finally:
            await proxy.close()


async def test_a_lane_that_dies_ends_the_service(tmp_path, monkeypatch):
    async def die(_lane):
        raise ZeroDivisionError

    monkeypatch.setattr(Lane, "run", die)
    environ = {
        "EDGEPROXY_HIGHTOUCH__WRITE_KEY": "k",
        "EDGEPROXY_SERVER__HOST": "127.0.0.1",
        "EDGEPROXY_SERVER__PORT": "0",
        "EDGEPROXY_ADMIN__PORT": "0",
        "EDGEPROXY_BUFFER__PATH": str(tmp_path / "buffer"),
    }
    settings = load(None, environ)
    with pytest.raises(ExceptionGroup) as caught:
        async with service.start(settings, lambda: settings):
            await asyncio.get_running_loop().create_future()
    assert caught.value.subgroup(ZeroDivisionError) is not None


async def test_sigint_ends_it_as_sigterm_does(tmp_path):
    proxy = Proxy(tmp_path, "http://127.0.0.1:9")
    await proxy.start()
    proxy.process.send_signal(signal.SIGINT)
    assert await proxy.ended(5) == 0
    await proxy.close()

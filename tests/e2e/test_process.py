"""The process's life: started, stopped, killed, replaced and reconfigured under load."""

from __future__ import annotations

import asyncio
import signal
import socket
from contextlib import asynccontextmanager

import aiohttp
import pytest

from edgeproxy.sandbox import Sandbox
from edgeproxy.sandbox.faults import Faults
from tests.e2e.proxy import HIGHTOUCH_KEY, KEY, Proxy, event


@pytest.fixture
async def sandbox():
    return Sandbox(HIGHTOUCH_KEY)


@pytest.fixture
async def endpoint(sandbox):
    async with sandbox.serve() as url:
        yield url


@pytest.fixture
async def proxy(tmp_path, endpoint):
    proxy = Proxy(tmp_path, endpoint)
    yield proxy
    await proxy.close()


def arrived(sandbox: Sandbox) -> list[str]:
    return [arrival.message_id for arrival in sandbox.events]


class Load:
    """Clients that send without pause; what was answered 200 is in `accepted`."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.accepted: list[str] = []
        self.other: list[object] = []
        self._number = 0

    @asynccontextmanager
    async def running(self, clients: int = 8):
        tasks = [asyncio.create_task(self._client()) for _ in range(clients)]
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _client(self) -> None:
        while True:
            self._number += 1
            sent = event(self._number)
            try:
                status = await self.proxy.send(sent)
            except aiohttp.ClientError as error:
                self.other.append(error)
                await asyncio.sleep(0.01)
                continue
            if status == 200:
                self.accepted.append(str(sent["messageId"]))
            else:
                self.other.append(status)


async def until(done, what: str) -> None:
    """Wait for another process: there is nothing to wait on."""
    for _ in range(2000):
        if done():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"waited in vain: {what}")


async def test_sigterm_under_load_loses_and_repeats_nothing(proxy, sandbox):
    await proxy.start()
    load = Load(proxy)
    async with load.running():
        await until(lambda: len(load.accepted) > 300, "load")
        assert await proxy.stop(within=10) == 0
    assert not [answer for answer in load.other if not isinstance(answer, aiohttp.ClientError)]
    await proxy.start()
    await until(lambda: set(load.accepted) <= set(arrived(sandbox)), "everything accepted arrives")
    assert len(arrived(sandbox)) == len(set(arrived(sandbox)))
    assert await proxy.stop() == 0


async def test_sigterm_flushes_what_is_there_without_waiting_for_a_full_batch(proxy, sandbox):
    proxy.change(flush={"interval": "1h"})
    await proxy.start()
    assert await proxy.send(*[event(n) for n in range(20)]) == 200
    assert arrived(sandbox) == []
    assert await proxy.stop(within=4) == 0
    assert len(arrived(sandbox)) == 20


async def test_sigterm_does_not_wait_for_a_lane_in_trouble(proxy, sandbox):
    sandbox.faults = Faults(status=401)
    await proxy.start()
    assert await proxy.send(event(1)) == 200
    await proxy.until_lane(state="parked")
    async with asyncio.timeout(3):
        assert await proxy.stop() == 0
    assert proxy.log("left_on_disk")[-1]["events"] == 1
    sandbox.faults = Faults()
    await proxy.start()
    await until(lambda: arrived(sandbox) == ["m1"], "delivered after the restart")


async def test_the_drain_ends_after_its_timeout(proxy, sandbox):
    proxy.change(flush={"drain_timeout": "1s", "max_events": 1, "max_in_flight": 1})
    await proxy.start()
    sandbox.faults = Faults(latency=0.2)
    assert await proxy.send(*[event(n) for n in range(200)]) == 200
    async with asyncio.timeout(4):
        assert await proxy.stop() == 0
    assert 0 < len(arrived(sandbox)) < 50
    sandbox.faults = Faults()
    await proxy.start()
    await until(lambda: len(set(arrived(sandbox))) == 200, "the rest arrives")
    assert len(arrived(sandbox)) == 200, "what was under way was waited for"


async def test_a_black_hole_does_not_hold_up_the_end(proxy, sandbox):
    sandbox.faults = Faults(blackhole=True)
    proxy.change(flush={"drain_timeout": "1s"})
    await proxy.start()
    assert await proxy.send(event(1)) == 200
    await proxy.until_lane(in_flight=1)
    async with asyncio.timeout(4):
        assert await proxy.stop() == 0
    sandbox.faults = Faults()
    await proxy.start()
    await until(lambda: "m1" in arrived(sandbox), "sent again")


async def test_a_request_under_way_at_sigterm_is_answered(proxy, sandbox):
    await proxy.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    idle_reader, idle_writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    idle_writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"200 OK" in await idle_reader.read(1000)
    body = b'{"batch":[{"type":"page","messageId":"slow","userId":"u"}],"writeKey":"%b"}' % (
        KEY.encode()
    )
    head = b"POST /v1/batch HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    writer.write(head + body[:10])
    await writer.drain()
    await asyncio.sleep(0.2)  # the process has the beginning
    proxy.process.send_signal(signal.SIGTERM)
    await proxy.until_logged("stopping")
    async with proxy.session.get(f"{proxy.admin_url}/readyz") as answer:
        assert answer.status == 503
        assert (await answer.json())["reason"] == "stopping"
    async with proxy.session.get(f"{proxy.admin_url}/healthz") as answer:
        assert answer.status == 200
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(body[10:])
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(b'{"success":true}')
    assert await proxy.ended(5) == 0
    assert await idle_reader.read() == b"", "an idle connection is closed"
    assert arrived(sandbox) == ["slow"]
    writer.close()
    idle_writer.close()


async def test_kill_while_sending_repeats_the_batch_with_the_same_ids(proxy, sandbox):
    await proxy.start()
    sandbox.faults = Faults(latency=30.0)
    assert await proxy.send(event(1), event(2)) == 200
    await until(lambda: len(arrived(sandbox)) == 2, "Hightouch has them, and has not answered")
    await proxy.kill()
    sandbox.faults = Faults()
    await proxy.start()
    await until(lambda: len(arrived(sandbox)) == 4, "they are sent again")
    assert arrived(sandbox) == ["m1", "m2", "m1", "m2"]


async def test_a_second_process_on_the_buffer_says_so_and_exits_1(proxy, tmp_path, endpoint):
    await proxy.start()
    folder = tmp_path / "second"
    folder.mkdir()
    second = Proxy(folder, endpoint, buffer={"path": str(tmp_path / "buffer")})
    loop = asyncio.get_running_loop()
    started = loop.time()
    await second.spawn()
    assert await second.ended(30) == 1
    assert 9.5 < loop.time() - started < 15
    assert "held by another process" in str(second.log("failed")[-1]["reason"])
    await second.close()


async def test_a_port_in_use_is_named_and_exits_1(proxy):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for table, words in (("server", "[server] host, port"), ("admin", "[admin] host, port")):
            before = {"server": {"port": proxy.port}, "admin": {"port": proxy.admin_port}}
            proxy.change(**before | {table: {"port": taken.getsockname()[1]}})
            await proxy.spawn()
            assert await proxy.ended() == 1
            line = proxy.log("failed")[-1]
            assert "cannot listen on 127.0.0.1" in str(line["reason"])
            assert words in str(line["reason"])
            assert "exception" not in line


# --- reloading --------------------------------------------------------------------------------------


async def test_a_reload_under_load_drops_no_request(proxy, sandbox):
    await proxy.start()
    load = Load(proxy)
    async with load.running():
        for round_ in range(10):
            await until(lambda: len(load.accepted) > 50 * (round_ + 1), "load")  # noqa: B023
            proxy.change(flush={"max_events": 100 + round_})
            if round_ % 2:
                proxy.process.send_signal(signal.SIGHUP)
                await proxy.until_logged("reloaded", round_ + 1)
            else:
                status, answer = await proxy.reload()
                assert (status, answer["applied"]) == (200, True)
    assert load.other == []
    await until(lambda: set(load.accepted) <= set(arrived(sandbox)), "everything arrives")


async def test_a_bad_configuration_is_refused_and_the_old_one_goes_on(proxy, sandbox):
    await proxy.start()
    proxy.config.write_text("[flush]\nmax_evnts = 3\n")
    status, answer = await proxy.reload()
    assert (status, answer["applied"]) == (409, False)
    assert any("max_evnts" in mistake for mistake in answer["mistakes"])
    proxy.config.write_text("this is not TOML")
    proxy.process.send_signal(signal.SIGHUP)
    await proxy.until_logged("reload_refused", 2)
    assert await proxy.send(event(1)) == 200
    await until(lambda: arrived(sandbox) == ["m1"], "the old configuration goes on")
    proxy.config.unlink()
    status, answer = await proxy.reload()
    assert (status, answer["applied"]) == (409, False)
    assert await proxy.stop() == 0


async def test_settings_that_need_a_restart_are_named_until_it_happens(proxy):
    await proxy.start()
    proxy.change(buffer={"max_size": "2GB"})
    for _ in range(2):
        _, answer = await proxy.reload()
        assert answer["needs_restart"] == ["buffer.max_size"]
    assert (await proxy.status())["buffer"]["max_bytes"] == 2**30


async def test_a_wrong_key_parks_and_a_corrected_one_resumes_without_a_restart(proxy, sandbox):
    proxy.change(hightouch={"write_key": "wrong"}, retry={"max": "60s"})
    await proxy.start()
    assert await proxy.send(event(1), event(2)) == 200
    lane = await proxy.until_lane(state="parked", reason="http_401")
    assert 0 < lane["next_attempt_seconds"] <= 60
    proxy.change(hightouch={"write_key": HIGHTOUCH_KEY})
    await proxy.reload()
    await until(lambda: len(arrived(sandbox)) == 2, "what was buffered goes out")
    await proxy.until_lane(state="ok", reason=None, delivered=2)


async def test_a_reload_reads_a_secrets_file_anew(proxy, sandbox, tmp_path):
    secret = tmp_path / "write_key"
    secret.write_text("wrong")
    del proxy.settings["hightouch"]["write_key"]
    proxy.change(hightouch={"write_key_file": str(secret)})
    proxy.change(sources=[{"name": "site", "write_key": KEY}])
    await proxy.start()
    assert await proxy.send(event(1)) == 200
    await proxy.until_lane(state="parked", reason="http_401")
    secret.write_text(HIGHTOUCH_KEY + "\n")
    await proxy.reload()
    await until(lambda: len(arrived(sandbox)) == 1, "what was buffered goes out")


async def test_a_source_that_is_named_no_more_is_kept_and_resumes(proxy, sandbox):
    shop = {"name": "shop", "write_key": "the-shop's-key"}
    site = {"name": "site", "write_key": KEY}
    proxy.change(sources=[site, shop], flush={"interval": "1h"})
    await proxy.start()
    assert await proxy.send(event(1), key="the-shop's-key") == 200
    proxy.change(sources=[site], flush={"interval": "50ms"})
    await proxy.reload()
    lane = await proxy.until_lane("shop", state="parked", reason="source_removed")
    assert lane["endpoint"] is None
    assert await proxy.send(event(2), key="the-shop's-key") == 401
    assert await proxy.send(event(3)) == 200
    await until(lambda: arrived(sandbox) == ["m3"], "the other lane flows")
    assert await proxy.stop() == 0
    await proxy.start()
    await proxy.until_lane("shop", state="parked", reason="source_removed")
    proxy.change(sources=[site, shop])
    await proxy.reload()
    await until(lambda: arrived(sandbox) == ["m3", "m1"], "it goes out once it has a way")
    proxy.change(sources=[site])
    await proxy.reload()
    assert [lane["name"] for lane in (await proxy.status())["lanes"]] == ["site"]


# --- what is logged -----------------------------------------------------------------------------------


async def test_the_log_has_a_line_a_batch_and_neither_keys_nor_bodies(proxy, sandbox):
    await proxy.start()
    for number in range(5):
        assert (
            await proxy.send(*[event(number * 100 + n, secret="sesame") for n in range(100)]) == 200
        )
    await until(lambda: len(arrived(sandbox)) == 500, "delivery")
    sandbox.faults = Faults(status=503)
    assert await proxy.send(event(1000, secret="sesame")) == 200
    await proxy.until_logged("batch_retry")
    sandbox.faults = Faults(poison="m1001")
    assert await proxy.send(event(1001, secret="sesame")) == 200
    await proxy.until_logged("events_rejected")
    assert await proxy.stop() == 0
    assert len(proxy.log("batch_delivered")) <= 7
    assert len(proxy.log()) < 40
    for hidden in ("sesame", KEY, HIGHTOUCH_KEY, "Tested"):
        assert hidden not in proxy.log_text

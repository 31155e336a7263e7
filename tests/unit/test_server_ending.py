"""The last moments of a listener: whoever is connected already gets an answer."""

import asyncio
import json

from tests.listening import KEY, basic, hold_commits, track

REQUEST = json.dumps(track()).encode()
HEAD = (
    f"POST /v1/track HTTP/1.1\r\nHost: x\r\nAuthorization: {basic(KEY)}\r\n"
    f"Content-Length: {len(REQUEST)}\r\n\r\n"
).encode()


async def test_a_client_that_has_only_just_connected_is_answered(proxy):
    connection = await proxy.connect()
    ending = asyncio.create_task(proxy.server.let_finish())
    await asyncio.sleep(0.05)
    await connection.send(HEAD + REQUEST)
    answer = await connection.answer()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert await connection.closed() == b""
    await ending
    await connection.close()


async def test_a_request_that_has_begun_to_arrive_is_answered(proxy):
    connection = await proxy.connect()
    await connection.send(HEAD[:20])
    await asyncio.sleep(0.05)
    ending = asyncio.create_task(proxy.server.let_finish())
    await asyncio.sleep(0.05)
    await connection.send(HEAD[20:] + REQUEST)
    assert (await connection.answer()).status == 200
    await ending
    await connection.close()


async def test_idle_connections_do_not_delay_the_end(proxy):
    connection = await proxy.connect()
    await connection.send(HEAD + REQUEST)
    await connection.answer()
    async with asyncio.timeout(0.3):
        await proxy.server.let_finish()
    await connection.close()


async def test_a_client_that_never_asks_delays_the_end_only_a_little(proxy):
    connection = await proxy.connect()
    await asyncio.sleep(0.05)
    async with asyncio.timeout(2):
        await proxy.server.let_finish()
    await connection.close()


async def test_a_request_that_waits_for_the_disk_is_answered_and_told_that_it_is_the_last(proxy):
    hold_commits(proxy, 0.3)
    connection = await proxy.connect()
    await asyncio.sleep(0.05)
    await connection.send(HEAD + REQUEST)
    await asyncio.sleep(0.05)
    ending = asyncio.create_task(proxy.server.let_finish(2))
    answer = await connection.answer()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert await connection.closed() == b""
    await ending
    assert proxy.server.requests_count == 0, "no task of aiohttp's took it"
    await connection.close()


async def test_a_disk_that_is_slow_at_the_end_is_waited_for_when_the_connections_are_closed(proxy):
    hold_commits(proxy, 0.8)
    connection = await proxy.connect()
    await asyncio.sleep(0.05)
    await connection.send(HEAD + REQUEST)
    await asyncio.sleep(0.05)
    await proxy.server.let_finish()
    closing = asyncio.create_task(proxy.server.shutdown(1.0))
    assert (await connection.answer()).status == 200
    await closing
    await connection.close()

"""Connections that are not what they should be, written byte by byte."""

import asyncio
import gc
import gzip
import json
import logging
import socket
import struct
from contextlib import suppress
from itertools import pairwise

import pytest

from edgeproxy.server.protocol import Patience
from tests.listening import KEY, basic, hold_commits, track

AUTH = f"Authorization: {basic(KEY)}\r\n".encode()
POST = b"POST /v1/track HTTP/1.1\r\nHost: x\r\n" + AUTH


def whole(event=None, *, version=b"1.1", more=b""):
    body = json.dumps(event or track()).encode()
    head = POST.replace(b"HTTP/1.1", b"HTTP/" + version)
    return head + more + b"Content-Length: %d\r\n\r\n" % len(body) + body


@pytest.fixture
async def hasty(proxy_factory):
    """A listener that waits for nobody long."""
    return await proxy_factory(
        patience=Patience(head=0.15, idle=0.3, sweep=0.05), body_timeout=0.15
    )


@pytest.fixture(autouse=True)
def quiet(caplog):
    """Whatever a client does, there is no error in the log, and nothing of what it sent."""
    caplog.set_level(logging.DEBUG)
    yield
    records = caplog.get_records("call")
    assert [r.getMessage() for r in records if r.levelno >= logging.ERROR] == []
    text = "\n".join(logging.Formatter().format(r) for r in records)
    for secret in (KEY, basic(KEY), "Order Completed"):
        assert secret not in text


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS on a plain port
        b"hello\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"BREW /pot HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /v1/track HTTP/1.1\r\nHost: x\r\nContent-Length: ten\r\n\r\n",
        b"POST /v1/track HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/track HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST /v1/track HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /v1/track HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        b"POST /v1/track HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/track HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
        b"POST /v1/track HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST /v1/track HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nA\xff: b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"X: a\r\n" * 200 + b"\r\n",
    ],
)
async def test_what_is_not_http_is_answered_400_and_closed(proxy, garbage):
    connection = await proxy.connect()
    await connection.send(garbage)
    answer = await connection.answer()
    assert (answer.status, answer.code) == (400, "bad_request")
    assert await connection.closed() == b""
    await connection.close()
    assert proxy.events() == []


async def test_a_bad_chunk_size_is_answered_400(proxy):
    for chunk in (b"zz\r\n", b"-1\r\n", b"5\r\nabcdefg\r\n", b"fffffffffffffffff\r\n"):
        connection = await proxy.connect()
        await connection.send(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        await asyncio.sleep(0)
        await connection.send(chunk)
        answer = await connection.answer()
        assert (answer.status, answer.code) == (400, "bad_request"), chunk
        assert await connection.closed() == b""
        await connection.close()


async def test_a_smuggled_second_request_is_not_served(proxy):
    smuggled = whole(track(messageId="smuggled"))
    connection = await proxy.connect()
    await connection.send(
        POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled
    )
    assert (await connection.answer()).status == 400
    assert await connection.closed() == b""
    await connection.close()
    assert proxy.events() == []


async def test_pipelined_requests_are_answered_in_order(proxy):
    connection = await proxy.connect()
    await connection.send(
        whole(track(messageId="one"))
        + b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"
        + whole(track(messageId="two"))
    )
    assert [(await connection.answer()).status for _ in range(3)] == [200, 404, 200]
    await connection.close()
    assert [e["messageId"] for e in proxy.events()] == ["one", "two"]


async def test_what_comes_while_a_request_waits_for_the_disk_is_answered_after_it(proxy):
    hold_commits(proxy, 0.1)
    connection = await proxy.connect()
    await asyncio.sleep(0.05)
    await connection.send(whole())
    await asyncio.sleep(0.03)
    await connection.send(whole({"type": "track"}) + whole()[:40])
    assert (await connection.answer()).status == 200
    assert (await connection.answer()).status == 400
    rest = whole()[40:]
    await connection.send(rest)
    assert (await connection.answer()).status == 200
    assert len(proxy.events()) == 2
    await connection.close()


@pytest.mark.parametrize("pieces", [1, 2, 30])
async def test_requests_whose_bodies_arrive_soon_need_no_task(proxy, pieces):
    connection = await proxy.connect()
    await asyncio.sleep(0.05)
    for _ in range(3):
        data = whole()
        start = data.index(b"\r\n\r\n") + 4
        ends = [start + (len(data) - start) * n // pieces for n in range(pieces + 1)]
        for at, end in pairwise([0, *ends[1:]]):
            await connection.send(data[at:end])
            await asyncio.sleep(0.002)
        answer = await connection.answer()
        assert (answer.status, answer.body) == (200, b'{"success":true}')
    assert proxy.server.requests_count == 0
    await connection.close()


async def test_a_head_in_pieces_is_a_request_like_any_other(proxy):
    connection = await proxy.connect()
    await asyncio.sleep(0.05)
    data = whole()
    for at in range(0, len(data), 20):
        await connection.send(data[at : at + 20])
        await asyncio.sleep(0.001)
    assert (await connection.answer()).status == 200
    await connection.send(whole())
    assert (await connection.answer()).status == 200
    assert proxy.server.requests_count == 2, "its parser may hold the beginning of another one"
    await connection.close()


async def test_a_head_that_has_begun_behind_another_request_is_not_forgotten(proxy):
    connection = await proxy.connect()
    await asyncio.sleep(0.05)
    await connection.send(
        b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\nX-Pad: "
    )
    assert (await connection.answer()).status == 404
    await connection.send(whole().replace(b"\r\n", b" "))
    await asyncio.sleep(0.05)
    await connection.send(whole())
    assert (await connection.answer()).status in {200, 400}
    assert proxy.events() == [], "what looks like a request was the value of a header"
    await connection.close()


async def test_a_large_body_leaves_the_connection_as_it_was(proxy):
    connection = await proxy.connect()
    await asyncio.sleep(0.05)
    await connection.send(whole(track(padding="x" * 80_000) | {"more": ["y" * 1000] * 300}))
    assert (await connection.answer()).status == 400  # event_too_large
    await connection.send(whole())
    assert (await connection.answer()).status == 200
    assert proxy.server.requests_count == 1
    await connection.close()


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/nothing?next=/v1/track", 404),
        ("/healthz?x=/v1/track", 405),
        ("/v1/track?x=/v1/page", 200),
    ],
)
async def test_a_query_is_no_path(proxy, target, status):
    data = whole().replace(b"/v1/track", target.encode(), 1)
    assert (await proxy.raw(data)).status == status


async def test_one_client_that_says_close_costs_the_others_nothing(proxy):
    async def ask(more):
        connection = await proxy.connect()
        await asyncio.sleep(0.05)
        await connection.send(whole(more=more))
        assert (await connection.answer()).status == 200
        await connection.close()

    await ask(b"Connection: close\r\n")
    for number in range(5):
        await ask(b"X-New: %d\r\n" % number)
    assert proxy.server.requests_count == 1


async def test_who_does_not_read_answers_is_not_read_from(proxy):
    connection = await proxy.connect()
    await asyncio.sleep(0.05)
    request = whole(track(messageId="m"), more=b"Origin: https://%b.example\r\n" % (b"x" * 15_000))
    with suppress(TimeoutError):
        async with asyncio.timeout(3):
            for _ in range(1500):
                await connection.send(request)
                await asyncio.sleep(0)
    (served,) = proxy.server.connections
    assert served.transport.get_write_buffer_size() < 1_000_000
    connection.writer.transport.abort()


async def test_a_client_that_goes_as_its_head_is_read_leaves_no_error(proxy):
    connection = await proxy.connect()
    await asyncio.sleep(0.05)
    (served,) = proxy.server.connections
    transport = served.transport
    # aiohttp has made a task of it, which has not begun.
    served.data_received(POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n")
    await asyncio.sleep(0)
    served.connection_lost(None)
    await asyncio.sleep(0.05)
    assert proxy.server.requests_count == 1
    transport.abort()
    await connection.close()
    assert (await proxy.post("/v1/track", track())).status == 200


async def test_a_client_that_goes_as_its_body_is_waited_for_leaves_no_error(proxy):
    connection = await proxy.connect()
    await asyncio.sleep(0.05)
    await connection.send(POST + b"Content-Length: 1000\r\n\r\n{")
    await asyncio.sleep(0.05)
    (served,) = proxy.server.connections
    # Both at once: the end is known, and not told yet, when the patience for the body ends.
    served.transport.close()
    served._give_up()
    await asyncio.sleep(0.05)
    gc.collect()
    await asyncio.sleep(0.05)
    assert proxy.server.requests_count == 0
    await connection.close()


async def test_a_context_that_would_multiply_is_refused_however_it_comes(proxy):
    event = {"type": "page", "anonymousId": "a"}
    body = {"batch": [event] * 500, "context": {"x": "y" * 230_000}}
    data = gzip.compress(json.dumps(body).encode())
    head = POST.replace(b"/v1/track", b"/v1/batch") + b"Content-Encoding: gzip\r\n"
    answer = await proxy.raw(head + b"Content-Length: %d\r\n\r\n" % len(data) + data)
    assert (answer.status, answer.code) == (413, "request_too_large")


async def test_what_is_held_back_is_bounded_and_nothing_of_it_is_lost(proxy):
    hold_commits(proxy, 0.005)
    connection = await proxy.connect()
    await asyncio.sleep(0.05)
    many = 300
    await connection.send(whole(track(messageId="m")))
    await asyncio.sleep(0.002)
    await connection.send(b"".join(whole(track(messageId=f"m{n}")) for n in range(1, many)))
    for _ in range(many):
        assert (await connection.answer()).status == 200
    assert len(proxy.events()) == many
    await connection.close()


async def test_both_kinds_of_answer_say_the_same(proxy):
    """With and without a task: the second client asks for the end of its connection."""
    answers = []
    for more in (b"", b"Connection: close\r\n"):
        for sent in (whole(more=more), whole({"type": "track"}, more=more)):
            connection = await proxy.connect()
            await asyncio.sleep(0.05)
            await connection.send(sent)
            answer = await connection.answer()
            headers = {k: v for k, v in answer.headers.items() if k not in {"date", "connection"}}
            answers.append((answer.status, headers, answer.body))
            await connection.close()
    assert answers[:2] == answers[2:]
    assert proxy.server.requests_count == 2


async def test_a_connection_is_kept_until_the_client_says_close(proxy):
    connection = await proxy.connect()
    for _ in range(3):
        await connection.send(whole())
        assert (await connection.answer()).status == 200
    await connection.send(whole(more=b"Connection: close\r\n"))
    answer = await connection.answer()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert await connection.closed() == b""
    await connection.close()


async def test_http_1_0_is_answered_and_closed(proxy):
    connection = await proxy.connect()
    await connection.send(whole(version=b"1.0"))
    assert (await connection.answer()).body == b'{"success":true}'
    assert await connection.closed() == b""
    await connection.close()


async def test_a_client_that_waits_for_100_continue_gets_it(proxy):
    body = json.dumps(track()).encode()
    connection = await proxy.connect()
    await connection.send(
        POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
    )  # fmt: skip
    assert (await connection.answer()).status == 100
    await connection.send(body)
    assert (await connection.answer()).status == 200
    # And the connection is still good.
    await connection.send(whole())
    assert (await connection.answer()).status == 200
    await connection.close()


async def test_a_body_that_is_too_large_is_not_invited(proxy_factory):
    proxy = await proxy_factory(server={"max_request": 1000})
    answer = await proxy.raw(POST + b"Expect: 100-continue\r\nContent-Length: 5000\r\n\r\n")
    assert answer.status == 413


async def test_an_upgrade_is_declined_and_the_request_answered(proxy):
    answer = await proxy.raw(
        whole(more=b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n")
    )
    assert answer.status == 200


async def test_odd_targets_are_answered(proxy):
    for line in (b"OPTIONS *", b"CONNECT x:443", b"GET //", b"GET /?", b"POST /v1/track%00"):
        answer = await proxy.raw(line + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert answer.status in {400, 404}, line
        assert answer.code in {"bad_request", "not_found"}


async def test_headers_that_are_no_utf8_do_no_harm(proxy):
    odd = b"\xff\xfe \xe4"
    answer = await proxy.raw(
        whole(more=b"Origin: https://x.example\r\nUser-Agent: " + odd + b"\r\n")
    )
    assert answer.status == 200
    assert proxy.events()[0]["context"]["userAgent"] == "\ufffd\ufffd \ufffd"
    answer = await proxy.raw(whole(more=b"Origin: https://" + odd + b"\r\n"))
    assert (answer.status, answer.code) == (403, "origin_not_allowed")
    for name in (b"X-Forwarded-For", b"Content-Encoding", b"Cookie", b"Expect", b"Accept-Encoding"):
        answer = await proxy.raw(whole(more=name + b": " + odd + b"\r\n"))
        assert answer.status in {200, 415}
    for target in (b"GET /v1/projects/" + KEY.encode() + b"/settings", b"POST /ht/renew"):
        answer = await proxy.raw(target + b" HTTP/1.1\r\nHost: " + odd + b"\r\n\r\n")
        assert answer.status == 200
    answer = await proxy.raw(
        b"OPTIONS /v1/track HTTP/1.1\r\nHost: x\r\nOrigin: https://x.example\r\n"
        b"Access-Control-Request-Headers: " + odd + b"\r\n\r\n"
    )
    assert answer.status == 204
    assert "access-control-allow-headers" not in answer.headers


async def test_settings_and_cookies_need_no_host(proxy):
    for target in (b"GET /v1/projects/" + KEY.encode() + b"/settings", b"POST /ht/renew"):
        assert (await proxy.raw(target + b" HTTP/1.0\r\n\r\n")).status == 200


async def test_a_head_that_never_ends_is_closed(hasty):
    for start in (b"P", b"POST /v1/track HTTP/1.1\r\nHost: x\r\n"):
        connection = await hasty.connect()
        await connection.send(start)
        assert await connection.closed() == b""
        await connection.close()


async def test_a_head_that_trickles_in_is_closed(hasty):
    connection = await hasty.connect()

    async def trickle():
        while True:
            await connection.send(b"a")
            await asyncio.sleep(0.02)

    trickling = asyncio.create_task(trickle())
    assert b"200" not in await connection.closed()
    trickling.cancel()
    await asyncio.gather(trickling, return_exceptions=True)
    await connection.close()


async def test_a_second_head_that_never_ends_is_closed(hasty):
    connection = await hasty.connect()
    await connection.send(whole() + b"POST /v1/track HT")
    assert (await connection.answer()).status == 200
    assert await connection.closed() == b""
    await connection.close()


async def test_a_connection_that_says_nothing_is_closed(hasty):
    connection = await hasty.connect()
    assert await connection.closed() == b""
    await connection.close()


async def test_a_body_that_never_ends_is_answered_408_and_browsers_may_repeat_it(hasty):
    connection = await hasty.connect()
    await connection.send(POST + b"Origin: https://x.example\r\nContent-Length: 100\r\n\r\n{")
    answer = await connection.answer()
    assert (answer.status, answer.code) == (408, "request_timeout")
    assert "access-control-allow-origin" not in answer.headers
    await connection.close()


async def test_a_slow_sender_keeps_nobody_waiting(hasty):
    slow = await hasty.connect()
    await slow.send(POST + b"Content-Length: 100\r\n\r\n{")
    assert (await hasty.post("/v1/track", track())).status == 200
    await slow.close()


async def test_hundreds_of_idle_connections_disturb_nobody(proxy):
    idle = await asyncio.gather(*[proxy.connect() for _ in range(300)])
    assert (await proxy.post("/v1/track", track())).status == 200
    for connection in idle[::100]:
        await connection.send(whole())
        assert (await connection.answer()).status == 200
    await asyncio.gather(*[connection.close() for connection in idle])


def reset(connection):
    """Close with a reset, as a crashed client's machine does."""
    sock = connection.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.writer.transport.abort()


@pytest.mark.parametrize("sent", [10, 60, 150, -1])
async def test_a_client_that_goes_away_in_the_middle_leaves_nothing(proxy, sent):
    data = whole()
    for end in (reset, lambda c: c.writer.close()):
        connection = await proxy.connect()
        await connection.send(data[:sent])
        await asyncio.sleep(0.02)
        end(connection)
    await asyncio.sleep(0.05)
    assert (await proxy.post("/healthz", b"")).status == 405
    assert proxy.events() == []


async def test_a_client_that_goes_away_after_sending_has_its_event_stored_once_or_not_at_all(
    proxy,
):
    for number in range(20):
        connection = await proxy.connect()
        await connection.send(whole(track(messageId=f"gone-{number}")))
        if number % 2:
            await asyncio.sleep(0)
        reset(connection)
    await asyncio.sleep(0.05)
    stored = [e["messageId"] for e in proxy.events()]
    assert len(stored) == len(set(stored))
    for number in range(20):
        event = track(messageId=f"gone-{number}")
        assert (await proxy.post("/v1/track", event)).status == 200
    again = [e["messageId"] for e in proxy.events()]
    assert sorted(stored + again) == sorted(f"gone-{n}" for n in range(20))


async def test_a_mistake_of_ours_after_the_commit_ends_neither_it_nor_the_process(
    proxy, monkeypatch
):
    async def post():
        connection = await proxy.connect()
        await asyncio.sleep(0.05)
        await connection.send(whole())
        answer = await connection.answer()
        await connection.close()
        return answer.status

    stop = proxy.intake.watch(lambda *_: 1 / 0)
    assert await post() == 200, "it is stored, whoever fails to look at it"
    stop()
    monkeypatch.setattr("edgeproxy.server.answers.success_bytes", lambda: 1 / 0)
    assert await post() == 500
    monkeypatch.undo()
    assert await post() == 200
    assert len(proxy.events()) == 3


async def test_a_head_that_is_too_large_is_not_called_something_else(proxy):
    answer = await proxy.raw(
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 20_000 + b"\r\n\r\n"
    )
    assert (answer.status, answer.code) == (400, "bad_request")
    assert answer.json()["message"] == "a line of the request's head is longer than 16384 bytes"
    answer = await proxy.raw(b"nonsense\r\n\r\n")
    assert answer.json()["message"] == "this is not an HTTP request"

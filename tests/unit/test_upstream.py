"""HTTP out, against small real servers that behave, and that do not."""

import asyncio
import gzip
import json
import ssl
from contextlib import asynccontextmanager

import pytest
import trustme
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.buffer.base import Claimed
from edgeproxy.delivery.upstream import (
    EVENT_OVERHEAD,
    Destination,
    Upstream,
    envelope,
    envelope_overhead,
)

NOW = 1_795_448_194_379  # 2026-11-23T15:36:34.379Z


def claimed(id_=1, body=b'{"messageId":"m1"}', received=NOW, skew=None):
    return Claimed(id_, 7, received, skew, 0, body)


@asynccontextmanager
async def upstream(**more):
    made = Upstream(**({"timeout": 5.0, "compression": "gzip", "user_agent": "test"} | more))
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def raw_server(talk, **more):
    """A server of bytes: `talk(reader, writer)` for each connection."""
    writers = []

    async def serve(reader, writer):
        writers.append(writer)
        try:
            await talk(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, **more)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)


async def read_request(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return head, await reader.readexactly(length)


def answering(text, *, connections=None, heads=None):
    async def talk(reader, writer):
        if connections is not None:
            connections.append(writer)
        while True:
            try:
                head, body = await read_request(reader)
            except asyncio.IncompleteReadError:
                return
            if heads is not None:
                heads.append((head, body))
            writer.write(text)
            await writer.drain()

    return talk


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


async def test_a_batch_is_posted_as_the_contract_says():
    heads = []
    async with raw_server(answering(OK, heads=heads)) as port, upstream() as up:
        answer = await up.send(Destination(f"http://127.0.0.1:{port}", "kéy"), [claimed()], NOW)
    assert answer.status == 200
    head, body = heads[0]
    assert head.startswith(b"POST /v1/batch HTTP/1.1\r\n")
    assert b"\r\nAuthorization: Basic a8OpeTo=\r\n" in head
    assert b"\r\nContent-Type: application/json\r\n" in head
    assert b"\r\nContent-Encoding: gzip\r\n" in head
    assert json.loads(gzip.decompress(body)) == {
        "batch": [{"sentAt": "2026-11-23T15:36:34.379Z", "messageId": "m1"}],
        "sentAt": "2026-11-23T15:36:34.379Z",
        "writeKey": "kéy",
    }


async def test_without_compression_the_body_goes_as_it_is():
    heads = []
    async with raw_server(answering(OK, heads=heads)) as port, upstream(compression="none") as up:
        await up.send(Destination(f"http://127.0.0.1:{port}", "k"), [claimed()], NOW)
    assert b"Content-Encoding" not in heads[0][0]
    assert heads[0][1] == envelope([claimed()], "k", NOW)


@pytest.mark.parametrize(
    "text",
    [
        OK,
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 503 Busy\r\nContent-Length: 3\r\n\r\nbad",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ],
)
async def test_a_connection_is_used_again(text):
    connections = []
    async with raw_server(answering(text, connections=connections)) as port, upstream() as up:
        for _ in range(5):
            await up.send(Destination(f"http://127.0.0.1:{port}", "k"), [claimed()], NOW)
    assert len(connections) == 1


# --- what the time in the proxy does to sentAt --------------------------------------------------------


@pytest.mark.parametrize(
    ("received", "skew", "sent_at"),
    [
        (NOW - 7_200_000, -1_000, "2026-11-23T15:36:33.379Z"),  # two hours here: the skew stays
        (NOW - 7_200_000, 86_400_000, "2026-11-24T15:36:34.379Z"),
        (NOW - 7_200_000, None, "2026-11-23T15:36:34.379Z"),
        (NOW + 3_600_000, -1_000, "2026-11-23T16:36:33.379Z"),  # our clock went back: nothing spent
        (NOW, 0, "2026-11-23T15:36:34.379Z"),
    ],
)
def test_sent_at_moves_by_the_time_spent_here_and_never_back(received, skew, sent_at):
    batch = json.loads(envelope([claimed(received=received, skew=skew)], "k", NOW))
    assert batch["batch"][0]["sentAt"] == sent_at
    assert batch["sentAt"] == "2026-11-23T15:36:34.379Z"


@given(
    st.lists(st.binary(max_size=200), min_size=1, max_size=20),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.integers(-(2**60), 2**60),
)
def test_the_size_of_a_batch_is_known_before_it_is_written(contents, key, skew):
    events = [
        claimed(n, b'{"a":"%b"}' % content.hex().encode(), skew=skew)
        for n, content in enumerate(contents)
    ]
    size = len(envelope(events, key, NOW))
    known = sum(len(event.body) + EVENT_OVERHEAD for event in events) + envelope_overhead(key)
    assert size == known - 1  # the last event has no comma


# --- servers that misbehave ---------------------------------------------------------------------------


async def ask(port, **more):
    async with upstream(**more) as up:
        return await up.send(Destination(f"http://127.0.0.1:{port}", "k"), [claimed()], NOW)


async def test_a_reset_before_during_and_after_the_body_is_no_answer():
    async def before(_reader, writer):
        writer.transport.abort()

    async def during(reader, writer):
        await reader.read(20)
        writer.transport.abort()

    async def after(reader, writer):
        await read_request(reader)
        writer.transport.abort()

    async def first_byte(reader, writer):
        await read_request(reader)
        writer.write(b"H")
        await writer.drain()
        writer.transport.abort()

    for talk in (before, during, after, first_byte):
        async with raw_server(talk) as port:
            answer = await ask(port)
        assert answer.status is None, talk.__name__
        assert answer.reached


async def test_a_status_counts_although_the_rest_breaks_off():
    async def talk(reader, writer):
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhalf")
        await writer.drain()

    async with raw_server(talk) as port:
        assert (await ask(port)).status == 200


@pytest.mark.parametrize(
    "text",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"\x00\xff\xfe" * 100,
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: minus\r\n\r\n",
        b"HTTP/9.9 200\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 70_000 + b"\r\n\r\n",
        b"",
    ],
)
async def test_garbage_is_no_answer(text):
    async def talk(reader, writer):
        await read_request(reader)
        writer.write(text)
        await writer.drain()

    async with raw_server(talk) as port:
        answer = await ask(port)
    assert answer.status is None
    assert answer.reason in {"unreadable", "disconnected"}


async def test_an_answer_that_drips_or_never_comes_is_a_timeout():
    async def drip(reader, writer):
        await read_request(reader)
        for byte in OK[:30]:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.05)

    async def nothing(reader, _writer):
        await reader.read()

    for talk in (drip, nothing):
        async with raw_server(talk) as port:
            answer = await ask(port, timeout=0.2)
        assert (answer.status, answer.reason) == (None, "timeout")


async def test_a_refused_connection_and_a_name_without_an_address_never_reached_anybody():
    async with raw_server(answering(OK)) as port:
        pass
    answer = await ask(port)
    assert (answer.reason, answer.reached) == ("connect", False)
    async with upstream() as up:
        answer = await up.send(Destination("http://nowhere.invalid", "k"), [claimed()], NOW)
    assert (answer.reason, answer.reached) == ("dns", False)


async def test_a_redirect_is_not_followed():
    heads = []
    text = b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"
    async with raw_server(answering(text, heads=heads)) as port:
        answer = await ask(port)
    assert answer.status == 302
    assert "never followed" in answer.detail
    assert len(heads) == 1


# --- egress -------------------------------------------------------------------------------------------


@asynccontextmanager
async def tls_server(authority):
    async def accept(request):
        await request.read()
        return web.json_response({"success": True})

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    app = web.Application()
    app.router.add_post("/v1/batch", accept)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.fixture
def authority():
    return trustme.CA()


@pytest.fixture
def ca_file(authority, tmp_path):
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


async def test_a_ca_file_makes_a_private_certificate_trusted(authority, ca_file):
    async with tls_server(authority) as port, upstream() as up:
        endpoint = f"https://localhost:{port}"
        answer = await up.send(Destination(endpoint, "k"), [claimed()], NOW)
        assert (answer.status, answer.reason, answer.reached) == (None, "tls", False)
        trusted = Destination(endpoint, "k", ca_file=ca_file)
        assert (await up.send(trusted, [claimed()], NOW)).status == 200


async def test_a_ca_file_that_is_replaced_is_read_again(authority, ca_file):
    other = trustme.CA()
    other.cert_pem.write_to_path(ca_file)
    async with tls_server(authority) as port, upstream() as up:
        to = Destination(f"https://localhost:{port}", "k", ca_file=ca_file)
        assert (await up.send(to, [claimed()], NOW)).reason == "tls"
        authority.cert_pem.write_to_path(ca_file)
        assert (await up.send(to, [claimed()], NOW)).status == 200
        ca_file.unlink()
        answer = await up.send(to, [claimed()], NOW)
        assert (answer.status, answer.reached) == (None, False)


async def tunnel(reader, writer, seen):
    """A proxy: CONNECT, or a request with a whole address, to 127.0.0.1 only."""
    head = await reader.readuntil(b"\r\n\r\n")
    seen.append(head)
    method, target, _ = head.split(b" ", 2)
    authority = target if method == b"CONNECT" else target.split(b"/")[2]
    there, back = await asyncio.open_connection("127.0.0.1", int(authority.rpartition(b":")[2]))
    if method == b"CONNECT":
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    else:
        back.write(head)

    async def copy(source, target):
        try:
            while chunk := await source.read(65536):
                target.write(chunk)
                await target.drain()
        finally:
            target.close()

    await asyncio.gather(copy(reader, back), copy(there, writer), return_exceptions=True)


async def test_a_proxy_tunnels_https_and_forwards_http(authority, ca_file):
    seen = []

    async def talk(reader, writer):
        await tunnel(reader, writer, seen)

    async with (
        raw_server(talk) as proxy_port,
        tls_server(authority) as tls_port,
        raw_server(answering(OK)) as port,
        upstream() as up,
    ):
        proxy = f"http://user:sesame@127.0.0.1:{proxy_port}"
        secure = Destination(f"https://localhost:{tls_port}", "k", proxy, ca_file)
        assert (await up.send(secure, [claimed()], NOW)).status == 200
        plain = Destination(f"http://127.0.0.1:{port}", "k", proxy)
        assert (await up.send(plain, [claimed()], NOW)).status == 200
    assert seen[0].startswith(b"CONNECT localhost:%d" % tls_port)
    assert seen[1].startswith(b"POST http://127.0.0.1:%d/v1/batch" % port)
    assert all(b"Proxy-Authorization: Basic dXNlcjpzZXNhbWU=" in head for head in seen)


async def test_a_proxy_that_refuses_says_so_without_its_password(authority, ca_file):
    async def talk(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async with raw_server(talk) as port, upstream() as up:
        to = Destination(
            "https://localhost:9", "k", f"http://user:sesame@127.0.0.1:{port}", ca_file
        )
        answer = await up.send(to, [claimed()], NOW)
    assert (answer.status, answer.reason, answer.reached) == (None, "proxy", False)
    assert "407" in answer.detail
    assert "sesame" not in answer.detail

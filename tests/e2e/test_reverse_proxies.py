"""Behind Debian's nginx and Caddy, with the configurations of ops/: what clients, browsers and
Hightouch see is what they see without.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import re
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest

from edgeproxy.sandbox.faults import Faults
from edgeproxy.server.protocol import Patience
from tests.e2e.fronts import CONFIGURATION, NAME, OPS, Front, open_front
from tests.e2e.oracle import sent_events
from tests.e2e.processes import free_ports
from tests.e2e.proxy import event
from tests.e2e.stage import KEY
from tests.e2e.test_captures import CAPTURES, YEARS, Capture, captures, sources

ORIGIN = "https://www.example.com"
#: Between them: singles and batches, plain, gzip and chunked, keys in every place, preflights.
SDKS = {"constructed_android", "hightouch_browser", "hightouch_python", "rudderstack_node"}

pytestmark = pytest.mark.parametrize("kind", ["nginx", "caddy"])


def batch(*events: dict[str, object]) -> bytes:
    return json.dumps({"batch": events, "writeKey": KEY}).encode()


def large(size: int) -> io.BytesIO:
    """One batch of about `size` bytes; `m0` to `m49`."""
    return io.BytesIO(batch(*[event(n, text="x" * (size // 50 - 100)) for n in range(50)]))


@pytest.fixture
async def stage(stage_factory):
    server = {"trusted_proxies": ["127.0.0.1"], "public_url": f"https://{NAME}"}
    return await stage_factory(server=server, buffer={"max_size": "20MB"})


@pytest.fixture
async def front(kind, stage, tmp_path):
    async with open_front(kind, tmp_path, stage.relay.port) as front:
        yield front


async def test_an_event_has_its_senders_address_whatever_the_sender_forwards(front, stage):
    headers = {"Origin": ORIGIN, "X-Forwarded-For": "203.0.113.9"}
    async with (
        front.client("127.0.0.5") as client,
        client.post(f"{front.url}/v1/batch", data=batch(event(1)), headers=headers) as answer,
    ):
        assert (answer.status, await answer.json()) == (200, {"success": True})
        assert answer.headers.getall("Access-Control-Allow-Origin") == [ORIGIN]
    await stage.until(lambda: "m1" in stage.arrivals, "the event")
    context = json.loads(stage.arrivals["m1"].event)["context"]
    assert context["ip"] == "127.0.0.5"


async def test_a_preflight_is_answered_as_without_it(front, stage):
    asked = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,x-retry-count",
    }

    async def preflight(client: aiohttp.ClientSession, url: str) -> tuple[int, list]:
        async with client.options(f"{url}/v1/track", headers=asked) as answer:
            kept = [
                (name.lower(), value)
                for name, value in answer.headers.items()
                if name.lower().startswith("access-control-") or name.lower() == "vary"
            ]
            return answer.status, sorted(kept)

    async with front.client() as client, aiohttp.ClientSession() as direct:
        status, headers = await preflight(client, front.url)
        assert (status, headers) == await preflight(direct, stage.url)
    assert status == 204
    assert ("access-control-allow-headers", "content-type,x-retry-count") in headers


async def test_a_full_buffers_503_keeps_its_retry_after_and_browsers_cannot_read_it(front, stage):
    stage.sandbox.faults = Faults(status=503)
    async with front.client() as client:
        for n in range(30):
            body = batch(*[event(10 * n + k, text="x" * 90_000) for k in range(10)])
            headers = {"Origin": ORIGIN}
            async with client.post(f"{front.url}/v1/batch", data=body, headers=headers) as answer:
                told = await answer.json()
                if answer.status != 200:
                    break
    assert (answer.status, told["code"]) == (503, "buffer_full")
    assert answer.headers["Retry-After"] == "5"
    assert "Access-Control-Allow-Origin" not in answer.headers


async def test_requests_up_to_max_request_pass_and_larger_ones_hear_the_proxys_own_413(
    front, stage
):
    async with front.client() as client:
        for size, status in ((4 * 2**20 - 5_000, 200), (4 * 2**20 + 5_000, 413)):
            body = large(size)
            assert abs(len(body.getvalue()) - size) < 5_000
            async with client.post(f"{front.url}/v1/batch", data=body) as answer:
                told = await answer.json()
                assert answer.status == status
        assert told["code"] == "request_too_large"
    await stage.until(lambda: len(stage.arrivals) == 50, "every event of the first")


@pytest.mark.parametrize("coding", ["gzip", "chunked gzip"])
async def test_a_compressed_body_arrives_as_it_was_sent(front, stage, coding):
    body = gzip.compress(batch(event(1), event(2)))

    async def pieces():
        for start in range(0, len(body), 50):
            yield body[start : start + 50]

    data = body if coding == "gzip" else pieces()
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/x-www-form-urlencoded"}
    async with (
        front.client() as client,
        client.post(f"{front.url}/v1/batch", data=data, headers=headers) as answer,
    ):
        assert answer.status == 200
    await stage.until(lambda: len(stage.arrivals) == 2, "both events")
    (seen,) = stage.relay.requests
    assert seen.header("Content-Encoding") == "gzip"
    assert seen.header("Content-Type") == "application/x-www-form-urlencoded"
    assert seen.body == gzip.decompress(body)
    assert coding != "gzip" or seen.header("Content-Length") == str(len(body))


async def test_paths_queries_and_keys_pass_unchanged(front, stage):
    async with front.client() as client:
        url = f"{front.url}/some//prefix/beacon/v1/batch/?writeKey={KEY}"
        data = json.dumps({"batch": [event(1)]})
        async with client.post(url, data=data) as answer:
            assert answer.status == 200
        basic = aiohttp.encode_basic_auth(KEY, "")
        headers = {"Authorization": basic}
        async with client.post(f"{front.url}/v1/t", json=event(2), headers=headers) as answer:
            assert answer.status == 200
        async with client.post(f"{front.url}/v1/t", json=event(3)) as answer:
            assert answer.status == 401
            assert (await answer.json())["code"] == "unknown_key"
    await stage.until(lambda: stage.arrivals.keys() == {"m1", "m2"}, "both events")


async def test_what_real_sdks_sent_arrives_with_nothing_lost_or_changed(
    kind, stage_factory, tmp_path
):
    requests = [capture for path in CAPTURES if path.stem in SDKS for capture in captures(path)]
    server = {"trusted_proxies": ["127.0.0.1"]}
    stage = await stage_factory(
        server=server, sources=sources(requests), validation={"max_age": YEARS}
    )
    async with open_front(kind, tmp_path, stage.relay.port) as front:
        for capture in requests:
            capture.headers = [("Host", NAME) if h[0] == "Host" else h for h in capture.headers]
            assert await replayed(capture, front) == 200 or capture.method != "POST"
    await stage.everything_arrives(sent_events([capture.request for capture in requests]))


async def replayed(capture: Capture, front: Front) -> int:
    """Send a captured request byte for byte; the answer's status."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", front.port, ssl=front.certificate.trust, server_hostname=NAME
    )
    try:
        writer.write(capture.bytes())
        return int((await reader.readline()).split()[1])
    finally:
        writer.transport.abort()


async def test_settings_answers_name_the_public_address(front, stage):
    async with (
        front.client() as client,
        client.get(f"{front.url}/v1/projects/{KEY}/settings") as answer,
    ):
        told = (await answer.json())["integrations"]["Segment.io"]
    assert (told["protocol"], told["apiHost"]) == ("https", f"{NAME}/v1")


# --- connections to what is behind ----------------------------------------------------------------


class Backend:
    """Answers every request as the proxy answers events; counts them by connection."""

    def __init__(self) -> None:
        self.port = free_ports(1)[0]
        self.requests: list[int] = []
        self.ended = asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def serve(self):
        server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        try:
            yield self
        finally:
            server.close()
            for writer in list(self._open):
                writer.close()
            await server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(self.requests)
        self.requests.append(0)
        self._open.add(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
                await reader.readexactly(int(length[1]))
                self.requests[number] += 1
                body = b'{"success":true}'
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        self.ended.set()
        self._open.discard(writer)
        writer.close()


async def post(front: Front, client: aiohttp.ClientSession, **headers: str) -> int:
    url = f"{front.url}/v1/batch"
    async with client.post(url, data=batch(event(1)), headers={"Origin": ORIGIN}) as answer:
        return answer.status if "Access-Control-Allow-Origin" not in answer.headers else 0


async def test_connections_are_kept_and_closed_before_the_proxy_would_close_them(kind, tmp_path):
    shipped = (OPS / CONFIGURATION[kind]).read_text()
    (idle,) = re.findall(r"^\s*keepalive(?:_timeout)? (\d+)s", shipped, re.MULTILINE)
    assert int(idle) <= Patience().idle - 10
    async with (
        Backend().serve() as backend,
        open_front(kind, tmp_path, backend.port, idle="1s") as front,
    ):
        for address in ("127.0.0.2", "127.0.0.3"):  # two connections in front, one behind
            async with front.client(address) as client:
                for _ in range(5):
                    assert await post(front, client) == 200
        assert backend.requests == [10]
        async with asyncio.timeout(5):
            await backend.ended.wait()


async def test_without_the_proxy_browsers_are_told_nothing_and_repeat_until_it_is_back(
    kind, tmp_path
):
    backend = Backend()
    async with open_front(kind, tmp_path, backend.port) as front, front.client() as client:
        assert await post(front, client) in {502, 504}
        async with backend.serve():
            for _ in range(3):
                assert await post(front, client) == 200
        assert await post(front, client) in {502, 504}, "its kept connections are gone"
        async with backend.serve():
            assert await post(front, client) == 200


async def test_clients_stay_with_one_of_several_instances(kind, tmp_path):
    one, two = Backend(), Backend()
    theirs: dict[int, list[str]] = {0: [], 1: []}
    async with one.serve(), open_front(kind, tmp_path, one.port, two.port) as front:
        async with two.serve():
            for address in (f"127.0.{n}.{n}" for n in range(2, 14)):
                before = sum(one.requests), sum(two.requests)
                assert await post_thrice(front, address) == [200, 200, 200]
                grown = sum(one.requests) - before[0], sum(two.requests) - before[1]
                assert sorted(grown) == [0, 3], "requests of one client went to both"
                theirs[grown.index(3)].append(address)
        assert theirs[0], "one instance got everything"
        assert theirs[1], "one instance got everything"
        assert await post_thrice(front, theirs[0][0]) == [200, 200, 200]
        expected = 200 if kind == "nginx" else 502
        assert await post_thrice(front, theirs[1][0]) == [expected] * 3, "the second has stopped"


async def post_thrice(front: Front, address: str) -> list[int]:
    """Each on a connection of its own."""
    answers = []
    for _ in range(3):
        async with front.client(address) as client:
            answers.append(await post(front, client))
    return answers

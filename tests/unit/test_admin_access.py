"""Who is let into the admin listener: real requests, as programs and browsers send them."""

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request

from edgeproxy.admin.access import TRIES, TRY_SECONDS, Guard, Tries
from edgeproxy.admin.app import AdminApp
from edgeproxy.admin.live import LiveFeed
from edgeproxy.config import Admin
from edgeproxy.metrics import Metrics

TOKEN = "a-long-enough-token"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def client():
    """Starts an admin listener with or without a token."""
    servers = []

    async def start(token: str = "") -> TestClient:
        async def reload() -> dict[str, object]:
            return {"applied": True}

        app = AdminApp(
            Admin(token=token),
            Metrics(),
            status=lambda: {"lanes": []},
            not_ready=lambda: None,
            reload=reload,
            live=LiveFeed(lambda _: lambda: None, now=lambda: 0),
            desk=None,  # type: ignore[arg-type] - asked for nothing here
        )
        found = TestClient(TestServer(app.application()))
        await found.start_server()
        servers.append(found)
        return found

    yield start
    for server in servers:
        await server.close()


async def code(client: TestClient, method: str, path: str, **headers: str) -> str:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with client.request(method, path, headers=named) as answer:
        document = await answer.json(content_type=None) if answer.status != 200 else {}
        return f"{answer.status} {document.get('code', '')}".strip()


async def test_without_a_token_this_machine_is_let_in(client):
    found = await client()
    port = found.server.port
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}", "127.0.0.1"):
        assert await code(found, "GET", "/status", Host=host) == "200"
    assert await code(found, "POST", "/api/reload") == "200"


async def test_paths_and_methods_that_there_are_not_are_refused_in_one_shape(client):
    found = await client()
    async with found.get("/nothing") as answer:
        assert answer.status == 404
        assert await answer.json() == {
            "success": False,
            "error": "Not Found",
            "code": "not_found",
            "message": "no such path; the page is at /",
        }
    async with found.post("/status") as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "GET,HEAD")
        assert (await answer.json())["code"] == "method_not_allowed"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "192.0.2.1", "["])
async def test_a_name_that_was_rebound_to_this_machine_is_refused(client, host):
    assert await code(await client(), "GET", "/status", Host=host) == "403 wrong_host"


async def test_without_a_token_other_machines_are_refused():
    guard = Guard("")
    for remote, let_in in (("127.0.0.1", True), ("::1", True), ("192.0.2.7", False), ("", False)):
        request = make_mocked_request("GET", "/status", {"Host": "127.0.0.1"})
        refusal = guard.refusal(request.clone(remote=remote))
        assert (refusal is None) is let_in, remote


async def test_a_page_of_another_site_is_refused(client):
    found = await client()
    for origin in ("https://evil.example", "null", f"https://127.0.0.1:{found.server.port + 1}"):
        assert await code(found, "POST", "/api/reload", Origin=origin) == "403 wrong_origin"
        assert await code(found, "GET", "/status", Origin=origin) == "403 wrong_origin"
    own = f"http://127.0.0.1:{found.server.port}"
    assert await code(found, "POST", "/api/reload", Origin=own) == "200"


async def test_what_another_site_embeds_is_refused_and_its_links_are_not(client):
    found = await client()
    cross = {"Sec_Fetch_Site": "cross-site"}
    assert await code(found, "GET", "/status", **cross) == "403 wrong_origin"
    assert await code(found, "GET", "/status", **cross, Sec_Fetch_Mode="no-cors") != "200"
    assert await code(found, "GET", "/status", **cross, Sec_Fetch_Mode="navigate") == "200"
    assert await code(found, "POST", "/api/reload", **cross, Sec_Fetch_Mode="navigate") != "200"
    assert await code(found, "POST", "/api/reload", Sec_Fetch_Site="same-origin") == "200"


async def test_with_a_token_only_programs_that_hold_it_are_let_in(client):
    found = await client(TOKEN)
    assert await code(found, "GET", "/status") == "401 unauthorized"
    for wrong in ("Bearer wrong", f"Basic {TOKEN}", "Bearer", f"Bearer {TOKEN}x", "Bearer \xff"):
        assert await code(found, "GET", "/status", Authorization=wrong) == "401 unauthorized"
    assert await code(found, "GET", "/status", Authorization=f"Bearer {TOKEN}") == "200"
    assert await code(found, "GET", "/metrics", Authorization=f"bearer {TOKEN}") == "200"


async def test_a_token_does_not_let_pages_of_other_sites_in(client):
    found = await client(TOKEN)
    headers = {"Authorization": f"Bearer {TOKEN}", "Origin": "https://evil.example"}
    assert await code(found, "POST", "/api/reload", **headers) == "403 wrong_origin"


async def test_probes_carry_no_token(client):
    found = await client(TOKEN)
    assert await code(found, "GET", "/healthz", Host="any.example") == "200"
    assert await code(found, "GET", "/readyz", Host="any.example") == "200"


async def test_after_ten_wrong_tokens_an_address_waits_also_with_the_right_one(client):
    found = await client(TOKEN)
    for number in range(TRIES):
        assert await code(found, "GET", "/status", Authorization=f"Bearer {number}") != "200"
    async with found.get("/status", headers={"Authorization": f"Bearer {TOKEN}"}) as answer:
        assert answer.status == 429
        assert 0 < int(answer.headers["Retry-After"]) <= TRY_SECONDS + 1


async def test_asking_without_a_token_is_no_try(client):
    found = await client(TOKEN)
    for _ in range(2 * TRIES):
        assert await code(found, "GET", "/status") == "401 unauthorized"
    assert await code(found, "GET", "/status", Authorization=f"Bearer {TOKEN}") == "200"


def test_tries_come_back_one_by_one():
    clock = Clock()
    tries = Tries(clock)
    for _ in range(TRIES):
        assert tries.wait("192.0.2.1") == 0
        tries.failed("192.0.2.1")
    assert tries.wait("192.0.2.1") == TRY_SECONDS
    assert tries.wait("192.0.2.2") == 0
    clock.now += TRY_SECONDS
    assert tries.wait("192.0.2.1") == 0
    tries.failed("192.0.2.1")
    assert tries.wait("192.0.2.1") == TRY_SECONDS
    clock.now += 1000 * TRY_SECONDS
    for _ in range(TRIES):
        assert tries.wait("192.0.2.1") == 0
        tries.failed("192.0.2.1")


def test_the_addresses_of_one_ipv6_network_count_together_and_are_bounded():
    tries = Tries(Clock())
    for number in range(TRIES):
        tries.failed(f"2001:db8::{number:x}")
    assert tries.wait("2001:db8::ffff") > 0
    assert tries.wait("2001:db8:0:1::1") == 0
    for number in range(2000):
        tries.failed(f"2001:db8:1:{number:x}::1")
    assert len(tries._whole_at) == 1000


async def test_answers_are_not_cached_nor_sniffed(client):
    found = await client()
    for path in ("/status", "/metrics", "/healthz"):
        async with found.get(path) as answer:
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_handler_that_raises_is_no_way_around(client):
    app = web.Application(middlewares=[Guard(TOKEN).middleware])
    found = TestClient(TestServer(app))
    await found.start_server()
    assert await code(found, "GET", "/nothing") == "401 unauthorized"
    await found.close()

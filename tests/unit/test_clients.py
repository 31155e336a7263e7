"""Whose address a request came from, and what of it is stamped on events."""

from ipaddress import ip_network

import pytest

from edgeproxy.events.intake import CLIENT_LIBRARIES
from edgeproxy.server.clients import client_address, truncated
from tests.listening import track

LOCAL = tuple(ip_network(n) for n in ("127.0.0.0/8", "10.0.0.0/8", "fd00::/8"))
BROWSER = {"Origin": "https://shop.example.com", "User-Agent": "Mozilla/5.0"}


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "address"),
    [
        ("192.0.2.1", None, LOCAL, "192.0.2.1"),
        ("192.0.2.1", "198.51.100.7", LOCAL, "192.0.2.1"),
        ("10.0.0.1", "198.51.100.7", (), "10.0.0.1"),
        ("10.0.0.1", "198.51.100.7", LOCAL, "198.51.100.7"),
        ("10.0.0.1", "6.6.6.6, 198.51.100.7", LOCAL, "198.51.100.7"),
        ("10.0.0.1", "198.51.100.7, 10.0.0.2", LOCAL, "198.51.100.7"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", LOCAL, "10.0.0.3"),
        ("10.0.0.1", "198.51.100.7, unknown", LOCAL, "10.0.0.1"),
        ("10.0.0.1", "198.51.100.7, unknown, 10.0.0.2", LOCAL, "10.0.0.2"),
        ("10.0.0.1", "", LOCAL, "10.0.0.1"),
        ("10.0.0.1", "198.51.100.7:4711", LOCAL, "198.51.100.7"),
        ("10.0.0.1", "[2001:db8::1]:4711", LOCAL, "2001:db8::1"),
        ("10.0.0.1", "2001:db8::1", LOCAL, "2001:db8::1"),
        ("fd00::1", "198.51.100.7", LOCAL, "198.51.100.7"),
        ("::ffff:10.0.0.1", "::FFFF:198.51.100.7", LOCAL, "198.51.100.7"),
        ("fe80::1%eth0", None, LOCAL, "fe80::1"),
    ],
)
def test_the_clients_address_is_the_last_one_that_no_trusted_proxy_has(
    peer, forwarded, trusted, address
):
    assert client_address(peer, forwarded, trusted) == address


@pytest.mark.parametrize(
    ("address", "network"),
    [("198.51.100.7", "198.51.100.0"), ("2001:db8:1:2::7", "2001:db8:1::"), ("", ""), ("x", "")],
)
def test_a_truncated_address_names_a_network(address, network):
    assert truncated(address) == network


@pytest.fixture
async def behind(proxy_factory):
    """A listener behind a proxy that it trusts."""

    async def start(**server):
        return await proxy_factory(server={"trusted_proxies": LOCAL, **server})

    return start


async def test_a_pages_event_gains_address_and_user_agent(proxy):
    event = await proxy.event(track(), BROWSER)
    assert event["context"] == {"ip": "127.0.0.1", "userAgent": "Mozilla/5.0"}


@pytest.mark.parametrize("library", sorted(CLIENT_LIBRARIES))
async def test_an_apps_event_gains_its_address_only(proxy, library):
    event = await proxy.event(
        track(context={"library": {"name": library}}), {"User-Agent": "okhttp/4"}
    )
    assert event["context"] == {"library": {"name": library}, "ip": "127.0.0.1"}


@pytest.mark.parametrize(
    "context",
    [
        {},
        {"library": {"name": "@ht-sdks/events-sdk-node"}},
        {"library": {"name": "analytics-python"}},
        {"library": {"name": ["events-sdk-js"]}},
        {"library": "events-sdk-js"},
        {"library": None},
    ],
)
async def test_a_servers_event_gains_neither(proxy, context):
    event = await proxy.event(track(context=context), {"User-Agent": "python-requests"})
    assert event["context"] == context


async def test_the_library_of_the_batch_counts_too(proxy):
    event = await proxy.event(track(), context={"library": {"name": "analytics-android"}})
    assert event["context"]["ip"] == "127.0.0.1"


async def test_what_the_client_says_of_itself_stays(proxy):
    own = {"ip": "203.0.113.9", "userAgent": "own"}
    assert (await proxy.event(track(context=own), BROWSER))["context"] == own


@pytest.mark.parametrize("absent", [None, ""])
async def test_an_empty_address_counts_as_absent(proxy, absent):
    event = await proxy.event(track(context={"ip": absent, "userAgent": absent, "a": 1}), BROWSER)
    assert event["context"] == {"ip": "127.0.0.1", "userAgent": "Mozilla/5.0", "a": 1}


@pytest.mark.parametrize("context", [[], 5, "x", [1]])
async def test_a_context_that_is_no_object_is_left_alone(proxy, context):
    assert (await proxy.event(track(context=context), BROWSER))["context"] == context


async def test_stamping_leaves_the_rest_of_a_context_alone(proxy):
    raw = b'{"n": 1.10,"big":12345678901234567890123,"e":1e400,"twice":1,"twice":2, "u":"\\u00e9"}'
    event = b'{"type":"track","event":"e","anonymousId":"a","context":%b}' % raw
    await proxy.post("/v1/track", event, BROWSER)
    (stored,) = proxy.stored()
    assert raw[1:] in stored
    assert b'"ip":"127.0.0.1"' in stored


async def test_the_address_can_be_left_out(proxy_factory):
    proxy = await proxy_factory(server={"client_ip": "off"})
    assert (await proxy.event(track(), BROWSER))["context"] == {"userAgent": "Mozilla/5.0"}


async def test_the_address_can_be_truncated(behind):
    proxy = await behind(client_ip="truncated")
    event = await proxy.event(track(), {**BROWSER, "X-Forwarded-For": "198.51.100.7"})
    assert event["context"]["ip"] == "198.51.100.0"


async def test_a_trusted_proxy_says_who_the_client_is(behind):
    proxy = await behind()
    event = await proxy.event(track(), {**BROWSER, "X-Forwarded-For": "6.6.6.6, 198.51.100.7"})
    assert event["context"]["ip"] == "198.51.100.7"


async def test_a_header_that_a_proxy_adds_counts_after_the_clients_own(behind):
    proxy = await behind()
    headers = {**BROWSER, "X-Forwarded-For": "6.6.6.6\r\nX-Forwarded-For: 198.51.100.7"}
    assert (await proxy.event(track(), headers))["context"]["ip"] == "198.51.100.7"


async def test_nobody_else_can_claim_an_address(proxy):
    event = await proxy.event(track(), {**BROWSER, "X-Forwarded-For": "198.51.100.7"})
    assert event["context"]["ip"] == "127.0.0.1"

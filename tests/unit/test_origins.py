"""Browsers: whose pages may send, and what they are told (SDKS.md, fact 11)."""

import pytest

from edgeproxy.server.origins import Origins
from tests.listening import source, track

SHOP, OTHER, EVIL = "https://shop.example.com", "https://other.example.net", "https://evil.example"


@pytest.mark.parametrize(
    ("patterns", "origin", "allowed"),
    [
        (["*"], "null", True),
        ([SHOP], SHOP, True),
        ([SHOP + "/"], SHOP.upper(), True),
        ([SHOP], "http://shop.example.com", False),
        ([SHOP], SHOP + ":8443", False),
        ([SHOP], SHOP + ".evil.example", False),
        (["https://*.example.com"], SHOP, True),
        (["https://*.example.com"], "https://a.b.example.com", True),
        (["https://*.example.com"], "https://example.com", False),
        (["https://*.example.com"], "https://evilexample.com", False),
        (["https://*.example.com"], "http://shop.example.com", False),
        ([], SHOP, False),
    ],
)
def test_origins_are_matched_whole(patterns, origin, allowed):
    assert Origins(patterns).allows(origin) is allowed


@pytest.fixture
async def proxy(proxy_factory):
    return await proxy_factory(
        sources=(
            source(allowed_origins=(SHOP,)),
            source("second", "second-key", allowed_origins=(OTHER,)),
        )
    )


async def test_an_answer_to_a_page_may_be_read_by_it(proxy):
    answer = await proxy.post("/v1/track", track(), {"Origin": SHOP})
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == SHOP
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert answer.headers["access-control-expose-headers"] == "Retry-After"
    assert answer.headers["vary"] == "Origin, Access-Control-Request-Headers"


async def test_errors_may_be_read_by_the_page_too(proxy):
    for path, body in [("/v1/track", b"{"), ("/nothing", b"")]:
        answer = await proxy.post(path, body, {"Origin": SHOP})
        assert answer.status in {400, 404}
        assert answer.headers["access-control-allow-origin"] == SHOP


@pytest.mark.parametrize("origin", [OTHER, EVIL, "null"])
async def test_a_page_of_another_origin_is_refused(proxy, origin):
    answer = await proxy.post("/v1/track", track(), {"Origin": origin})
    assert (answer.status, answer.code) == (403, "origin_not_allowed")
    assert "access-control-allow-origin" not in answer.headers
    assert proxy.events() == []
    assert proxy.letters() == []


async def test_a_strangers_page_may_read_nothing(proxy):
    for path, body in [("/v1/track", b"{"), ("/nothing", b""), ("/ht/renew", b"{}")]:
        answer = await proxy.post(path, body, {"Origin": EVIL})
        assert "access-control-allow-origin" not in answer.headers


async def test_requests_without_an_origin_are_not_judged_by_it(proxy):
    answer = await proxy.post("/v1/track", track())
    assert answer.status == 200
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("origin", [SHOP, OTHER])
@pytest.mark.parametrize("path", ["/v1/batch", "/x/v1/p/", "/ht/renew", "/sourceConfig/", "/v1/m"])
async def test_a_preflight_is_answered_for_the_union_of_origins(proxy, path, origin):
    asked = "authorization,content-type,x-retry-count"
    answer = await proxy.request(
        "OPTIONS",
        path,
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": asked,
        },
    )
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == origin
    assert answer.headers["access-control-allow-headers"] == asked
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert answer.headers["access-control-max-age"] == "7200"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["vary"] == "Origin, Access-Control-Request-Headers"


async def test_a_preflight_of_a_strangers_page_is_refused(proxy):
    answer = await proxy.request("OPTIONS", "/v1/batch", headers={"Origin": EVIL})
    assert (answer.status, answer.code) == (403, "origin_not_allowed")
    assert "access-control-allow-origin" not in answer.headers


async def test_options_without_an_origin_says_what_the_path_takes(proxy):
    answer = await proxy.request("OPTIONS", "/v1/batch")
    assert (answer.status, answer.headers["allow"]) == (204, "OPTIONS, POST")

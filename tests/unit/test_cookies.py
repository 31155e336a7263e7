"""The cookie service: what it sets, where, and for whom."""

import pytest
from aiohttp import web

from edgeproxy.server.cookies import CookieService, Site, cleared, renewed

HERE = Site(None, secure=False)
THERE = Site("example.com", secure=True)


def test_a_renewal_copies_the_identity_to_cookies_that_scripts_cannot_touch():
    assert renewed("htjs_anonymous_id=a1; other=x; htjs_user_id=u1", HERE) == [
        "htjs_anonymous_id=a1; Max-Age=31536000; Path=/; SameSite=Lax",
        "htjs_anonymous_id_srvr=a1; Max-Age=31536000; Path=/; SameSite=Lax; HttpOnly",
        "htjs_user_id=u1; Max-Age=31536000; Path=/; SameSite=Lax",
        "htjs_user_id_srvr=u1; Max-Age=31536000; Path=/; SameSite=Lax; HttpOnly",
    ]


def test_a_renewal_brings_back_what_the_browser_forgot():
    made = renewed("htjs_anonymous_id_srvr=a1", HERE)
    assert made[0].startswith("htjs_anonymous_id=a1; ")


def test_the_page_s_own_cookie_wins_over_an_older_server_copy():
    made = renewed("htjs_anonymous_id_srvr=old; htjs_anonymous_id=new", HERE)
    assert all("=new; " in cookie for cookie in made)


def test_nothing_is_set_for_an_unknown_visitor():
    assert renewed("", HERE) == []
    assert cleared("htjs_anonymous_id=a1", HERE) == []


@pytest.mark.parametrize("value", ["a b", 'a"b', "a,b", "a\\b", "", "ä", "x" * 2049, "a\x00"])
def test_values_that_the_sdk_cannot_have_written_are_not_repeated(value):
    assert renewed(f"htjs_user_id={value}", HERE) == []


def test_clear_lets_the_server_copies_expire_on_the_domain_they_were_set_for():
    assert cleared("htjs_anonymous_id_srvr=a; htjs_user_id_srvr=u", THERE) == [
        "htjs_anonymous_id_srvr=; Max-Age=0; Path=/; SameSite=Lax; Domain=example.com; HttpOnly; Secure",
        "htjs_user_id_srvr=; Max-Age=0; Path=/; SameSite=Lax; Domain=example.com; HttpOnly; Secure",
    ]


@pytest.mark.parametrize(
    ("host", "origin", "expected"),
    [
        ("edge.example.com", "https://www.example.com", THERE),
        ("edge.example.com:8443", "https://example.com", THERE),
        ("www.example.co.uk", "https://www.example.co.uk", Site("example.co.uk", secure=True)),
        ("localhost:8080", "http://localhost:9000", HERE),
        ("127.0.0.1:8080", "http://127.0.0.1:9000", HERE),
        ("[::1]:8080", "http://[::1]:9000", HERE),
        ("edge.example.com", "https://evil.example.net", None),
        ("a.github.io", "https://b.github.io", None),
        ("edge.example.com", "null", None),
        ("127.0.0.1:8080", "http://localhost:9000", None),
        ("edge.example.com", None, Site("example.com", secure=False)),
    ],
)
def test_cookies_go_to_the_site_that_page_and_proxy_share(host, origin, expected):
    assert CookieService().site(host, origin) == expected


async def test_both_handlers_answer_success_and_set_cookies(aiohttp_client):
    service = CookieService()
    app = web.Application()
    app.router.add_post("/ht/renew", service.renew)
    app.router.add_post("/ht/clear", service.clear)
    client = await aiohttp_client(app)
    sent = {"Cookie": "htjs_anonymous_id_srvr=a1", "Origin": "http://127.0.0.1:9999"}
    answer = await client.post("/ht/renew", json={"sentAt": "now"}, headers=sent)
    assert (answer.status, await answer.read()) == (200, b'{"success":true}')
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.headers["Cache-Control"] == "no-store"
    assert len(answer.headers.getall("Set-Cookie")) == 2
    answer = await client.post("/ht/clear", json={"sentAt": "now"}, headers=sent)
    assert "Max-Age=0" in answer.headers["Set-Cookie"]


async def test_a_page_of_another_site_changes_nothing(aiohttp_client):
    app = web.Application()
    app.router.add_post("/ht/clear", CookieService().clear)
    client = await aiohttp_client(app)
    sent = {"Cookie": "htjs_anonymous_id_srvr=a1", "Origin": "http://elsewhere.example"}
    answer = await client.post("/ht/clear", headers=sent)
    assert answer.status == 200
    assert "Set-Cookie" not in answer.headers

"""The browser SDK's script over HTTP: encodings and caching."""

import gzip

import brotli
import pytest
from aiohttp import web

from edgeproxy.assets import Asset
from edgeproxy.server.script import ScriptService
from tests.listening import serving, settings

PLAIN = b"window.htevents=1" * 50
ASSET = Asset(
    "events.min.js", "1.2.3", PLAIN, gzip.compress(PLAIN, mtime=0), brotli.compress(PLAIN)
)
PATH = "/browser/release/v1-latest/events.min.js"


@pytest.fixture
async def client(aiohttp_client):
    app = web.Application()
    app.router.add_get(PATH, ScriptService(ASSET).script)
    return await aiohttp_client(app, auto_decompress=False)


@pytest.mark.parametrize(
    ("accepted", "encoding", "body"),
    [
        ("gzip, deflate, br, zstd", "br", ASSET.brotli),
        ("gzip, deflate", "gzip", ASSET.gzip),
        ("br;q=0, gzip;q=0.5", "gzip", ASSET.gzip),
        ("identity", None, PLAIN),
        ("", None, PLAIN),
    ],
)
async def test_the_client_gets_the_encoding_that_it_asks_for(client, accepted, encoding, body):
    answer = await client.get(PATH, headers={"Accept-Encoding": accepted})
    assert answer.headers.get("Content-Encoding") == encoding
    assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert answer.headers["Vary"] == "Accept-Encoding"
    assert await answer.read() == body


async def test_a_load_that_names_the_version_is_kept_for_ever(client):
    answer = await client.get(PATH, params={"v": "1.2.3"})
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"


@pytest.mark.parametrize("query", [{}, {"v": "1.2.2"}])
async def test_any_other_load_is_asked_for_again_within_the_hour(client, query):
    answer = await client.get(PATH, params=query)
    assert answer.headers["Cache-Control"] == "public, max-age=3600"


async def test_a_current_copy_is_confirmed_without_a_body(client):
    first = await client.get(PATH)
    answer = await client.get(PATH, headers={"If-None-Match": first.headers["ETag"]})
    assert (answer.status, await answer.read()) == (304, b"")
    other = await client.get(PATH, headers={"If-None-Match": '"another"'})
    assert other.status == 200


async def test_head_tells_the_length_only(client):
    answer = await client.head(PATH, headers={"Accept-Encoding": "identity"})
    assert (answer.status, answer.headers["Content-Length"]) == (200, str(len(PLAIN)))


@pytest.mark.parametrize("origin", [None, "https://shop.example.com", "https://elsewhere.example"])
@pytest.mark.parametrize("query", ["", "?v=1.2.3"])
async def test_a_shared_cache_may_give_one_answer_to_every_page(tmp_path, origin, query):
    async with serving(settings(tmp_path), script=ScriptService(ASSET)) as proxy:
        answer = await proxy.request(
            "GET", PATH + query, headers={} if origin is None else {"Origin": origin}
        )
    assert answer.status == 200
    assert answer.headers["cache-control"].startswith("public")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers
    assert answer.headers["vary"] == "Accept-Encoding"

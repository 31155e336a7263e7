"""Every path of SDKS.md, under any prefix, with or without a trailing slash."""

import pytest

from edgeproxy.server.routes import route
from tests.listening import KEY, basic, track

SINGLE = {
    "track": "track", "t": "track", "identify": "identify", "i": "identify", "page": "page",
    "p": "page", "screen": "screen", "s": "screen", "group": "group", "g": "group",
    "alias": "alias", "a": "alias",
}  # fmt: skip


@pytest.mark.parametrize("prefix", ["", "/p", "/some/deep/prefix", "/beacon", "/v1", "/"])
@pytest.mark.parametrize("slash", ["", "/"])
def test_events_are_routed_by_the_end_of_the_path(prefix, slash):
    for word, type_ in SINGLE.items():
        found = route(f"{prefix}/v1/{word}{slash}")
        assert (found.kind, found.type) == ("single", type_)
    for word in ("batch", "b", "import"):
        assert route(f"{prefix}/v1/{word}{slash}").kind == "batch"
    assert route(f"{prefix}/v1/m{slash}").kind == "telemetry"
    assert route(f"{prefix}/ht/renew{slash}").kind == "renew"
    assert route(f"{prefix}/ht/clear{slash}").kind == "clear"
    assert route(f"{prefix}/browser/release/v1-latest/events.min.js").kind == "script"
    config = route(f"{prefix}/sourceConfig{slash}")
    assert (config.kind, config.prefix) == ("source_config", prefix)
    settings = route(f"{prefix}/v1/projects/abc/settings{slash}")
    assert (settings.kind, settings.prefix, settings.key) == ("settings", prefix, "abc")


@pytest.mark.parametrize(
    "path",
    ["/v1/tracks", "/track", "/v1/track//", "/v1/Track", "/v1/projects//settings", "/prefixv1/track"],
)  # fmt: skip
def test_what_is_no_path_of_ours_means_nothing(path):
    assert route(path) is None


@pytest.mark.parametrize("path", ["/v1/track", "/a/b/v1/t/?x=1", "//v1/track", "/v1/track#x"])
async def test_paths_are_served(proxy, path):
    assert (await proxy.post(path, track())).status == 200
    assert len(proxy.events()) == 1


async def test_a_target_with_scheme_and_host_is_served(proxy):
    assert (await proxy.post("http://edge.example.com/v1/track", track())).status == 200


async def test_the_type_comes_from_the_path_when_the_event_has_none(proxy):
    for word, type_ in SINGLE.items():
        for absent in ({}, {"type": None}, {"type": ""}):
            event = {**track(), **absent}
            if not absent:
                del event["type"]
            assert (await proxy.post(f"/v1/{word}", event)).status == 200
            (stored,) = proxy.stored()
            assert stored.count(b'"type"') == 1
            assert b'"type":"%b"' % type_.encode() in stored


async def test_the_events_own_type_wins_over_the_paths(proxy):
    await proxy.post("/v1/page", track())
    assert [e["type"] for e in proxy.events()] == ["track"]


# --- keys ---------------------------------------------------------------------------------------


@pytest.fixture
async def two(proxy_factory):
    from tests.listening import source

    return await proxy_factory(sources=(source(), source("second", "second-key")))


def test_basic_is_read_with_and_without_its_colon():
    import base64

    from edgeproxy.server.clients import basic_user

    for text in ("k:", "k", "k:password", " k:"):
        encoded = base64.b64encode(text.encode()).decode()
        assert basic_user(f"Basic {encoded}") == "k"
        assert basic_user(f"basic  {encoded} ") == "k"
    for header in (
        None,
        "",
        "Basic",
        "Basic ",
        "Bearer k",
        "Basic !!!",
        "Basic /w==",
        "Basic \xff",
    ):
        assert basic_user(header) == ""


@pytest.mark.parametrize(
    ("basic_key", "body_key", "item_key", "query_key", "lane"),
    [
        (KEY, None, None, None, "site"),
        (None, KEY, None, None, "site"),
        (None, None, KEY, None, "site"),
        (None, None, None, KEY, "site"),
        (KEY, "second-key", "second-key", "second-key", "site"),
        (None, KEY, "second-key", "second-key", "site"),
        (None, None, KEY, "second-key", "site"),
        ("", "", "", KEY, "site"),
        ("wrong", KEY, KEY, KEY, None),
        (None, "wrong", KEY, KEY, None),
        (None, None, "wrong", KEY, None),
    ],
)
async def test_the_first_key_that_is_not_empty_decides(
    two, basic_key, body_key, item_key, query_key, lane
):
    event = track() if item_key is None else track(writeKey=item_key)
    body = {"batch": [event]} if body_key is None else {"batch": [event], "writeKey": body_key}
    path = "/v1/batch" if query_key is None else f"/v1/batch?writeKey={query_key}"
    headers = {} if basic_key is None else {"Authorization": basic(basic_key)}
    answer = await two.post(path, body, headers, key=None)
    assert answer.status == (401 if lane is None else 200)
    if lane is not None:
        (stored,) = two.events(lane)
        assert "writeKey" not in stored


async def test_a_broken_authorization_counts_as_none(proxy):
    event = track(writeKey=KEY)
    answer = await proxy.post("/v1/track", event, {"Authorization": "Basic %%%"}, key=None)
    assert answer.status == 200


@pytest.mark.parametrize("key", [5, True, ["x"], {"a": 1}, None, 1.5])
async def test_a_key_in_a_body_that_is_no_text_is_no_key(proxy, key):
    assert (await proxy.post("/v1/track", track(writeKey=key), key=None)).status == 401
    answer = await proxy.post(f"/v1/track?writeKey={KEY}", track(writeKey=key), key=None)
    assert answer.status == 200
    assert "writeKey" not in proxy.events()[0]


async def test_a_key_in_a_broken_body_is_found_too(proxy):
    for path, body in [
        ("/v1/track", b'{"writeKey":"%b","x":NaN}'),
        ("/v1/batch", b'{"writeKey":"%b","batch":[{"x":NaN}]}'),
        ("/v1/batch", b'{"batch":[{"writeKey":"%b"},{"x":NaN}]}'),
    ]:
        answer = await proxy.post(path, body % KEY.encode(), key=None)
        assert answer.status in {200, 400}
        assert b"invalid_event" in answer.body

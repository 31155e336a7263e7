"""What clients are told: the contract's table of answers, on a real socket."""

import json
from ipaddress import ip_network

import pytest

from tests.listening import KEY, basic, source, track

ORIGIN = {"Origin": "https://shop.example.com"}


async def test_success_is_exactly_one_body(proxy):
    for path, body in [("/v1/track", track()), ("/v1/batch", {"batch": [track(), track()]})]:
        answer = await proxy.post(path, body)
        assert (answer.status, answer.body) == (200, b'{"success":true}')
        assert answer.headers["content-type"].startswith("application/json")
    assert len(proxy.events()) == 3


async def test_an_empty_batch_is_a_success(proxy):
    assert (await proxy.post("/v1/batch", {"batch": []})).body == b'{"success":true}'


async def test_a_batch_with_bad_events_is_accepted_in_part(proxy):
    bad = track(messageId="bad", event="")
    answer = await proxy.post("/v1/batch", {"batch": [track(), bad, 5, track()]})
    told = answer.json()
    assert answer.status == 200
    assert list(told) == ["success", "accepted", "rejected"]
    assert (told["success"], told["accepted"]) == (True, 2)
    assert [(r["index"], r["messageId"], r["code"]) for r in told["rejected"]] == [
        (1, "bad", "missing_event"),
        (2, None, "not_an_object"),
    ]
    assert all(set(r) == {"index", "messageId", "code", "message"} for r in told["rejected"])
    assert len(proxy.events()) == 2
    assert [(code, id_) for code, id_, _ in proxy.letters()] == [
        ("missing_event", "bad"),
        ("not_an_object", ""),
    ]


async def test_a_batch_of_bad_events_only_is_answered_200_too(proxy):
    answer = await proxy.post("/v1/batch", {"batch": [1]})
    assert (answer.status, answer.json()["accepted"]) == (200, 0)


async def test_a_single_bad_event_is_answered_400_with_its_code(proxy):
    event = track(messageId="bad", anonymousId=None)
    answer = await proxy.post("/v1/track", event)
    assert (answer.status, answer.code) == (400, "missing_identity")
    ((code, id_, body),) = proxy.letters()
    assert (code, id_, json.loads(body)) == ("missing_identity", "bad", event)


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/v1/batch", b"", "invalid_json"),
        ("/v1/track", b"", "invalid_json"),
        ("/v1/track", b"[1,2", "invalid_json"),
        ("/v1/track", b"5 6", "invalid_json"),
        ("/v1/track", b'{"type":"track"', "invalid_json"),
        ("/v1/batch", b'{"batch":[{]}', "invalid_json"),
        ("/v1/batch", b'{"batch":[]}}', "invalid_json"),
        ("/v1/batch", b'{"batch":[],"sentAt":NaN}', "invalid_json"),
        ("/v1/batch", b'{"batch":[],"context":{"a":"\xff"}}', "invalid_json"),
        ("/v1/batch", b'{"batch":[],"writeKey":"\xff"}', "invalid_json"),
        ("/v1/batch", b"[]", "invalid_envelope"),
        ("/v1/batch", b"{}", "invalid_envelope"),
        ("/v1/batch", b'{"batch":{}}', "invalid_envelope"),
        ("/v1/batch", b'{"batch":null}', "invalid_envelope"),
        ("/v1/batch", b'{"batch":NaN}', "invalid_envelope"),
    ],
)
async def test_a_body_that_is_no_envelope_is_refused_whole(proxy, path, body, code):
    answer = await proxy.post(path, body)
    assert (answer.status, answer.code) == (400, code)
    assert proxy.letters() == []


@pytest.mark.parametrize("key", [None, "", "wrong"])
async def test_a_key_that_nobody_knows_is_answered_401(proxy, key):
    answer = await proxy.post("/v1/track", track(), key=key)
    assert (answer.status, answer.code) == (401, "unknown_key")
    assert "www-authenticate" not in answer.headers
    assert proxy.letters() == []


async def test_an_unknown_key_leaves_no_dead_letter_of_a_bad_event(proxy):
    assert (await proxy.post("/v1/batch", {"batch": [5]}, key="wrong")).status == 401
    assert proxy.letters() == []


async def test_an_unknown_path_is_answered_404(proxy):
    for path in ("/", "/v1/nothing", "/v1", "/v1/batch/more", "/v2/batch", "/%ff"):
        answer = await proxy.post(path, track())
        assert (answer.status, answer.code) == (404, "not_found"), path


async def test_a_path_with_another_method_is_answered_405(proxy):
    for method, path in [("GET", "/v1/batch"), ("PUT", "/v1/track"), ("DELETE", "/healthz")]:
        answer = await proxy.request(method, path)
        assert (answer.status, answer.code) == (405, "method_not_allowed")
        assert "OPTIONS" in answer.headers["allow"]
    assert (await proxy.request("HEAD", "/v1/batch")).status == 405


async def test_an_encoding_that_nobody_knows_is_answered_415(proxy):
    for encoding in ("lzma", "gzip, gzip", "compress"):
        answer = await proxy.post("/v1/track", track(), {"Content-Encoding": encoding})
        assert (answer.status, answer.code) == (415, "unsupported_encoding")


async def test_a_full_buffer_is_answered_503_and_browsers_are_told_nothing(proxy_factory):
    small = source(max_size=1500)
    proxy = await proxy_factory(sources=(small, source("other", "other-key")))
    answers = [await proxy.post("/v1/track", track(), ORIGIN) for _ in range(8)]
    full = answers[-1]
    assert answers[0].status == 200
    assert (full.status, full.code) == (503, "buffer_full")
    assert int(full.headers["retry-after"]) > 0
    assert not [name for name in full.headers if name.startswith("access-control")]
    preflight = await proxy.request(
        "OPTIONS", "/v1/track", headers={**ORIGIN, "Access-Control-Request-Method": "POST"}
    )
    assert preflight.headers["access-control-allow-origin"] == ORIGIN["Origin"]
    assert (await proxy.post("/v1/track", track(), key="other-key")).status == 200


async def test_a_refused_event_is_accepted_when_there_is_room_again(proxy_factory):
    proxy = await proxy_factory(sources=(source(max_size=1500),))
    event = track(messageId="again")
    while (answer := await proxy.post("/v1/track", track())).status == 200:
        pass
    assert (await proxy.post("/v1/track", event)).status == 503
    claimed = proxy.buffer.claim("site", 100, 2**30)
    await proxy.buffer.ack("site", claimed)
    assert (await proxy.post("/v1/track", event)).status == 200
    assert [e["messageId"] for e in proxy.events()] == ["again"]
    assert answer.code == "buffer_full"


async def test_head_is_answered_like_get_without_a_body(proxy):
    for path in ("/healthz", "/readyz", f"/v1/projects/{KEY}/settings"):
        get, head = await proxy.request("GET", path), await proxy.request("HEAD", path)
        assert (get.status, head.status) == (200, 200)
        assert get.headers["content-length"] == head.headers["content-length"]


async def test_telemetry_is_taken_and_thrown_away(proxy):
    answer = await proxy.post("/v1/m", b'{"series":[]}', key=None)
    assert (answer.status, answer.body) == (200, b'{"success":true}')
    assert proxy.events() == []


async def test_settings_have_the_shape_that_apps_need(proxy):
    answer = await proxy.request("GET", f"/pre/fix/v1/projects/{KEY}/settings")
    told = answer.json()
    destination = told["integrations"]["Segment.io"]
    assert destination["apiKey"] == KEY
    assert destination["apiHost"] == "edge.example.com/pre/fix/v1"
    assert destination["protocol"] == "http"
    assert None not in told.values()
    refused = await proxy.request("GET", "/v1/projects/wrong/settings")
    assert (refused.status, refused.code) == (401, "unknown_key")


@pytest.mark.parametrize(
    ("trusted", "expected"),
    [
        (["127.0.0.0/8"], ("https", "events.example.com/v1")),
        (["192.0.2.0/24"], ("http", "edge.example.com/v1")),
        ([], ("http", "edge.example.com/v1")),
    ],
)
async def test_settings_believe_trusted_proxies_only(proxy_factory, trusted, expected):
    networks = tuple(ip_network(one) for one in trusted)
    proxy = await proxy_factory(server={"trusted_proxies": networks})
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "events.example.com"}
    answer = await proxy.request("GET", f"/v1/projects/{KEY}/settings", headers=headers)
    destination = answer.json()["integrations"]["Segment.io"]
    assert (destination["protocol"], destination["apiHost"]) == expected


async def test_settings_name_the_public_address(proxy_factory):
    proxy = await proxy_factory(
        server={"public_url": "https://events.example.com/p/"}, sources=(source(key="a/b c"),)
    )
    answer = await proxy.request("GET", "/p/v1/projects/a%2Fb%20c/settings/")
    destination = answer.json()["integrations"]["Segment.io"]
    assert destination["apiKey"] == "a/b c"
    assert (destination["protocol"], destination["apiHost"]) == (
        "https",
        "events.example.com/p/v1",
    )


async def test_source_config_is_found_by_basic_and_by_query(proxy):
    by_query = await proxy.request("GET", f"/sourceConfig/?p=x&writeKey={KEY}")
    by_basic = await proxy.request("GET", "/x/sourceConfig", headers={"Authorization": basic(KEY)})
    for answer in (by_query, by_basic):
        told = answer.json()["source"]
        assert (answer.status, told["enabled"], told["writeKey"]) == (200, True, KEY)
        assert told["config"]["statsCollection"]["errors"] == {"enabled": False}
    assert (await proxy.request("GET", "/sourceConfig/")).code == "unknown_key"

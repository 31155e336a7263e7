"""What the page asks and gets, from a service with everything in it."""

import json
from pathlib import Path

import aiohttp
import pytest

from edgeproxy import service
from edgeproxy.admin.access import TRIES
from edgeproxy.config import load

KEY = "a-write-key-that-is-secret"


class Client:
    """Asks the admin listener of a running service, and sends it events."""

    def __init__(self, session: aiohttp.ClientSession, admin: str, events: str) -> None:
        self.session = session
        self.admin = admin
        self.events = events

    async def get(self, path: str, **headers: str):
        async with self.session.get(self.admin + path, headers=headers) as answer:
            return await answer.json()

    async def post(self, path: str, document: object) -> tuple[int, dict]:
        async with self.session.post(self.admin + path, json=document) as answer:
            return answer.status, await answer.json()

    async def send(self, *events: dict) -> None:
        body = {"writeKey": KEY, "batch": list(events)}
        async with self.session.post(f"{self.events}/v1/batch", json=body) as answer:
            assert answer.status == 200


@pytest.fixture
async def started(tmp_path: Path):
    """Starts services; Hightouch is a port where nobody listens."""
    stack = []

    async def start(**extra: str) -> Client:
        settings = load(
            None,
            {
                "EDGEPROXY_HIGHTOUCH__WRITE_KEY": KEY,
                "EDGEPROXY_HIGHTOUCH__ENDPOINT": "http://127.0.0.1:9",
                "EDGEPROXY_SERVER__HOST": "127.0.0.1",
                "EDGEPROXY_SERVER__PORT": "0",
                "EDGEPROXY_ADMIN__PORT": "0",
                "EDGEPROXY_BUFFER__PATH": str(tmp_path / "data"),
                "EDGEPROXY_FLUSH__INTERVAL": "50ms",
                "EDGEPROXY_FLUSH__DRAIN_TIMEOUT": "0",
                **extra,
            },
        )
        running = service.start(settings, lambda: settings)
        proxy, _ = await running.__aenter__()
        # `unsafe`: cookies of an address are kept, too.
        session = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))
        stack.extend([session, running])
        admin, events = proxy.admin_addresses[0][1], proxy.client_addresses[0][1]
        return Client(session, f"http://127.0.0.1:{admin}", f"http://127.0.0.1:{events}")

    yield start
    for part in stack:
        await part.__aexit__(None, None, None)


async def test_the_files_are_served_with_a_strict_policy_and_from_the_cache(started):
    client = await started()
    for path, kind in (
        ("/", "text/html"),
        ("/admin.js", "text/javascript"),
        ("/admin.css", "text/css"),
    ):
        async with client.session.get(client.admin + path) as answer:
            assert answer.content_type == kind
            policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["Content-Encoding"] == "gzip"
            text, etag = await answer.text(), answer.headers["ETag"]
        assert "https://cdn" not in text
        async with client.session.get(
            client.admin + path, headers={"If-None-Match": etag}
        ) as again:
            assert again.status == 304


async def test_the_html_holds_no_script_and_no_style_of_its_own(started):
    client = await started()
    async with client.session.get(client.admin) as answer:
        text = await answer.text()
    assert "<style" not in text
    assert "style=" not in text
    assert text.count("<script") == text.count("<script src=") == 1


async def test_a_login_gives_a_cookie_that_opens_everything_and_tries_are_limited(started):
    client = await started(EDGEPROXY_ADMIN__TOKEN="open-sesame-please")
    async with client.session.get(client.admin) as answer:
        assert answer.status == 200
    async with client.session.get(f"{client.admin}/api/overview") as answer:
        assert answer.status == 401
    status, _ = await client.post("/api/login", {"token": "open-sesame-please"})
    assert status == 200
    assert (await client.get("/api/overview"))["needsLogin"] is True
    await client.post("/api/logout", {})
    async with client.session.get(f"{client.admin}/status") as answer:
        assert answer.status == 401
    statuses = [(await client.post("/api/login", {"token": "no"}))[0] for _ in range(TRIES + 1)]
    assert statuses == [401] * TRIES + [429]


@pytest.mark.parametrize("given", [{"token": 3}, [], "x", {"token": "\ud800"}, {}])
async def test_a_login_that_is_none_is_refused(started, given):
    client = await started(EDGEPROXY_ADMIN__TOKEN="open-sesame-please")
    status, told = await client.post("/api/login", given)
    assert (status, told["code"]) == (401, "unauthorized")


async def test_a_page_of_another_site_may_not_log_in(started):
    client = await started(EDGEPROXY_ADMIN__TOKEN="open-sesame-please")
    async with client.session.post(
        f"{client.admin}/api/login",
        json={"token": "open-sesame-please"},
        headers={"Origin": "https://evil.example"},
    ) as answer:
        assert answer.status == 403
        assert "Set-Cookie" not in answer.headers


async def test_nothing_that_the_page_asks_holds_a_key(started):
    client = await started()
    await client.send({"type": "track", "userId": "u"})
    for path in ("overview", "history", "history?span=day", "setup", "deadletters/groups"):
        assert KEY not in json.dumps(await client.get(f"/api/{path}"))
    setup = await client.get("/api/setup")
    assert setup["sources"][0]["where"] == "[hightouch] write_key"


async def test_dead_letters_are_grouped_and_shown_masked_until_asked(started):
    client = await started()
    unnamed = {"type": "track", "userId": "ada", "properties": {"n": 1.10}}
    await client.send(unnamed, unnamed, {"type": "odd", "userId": "ada", "event": "E"})
    groups = {group["code"]: group for group in await client.get("/api/deadletters/groups")}
    assert groups["missing_event"]["count"] == 2
    assert (groups["unknown_type"]["type"], groups["unknown_type"]["event"]) == ("odd", "E")
    letter = await client.get("/api/deadletters/letters/1")
    assert letter["field"] == "event"
    assert "ada" not in letter["body"]
    assert "ada" in (await client.get("/api/deadletters/letters/1?values=true"))["body"]
    counted = await client.get("/api/deadletters/count?code=missing_event&event=&type=track")
    assert counted["count"] == 2
    assert (await client.get("/api/deadletters/count?event=E"))["count"] == 1
    assert (await client.get("/api/deadletters/letters/99"))["code"] == "not_found"


async def test_dead_letters_are_chosen_by_several_numbers(started):
    client = await started()
    await client.send(*({"type": "track", "anonymousId": "a"} for _ in range(3)))
    assert (await client.get("/api/deadletters/count?ids=1,3,77"))["count"] == 2
    for wrong in ("ids=", "ids=1,x", "ids=1,"):
        assert (await client.get(f"/api/deadletters/count?{wrong}"))["code"] == "invalid_filter"
    async with client.session.post(f"{client.admin}/api/deadletters/purge", json={"ids": []}) as r:
        assert (await r.json(content_type=None))["moved"] == 0
    async with client.session.post(f"{client.admin}/api/deadletters/purge", json={"ids": [3]}) as r:
        assert b'"moved":1' in await r.read()
    assert (await client.get("/api/deadletters/count"))["count"] == 2


async def test_the_status_has_the_times_of_the_overview(started):
    client = await started()
    await client.send({"type": "track", "anonymousId": "a", "event": "E"})
    status, overview = await client.get("/status"), await client.get("/api/overview")
    assert status["times"]["commit"]["p99"] == overview["times"]["commit"]["p99"] > 0
    assert status["full_in_seconds"] is overview["fullInSeconds"] is None


async def test_an_event_is_tried_without_a_trace_and_sent_as_a_test(started):
    client = await started()
    event = '{"type":"track","userId":"u","event":"E","properties":{"n":12345678901234567890}}'
    status, found = await client.post("/api/try", {"event": event, "source": "default"})
    assert (status, found["verdict"]) == (200, "accepted")
    assert "12345678901234567890" in found["output"]
    assert (await client.get("/status"))["totals"]["received"] == 0
    status, sent = await client.post("/api/try/send", {"event": event, "source": "default"})
    assert sent["accepted"] is True
    assert sent["messageId"].startswith("test-")
    assert (await client.get("/status"))["totals"]["accepted"] == 1


@pytest.mark.parametrize("event", ["", "nonsense", "[]", "null", '{"a":' * 3000, '"\\ud800"', "{}"])
async def test_whatever_is_typed_gets_a_verdict(started, event):
    client = await started()
    status, found = await client.post("/api/try", {"event": event, "source": "default"})
    assert status == 200
    assert found["verdict"] in {"invalid_event", "not_an_object", "missing_type"}
    status, sent = await client.post("/api/try/send", {"event": event, "source": "default"})
    assert (status, sent["accepted"]) == (200, False)


async def test_trials_for_no_source_or_of_no_shape_are_refused(started):
    client = await started()
    assert (await client.post("/api/try", {"event": "{}", "source": "?"}))[0] == 404
    assert (await client.post("/api/try", {"event": 3}))[0] == 400
    assert (await client.post("/api/try", {"event": "x" * 1_010_000, "source": "default"}))[
        0
    ] == 400


async def test_a_journey_is_told_masked_until_asked_and_forgotten_with_the_watcher(started):
    client = await started()
    event = {"type": "track", "userId": "ada", "event": "Paid", "writeKey": KEY}
    async with client.session.get(f"{client.admin}/api/live?journeys=true") as feed:
        assert json.loads(await feed.content.readline())["kind"] == "pulse"
        await client.send(event)
        while (line := json.loads(await feed.content.readline()))["kind"] != "event":
            pass
        while (attempt := json.loads(await feed.content.readline()))["kind"] != "attempt":
            pass
        assert attempt["ids"] == [line["id"]]
        assert attempt["outcome"] == "retry"
        told = await client.get(f"/api/journeys/{line['id']}")
        assert "ada" not in json.dumps(told)
        assert told["attempts"][0]["answer"] == "connect"
        keys = {change["key"] for change in told["changes"]}
        assert {"messageId", "originalTimestamp", "writeKey"} <= keys
        shown = await client.get(f"/api/journeys/{line['id']}?values=true")
        assert "ada" in shown["sent"]
        assert "writeKey" not in shown["sent"]
    async with client.session.get(f"{client.admin}/api/journeys/10000") as answer:
        assert answer.status == 404


async def test_the_last_refused_request_is_told_without_its_key(started):
    client = await started()
    async with client.session.post(
        f"{client.events}/v1/track",
        json={"writeKey": "somebody-elses"},
        headers={"Origin": "https://shop.example"},
    ) as answer:
        assert answer.status == 401
    found = (await client.get("/api/overview"))["findings"]
    assert "https://shop.example" in found[0]["words"]
    assert "somebody-elses" not in json.dumps(found)

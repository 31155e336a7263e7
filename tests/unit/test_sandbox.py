"""The stand-in for Hightouch, over a real socket."""

import asyncio
import base64
import gzip
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import msgspec
import pytest

from edgeproxy.sandbox import Faults, FaultsError, Sandbox
from edgeproxy.sandbox.faults import parse_faults

NOW = 1_789_995_200.0
SENT = "2026-09-21T12:53:20.000Z"
KEY = "key-1"


def event(**changes):
    base = {
        "type": "track",
        "event": "Cart Viewed",
        "messageId": "m1",
        "anonymousId": "a1",
        "originalTimestamp": SENT,
        "sentAt": SENT,
    }
    merged = {**base, **changes}
    return {key: value for key, value in merged.items() if value is not ...}


@asynccontextmanager
async def open_sandbox(**options) -> AsyncIterator[tuple[Sandbox, aiohttp.ClientSession]]:
    sandbox = Sandbox(KEY, **{"clock": lambda: NOW, **options})
    async with (
        sandbox.serve() as url,
        aiohttp.ClientSession(url, headers=basic(KEY)) as session,
    ):
        yield sandbox, session


@pytest.fixture
async def both():
    async with open_sandbox() as pair:
        yield pair


def basic(key):
    return {"Authorization": "Basic " + base64.b64encode(f"{key}:".encode()).decode()}


async def post_batch(session, *events, **options):
    body = json.dumps({"batch": list(events)})
    async with session.post("/v1/batch", data=body, **options) as answer:
        await answer.read()
        return answer


async def listed(session, query=""):
    async with session.get(f"/events{query}") as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


@pytest.mark.parametrize("path", ["/v1/track", "/v1/t", "/some/prefix/v1/track", "/v1/track/"])
async def test_a_single_event_is_taken_on_every_spelling_of_its_path(both, path):
    sandbox, session = both
    async with session.post(path, json=event()) as answer:
        assert (answer.status, await answer.json()) == (200, {"success": True})
    assert [(a.type, a.message_id, a.blocked) for a in sandbox.events] == [("track", "m1", None)]


async def test_a_gzipped_batch_is_taken_and_listed_newest_last(both):
    _, session = both
    body = gzip.compress(json.dumps({"batch": [event(), event(messageId="m2")]}).encode())
    async with session.post("/v1/batch", data=body, headers={"Content-Encoding": "gzip"}) as answer:
        assert answer.status == 200
    entries = await listed(session)
    assert [entry["event"]["messageId"] for entry in entries] == ["m1", "m2"]
    assert entries[0]["blocked"] is None
    assert entries[0]["receivedAt"] == SENT
    assert entries[0]["headers"]["Content-Encoding"] == "gzip"


async def test_the_spelling_of_an_event_survives_byte_for_byte(both):
    sandbox, session = both
    text = (
        '{"type":"track", "n":1.10,"big":1e400,"id":12345678901234567890,"x":{"a":1,"a":2},"é":"\\u00e9"}'
    ).encode()
    async with session.post("/v1/batch", data=b'{"batch":[ ' + text + b" ]}") as answer:
        assert answer.status == 200
    assert sandbox.events[0].event == text
    async with session.get("/events") as answer:
        assert text in await answer.read()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"type": ...}, "missing_type"),
        ({"type": None}, "missing_type"),
        ({"type": "purchase"}, "unknown_type"),
        ({"type": 7}, "unknown_type"),
        ({"messageId": ""}, "missing_message_id"),
        ({"anonymousId": None}, "missing_identity"),
        ({"anonymousId": ..., "userId": "u1"}, None),
        ({"event": ...}, "missing_event"),
        ({"type": "page", "event": ...}, None),
        ({"originalTimestamp": ...}, "missing_original_timestamp"),
        ({"sentAt": ...}, "missing_sent_at"),
        ({"properties": {"x": "x" * 96_000}}, "event_too_large"),
        ({"originalTimestamp": "2026-09-14T12:53:19Z"}, "too_old"),
        ({"originalTimestamp": "2026-09-14T12:53:21Z"}, None),
        ({"originalTimestamp": "2026-09-14T12:53:19", "sentAt": "soon"}, "too_old"),
        ({"originalTimestamp": "yesterday"}, None),
    ],
)
async def test_what_hightouch_would_not_show_is_kept_as_blocked_with_the_reason(
    both, changes, reason
):
    _, session = both
    answer = await post_batch(session, event(**changes))
    assert answer.status == 200
    assert [entry["blocked"] for entry in await listed(session)] == [reason]
    shown = "?blocked=false" if reason is None else "?blocked=true"
    hidden = "?blocked=true" if reason is None else "?blocked=false"
    assert len(await listed(session, shown)) == 1
    assert await listed(session, hidden) == []


async def test_a_strange_value_in_one_field_does_not_hide_the_others(both):
    sandbox, session = both
    body = (
        b'{"batch":[{"type":"page","messageId":"m","userId":1e400,"originalTimestamp":"'
        + SENT.encode()
        + b'","sentAt":1e400}, 5]}'
    )
    async with session.post("/v1/batch", data=body) as answer:
        assert answer.status == 200
    assert [a.blocked for a in sandbox.events] == [None, "not_an_object"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"batch":5}',
        b'{"batch":[{"a":NaN}]}',
        b'{"batch":["\xff"]}',
        b'{"batch":[' + b"[" * 5000 + b"]" * 5000 + b"]}",
    ],
)
async def test_a_broken_body_is_answered_400_and_keeps_nothing(both, body):
    sandbox, session = both
    async with session.post("/v1/batch", data=body) as answer:
        assert answer.status == 400
        assert (await answer.json())["code"] == "invalid_json"
    assert not sandbox.events


async def test_broken_compression_is_answered_400(both):
    _, session = both
    async with session.post(
        "/v1/batch", data=b"not gzip", headers={"Content-Encoding": "gzip"}
    ) as answer:
        assert answer.status == 400


@pytest.mark.parametrize("key", ["", "key-2"])
async def test_a_wrong_or_missing_key_is_answered_401(both, key):
    sandbox, session = both
    async with session.post("/v1/track", json=event(), headers=basic(key)) as answer:
        assert answer.status == 401
        assert (await answer.json())["code"] == "unknown_key"
    assert not sandbox.events


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/track", event(writeKey=KEY)),
        ("/v1/batch", {"batch": [event()], "writeKey": KEY}),
        ("/v1/batch", {"batch": [event(writeKey=KEY)]}),
        (f"/beacon/v1/batch?writeKey={KEY}", {"batch": [event()]}),
    ],
)
async def test_the_key_is_found_wherever_an_sdk_puts_it(path, body):
    sandbox = Sandbox([KEY, "another"], clock=lambda: NOW)
    async with (
        sandbox.serve() as url,
        aiohttp.ClientSession(url) as session,
        session.post(path, json=body) as answer,
    ):
        assert answer.status == 200
    assert [a.blocked for a in sandbox.events] == [None]


async def test_the_write_key_is_masked_in_what_is_kept(both):
    _, session = both
    await post_batch(session, event(), headers={"Cookie": f"k={KEY}"})
    entry = (await listed(session))[0]
    assert entry["headers"]["Authorization"] == "***"
    assert KEY not in json.dumps(entry)


@pytest.mark.parametrize(
    ("path", "host", "appears"),
    [
        ("/v1/batch", "us-east-1.hightouch-events.com", True),
        ("/v1/batch", "eu-west-1.hightouch-events.com", False),
        ("/us-east-1/v1/batch", "127.0.0.1", True),
        ("/eu-west-1/v1/batch", "127.0.0.1", False),
        ("/shop/v1/batch", "127.0.0.1", True),
    ],
)
async def test_with_the_wrong_region_the_answer_is_200_and_nothing_appears(
    both, path, host, appears
):
    sandbox, session = both
    async with session.post(path, json={"batch": [event()]}, headers={"Host": host}) as answer:
        assert (answer.status, await answer.json()) == (200, {"success": True})
    assert bool(sandbox.events) is appears
    assert sandbox.store.stats()["wrong_region_requests"] == int(not appears)


async def test_the_list_can_be_cut_by_type_and_length_and_forgotten(both):
    _, session = both
    types = ["page", "track", "page", "identify"]
    await post_batch(session, *(event(type=t, messageId=f"m{i}") for i, t in enumerate(types)))

    async def ids(query):
        return [entry["event"]["messageId"] for entry in await listed(session, query)]

    assert await ids("?limit=2") == ["m2", "m3"]
    assert await ids("?type=page&limit=1") == ["m2"]
    assert await ids("?limit=0") == []
    for wrong in ("?limit=-1", "?limit=x", "?blocked=maybe"):
        async with session.get(f"/events{wrong}") as answer:
            assert answer.status == 400
    async with session.delete("/events") as answer:
        assert answer.status == 200
    assert await ids("") == []


async def test_the_oldest_events_make_room_and_the_counts_say_so():
    async with open_sandbox(keep=2) as (_, session):
        await post_batch(session, *(event(messageId=f"m{i}") for i in range(5)), event(type=""))
        assert [e["event"]["messageId"] for e in await listed(session)] == ["m4", "m1"]
        async with session.get("/stats") as answer:
            stats = await answer.json()
    assert stats["events"] == 6
    assert (stats["shown"], stats["blocked"]) == (5, 1)
    assert stats["blocked_reasons"] == {"missing_type": 1}
    assert (stats["kept"], stats["keep"], stats["forgotten"]) == (2, 2, 4)
    assert stats["answers"] == {"200": 1}


async def test_every_event_is_handed_to_the_hook():
    seen = []
    async with open_sandbox(on_event=seen.append) as (sandbox, session):
        await post_batch(session, event(), event(type=None))
        assert seen == list(sandbox.events)


async def put_faults(session, faults):
    async with session.put("/faults", json=faults) as answer:
        assert answer.status == 200, await answer.text()


async def test_a_faulty_status_keeps_nothing_until_the_next_put(both):
    sandbox, session = both
    await put_faults(session, {"status": 429, "retry_after": 2})
    answer = await post_batch(session, event())
    assert (answer.status, answer.headers["Retry-After"]) == (429, "2")
    assert not sandbox.events
    await put_faults(session, {})
    assert (await post_batch(session, event())).status == 200
    assert len(sandbox.events) == 1


@pytest.mark.parametrize(("status", "kept"), [(202, 1), (204, 1), (301, 0), (503, 0)])
async def test_only_a_2xx_keeps_the_events(both, status, kept):
    sandbox, session = both
    await put_faults(session, {"status": status})
    answer = await post_batch(session, event(), allow_redirects=False)
    assert answer.status == status
    assert len(sandbox.events) == kept


async def test_only_the_given_share_of_requests_misbehaves(both):
    _, session = both
    await put_faults(session, {"status": 500, "rate": 0.5})
    statuses = [(await post_batch(session, event())).status for _ in range(100)]
    assert 10 < statuses.count(500) < 90
    await put_faults(session, {"status": 500, "rate": 0, "poison": "m1"})
    assert (await post_batch(session, event())).status == 400


async def test_a_poisoned_event_refuses_its_batch_and_no_other(both):
    sandbox, session = both
    await put_faults(session, {"poison": ["bad", "worse"]})
    refused = await post_batch(session, event(), event(messageId="worse"))
    taken = await post_batch(session, event())
    assert (refused.status, taken.status) == (400, 200)
    assert len(sandbox.events) == 1


@pytest.mark.parametrize(("drop", "kept"), [("before", 0), ("after", 1)])
async def test_a_dropped_connection_gives_no_answer(both, drop, kept):
    sandbox, session = both
    await put_faults(session, {"drop": drop})
    with pytest.raises(aiohttp.ClientConnectionError):
        await post_batch(session, event())
    assert len(sandbox.events) == kept


async def test_latency_delays_the_answer_but_keeps_the_events_at_once():
    arrived = asyncio.Event()
    async with open_sandbox(on_event=lambda _: arrived.set()) as (_, session):
        await put_faults(session, {"latency": "1h"})
        waiting = asyncio.create_task(post_batch(session, event()))
        await arrived.wait()
        assert not waiting.done()
        waiting.cancel()


async def test_a_blackhole_holds_the_connection_until_the_faults_change(both):
    sandbox, session = both
    await put_faults(session, {"blackhole": True})
    waiting = asyncio.create_task(post_batch(session, event()))
    while not sandbox.store.requests:  # noqa: ASYNC110  # nothing to wait on, by design
        await asyncio.sleep(0)
    assert not waiting.done()
    await put_faults(session, {})
    with pytest.raises(aiohttp.ClientConnectionError):
        await waiting
    assert not sandbox.events


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"nonsense", "not JSON"),
        (b'{"stauts":500}', "stauts"),
        (b'{"status":"500"}', "status"),
        (b'{"status":99}', "status"),
        (b'{"retry_after":1}', "retry_after"),
        (b'{"status":500,"retry_after":-1}', "retry_after"),
        (b'{"status":500,"retry_after":"a\\r\\nb: c"}', "retry_after"),
        (b'{"rate":1.5}', "rate"),
        (b'{"latency":"soon"}', "latency"),
        (b'{"latency":-1}', "latency"),
        (b'{"drop":"sometimes"}', "drop"),
    ],
)
async def test_faults_that_make_no_sense_are_refused_by_name(both, body, says):
    sandbox, session = both
    async with session.put("/faults", data=body) as answer:
        assert answer.status == 400
        assert says in (await answer.json())["message"]
    assert sandbox.faults == Faults()


@pytest.mark.parametrize(
    ("latency", "seconds"), [("250ms", 0.25), ("5s", 5), ("2m", 120), (1.5, 1.5)]
)
def test_a_latency_may_be_text_or_seconds(latency, seconds):
    assert parse_faults(msgspec.json.encode({"latency": latency})).delay == seconds


def test_faults_that_are_not_json_say_so():
    with pytest.raises(FaultsError, match="not JSON"):
        parse_faults(b"{")


async def test_the_page_escapes_what_arrived(both):
    _, session = both
    await post_batch(session, event(event="<script>alert(1)</script>"), event(type="<b>"))
    async with session.get("/") as answer:
        page = await answer.text()
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "unknown_type" in page


async def test_a_browser_may_post_events_but_not_change_the_faults(both):
    _, session = both
    asked = {"Access-Control-Request-Headers": "content-type,x-retry"}
    async with session.options("/v1/track", headers=asked) as answer:
        assert answer.status == 204
        assert answer.headers["Access-Control-Allow-Headers"] == "content-type,x-retry"
    async with session.options("/faults", headers=asked) as answer:
        assert "Access-Control-Allow-Origin" not in answer.headers


async def test_an_unknown_path_is_answered_404(both):
    _, session = both
    for path in ("/v1/order", "/track", "/v1/"):
        async with session.post(path, json=event()) as answer:
            assert answer.status == 404


async def test_without_a_key_of_its_own_it_takes_any_that_is_not_empty():
    sandbox = Sandbox()
    async with sandbox.serve() as url, aiohttp.ClientSession(url) as session:
        async with session.post("/v1/track", json=event(writeKey="anything")) as answer:
            assert answer.status == 200
        async with session.post("/v1/track", json=event()) as answer:
            assert answer.status == 401


def test_keeping_no_event_at_all_is_refused():
    with pytest.raises(ValueError, match="keep 0"):
        Sandbox(keep=0)


async def test_the_command_serves_until_it_is_told_to_stop():
    code = "from edgeproxy.cli.sandbox import command; command()"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, "--port", "0", "--write-key", KEY, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    url = line.split()[4]
    async with aiohttp.ClientSession(url, headers=basic(KEY)) as session:
        assert (await post_batch(session, event())).status == 200
        assert len(await listed(session)) == 1
    process.terminate()
    assert await process.wait() == 0

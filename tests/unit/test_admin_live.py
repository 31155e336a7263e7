"""The live feed: what is shown, what is hidden, and what it may cost."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any

import pytest

from edgeproxy.admin.live import LOOKS, QUEUE_BYTES, SHOWN, LiveFeed, TooManyError, Wanted
from edgeproxy.admin.masking import masked, pseudonym
from edgeproxy.events.intake import Sealed
from edgeproxy.events.seen import Seen

ORDER = {
    "type": "track",
    "event": "Order Completed",
    "userId": "ada@example.test",
    "anonymousId": "anon-1",
    "messageId": "m1",
    "properties": {"total": 12.5, "coupon": None, "gift": True, "products": [{"sku": "a"}]},
}


class Intake:
    """What the feed watches."""

    def __init__(self) -> None:
        self.watchers: list[Callable[[str, Sequence[Seen]], None]] = []

    def watch(self, watcher: Callable[[str, Sequence[Seen]], None]) -> Callable[[], None]:
        self.watchers.append(watcher)
        return lambda: self.watchers.remove(watcher)

    def take(self, *events: Seen, source: str = "site") -> None:
        for watcher in self.watchers:
            watcher(source, events)


@pytest.fixture
def intake() -> Intake:
    return Intake()


@pytest.fixture
def feed(intake: Intake) -> LiveFeed:
    return LiveFeed(intake.watch, now=lambda: 1_700_000_000_000)


def accepted(body: dict[str, Any] | bytes = ORDER, message_id: str = "m1") -> Seen:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    sealed = Sealed(text, 1, message_id, "track", None, 0)
    return Seen("accepted", text, "track", message_id, sealed)


async def opened(feed: LiveFeed, **wanted: Any) -> Any:
    lines = feed.lines(Wanted(**wanted))
    assert json.loads(await anext(lines))["kind"] == "pulse"
    return lines


async def following(lines: AsyncIterator[bytes]) -> dict[str, Any]:
    return json.loads(await anext(lines))


async def until_pulse(lines: AsyncIterator[bytes]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    events: list[dict[str, Any]] = []
    while (found := await following(lines))["kind"] != "pulse":
        events.append(found)
    return events, found


async def test_nothing_is_watched_while_nobody_watches(feed: LiveFeed, intake: Intake):
    assert intake.watchers == []
    first, second = await opened(feed), await opened(feed)
    assert len(intake.watchers) == 1
    await first.aclose()
    assert len(intake.watchers) == 1
    await second.aclose()
    assert intake.watchers == []


async def test_values_are_masked_unless_asked_for(feed: LiveFeed, intake: Intake):
    async with aclosing(await opened(feed, bodies=True)) as lines:
        intake.take(accepted())
        found = await following(lines)
    assert found["body"] == {
        "type": "track",
        "event": "Order Completed",
        "userId": "text",
        "anonymousId": "text",
        "messageId": "text",
        "properties": {
            "total": "number",
            "coupon": None,
            "gift": "boolean",
            "products": [{"sku": "text"}],
        },
    }
    assert found["user"] == pseudonym("ada@example.test")
    assert "ada@" not in json.dumps(found)


async def test_values_keep_their_spelling_when_asked_for(feed: LiveFeed, intake: Intake):
    body = b'{"type": "track",\n "n": 1.10, "userId": "ada"}'
    lines = feed.lines(Wanted(bodies=True, values=True))
    async with aclosing(lines):
        await anext(lines)
        intake.take(accepted(body))
        line = await anext(lines)
    assert line.count(b"\n") == 1
    assert b'"n":1.10' in line
    assert json.loads(line)["user"] == "ada"


async def test_a_line_is_all_that_is_told_of_an_event_without_bodies(
    feed: LiveFeed, intake: Intake
):
    async with aclosing(await opened(feed)) as lines:
        intake.take(Seen("filtered", b"{}", "page", "m7", code="no-bots"))
        found = await following(lines)
    told = {
        "kind": "event",
        "at": 1_700_000_000_000,
        "source": "site",
        "verdict": "filtered",
        "code": "no-bots",
        "message": "",
        "type": "page",
        "event": "",
        "user": None,
        "messageId": "m7",
        "bytes": 2,
        "library": "",
    }
    assert found == found | told
    assert "body" not in found


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [
        ({}, ["m1", "m2", "m3"]),
        ({"source": "site"}, ["m1", "m2", "m3"]),
        ({"source": "app"}, []),
        ({"type": "page"}, ["m2"]),
        ({"event": "order"}, ["m1"]),
        ({"user": "anon-1"}, ["m1"]),
        ({"user": "ada@example.test"}, ["m1"]),
        ({"user": "7"}, ["m2"]),
        ({"verdict": "quarantined"}, ["m2", "m3"]),
        ({"verdict": "missing_event"}, ["m3"]),
        ({"verdict": "accepted", "type": "page"}, []),
    ],
)
async def test_filters_narrow_what_is_shown(
    feed: LiveFeed, intake: Intake, wanted: dict[str, str], shown: list[str]
):
    async with aclosing(await opened(feed, **wanted)) as lines:
        intake.take(
            accepted(),
            Seen("quarantined", b'{"userId":7}', "page", "m2", code="too_old"),
            Seen("quarantined", b"not JSON \xff", "track", "m3", code="missing_event"),
        )
        events, _ = await until_pulse(lines)
    assert [event["messageId"] for event in events] == shown


async def test_what_is_too_much_is_left_out_and_said(feed: LiveFeed, intake: Intake):
    async with aclosing(await opened(feed)) as lines:
        for _ in range(5):
            intake.take(*[accepted()] * 1000)
        events, pulse = await until_pulse(lines)
    assert len(events) == SHOWN
    assert pulse == {"kind": "pulse", "passed": 5000, "shown": SHOWN, "skipped": 5000 - SHOWN}


async def test_whoever_does_not_read_costs_a_bounded_amount(feed: LiveFeed, intake: Intake):
    large = accepted(b'{"a":"' + b"x" * 90_000 + b'"}')
    async with aclosing(await opened(feed)):
        for _ in range(LOOKS * 2):
            intake.take(large)
        (watcher,) = feed._watching
        assert watcher._bytes <= QUEUE_BYTES
        assert len(watcher._waiting) <= LOOKS


async def test_watchers_are_limited_in_number(feed: LiveFeed):
    lines = [await opened(feed) for _ in range(16)]
    with pytest.raises(TooManyError):
        await opened(feed)
    await lines.pop().aclose()
    lines.append(await opened(feed))
    for each in lines:
        await each.aclose()


async def test_closing_ends_every_stream(feed: LiveFeed):
    async with aclosing(await opened(feed)) as lines:
        feed.close()
        assert [line async for line in lines] == []


def test_masks_bound_depth_and_length():
    deep: Any = "secret"
    for _ in range(200):
        deep = {"k": deep}
    assert "secret" not in json.dumps(masked(deep))
    assert masked(list(range(60)))[-1] == "10 more"
    assert masked([True, 1, 1.5, "x", None]) == ["boolean", "number", "number", "text", None]

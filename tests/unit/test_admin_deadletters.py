"""Replays and purges at the desk, on a real buffer: what moves, what stays, what is counted."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgeproxy.admin.deadletters import Desk, Progress, told
from edgeproxy.buffer.base import BufferFullError, DeadLetter
from edgeproxy.buffer.deadletters import DeadLetterFilter, StoredDeadLetter
from edgeproxy.buffer.sqlite import SqliteBuffer
from edgeproxy.config import Settings, load
from edgeproxy.events.intake import Receipt
from edgeproxy.mapping import compile_settings
from edgeproxy.metrics import Metrics

NOW = 1_700_000_000_000
HOUR = 3_600_000
ALL = DeadLetterFilter()
NAMED = '[mapping.default]\nevent = "properties.title"\n'


def settings(folder: Path, toml: str) -> Settings:
    path = folder / "config.toml"
    path.write_text(toml)
    return load(path, {"PROJECT_WRITEKEY": "a-write-key"})


class World:
    """A desk, its buffer, and what it counts."""

    def __init__(self, folder: Path, buffer: SqliteBuffer) -> None:
        self._folder = folder
        self.buffer = buffer
        self.metrics = Metrics()
        self.now = NOW + HOUR
        self.toml = ""
        self.desk = Desk(buffer, self._rules, self.metrics, now=lambda: self.now)

    def _rules(self):
        found = settings(self._folder, self.toml)
        return compile_settings(found), found.validation

    async def bury(self, *letters: DeadLetter) -> None:
        await self.buffer.append("site", NOW, [], letters)

    async def replay(self, chosen: DeadLetterFilter = ALL) -> Progress:
        steps = [step async for step in self.desk.replay(chosen)]
        assert steps[-1].ended
        return steps[-1]

    async def letters(self, chosen: DeadLetterFilter = ALL, **more: Any) -> list[dict[str, Any]]:
        options: dict[str, Any] = {"limit": None, "bodies": True, "newest_first": False} | more
        return [letter async for letter in self.desk.letters(chosen, **options)]

    def events(self) -> list[Any]:
        return self.buffer.claim("site", 10_000, 10**9)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    buffer = await SqliteBuffer.open(tmp_path / "data", max_size=2**30)
    yield World(tmp_path, buffer)
    await buffer.close()


def letter(number: int = 1, **changed: Any) -> DeadLetter:
    event = {"type": "track", "messageId": f"m{number}", "userId": f"u{number}"}
    event |= {"properties": {"title": "Ping"}, "timestamp": "2023-11-14T22:13:20Z"}
    fields: dict[str, Any] = {
        "lane": "site",
        "code": "missing_event",
        "message": "a track event needs `event`",
        "form": "received",
        "received": NOW,
        "died": NOW,
        "body": json.dumps(event).encode(),
        "message_id": f"m{number}",
        "revision": "old",
        "receipt": msgspec.json.encode(Receipt(NOW)),
    }
    return DeadLetter(**(fields | changed))


async def test_what_was_received_goes_through_todays_mapping(world: World):
    await world.bury(letter())
    world.toml = NAMED
    progress = await world.replay()
    assert (progress.total, progress.done, progress.moved) == (1, 1, 1)
    (event,) = world.events()
    assert json.loads(event.body)["event"] == "Ping"
    assert json.loads(event.body)["messageId"] == "m1"
    assert event.received == NOW
    assert world.buffer.stats().dead_letters == 0
    assert world.metrics.totals()["accepted"] == 1


async def test_what_was_known_of_its_request_counts_again(world: World):
    receipt = Receipt(
        NOW,
        type="track",
        sent_at="2023-11-14T22:13:10Z",
        sent_at_ms=NOW - 10_000,
        context=b'{"app":{"name":"shop"}}',
        ip="192.0.2.7",
        has_origin=True,
    )
    body = b'{"event":"Ping","userId":"u"}'
    encoded = msgspec.json.encode(receipt)
    await world.bury(letter(body=body, receipt=encoded, code="missing_type", message_id="given"))
    await world.replay()
    (event,) = world.events()
    found = json.loads(event.body)
    assert found["type"] == "track"
    assert found["context"] == {"app": {"name": "shop"}, "ip": "192.0.2.7"}
    assert found["messageId"] == "given"
    assert event.skew == -10_000


async def test_what_was_sent_goes_again_as_it_was(world: World):
    world.toml = '[mapping.default]\nevent = {value = "Renamed"}\n'
    body = b'{"type":"track","event":"Ping", "messageId":"m1","userId":"u1","n":1.10}'
    await world.bury(letter(form="sent", body=body, skew=-7, age=250, receipt=b""))
    assert (await world.replay()).moved == 1
    (event,) = world.events()
    assert (event.body, event.skew, event.age, event.received) == (body, -7, 250, NOW)
    assert world.metrics.totals()["accepted"] == 0  # it was counted when it came


async def test_what_is_refused_again_stays_with_the_new_reason(world: World):
    world.toml = NAMED
    await world.bury(letter(body=b'{"type":"track","properties":{"title":"P"},"messageId":"m1"}'))
    ((before),) = await world.letters()
    progress = await world.replay()
    assert (progress.moved, progress.refused) == (0, {"missing_identity": 1})
    ((after),) = await world.letters()
    assert after["code"] == "missing_identity"
    assert after["revision"] != "old"
    same = ("id", "body", "diedAt", "receivedAt", "messageId", "receipt")
    assert all(after[key] == before[key] for key in same)


async def test_what_is_too_old_by_now_stays(world: World):
    world.toml = NAMED
    world.now = NOW + 8 * 24 * HOUR
    body = b'{"type":"page","userId":"u","messageId":"m2"}'
    await world.bury(letter(), letter(2, form="sent", body=body, age=0))
    assert (await world.replay()).refused == {"too_old": 2}
    world.toml += '[validation]\nmax_age = "30d"\n'
    assert (await world.replay()).moved == 2


async def test_what_was_not_kept_stays_as_it_was(world: World):
    world.toml = NAMED
    await world.bury(letter(body=b"", message="its own reason"), letter(2))
    progress = await world.replay()
    assert (progress.total, progress.done, progress.moved) == (2, 2, 1)
    assert (progress.not_kept, progress.refused) == (1, {})
    (left,) = await world.letters()
    assert (left["code"], left["message"]) == ("missing_event", "its own reason")
    assert left["revision"] == "old"


async def test_what_is_damaged_stays(world: World):
    await world.bury(letter(2))
    world.buffer._database.writer.execute(
        "update dead_letters set body = cast('{}' as blob) where message_id = 'm2'"
    )
    assert (await world.replay()).refused == {"invalid_event": 1}
    messages = [found["message"] for found in await world.letters()]
    assert messages == ["damaged on disk: its checksum does not match"]


async def test_what_a_filter_removes_is_removed_and_counted(world: World):
    world.toml = NAMED + '[[filters]]\nname = "no u1"\naction = "drop"\nwhen = "userId == \'u1\'"\n'
    pytest.importorskip("cel_expr_python")
    await world.bury(letter(), letter(2))
    progress = await world.replay()
    assert (progress.moved, progress.filtered) == (1, 1)
    assert world.metrics.totals()["filtered"] == 1
    assert world.buffer.stats().dead_letters == 0


async def test_an_interrupted_replay_neither_loses_nor_doubles_an_event(world: World):
    world.toml = NAMED
    for first in range(0, 900, 100):
        await world.bury(*(letter(number) for number in range(first, first + 100)))
    replay = world.desk.replay(ALL)
    assert (await anext(replay)).done == 200
    await replay.aclose()
    assert world.buffer.stats().dead_letters == 700
    assert (await world.replay()).moved == 700
    ids = [json.loads(event.body)["messageId"] for event in world.events()]
    assert sorted(ids) == sorted(f"m{number}" for number in range(900))


async def test_two_replays_at_once_move_each_event_once(world: World):
    world.toml = NAMED
    await world.bury(*(letter(number) for number in range(500)))
    one, other = world.desk.replay(ALL), world.desk.replay(ALL)
    while True:
        steps = [await anext(replay, None) for replay in (one, other)]
        if steps == [None, None]:
            break
    assert len(world.events()) == 500
    assert world.buffer.stats().dead_letters == 0


async def test_what_dies_again_meanwhile_is_not_met_again(world: World):
    world.toml = NAMED
    await world.bury(*(letter(number) for number in range(300)))
    replay = world.desk.replay(ALL)
    await anext(replay)
    await world.bury(letter(1000))
    assert [step.done async for step in replay][-1] == 300
    assert [found["messageId"] for found in await world.letters()] == ["m1000"]


async def test_a_full_buffer_ends_a_replay_and_says_why(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    world.toml = NAMED
    await world.bury(letter())
    monkeypatch.setattr(world.buffer, "full_reason", lambda: "buffer is full")
    progress = await world.replay()
    assert (progress.moved, progress.stopped) == (0, "buffer is full")

    async def fail(_moves: object) -> int:
        raise BufferFullError("disk full")

    monkeypatch.setattr(world.buffer, "full_reason", lambda: None)
    monkeypatch.setattr(world.buffer, "replay", fail)
    assert (await world.replay()).stopped == "disk full"
    assert world.buffer.stats().dead_letters == 1


async def test_a_purge_removes_what_fits_and_counts_it(world: World):
    await world.bury(*(letter(number) for number in range(450)), letter(1, code="too_old"))
    steps = [step async for step in world.desk.purge(DeadLetterFilter(code="missing_event"))]
    assert (steps[-1].total, steps[-1].moved, steps[-1].ended) == (450, 450, True)
    assert world.metrics.totals()["purged"] == 450
    assert [found["code"] for found in await world.letters()] == ["too_old"]


async def test_a_selection_is_purged_and_replayed_by_its_numbers(world: World):
    await world.bury(*(letter(number) for number in range(5)))
    ids = tuple(found["id"] for found in await world.letters())
    chosen = DeadLetterFilter(ids=(ids[0], ids[3], ids[3] + 1_000))
    assert (await world.desk.count(chosen)).count == 2
    steps = [step async for step in world.desk.purge(chosen)]
    assert (steps[-1].total, steps[-1].moved) == (2, 2)
    progress = await world.replay(DeadLetterFilter(ids=(ids[3], ids[4])))
    assert (progress.total, progress.done) == (1, 1)


async def test_filters_choose(world: World):
    await world.bury(
        letter(1),
        letter(2, lane="app", died=NOW + 5),
        letter(3, code="too_old", body=b'{"anonymousId":"u1"}'),
    )

    async def chosen(**given: Any) -> list[str]:
        return [found["messageId"] for found in await world.letters(DeadLetterFilter(**given))]

    assert await chosen(code="too_old") == ["m3"]
    assert await chosen(source="app") == ["m2"]
    assert await chosen(since=NOW + 1) == ["m2"]
    assert await chosen(user="u1") == ["m1", "m3"]
    assert await chosen(user="u1", code="too_old") == ["m3"]
    assert await chosen(id="m1") == ["m1"]
    counted = await world.desk.count(ALL)
    assert (counted.count, counted.codes) == (3, {"missing_event": 2, "too_old": 1})


async def test_a_limit_holds_whatever_the_order(world: World):
    await world.bury(*(letter(number) for number in range(450)))
    found = await world.letters(limit=3, newest_first=True, bodies=False)
    assert [each["messageId"] for each in found] == ["m449", "m448", "m447"]
    assert "body" not in found[0]
    assert len(await world.letters(limit=300)) == 300


@pytest.mark.parametrize(
    "body", [b'{"a":\xff}', b"[1", b"", b'{"event":{}, "type":7}', b'"\\ud800"']
)
def test_whatever_was_received_can_be_told(body: bytes):
    found = told(StoredDeadLetter(1, letter(body=body), intact=True), bodies=True)
    assert (found["type"], found["event"]) == ("", "")
    assert json.loads(msgspec.json.encode(found))["bytes"] == len(body)

"""What the demo says of events, on the terminal and to the page."""

import json

import click

from edgeproxy.demo.narrator import Narrator
from edgeproxy.events.intake import Sealed
from edgeproxy.sandbox import Arrival


def sealed(body: dict) -> Sealed:
    return Sealed(json.dumps(body).encode(), 1, "m1", body["type"], None, 0)


def arrival(body: dict, blocked: str | None = None) -> Arrival:
    return Arrival(json.dumps(body).encode(), body["type"], "m1", blocked, 0.0, {})


def spoken(lines: list[str]) -> list[list[str]]:
    return [click.unstyle(line).split()[1:] for line in lines]


async def test_each_step_of_an_event_is_one_line():
    lines: list[str] = []
    narrator = Narrator(lines.append)
    event = {"type": "track", "event": "Order Completed", "userId": "u-1"}
    narrator.accepted("site", [sealed(event)])
    narrator.logged("batch_delivered", {"events": 2, "seconds": 0.0124, "answer": "200"})
    narrator.received(arrival(event))
    assert spoken(lines) == [
        ["accepted", "track", "Order", "Completed", "u-1"],
        ["flushed", "batch", "2", "events", "200", "in", "12", "ms"],
        ["received", "track", "Order", "Completed", "u-1"],
    ]


async def test_an_event_that_hightouch_would_block_says_why():
    lines: list[str] = []
    Narrator(lines.append).received(arrival({"type": "track"}, "missing_event"))
    assert spoken(lines) == [["blocked", "track", "missing_event"]]


async def test_an_event_s_name_cannot_steer_the_terminal():
    lines: list[str] = []
    Narrator(lines.append).accepted("site", [sealed({"type": "track", "event": "a\x1b[2Jb\n"})])
    assert "\x1b[2J" not in lines[0]
    assert "\n" not in lines[0]


async def test_a_page_hears_what_the_terminal_shows():
    narrator = Narrator(lambda _: None)
    with narrator.listen() as heard:
        narrator.accepted("site", [sealed({"type": "page", "name": "Home"})])
        narrator.upstream(on=False)
    assert json.loads(heard.get_nowait()) == {
        "kind": "accepted",
        "id": "m1",
        "type": "page",
        "name": "Home",
        "who": "",
    }
    assert json.loads(heard.get_nowait()) == {"kind": "upstream", "on": False}


async def test_a_page_that_does_not_keep_up_delays_nobody():
    narrator = Narrator(lambda _: None)
    with narrator.listen() as heard:
        for _ in range(3000):
            narrator.upstream(on=True)
        assert heard.full()


async def test_other_lines_of_the_log_are_not_told():
    lines: list[str] = []
    Narrator(lines.append).logged("started", {"port": 8080})
    assert lines == []

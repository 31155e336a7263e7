"""edgeproxy.telling: the line that systemctl status shows, and when it is sent."""

import asyncio
import socket
from pathlib import Path

import pytest

from edgeproxy.delivery.lane import LaneStatus
from edgeproxy.systemd import Notifier
from edgeproxy.telling import state_line, tell_systemd


def lane(name: str, state: str = "ok", reason: str | None = None) -> LaneStatus:
    return LaneStatus(name, "https://h", state, reason, "", 0, 0, None)


@pytest.mark.parametrize(
    ("not_ready", "events", "lanes", "wanted"),
    [
        (None, 0, [lane("web")], "accepting events; all delivered"),
        (
            None,
            1234,
            [lane("web"), lane("eu", "parked", "http_401"), lane("us", "backing_off", "dns")],
            "accepting events; 1,234 to deliver; in trouble: eu parked (http_401), us backing_off (dns)",
        ),
        ("buffer is full", 5, [], "accepts no events: buffer is full; 5 to deliver"),
    ],
)
def test_the_line_says_what_an_operator_asks_first(not_ready, events, lanes, wanted):
    assert state_line(not_ready, events, lanes) == wanted


async def test_systemd_is_told_when_something_has_changed_and_not_again(tmp_path: Path):
    lines = ["none", "one", "one", "two", "two"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)
        notifier = Notifier(str(tmp_path / "notify"))

        def line() -> str:
            if len(lines) == 1:
                notifier.close()
            return lines.pop(0)

        await tell_systemd(notifier, line, told="none", seconds=0)
        assert listener.recv(100) == b"STATUS=one"
        assert listener.recv(100) == b"STATUS=two"
        with pytest.raises(BlockingIOError):
            listener.recv(100)


async def test_nothing_is_looked_at_where_nobody_listens():
    def never() -> str:
        raise AssertionError

    async with asyncio.timeout(5):
        await tell_systemd(Notifier(""), never, told="")

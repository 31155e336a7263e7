"""edgeproxy.systemd: what is said over NOTIFY_SOCKET, and the sockets that are handed over."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeproxy.systemd import Notifier, listen_sockets, watchdog_interval


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@edgeproxy-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name.replace("@", "\0", 1) if name.startswith("@") else name)
        listener.settimeout(5)
        yield listener, name


def test_each_message_is_one_datagram(systemd: tuple[socket.socket, str]):
    listener, name = systemd
    notifier = Notifier(name, clock=lambda: 5_000_000)
    expected = [
        (notifier.ready("serving"), "READY=1\nSTATUS=serving"),
        (notifier.reloading(), "RELOADING=1\nMONOTONIC_USEC=5000"),
        (notifier.ready(), "READY=1"),
        (notifier.status("two\nlines"), "STATUS=two lines"),
        (notifier.watchdog(), "WATCHDOG=1"),
        (notifier.stopping("draining"), "STOPPING=1\nSTATUS=draining"),
    ]
    for taken, message in expected:
        assert taken
        assert listener.recv(1000).decode() == message
    notifier.close()
    assert not notifier.ready()


def test_nothing_is_said_where_nobody_listens(tmp_path: Path):
    assert not Notifier.from_environ({}).ready()
    gone = Notifier.from_environ({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    assert not gone.ready()
    gone.close()


def test_a_full_queue_does_not_block(tmp_path: Path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        notifier = Notifier(str(tmp_path / "notify"))
        assert not all(notifier.watchdog() for _ in range(10_000))
        notifier.close()


def test_the_watchdog_is_fed_twice_as_often_as_asked():
    assert watchdog_interval({"WATCHDOG_USEC": "30000000"}) == 15
    assert watchdog_interval({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, pid=7) == 15


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"},
    ],
)
def test_without_a_watchdog_there_is_no_interval(environ: dict[str, str]):
    assert watchdog_interval(environ, pid=7) is None


def test_sockets_handed_over_are_taken_by_name():
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        first = 200
        for offset, opened in enumerate((one, two)):
            os.dup2(opened.fileno(), first + offset, inheritable=True)
        environ = {"LISTEN_PID": "7", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "http"}
        found = listen_sockets(environ, pid=7, first=first)
        assert [entry.name for entry in found] == ["http", "unknown"]
        for entry, opened in zip(found, (one, two), strict=True):
            assert entry.socket.getsockname() == opened.getsockname()
            assert not entry.socket.get_inheritable()
            assert not entry.socket.getblocking()
            entry.socket.close()


@pytest.mark.parametrize(
    "environ", [{}, {"LISTEN_PID": "8", "LISTEN_FDS": "1"}, {"LISTEN_PID": "7"}]
)
def test_sockets_of_another_process_are_left_alone(environ: dict[str, str]):
    assert listen_sockets(environ, pid=7) == ()

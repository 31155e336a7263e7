"""`edgeproxy run` as a process: what systemd hears and hands over, and how it ends."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from edgeproxy.buffer.neighbours import Stranded, stranded
from edgeproxy.buffer.sqlite import SqliteBuffer
from tests.buffers import event

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def notify(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(20)
        yield listener


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started = []

    def start(*command: str, **environ: str) -> "subprocess.Popen[str]":
        settings = {
            "EDGEPROXY_SERVER__HOST": "127.0.0.1",
            "EDGEPROXY_SERVER__PORT": "0",
            "EDGEPROXY_ADMIN__PORT": "0",
            "EDGEPROXY_HIGHTOUCH__ENDPOINT": "http://127.0.0.1:9",
            "PROJECT_WRITEKEY": "a-write-key",
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
        }
        process = subprocess.Popen(
            command or [sys.executable, "-m", "edgeproxy", "run"],
            cwd=tmp_path,
            env=os.environ | settings | environ,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=[int(environ["TEST_FD"])] if "TEST_FD" in environ else (),
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def stop(process: "subprocess.Popen[str]") -> list[dict[str, Any]]:
    process.send_signal(signal.SIGTERM)
    return ended(process)


def ended(process: "subprocess.Popen[str]") -> list[dict[str, Any]]:
    _, errors = process.communicate(timeout=30)
    return [json.loads(line) for line in errors.splitlines()]


def heard(notify: socket.socket) -> list[str]:
    return notify.recv(4096).decode().splitlines()


def test_systemd_hears_of_readiness_and_of_the_end(notify: socket.socket, start: Start):
    process = start()
    assert heard(notify) == ["READY=1", "STATUS=accepting events; all delivered"]
    lines = stop(process)
    assert process.returncode == 0
    assert heard(notify) == ["STOPPING=1", "STATUS=sending what is left"]
    assert lines[0]["event"] == "serving"
    assert lines[-1]["event"] == "stopped"


def test_the_watchdog_is_fed(notify: socket.socket, start: Start):
    start(WATCHDOG_USEC="200000")
    messages = [heard(notify) for _ in range(4)]
    assert ["WATCHDOG=1"] in messages


def test_a_hangup_reloads_and_systemd_hears_of_it(notify: socket.socket, start: Start):
    process = start()
    assert "READY=1" in heard(notify)
    process.send_signal(signal.SIGHUP)
    reloading = heard(notify)
    assert reloading[0] == "RELOADING=1"
    assert reloading[1].startswith("MONOTONIC_USEC=")
    assert "READY=1" in heard(notify)
    assert "reloaded" in [line["event"] for line in stop(process)]


def test_a_socket_of_systemd_is_served(notify: socket.socket, start: Start):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        script = (
            "import os, sys; os.dup2(int(os.environ['TEST_FD']), 3); "
            "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1'); "
            "os.execv(sys.executable, [sys.executable, '-m', 'edgeproxy', 'run'])"
        )
        process = start(sys.executable, "-c", script, TEST_FD=str(listener.fileno()))
        assert "READY=1" in heard(notify)
        with urlopen(f"http://127.0.0.1:{listener.getsockname()[1]}/healthz") as answer:
            assert answer.status == 200
        stop(process)
    assert process.returncode == 0


def test_a_port_in_use_is_one_line_and_exit_code_1(start: Start):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = start(EDGEPROXY_SERVER__PORT=str(taken.getsockname()[1]))
        (line,) = ended(process)
    assert process.returncode == 1
    assert line["event"] == "failed"
    assert "cannot listen" in line["reason"]
    assert "exception" not in line


@pytest.mark.parametrize(
    ("left_in", "arguments", "runs_in"),
    [("data", ["--instance", "2"], "data/2"), ("data/1", [], "data")],
)
def test_events_that_nobody_delivers_are_pointed_out(
    tmp_path: Path,
    start: Start,
    notify: socket.socket,
    left_in: str,
    arguments: list[str],
    runs_in: str,
):
    async def leave() -> None:
        buffer = await SqliteBuffer.open(tmp_path / left_in, max_size=2**30)
        await buffer.append("default", 5, [event(1), event(2)])
        await buffer.close()

    asyncio.run(leave())
    process = start(sys.executable, "-m", "edgeproxy", "run", *arguments)
    assert "READY=1" in heard(notify)
    assert process.stderr is not None
    said = {line["event"]: line for line in map(json.loads, [*_until(process, "events_stranded")])}
    assert said["serving"]["buffer"] == str(tmp_path / runs_in)
    assert said["events_stranded"]["folder"] == str(tmp_path / left_in)
    assert said["events_stranded"]["events"] == 2
    assert said["events_stranded"]["level"] == "warning"
    stop(process)


def _until(process: "subprocess.Popen[str]", word: str) -> Iterator[str]:
    """What is logged, up to a line with this word."""
    assert process.stderr is not None
    for line in process.stderr:
        yield line
        if word in line:
            return


async def test_instances_that_run_are_not_stranded(tmp_path: Path):
    one = await SqliteBuffer.open(tmp_path / "data" / "1", max_size=2**30)
    await one.append("default", 5, [event(1)])
    assert stranded(tmp_path / "data") == []
    await one.close()
    assert stranded(tmp_path / "data") == [Stranded(tmp_path / "data" / "1", 1)]
    assert stranded(tmp_path / "data" / "2") == []

"""`status` and `reload` against a real admin listener: what they say, and how they exit."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import click
import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from edgeproxy.admin.app import AdminApp
from edgeproxy.admin.live import LiveFeed
from edgeproxy.cli import main
from edgeproxy.cli.admin import AdminClient
from edgeproxy.cli.status import screen
from edgeproxy.config import Admin
from edgeproxy.metrics import Metrics
from edgeproxy.sandbox import Sandbox
from tests.e2e.processes import free_ports

TOKEN = "a-long-enough-token"


def document(**changed: Any) -> dict[str, Any]:
    return {
        "version": "1.2.3",
        "mapping_revision": "2026-11",
        "buffer": {
            "events": 1234,
            "bytes": 3 * 2**20,
            "oldest_age_seconds": 3725.0,
            "max_bytes": 2**30,
        },
        "lanes": [
            lane(),
            lane(
                name="eu",
                state="parked",
                reason="http_401",
                detail="no\x1b[2Jkey",
                next_attempt_seconds=12.5,
            ),
        ],
        "dead_letters": {"count": 7, "bytes": 2048},
        "totals": {"received": 10, "accepted": 9, "delivered": 8, "quarantined": 1},
    } | changed


def lane(**changed: Any) -> dict[str, Any]:
    return {
        "name": "default",
        "endpoint": "https://example.test",
        "state": "ok",
        "reason": None,
        "detail": "",
        "in_flight": 1,
        "delivered": 8000,
        "next_attempt_seconds": None,
    } | changed


class Proxy:
    """An admin listener that says what a test puts here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (self.port,) = free_ports(1)
        self.status = document()
        self.not_ready: str | None = None
        self.result: dict[str, object] = {}

    async def reload(self) -> dict[str, object]:
        return self.result

    async def run(self, *arguments: str) -> Result:
        config = self.folder / "config.toml"
        command = [*arguments, "--config", str(config)]
        return await asyncio.to_thread(CliRunner().invoke, main, command)


@pytest.fixture
async def proxy(tmp_path: Path):
    found = Proxy(tmp_path)
    (tmp_path / "config.toml").write_text(f'[admin]\nport = {found.port}\ntoken = "{TOKEN}"\n')
    app = AdminApp(
        Admin(token=TOKEN),
        Metrics(),
        status=lambda: found.status,
        not_ready=lambda: found.not_ready,
        reload=found.reload,
        live=LiveFeed(lambda _: lambda: None, now=lambda: 0),
        desk=None,  # type: ignore[arg-type] - asked for nothing here
    )
    runner = web.AppRunner(app.application())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", found.port).start()
    yield found
    await runner.cleanup()


async def test_status_says_everything_on_one_screen(proxy: Proxy):
    result = await proxy.run("status")
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    for said in (
        "edgeproxy 1.2.3 on 127.0.0.1",
        "mapping revision 2026-11",
        "Accepting yes",
        "1,234 events, the oldest 1 h 2 min old",
        "0%, 3.0 MiB of 1.0 GiB",
        "7 events, 2.0 KiB: edgeproxy deadletters list",
        "ok → https://example.test (8,000 delivered, 1 in flight)",
        "parked",
        "Hightouch does not accept the write key (http_401)",
        "Next attempt in 12 s",
        "What to do: Copy the write key",
        "10 received · 9 accepted",
    ):
        assert said in text
    assert len(result.output.splitlines()) <= 24
    assert all(len(line) <= 100 for line in result.output.splitlines())


async def test_what_a_server_answered_cannot_steer_the_terminal(proxy: Proxy):
    result = await proxy.run("status")
    assert "no [2Jkey" in result.output
    assert "\x1b" not in result.output


async def test_status_says_why_events_are_not_accepted(proxy: Proxy):
    proxy.not_ready = "the disk is full"
    result = await proxy.run("status")
    assert re.search(r"Accepting +NO: the disk is full", result.output)


async def test_status_as_json_is_what_the_listener_says(proxy: Proxy):
    result = await proxy.run("status", "--json")
    found = json.loads(result.output)
    assert found["lanes"][0]["reason"] is None
    assert found["lanes"][1]["remedy"].startswith("Copy the write key")
    assert found["not_ready"] is None
    assert found["totals"] == proxy.status["totals"]


def test_times_and_when_the_disk_is_full_are_said_where_they_are_known():
    times = {
        "answer": {"p50": 0.00042, "p99": 0.0123},
        "commit": {"p50": 0.0021, "p99": 0.25},
        "delivery": {"p50": None, "p99": None},
    }
    found = document(times=times, full_in_seconds=7500.0, lanes=[])
    text = " ".join(" ".join(map(click.unstyle, screen(found, "here:1"))).split())
    assert "Last 5 min answer 0.42 ms (p99 12 ms) · commit 2.1 ms (p99 0.2 s) Since" in text
    assert "of 1.0 GiB, full in 2 h 5 min" in text
    full = document(full_in_seconds=0.0, not_ready="the buffer is full", lanes=[])
    assert "full in" not in "\n".join(screen(full, "here:1"))
    assert "Last 5 min" not in "\n".join(screen(full, "here:1"))


def test_watching_shows_rates():
    found = document(lanes=[])
    lines = "\n".join(map(click.unstyle, screen(found, "here:1", {"accepted": 12.25})))
    assert "12.2 accepted/s" in lines


async def test_a_proxy_that_does_not_run_is_exit_code_1_and_says_where_it_was_looked_for(
    proxy: Proxy,
):
    (port,) = free_ports(1)
    (proxy.folder / "config.toml").write_text(f"[admin]\nport = {port}\n")
    for command in ("status", "reload", "tail"):
        result = await proxy.run(command)
        assert result.exit_code == 1, command
        assert f"No proxy answers on 127.0.0.1:{port} (Connection refused)" in result.output
        assert "config.toml" in result.output


async def test_a_proxy_of_another_token_is_named(proxy: Proxy):
    config = proxy.folder / "config.toml"
    config.write_text(f'[admin]\nport = {proxy.port}\ntoken = "another"\n')
    result = await proxy.run("status")
    assert result.exit_code == 1
    assert "does not accept the token" in result.output


async def test_something_else_that_answers_is_named(tmp_path: Path, proxy: Proxy):
    server = await asyncio.start_server(
        lambda _, writer: (writer.write(b"SSH-2.0-x\r\n\r\n"), writer.close()), "127.0.0.1", 0
    )
    port = server.sockets[0].getsockname()[1]
    (tmp_path / "config.toml").write_text(f"[admin]\nport = {port}\n")
    result = await proxy.run("status")
    server.close()
    assert result.exit_code == 1
    assert "is not this version of edgeproxy's admin listener" in result.output


async def test_mistakes_elsewhere_in_the_file_do_not_hide_the_state(proxy: Proxy):
    config = proxy.folder / "config.toml"
    config.write_text(config.read_text() + "[flush]\nmax_events = 0\n[nonsense]\n")
    assert (await proxy.run("status")).exit_code == 0


async def test_a_wrong_admin_table_is_exit_code_78(proxy: Proxy):
    (proxy.folder / "config.toml").write_text("[admin]\nport = 99999999\n")
    result = await proxy.run("status")
    assert result.exit_code == 78
    assert "[admin] port: 99999999 is not between" in result.output


async def test_an_instance_is_found_by_its_number(proxy: Proxy):
    config = proxy.folder / "config.toml"
    config.write_text(f'[admin]\nport = {proxy.port - 2}\ntoken = "{TOKEN}"\n')
    assert (await proxy.run("status", "--instance", "3")).exit_code == 0
    assert (await proxy.run("status", "--instance", "2")).exit_code == 1


async def test_reload_says_what_was_applied_and_what_needs_a_restart(proxy: Proxy):
    proxy.result = {
        "applied": True,
        "path": "/etc/edgeproxy/config.toml",
        "mapping_revision": "2026-12",
        "needs_restart": ["server.port"],
    }
    result = await proxy.run("reload")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "Applied: /etc/edgeproxy/config.toml (mapping revision 2026-12)",
        "Needs a restart, still as it was: [server] port",
    ]


async def test_a_refused_reload_is_exit_code_78_and_a_line_for_each_mistake(proxy: Proxy):
    proxy.result = {"applied": False, "mistakes": ["config.toml: [flush] a", "config.toml: b"]}
    result = await proxy.run("reload")
    assert result.exit_code == 78
    assert result.stderr.splitlines()[:2] == ["config.toml: [flush] a", "config.toml: b"]
    assert "goes on with the configuration that it has" in result.stderr
    result = await proxy.run("reload", "--json")
    assert result.exit_code == 78
    assert json.loads(result.stdout) == proxy.result


@pytest.mark.parametrize(
    ("option", "word", "known"),
    [
        ("--verdict", "bogus", "too_old"),
        ("--verdict", "Accepted", "duplicate"),
        ("--type", "x", "track"),
    ],
)
def test_a_word_that_no_event_has_is_not_waited_for(option: str, word: str, known: str):
    result = CliRunner().invoke(main, ["tail", option, word])
    assert result.exit_code == 2
    assert known in result.output


async def test_a_refusal_of_another_server_ends_with_one_full_stop():
    async with Sandbox("key").serve() as url:
        client = AdminClient(Admin(port=int(url.rpartition(":")[2])), "config.toml")
        with pytest.raises(click.ClickException) as raised:
            await asyncio.to_thread(client.post, "/nothing")
    assert raised.value.message.endswith("refused: There is nothing at this path.")

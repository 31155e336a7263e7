"""The operator's commands against a real proxy, as an operator runs them."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import socket
import sys
import time
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.e2e.processes import environment
from tests.e2e.stage import KEY, Stage, open_stage


class Commands:
    """Runs `edgeproxy` with the configuration of a stage."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "config.toml"

    async def __call__(self, *arguments: str, expect: int = 0) -> str:
        """What it prints; what it says on standard error comes last."""
        output, errors = await self._finished(arguments, expect)
        return output + errors

    async def json(self, *arguments: str, expect: int = 0) -> list[dict[str, Any]]:
        output, _ = await self._finished((*arguments, "--json"), expect)
        return [json.loads(line) for line in output.splitlines()]

    async def _finished(self, arguments: tuple[str, ...], expect: int) -> tuple[str, str]:
        async with self.started(*arguments) as process:
            output, errors = await asyncio.wait_for(process.communicate(), 40)
        assert process.returncode == expect, errors.decode()
        return output.decode(), errors.decode()

    @asynccontextmanager
    async def started(self, *arguments: str):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "edgeproxy", *arguments, "--config", str(self.config)),
            env=environment() | {"COLUMNS": "100"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    def change(self, old: str, new: str) -> None:
        text = self.config.read_text()
        assert old in text
        self.config.write_text(text.replace(old, new))


@pytest.fixture
def edgeproxy(tmp_path: Path) -> Commands:
    return Commands(tmp_path)


def event(number: int, **more: object) -> dict[str, object]:
    return {
        "type": "track",
        "event": "Ping",
        "messageId": f"m{number}",
        "anonymousId": f"user-{number % 3}",
    } | more


async def send(stage: Stage, *events: dict[str, object]) -> dict[str, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{stage.url}/v1/batch", json={"batch": events, "writeKey": KEY}) as answer,
    ):
        assert answer.status == 200
        return await answer.json()


async def test_status_and_reload_speak_to_the_proxy_of_the_configuration(
    stage: Stage, edgeproxy: Commands
):
    assert "Accepting      yes" in await edgeproxy("status")
    edgeproxy.change("interval = '50ms'", "interval = '60ms'")
    assert "Applied: " in await edgeproxy("reload")
    edgeproxy.change("interval = '60ms'", "interval = '60 parsecs'")
    output = await edgeproxy("reload", expect=78)
    assert "[flush] interval" in output
    assert "goes on with the configuration that it has" in output
    assert "Accepting      yes" in await edgeproxy("status")
    edgeproxy.change("interval = '60 parsecs'", "interval = '1s'")
    edgeproxy.change("[buffer]", "[buffer]\nmax_size = '2GiB'")
    for _ in range(2):  # it says so until it was restarted
        (result,) = await edgeproxy.json("reload")
        assert result["needs_restart"] == ["buffer.max_size"]
    (status,) = await edgeproxy.json("status")
    assert status["buffer"]["max_bytes"] == 2**30


async def first_line(stage: Stage, tail: asyncio.subprocess.Process) -> dict[str, Any]:
    """Send events until the first is shown: a bad one with each good one."""
    assert tail.stdout is not None
    reading = asyncio.create_task(tail.stdout.readline())
    number = 0
    while not reading.done():  # another process: there is nothing to wait on
        await send(stage, event(number), {"type": "track", "messageId": f"bad{number}"})
        number += 1
        await asyncio.wait([reading], timeout=0.2)
    return json.loads(reading.result())


async def test_systemd_hears_of_a_reload_by_command(
    tmp_path: Path, edgeproxy: Commands, monkeypatch: pytest.MonkeyPatch
):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        async with open_stage(tmp_path, {}):
            assert systemd.recv(4096).startswith(b"READY=1")
            edgeproxy.change("[buffer]", "[log]\nlevel = 'error'\n[buffer]")
            (result,) = await edgeproxy.json("reload")
            assert result["needs_restart"] == []
            assert systemd.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert systemd.recv(4096).startswith(b"READY=1")


async def test_tail_shows_events_as_they_pass(stage: Stage, edgeproxy: Commands):
    async with edgeproxy.started("tail", "--json") as process:
        first = await first_line(stage, process)
        second = json.loads(await process.stdout.readline())
        process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.wait(), 10)
    assert process.returncode == 0
    assert (first["verdict"], first["event"], first["source"]) == ("accepted", "Ping", "site")
    assert first["user"].startswith("~")
    assert first["body"]["anonymousId"] == "text"
    assert (second["verdict"], second["code"]) == ("quarantined", "missing_identity")


async def test_whoever_watches_does_not_hold_up_the_end_of_the_proxy(
    tmp_path: Path, edgeproxy: Commands
):
    async with AsyncExitStack() as stack:
        async with open_stage(tmp_path, {}) as stage:
            tail = await stack.enter_async_context(edgeproxy.started("tail", "--json"))
            await first_line(stage, tail)
            began = time.monotonic()
        assert time.monotonic() - began < 5
        await asyncio.wait_for(tail.wait(), 10)
    assert tail.returncode == 1


def nameless(number: int, **more: object) -> dict[str, object]:
    """A track event without a name: a dead letter until a mapping gives it one."""
    return {
        "type": "track",
        "messageId": f"m{number}",
        "anonymousId": f"user-{number % 3}",
        "properties": {"title": "Ping", "price": 1.5},
    } | more


NAMED = '[mapping.default]\nevent = "properties.title"\n'


async def test_dead_letters_are_listed_shown_and_exported(stage: Stage, edgeproxy: Commands):
    assert "No dead letters." in await edgeproxy("deadletters", "list")
    await send(stage, nameless(1), nameless(2), {"type": "track\x1b[2J", "messageId": "m3"})
    listed = await edgeproxy.json("deadletters", "list")
    assert [letter["messageId"] for letter in listed] == ["m3", "m2", "m1"]
    assert "body" not in listed[0]
    table = await edgeproxy("deadletters", "list", "--limit", "1")
    assert "1 of 3 dead letters: 2 missing_event, 1 unknown_type" in table
    assert "\x1b[2J" not in table
    for wanted, ids in (
        (("--code", "missing_event"), {"m1", "m2"}),
        (("--user", "user-1"), {"m1"}),
        (("--source", "elsewhere"), set()),
        (("--since", "2h"), {"m1", "m2", "m3"}),
        (("--since", "2100-01-01"), set()),
        (("--id", "m2", "--code", "missing_event"), {"m2"}),
        (("--id", str(listed[0]["id"])), {"m3"}),
    ):
        found = await edgeproxy.json("deadletters", "list", *wanted)
        assert {letter["messageId"] for letter in found} == ids
    shown = await edgeproxy("deadletters", "show", "m1")
    assert "a track event needs `event`" in shown
    assert '"price": 1.5' in shown
    raw = await edgeproxy("deadletters", "show", "m1", "--raw")
    assert json.loads(raw) == nameless(1)
    assert "There is no dead letter m9" in await edgeproxy("deadletters", "show", "m9", expect=1)
    exported = await edgeproxy("deadletters", "export", "--code", "missing_event", "--events")
    assert [json.loads(line) for line in exported.splitlines()] == [nameless(1), nameless(2)]
    whole = [json.loads(line) for line in (await edgeproxy("deadletters", "export")).splitlines()]
    assert json.loads(whole[0]["body"]) == nameless(1)
    assert whole[0]["receipt"]["received"] == whole[0]["receivedAt"]
    assert "neither a duration" in await edgeproxy(
        "deadletters", "list", "--since", "yesterday", expect=2
    )


async def test_a_dead_letter_with_a_broken_name_is_listed_with_the_others(
    stage: Stage, edgeproxy: Commands
):
    broken = b'{"type":"track","event":"\xff","anonymousId":"a"}'
    body = b'{"writeKey":"%b","batch":[%b]}' % (KEY.encode(), broken)
    await send(stage, nameless(1))
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{stage.url}/v1/batch", data=body) as answer,
    ):
        (refused,) = (await answer.json())["rejected"]
        assert refused["code"] == "invalid_event"
    await send(stage, nameless(2))
    listed = await edgeproxy.json("deadletters", "list")
    assert [letter["event"] for letter in listed] == ["", "", ""]
    exported = [json.loads(row) for row in (await edgeproxy("deadletters", "export")).splitlines()]
    assert base64.b64decode(exported[1]["bodyBase64"]) == broken
    assert "invalid_event" in await edgeproxy("deadletters", "show", str(listed[1]["id"]))


async def test_a_corrected_mapping_and_a_replay_send_what_was_refused(
    stage: Stage, edgeproxy: Commands
):
    await send(stage, *(nameless(number) for number in range(5)), nameless(5, anonymousId=""))
    assert stage.arrivals == {}
    (refused,) = await edgeproxy.json("deadletters", "replay", "--yes")
    assert refused["replayed"] == 0
    assert refused["refused"] == {"missing_event": 5, "missing_identity": 1}
    edgeproxy.config.write_text(edgeproxy.config.read_text() + NAMED)
    await edgeproxy("reload")
    output = await edgeproxy("deadletters", "replay", "--user", "user-1", "--yes")
    assert "Replayed 2 events." in output
    output = await edgeproxy("deadletters", "replay", "--yes")
    assert "Replayed 3 events." in output
    assert "kept with the new reason: 1 missing_identity" in output
    await stage.until(lambda: len(stage.arrivals) == 5, "the replayed events")
    assert set(stage.arrivals) == {f"m{number}" for number in range(5)}
    assert all(json.loads(a.event)["event"] == "Ping" for a in stage.arrivals.values())
    (left,) = await edgeproxy.json("deadletters", "list")
    assert (left["messageId"], left["code"]) == ("m5", "missing_identity")


async def test_a_replay_asks_first(stage: Stage, edgeproxy: Commands):
    await send(stage, nameless(1))
    for command in ("replay", "purge"):
        output = await edgeproxy("deadletters", command, expect=1)
        assert "1 dead letter (1 missing_event)?" in output
    assert len(await edgeproxy.json("deadletters", "list")) == 1


async def test_purged_dead_letters_are_gone_and_counted(stage: Stage, edgeproxy: Commands):
    await send(stage, *(nameless(number) for number in range(6)))
    output = await edgeproxy("deadletters", "purge", "--user", "user-2", "--yes")
    assert "Removed 2 dead letters." in output
    (status,) = await edgeproxy.json("status")
    assert status["dead_letters"]["count"] == 4
    assert status["totals"]["purged"] == 2


async def test_a_stopped_proxys_dead_letters_are_worked_on_in_its_files(
    tmp_path: Path, edgeproxy: Commands
):
    async with open_stage(tmp_path, {}) as stage:
        await send(stage, *(nameless(number) for number in range(700)))
    assert len(await edgeproxy.json("deadletters", "list", "--limit", "0")) == 700
    assert "Removed 1 dead letter." in await edgeproxy(
        "deadletters", "purge", "--id", "m0", "--yes"
    )
    edgeproxy.config.write_text(edgeproxy.config.read_text() + NAMED)
    (report,) = await edgeproxy.json("deadletters", "replay", "--yes")
    assert report == {
        "replayed": 699,
        "total": 699,
        "refused": {},
        "filtered": 0,
        "not_kept": 0,
        "stopped": None,
    }
    async with open_stage(tmp_path, {}) as stage:
        await stage.until(lambda: len(stage.arrivals) == 699, "the replayed events")
    assert len(stage.sandbox.events) == 699


async def test_a_running_proxys_buffer_is_left_alone(stage: Stage, edgeproxy: Commands):
    began = time.monotonic()
    output = await edgeproxy("buffer", "stats", expect=1)
    assert "held by another process" in output
    assert time.monotonic() - began < 14


async def test_what_a_stopped_proxy_holds_can_be_exported_and_sent_again(
    tmp_path: Path, edgeproxy: Commands
):
    nowhere = {"hightouch": {"endpoint": "http://127.0.0.1:9"}}
    async with open_stage(tmp_path, nowhere) as stage:
        await send(stage, *(event(number) for number in range(30)))
    (stats,) = await edgeproxy.json("buffer", "stats")
    assert [(lane["name"], lane["events"]) for lane in stats["lanes"]] == [("site", 30)]
    assert "Every page and every checksum is right." in await edgeproxy("buffer", "check")
    exported = tmp_path / "events.ndjson"
    exported.write_text(await edgeproxy("buffer", "export"))
    removed = await edgeproxy("buffer", "purge", "--source", "site", "--yes")
    assert "Removed 30 events" in removed
    async with open_stage(tmp_path, {}) as stage:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "edgeproxy", "load", stage.url, "--write-key", KEY),
            *("--file", str(exported), "--json"),
            env=environment(),
            stdout=asyncio.subprocess.PIPE,
        )
        await asyncio.wait_for(process.communicate(), 40)
        assert process.returncode == 0
        await stage.until(lambda: len(stage.arrivals) == 30, "the exported events")
        assert set(stage.arrivals) == {f"m{number}" for number in range(30)}

"""`edgeproxy buffer` on real folders: sound, damaged, held, missing."""

import asyncio
import fcntl
import json
import os
from pathlib import Path
from typing import Any

import apsw
import pytest
from click.testing import CliRunner, Result

from edgeproxy.buffer.base import DeadLetter
from edgeproxy.buffer.database import DATABASE, PAGE, connect
from edgeproxy.buffer.sqlite import SqliteBuffer
from edgeproxy.cli import main, stopped
from edgeproxy.events.intake import Sealed

RECEIVED = 1_700_000_000_000


def body(number: int) -> bytes:
    text = {"type": "track", "event": "Ping", "messageId": f"m{number}", "n": 1.5}
    return json.dumps(text | {"anonymousId": f"user-{number % 10}", "pad": "x" * 200}).encode()


def sealed(number: int) -> Sealed:
    return Sealed(body(number), number % 10, f"m{number}", "track", -5 if number else None, 0)


def letter(number: int) -> DeadLetter:
    return DeadLetter(
        "site", "missing_event", "no name", "received", RECEIVED, RECEIVED, body(number)
    )


class Folder:
    """A stopped proxy's buffer, with the configuration that names it."""

    def __init__(self, tmp_path: Path) -> None:
        self.path = tmp_path / "data"
        self.database = self.path / DATABASE
        self.config = tmp_path / "config.toml"
        self.config.write_text(f'[buffer]\npath = "{self.path}"\n')

    def fill(self, events: int = 1000, letters: int = 20, source: str = "site") -> None:
        async def fill() -> None:
            buffer = await SqliteBuffer.open(self.path, max_size=2**30)
            for first in range(0, events, 100):
                some = [sealed(number) for number in range(first, min(first + 100, events))]
                await buffer.append(source, RECEIVED, some)
            if letters:
                await buffer.append(source, RECEIVED, [], [letter(n) for n in range(letters)])
            await buffer.close()

        asyncio.run(fill())

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, ["buffer", *arguments, "--config", str(self.config)])

    def json(self, *arguments: str, code: int = 0) -> Any:
        result = self.run(*arguments, "--json")
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)

    def spoil_event(self, number: int = 7) -> None:
        """Change an event without its checksum."""
        connection = connect(self.database)
        connection.execute(
            "update events set body = cast(replace(cast(body as text), 'Ping', 'Pong') as blob)"
            " where id in (select id from events limit 1 offset ?)",
            (number,),
        )
        connection.close()

    def spoil_page(self, number: int = 20) -> None:
        content = bytearray(self.database.read_bytes())
        content[(number - 1) * 16384 : number * 16384] = b"\xa5" * 16384
        self.database.write_bytes(content)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_stats_say_what_is_held(folder: Folder):
    folder.fill()
    folder.fill(events=3, letters=0, source="app")
    found = folder.json("stats")
    assert [(lane["name"], lane["events"]) for lane in found["lanes"]] == [
        ("site", 1000),
        ("app", 3),
    ]
    assert found["dead_letters"] == 20
    assert found["lanes"][0]["oldest"] == RECEIVED
    assert found["files"][DATABASE] == found["pages"] * 16384
    text = folder.run("stats").output
    assert "1,003 events" in text
    assert "site             1,000 events" in text
    assert "20 dead letters" in text


def test_a_sound_buffer_passes_the_check_and_is_not_changed(folder: Folder):
    folder.fill()
    before = folder.database.read_bytes()
    found = folder.json("check")
    assert (found["ok"], found["events"], found["dead_letters"]) == (True, 1000, 20)
    assert "Every page and every checksum is right." in folder.run("check").output
    result = folder.run("repair", "--yes")
    assert result.exit_code == 0
    assert "nothing is damaged" in result.output
    assert folder.database.read_bytes() == before


def test_the_check_finds_an_event_that_is_not_what_was_stored(folder: Folder):
    folder.fill()
    folder.spoil_event()
    found = folder.json("check", code=1)
    (damage,) = found["damage"]
    assert damage.endswith("of site is not what was stored")
    result = folder.run("check")
    assert result.exit_code == 1
    assert "edgeproxy buffer repair" in result.output


def test_the_check_finds_a_damaged_page(folder: Folder):
    folder.fill()
    folder.spoil_page()
    found = folder.json("check", code=1)
    assert not found["ok"]


@pytest.mark.parametrize("command", ["check", "export"])
def test_pages_that_stand_in_each_others_place_are_damage_and_have_an_end(
    folder: Folder, command: str
):
    folder.fill(letters=0)
    data = folder.database.read_bytes()
    pages = [data[at : at + PAGE] for at in range(0, len(data), PAGE)]
    leaves = [n for n, page in enumerate(pages) if page[0] == 0x0D and b'"Ping"' in page]
    first, last = leaves[0], leaves[-1]
    pages[first], pages[last] = pages[last], pages[first]
    folder.database.write_bytes(b"".join(pages))
    result = folder.run(command)
    assert result.exit_code == 1
    assert result.output.count('"messageId"') <= 1000


@pytest.mark.parametrize("content", [b"", b"not a database" * 100])
def test_the_check_finds_what_is_no_database_at_all(folder: Folder, content: bytes):
    folder.fill()
    folder.database.write_bytes(content)
    if content:
        result = folder.run("check")
        assert result.exit_code == 1
    else:
        assert folder.json("check", code=1)["damage"] == [f"{DATABASE}: the database is empty"]


def test_the_check_compares_the_counters(folder: Folder):
    folder.fill()
    connection = connect(folder.database)
    connection.execute("update lanes set events = 999")
    connection.close()
    assert folder.json("check", code=1)["damage"] == [
        "site has 1000 events, and its counter says 999"
    ]


def test_a_repair_salvages_what_can_be_read_and_lists_the_rest(folder: Folder):
    folder.fill()
    folder.spoil_event()
    folder.spoil_page()
    done = folder.json("repair", "--yes")
    kept = done["lanes"]["site"]
    assert done["repaired"]
    assert 800 < kept < 1000
    assert [event["lane"] for event in done["damaged"]] == ["site"]
    assert done["lost"] == {"site": 1000 - kept - 1}
    aside = done["set_aside"][0]
    assert (folder.path / aside).exists()
    found = folder.json("check")
    assert found["events"] == kept
    assert folder.json("stats")["dead_letters"] == 21
    ids = [json.loads(line)["messageId"] for line in folder.run("export").stdout.splitlines()]
    assert len(ids) == len(set(ids)) == kept


def test_a_repaired_buffer_serves_on(folder: Folder):
    folder.fill(letters=0)
    folder.spoil_page()
    kept = folder.json("repair", "--yes")["lanes"]["site"]
    folder.fill(events=10, letters=0)
    assert folder.json("check")["events"] == kept + 10


def test_a_repair_asks_first(folder: Folder):
    folder.fill()
    folder.spoil_page()
    before = folder.database.read_bytes()
    assert folder.run("repair").exit_code == 1
    assert folder.database.read_bytes() == before


def test_an_export_can_be_sent_again(folder: Folder):
    folder.fill(events=12)
    result = folder.run("export")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [json.loads(line)["messageId"] for line in lines] == [f"m{n}" for n in range(12)]
    assert "sentAt" not in json.loads(lines[0])
    assert lines[1].startswith('{"sentAt":"2023-11-14T22:13:19.995Z",')
    assert folder.json("stats")["lanes"][0]["events"] == 12
    ids = [
        json.loads(line)["messageId"]
        for line in folder.run("export", "--user", "user-1").stdout.splitlines()
    ]
    assert ids == ["m1", "m11"]
    assert folder.run("export", "--source", "app").stdout == ""


def test_an_export_leaves_out_what_is_damaged_and_says_so(folder: Folder):
    folder.fill(events=12)
    folder.spoil_event()
    result = folder.run("export")
    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == 11
    assert "1 event could not be read" in result.stderr


def test_a_user_is_erased_with_their_dead_letters_and_nothing_is_left_in_the_file(folder: Folder):
    folder.fill()
    done = folder.json("purge", "--user", "user-3", "--yes")
    assert (done["events"], done["dead_letters"]) == (100, 2)
    assert folder.json("check")["events"] == 900
    for path in folder.path.iterdir():
        assert b"user-3" not in path.read_bytes(), path
    assert any(b"user-4" in path.read_bytes() for path in folder.path.iterdir())


def test_files_that_were_set_aside_are_named_in_an_erasure(folder: Folder):
    folder.fill()
    folder.spoil_page()
    folder.json("repair", "--yes")
    result = folder.run("purge", "--user", "user-3", "--yes")
    assert f"delete it by hand: {folder.path / DATABASE}.damaged-" in result.output


def test_a_sources_events_are_purged_and_others_stay(folder: Folder):
    folder.fill(events=50)
    folder.fill(events=30, letters=0, source="app")
    done = folder.json("purge", "--source", "app", "--yes")
    assert (done["events"], done["dead_letters"]) == (30, 0)
    assert folder.json("check")["events"] == 50


def test_a_purge_asks_first_and_must_be_told_what(folder: Folder):
    folder.fill(events=50)
    assert folder.run("purge").exit_code == 2
    result = folder.run("purge", "--user", "user-3")
    assert result.exit_code == 1
    assert "Remove 5 events and dead letters of user user-3 for good?" in result.output
    assert folder.json("check")["events"] == 50


@pytest.mark.parametrize("command", ["stats", "check", "export", "repair", "purge"])
def test_a_buffer_that_is_held_is_left_alone(
    folder: Folder, command: str, monkeypatch: pytest.MonkeyPatch
):
    folder.fill(events=1)
    monkeypatch.setattr(stopped, "_PATIENCE", 1.2)
    more = ["--user", "u"] if command == "purge" else []
    with (folder.path / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = folder.run(command, *more)
    assert result.exit_code == 1
    assert "Waiting for the process that holds" in result.output
    assert "held by another process" in result.output
    assert "works on a stopped proxy" in result.output


@pytest.mark.parametrize("command", ["stats", "check", "export", "repair", "purge"])
def test_where_there_is_no_buffer_none_is_made(folder: Folder, command: str):
    more = ["--user", "u"] if command == "purge" else []
    result = folder.run(command, *more)
    assert result.exit_code == 1
    assert "There is no buffer in" in result.output
    assert not folder.path.exists()


def test_a_buffer_of_a_newer_version_is_left_alone(folder: Folder):
    folder.fill(events=1)
    connection = apsw.Connection(str(folder.database))
    connection.execute("pragma user_version = 99")
    connection.execute("update totals set value = 99 where name = 'schema'")
    connection.close()
    for command in ("stats", "check", "repair"):
        result = folder.run(command)
        assert result.exit_code == 1, command
        assert "newer edgeproxy" in result.output, command


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_makes_belongs_to_the_owner_of_the_folder(folder: Folder):
    folder.fill()
    folder.spoil_page()
    for path in (folder.path, *folder.path.iterdir()):
        os.chown(path, 12345, 12345)
    folder.json("repair", "--yes")
    folder.json("purge", "--user", "user-3", "--yes")
    assert {path.stat().st_uid for path in folder.path.iterdir()} == {12345}

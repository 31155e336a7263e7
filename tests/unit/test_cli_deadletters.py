"""`edgeproxy deadletters` on the files of a stopped proxy: what it prints, asks and refuses.

Against a running proxy: tests/e2e/test_commands.py.
"""

import asyncio
import fcntl
import json
import socket
import threading
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from edgeproxy.admin.deadletters import told
from edgeproxy.buffer.base import DeadLetter
from edgeproxy.buffer.deadletters import StoredDeadLetter
from edgeproxy.buffer.sqlite import SqliteBuffer
from edgeproxy.cli import main, stopped
from tests.e2e.processes import free_ports

DIED = 1_700_000_000_000


def letter(number: int, **changed: object) -> DeadLetter:
    event = {"type": "track", "messageId": f"m{number}", "userId": f"u{number % 2}", "n": 1.5}
    fields = {
        "lane": "site",
        "code": "missing_event",
        "message": "a track event needs `event`",
        "form": "received",
        "received": DIED,
        "died": DIED,
        "body": json.dumps(event).encode(),
        "message_id": f"m{number}",
        "revision": "2026-11",
        "receipt": b'{"received":1700000000000}',
    }
    return DeadLetter(**(fields | changed))  # type: ignore[arg-type]


def stored() -> StoredDeadLetter:
    return StoredDeadLetter(1, letter(1, receipt=b""), intact=True)


class Folder:
    """A stopped proxy."""

    def __init__(self, tmp_path: Path) -> None:
        self.path = tmp_path / "data"
        self.config = tmp_path / "config.toml"
        (self.port,) = free_ports(1)
        self.config.write_text(f'[admin]\nport = {self.port}\n[buffer]\npath = "{self.path}"\n')

    def fill(self, *letters: DeadLetter) -> None:
        async def fill() -> None:
            buffer = await SqliteBuffer.open(self.path, max_size=2**30)
            await buffer.append("site", DIED, [], letters)
            await buffer.close()

        asyncio.run(fill())

    def run(self, *arguments: str, typed: str | None = None) -> Result:
        command = ["deadletters", *arguments, "--config", str(self.config)]
        return CliRunner().invoke(main, command, input=typed)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_the_table_says_when_why_and_what(folder: Folder):
    folder.fill(letter(1), letter(2, code="too_old", message="old\x1b[31m"))
    lines = folder.run("list").output.splitlines()
    assert lines[0].split() == ["ID", "DIED", "CODE", "SOURCE", "TYPE", "EVENT", "MESSAGE"]
    assert lines[1].split()[:6] == ["2", "2023-11-14", "22:13:20Z", "too_old", "site", "track"]
    assert "\x1b" not in lines[1]
    assert lines[-1] == "2 of 2 dead letters: 1 missing_event, 1 too_old"


def test_one_is_shown_with_all_that_is_known(folder: Folder):
    folder.fill(
        letter(1),
        letter(
            2,
            form="sent",
            code="rejected_upstream",
            status=422,
            answer="no\x1b[2J thanks",
            body=b'{"a":"\xc3\xa9","n":1.10}',
            receipt=b"",
        ),
        letter(3, body=b"\xff\x00 not JSON"),
        letter(4, body=b""),
    )
    text = folder.run("show", "2").output
    assert "answer       422 no·[2J thanks" in text
    assert "as it was sent" in text
    assert '"n": 1.10' in text
    assert "request " not in text
    assert 'request      {"received":1700000000000}' in folder.run("show", "m1").output
    assert "\\xff" in folder.run("show", "m3").output
    assert 'keep = "metadata"' in folder.run("show", "m4").output
    assert folder.run("show", "m3", "--raw").stdout_bytes == b"\xff\x00 not JSON"
    found = json.loads(folder.run("show", "m3", "--json").stdout)
    assert found["bodyBase64"] == "/wAgbm90IEpTT04="


@pytest.mark.parametrize(
    ("chosen", "ids"),
    [
        (("--code", "too_old"), ["2"]),
        (("--source", "site"), ["3", "2", "1"]),
        (("--source", "elsewhere"), []),
        (("--since", "2100-01-01"), []),
        (("--user", "u1"), ["3", "1"]),
        (("--user", "u1", "--id", "m3"), ["3"]),
        (("m3", "--code", "too_old"), []),
        (("m3", "--id", "m3"), ["3"]),
        ((), ["3", "2", "1"]),
    ],
)
def test_those_that_fit_are_shown(folder: Folder, chosen: tuple[str, ...], ids: list[str]):
    folder.fill(letter(1), letter(2, code="too_old"), letter(3))
    result = folder.run("show", *chosen, "--json")
    assert result.exit_code == (0 if ids else 1), result.output
    assert [str(json.loads(line)["id"]) for line in result.stdout.splitlines()] == ids
    assert ids or "There is no dead letter that fits." in result.stderr


def test_only_the_newest_are_shown_whole_and_that_is_said(folder: Folder):
    folder.fill(*(letter(number) for number in range(1, 13)))
    result = folder.run("show", "--json")
    assert len(result.stdout.splitlines()) == 10
    assert "only the newest 10 are shown" in result.stderr
    assert folder.run("show", "m1", "--id", "m2").exit_code == 2


def test_an_export_of_events_leaves_out_what_cannot_be_sent_and_says_so(folder: Folder):
    sent = letter(2, form="sent", skew=-5000, body=b'{"type": "page",\n "n":1.10}')
    folder.fill(letter(1), sent, letter(3, body=b"[1,"), letter(4, body=b""))
    result = folder.run("export", "--events")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert json.loads(lines[0])["messageId"] == "m1"
    assert lines[1] == '{"sentAt":"2023-11-14T22:13:15.000Z","type":"page","n":1.10}'
    assert len(lines) == 2
    assert "2 events left out" in result.stderr


def test_an_event_with_a_broken_name_hides_no_other_one(folder: Folder):
    broken = b'{"type":"track","event":"\xff","name":"\xff","anonymousId":"a"}'
    folder.fill(letter(1), letter(2, body=broken, code="invalid_event"), letter(3))
    listed = folder.run("list", "--json")
    assert listed.exit_code == 0
    assert [json.loads(line)["id"] for line in listed.stdout.splitlines()] == [3, 2, 1]
    exported = [json.loads(line) for line in folder.run("export").stdout.splitlines()]
    assert [found["id"] for found in exported] == [1, 2, 3]
    assert (exported[1]["type"], exported[1]["event"]) == ("track", "")
    assert "3 of 3 dead letters" in folder.run("list").output
    assert folder.run("show", "2", "--raw").stdout_bytes == broken


@pytest.mark.parametrize("ending", [b"", b'11\r\n{"total":1}'])
def test_an_answer_that_breaks_off_is_no_success(folder: Folder, ending: bytes):
    line = msgspec.json.encode(told(stored(), bodies=True))

    def answer(listening: socket.socket) -> None:
        for body in (b"{}", None):
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                if body is not None:
                    connection.sendall(head + b"Content-Length: 2\r\n\r\n" + body)
                    continue
                chunk = b"%x\r\n%b\n\r\n" % (len(line) + 1, line)
                connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + ending)

    with socket.create_server(("127.0.0.1", folder.port)) as listening:
        proxy = threading.Thread(target=answer, args=(listening,))
        proxy.start()
        result = folder.run("export")
        proxy.join()
    assert result.stdout.count("\n") == 1
    assert result.exit_code == 1
    assert "broke off its answer" in result.stderr


def test_a_no_leaves_everything_as_it_was(folder: Folder):
    folder.fill(letter(1))
    result = folder.run("purge", typed="n\n")
    assert result.exit_code == 1
    assert "Remove for good 1 dead letter (1 missing_event)?" in result.output
    assert "Removed 1 dead letter." in folder.run("purge", typed="y\n").output
    assert "No dead letters." in folder.run("list").output


def test_nothing_that_fits_is_no_failure_and_asks_nothing(folder: Folder):
    folder.fill(letter(1))
    result = folder.run("purge", "--code", "too_old")
    assert (result.exit_code, result.output) == (0, "Removed 0 dead letters.\n")
    assert "No dead letters that fit." in folder.run("list", "--code", "too_old").output


def test_a_replay_on_files_judges_by_the_configuration(folder: Folder):
    folder.fill(letter(1), letter(2))
    result = folder.run("replay", "--yes")
    assert result.exit_code == 0
    assert "Replayed 0 events." in result.output
    assert "Refused again, and kept with the new reason: 2 missing_event." in result.output
    with folder.config.open("a") as config:
        config.write(
            '[mapping.default]\nevent = {value = "Ping"}\n[validation]\nmax_age = "9000d"\n'
        )
    assert "Replayed 2 events." in folder.run("replay", "--yes").output


def test_what_was_not_kept_cannot_be_replayed_and_keeps_its_reason(folder: Folder):
    folder.fill(letter(1, body=b"", message="a reason"))
    output = folder.run("replay", "--yes").output
    assert "1 dead letter that cannot be replayed: the body was not kept" in output
    assert "Refused" not in output
    assert "a reason" in folder.run("list").output


def test_a_replay_needs_a_right_configuration_and_the_rest_does_not(folder: Folder):
    folder.fill(letter(1))
    with folder.config.open("a") as config:
        config.write('[mapping.default]\nevent = {nonsense = "Ping"}\n')
    result = folder.run("replay", "--yes")
    assert result.exit_code == 78
    assert "[mapping.default] event" in result.output
    assert folder.run("list").exit_code == 0
    assert folder.run("purge", "--yes").exit_code == 0


def test_a_proxy_that_holds_the_files_but_does_not_answer_is_named(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
):
    folder.fill(letter(1))
    monkeypatch.setattr(stopped, "_PATIENCE", 0.3)
    with (folder.path / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = folder.run("list")
    assert result.exit_code == 1
    assert "held by another process" in result.output


@pytest.mark.parametrize(
    ("since", "code"),
    [("2h", 0), ("7d", 0), ("90", 0), ("2023-11-14", 0), ("2023-11-14T22:13:00Z", 0), ("soon", 2)],
)
def test_since_takes_durations_and_times(folder: Folder, since: str, code: int):
    folder.fill(letter(1))
    result = folder.run("list", "--since", since)
    assert result.exit_code == code, result.output

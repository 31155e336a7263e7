"""What the buffer on disk promises beyond the verbs: syncs, space, limits, who may open it."""

import asyncio
import os
import shutil
import subprocess
import sys
import textwrap
import time
from contextlib import suppress

import apsw
import pytest

from edgeproxy.buffer import aside, database, folder
from edgeproxy.buffer.base import (
    BufferFaultError,
    BufferFullError,
    BufferHeldError,
    BufferUnusableError,
)
from edgeproxy.buffer.database import DATABASE, connect
from edgeproxy.buffer.deadletters import DeadLetterFilter, Replayed, count, iterate
from edgeproxy.buffer.rows import LANE_SHIFT, Numbered, insert, to_rows
from edgeproxy.buffer.sqlite import SqliteBuffer
from tests.buffers import event, letter, numbers

ALL = 10**9
MB = 10**6


async def opened(path, **limits):
    return await SqliteBuffer.open(path, **({"max_size": 2**30, "patience": 0.3} | limits))


async def drain(buffer, lane="shop"):
    while taken := buffer.claim(lane, 500, ALL):
        await buffer.ack(lane, taken)


# --- durability -----------------------------------------------------------------------------------

_APPENDING = """
    import asyncio, os, sys
    from pathlib import Path
    from edgeproxy.buffer.sqlite import SqliteBuffer
    from tests.buffers import event

    async def main():
        buffer = await SqliteBuffer.open(Path(sys.argv[1]), max_size=2**30)
        for number in range(int(sys.argv[2])):
            os.write(2, b"appending\\n")
            together = [buffer.append("shop", 1, [event(n, number)]) for n in range(20)]
            await asyncio.gather(*together)
            os.write(2, b"durable\\n")
        os.write(2, b"done\\n")
        os._exit(0)

    asyncio.run(main())
"""


@pytest.mark.skipif(
    shutil.which("strace") is None and not os.environ.get("CI"), reason="needs strace"
)
def test_twenty_appends_share_one_sync_and_none_is_done_before_it(tmp_path):
    trace = tmp_path / "trace"
    command = [sys.executable, "-c", textwrap.dedent(_APPENDING), tmp_path / "buffer", "10"]
    strace = ["strace", "-f", "-qq", "-y", "-e", "trace=write,fsync,fdatasync", "-o", trace]
    subprocess.run([*strace, *command], check=True, stderr=subprocess.DEVNULL, timeout=50)
    lines = trace.read_text().split('"appending\\n"')[1:]
    assert len(lines) == 10
    for line in lines[1:]:  # the first one begins the WAL, too
        before_durable = line.split('"durable\\n"')[0]
        syncs = [one for one in before_durable.splitlines() if "sync(" in one and "-wal>" in one]
        assert len(syncs) == 1, before_durable


# --- size of the backlog --------------------------------------------------------------------------


async def test_opening_takes_no_longer_with_many_events(tmp_path):
    buffer = await opened(tmp_path)
    await buffer.append("shop", 1, [event(1)])
    await buffer.close()
    connection = connect(tmp_path / DATABASE)
    with connection:
        many = [event(user % 1000, user) for user in range(200_000)]
        insert(connection, to_rows([Numbered("shop", (1 << LANE_SHIFT) + 2, 1, many, 0)]))
        connection.execute("update lanes set next_sequence = 200002, events = 200001")
    connection.close()
    started = time.perf_counter()
    buffer = await opened(tmp_path)
    seconds = time.perf_counter() - started
    assert buffer.stats().events == 200_001
    assert len(buffer.claim("shop", 500, ALL)) == 500
    await buffer.close()
    assert seconds < 0.5


async def test_space_comes_back_after_a_backlog_has_drained(tmp_path, monkeypatch):
    monkeypatch.setattr("edgeproxy.buffer.sqlite._TICK", 0.05)
    buffer = await opened(tmp_path)
    for number in range(40):
        events = [event(n, number, size=20_000) for n in range(25)]
        await buffer.append("shop", 1, events)
    file = tmp_path / DATABASE
    full = buffer.stats().bytes
    assert full > 20 * MB
    await drain(buffer)
    async with asyncio.timeout(20):
        while file.stat().st_size > 9 * MB or buffer.stats().bytes > MB:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    await buffer.close()


async def test_the_limit_counts_the_wal_and_not_the_free_pages(tmp_path):
    buffer = await opened(tmp_path, max_size=8 * MB)
    with suppress(BufferFullError):
        while True:
            await buffer.append("shop", 1, [event(1, size=20_000)])
    held = buffer.stats().bytes
    assert 7.5 * MB < held <= 8.1 * MB
    connection = buffer.reading()
    pages, free = connection.pragma("page_count"), connection.pragma("freelist_count")
    connection.close()
    wal = (tmp_path / (DATABASE + "-wal")).stat().st_size
    assert held == (pages - free) * database.PAGE + wal
    await buffer.close()


async def test_what_the_disk_could_not_hold_twice_is_refused_and_smaller_requests_are_not(
    tmp_path, monkeypatch
):
    buffer = await SqliteBuffer.open(tmp_path / "buffer", max_size=64 * 2**20)
    monkeypatch.setattr("edgeproxy.buffer.sqlite.free_bytes", lambda _: 7 * 2**20)
    large = [event(1, number, size=50_000) for number in range(40)]
    with pytest.raises(BufferFullError, match="disk full"):
        await buffer.append("shop", 1, large)
    await buffer.append("shop", 1, large[:4])
    assert buffer.stats().events == 4
    await buffer.close()


async def test_dead_letters_do_not_take_the_events_room(tmp_path):
    buffer = await opened(tmp_path, max_size=4 * MB)
    for _ in range(40):
        await buffer.append("shop", 1, [], [letter(body=b"x" * 200_000)])
    assert buffer.stats().dead_letter_bytes > 7 * MB
    async with asyncio.timeout(10):
        while buffer.full_reason() is not None:  # noqa: ASYNC110 - until the WAL is written back
            await asyncio.sleep(0.05)
    await buffer.append("shop", 1, [event(1)])
    await buffer.close()


# --- who may open it ------------------------------------------------------------------------------


async def test_a_second_process_waits_and_then_says_who_is_in_the_way(tmp_path):
    script = "import sys, time; sys.stdout.write('up'); sys.stdout.flush(); time.sleep(60)"
    holding = f"import fcntl; f = open({str(tmp_path / 'lock')!r}, 'w'); fcntl.flock(f, 2); "
    command = [sys.executable, "-c", holding + script]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as held:  # noqa: ASYNC220
        assert held.stdout.read(2) == b"up"
        started = time.monotonic()
        with pytest.raises(BufferHeldError, match="held by another process"):
            await opened(tmp_path, patience=0.6)
        assert time.monotonic() - started >= 0.6
        waiting = asyncio.create_task(opened(tmp_path, patience=20))
        await asyncio.sleep(0.2)
        held.kill()
        await (await waiting).close()


async def test_a_newer_schema_is_refused_and_left_alone(tmp_path):
    await (await opened(tmp_path)).close()
    connection = connect(tmp_path / DATABASE)
    connection.execute("pragma user_version = 7")
    connection.execute("update totals set value = 7 where name = 'schema'")
    connection.close()
    with pytest.raises(BufferUnusableError, match="newer edgeproxy"):
        await opened(tmp_path)
    assert aside.not_salvaged(tmp_path) == []


async def test_an_older_schema_is_migrated_with_everything_in_it(tmp_path, monkeypatch):
    buffer = await opened(tmp_path)
    await buffer.append("shop", 1, [event(1, 0), event(2, 1)])
    await buffer.close()

    def step(connection):
        connection.execute("create table added (x integer)")

    monkeypatch.setattr(database, "SCHEMA_VERSION", 2)
    monkeypatch.setitem(database._MIGRATIONS, 1, step)
    for _ in range(2):  # the second time there is nothing to do
        buffer = await opened(tmp_path)
        assert numbers(buffer.claim("shop", 5, ALL)) == [0, 1]
        await buffer.close()
    connection = connect(tmp_path / DATABASE, read_only=True)
    assert connection.pragma("user_version") == 2
    assert connection.execute("select count(*) from added").fetchone() == (0,)
    connection.close()


async def test_a_migration_that_fails_changes_nothing(tmp_path, monkeypatch):
    await (await opened(tmp_path)).close()

    def step(connection):
        connection.execute("create table added (x integer)")
        raise apsw.IOError("the disk")

    with monkeypatch.context() as patch:
        patch.setattr(database, "SCHEMA_VERSION", 2)
        patch.setitem(database._MIGRATIONS, 1, step)
        with pytest.raises(BufferUnusableError):
            await opened(tmp_path)
    buffer = await opened(tmp_path)
    await buffer.close()


async def test_another_programs_database_is_refused_and_left_alone(tmp_path):
    connection = apsw.Connection(str(tmp_path / DATABASE))
    connection.execute("create table theirs (x)")
    connection.close()
    before = (tmp_path / DATABASE).read_bytes()
    with pytest.raises(BufferUnusableError, match="no buffer of edgeproxy"):
        await opened(tmp_path)
    assert (tmp_path / DATABASE).read_bytes() == before


async def test_a_network_file_system_is_refused(tmp_path, monkeypatch):
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/x / ext4 rw 0 0\nserver:/x {tmp_path}/a\\040b nfs4 rw 0 0\n")
    assert folder._file_system(tmp_path / "a b" / "c", mounts) == "nfs4"
    assert folder._file_system(tmp_path, mounts) == "ext4"
    monkeypatch.setattr(folder, "_file_system", lambda *_: "nfs4")
    with pytest.raises(BufferUnusableError, match="network file system"):
        await opened(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_file_systems_are_told_apart_under_the_shipped_unit():
    """With `ProcSubset=pid` the files of /proc that are no process's are hidden."""
    script = (
        "mount -t proc -o subset=pid proc /proc 2>&1 || exit 0; test ! -e /proc/uptime || exit 0;"
        ' exec "$@"'
    )
    program = (
        "from pathlib import Path; from edgeproxy.buffer import folder;"
        " print(folder._file_system(Path('/'), folder._MOUNTS))"
    )
    command = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "mount:" in done.stdout + done.stderr or "unshare:" in done.stderr:
        pytest.skip("mounting is not possible here")
    assert done.stdout.strip(), done.stderr


async def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BufferUnusableError, match="buffer"):
        await opened(tmp_path / "file" / "buffer")


# --- dead letters ---------------------------------------------------------------------------------


async def test_dead_letters_beyond_their_size_go_the_oldest_first(tmp_path):
    expired = []
    buffer = await opened(tmp_path, on_expired=lambda lane, n: expired.append((lane, n)))
    now = time.time_ns() // 10**6
    buffer.limit_dead(3600, 5 * (1000 + 256))
    for number in range(8):
        await buffer.append("shop", 1, [], [letter(body=b"%04d" % number * 250, died=now)])
    await buffer.append("shop", 1, [])
    await buffer.append("shop", 1, [])
    connection = buffer.reading()
    left = [stored.letter.body[:4] for stored in iterate(connection, DeadLetterFilter())]
    connection.close()
    assert left == [b"0003", b"0004", b"0005", b"0006", b"0007"]
    assert sum(n for _, n in expired) == 3
    assert buffer.stats().dead_letters == 5
    await buffer.close()


async def test_dead_letters_beyond_their_age_go(tmp_path):
    expired = []
    buffer = await opened(tmp_path, on_expired=lambda lane, n: expired.append((lane, n)))
    now = time.time_ns() // 10**6
    old = [letter(died=now - 10_000_000, lane="shop") for _ in range(700)]
    await buffer.append("shop", 1, [], [*old, letter(died=now, lane="blog")])
    buffer.limit_dead(3600, 2**30)
    while buffer.stats().dead_letters > 1:
        await buffer.append("shop", 1, [])
    assert sum(n for lane, n in expired if lane == "shop") == 700
    await buffer.close()


async def test_a_filter_chooses_dead_letters_by_what_it_names(tmp_path):
    buffer = await opened(tmp_path)
    await buffer.append(
        "shop",
        1,
        [],
        [
            letter("too_old", b'{"userId":"ann"}', died=10, message_id="m1"),
            letter("bad_type", b'{"anonymousId":"ann"}', died=20, lane="blog"),
            letter("too_old", b'{"userId":"annette", broken ann', died=30),
            letter("too_old", b'{"userId":"bob","previousId":"ann"}', died=40),
        ],
    )
    connection = buffer.reading()

    def chosen(**fields):
        found = [stored.id for stored in iterate(connection, DeadLetterFilter(**fields))]
        assert count(connection, DeadLetterFilter(**fields)) == len(found)
        return found

    assert chosen() == [1, 2, 3, 4]
    assert chosen(code="too_old") == [1, 3, 4]
    assert chosen(source="blog") == [2]
    assert chosen(since=20) == [2, 3, 4]
    assert chosen(user="ann") == [1, 2, 3, 4]
    assert chosen(user="bob") == [4]
    assert chosen(id="m1") == [1]
    assert chosen(id="3") == [3]
    assert chosen(code="too_old", user="ann", since=35) == [4]
    assert chosen(ids=(4, 2, 9)) == [2, 4]
    assert chosen(ids=(1, 2), code="too_old") == [1]
    assert chosen(ids=(1, 4), user="bob") == [4]
    assert chosen(ids=tuple(range(4, 50_000))) == [4]
    assert chosen(ids=()) == []
    newest = [s.id for s in iterate(connection, DeadLetterFilter(), newest_first=True)]
    assert newest == [4, 3, 2, 1]
    connection.close()
    assert await buffer.purge_dead(DeadLetterFilter(code="too_old")) == 3
    assert buffer.stats().dead_letters == 1
    await buffer.close()


async def test_a_replay_moves_each_dead_letter_once(tmp_path):
    buffer = await opened(tmp_path)
    await buffer.append("shop", 1, [], [letter(), letter()])
    move = Replayed(1, "shop", 5, event(7, 70))
    assert await asyncio.gather(buffer.replay([move]), buffer.replay([move])) == [1, 0]
    assert (
        await buffer.replay([Replayed(2, "shop", 5, None), Replayed(9, "shop", 5, event(1))]) == 1
    )
    assert buffer.stats().dead_letters == 0
    assert numbers(buffer.claim("shop", 5, ALL)) == [70]
    await buffer.close()


async def test_a_user_is_erased_wherever_the_buffer_holds_them(tmp_path):
    buffer = await opened(tmp_path)
    await buffer.append(
        "shop", 1, [event(1, 0), event(2, 1), event(1, 2)], [letter(body=b'{"userId":"1"}')]
    )
    (claimed,) = buffer.claim("shop", 1, ALL)
    purged = await buffer.purge_user("1")
    assert (purged.events, purged.dead_letters) == (2, 1)
    assert numbers(buffer.claim("shop", 5, ALL)) == [1]
    await buffer.ack("shop", [claimed])  # was in flight, and is gone already
    assert buffer.stats().events == 1
    assert buffer.waiting("shop") == (0, 0)
    await buffer.close()


async def test_what_was_purged_while_it_was_on_its_way_is_settled_without_going_through_its_lane(
    tmp_path, monkeypatch
):
    buffer = await SqliteBuffer.open(tmp_path, max_size=2**30)
    await buffer.append("shop", 1, [event(n % 3, n) for n in range(30)])
    held = buffer.claim("shop", 20, ALL)
    commit = buffer._committer._commit
    monkeypatch.setattr(buffer._committer, "_commit", _refuse)
    with pytest.raises(BufferFaultError):  # a purge that fails has purged nothing
        await buffer.purge_user("1")
    monkeypatch.setattr(buffer._committer, "_commit", commit)
    await buffer._committer.submit_alone(lambda: buffer._health.recover(buffer._upkeep.make_room))
    await buffer.ack("shop", held[:6])
    assert buffer.stats().events == 24
    assert (await buffer.purge_user("1")).events == 8
    monkeypatch.setattr(buffer._ledger, "recount", None)
    await buffer.ack("shop", held[6:])
    assert buffer.stats().events == 7
    assert numbers(buffer.claim("shop", 20, ALL)) == [20, 21, 23, 24, 26, 27, 29]
    await buffer.close()


def _refuse():
    raise apsw.IOError("disk I/O error")

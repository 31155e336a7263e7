"""Rows that hold what nobody stored: the pages are whole, and what is written on them is not."""

import asyncio

import apsw
import pytest

from edgeproxy.buffer.database import DATABASE
from edgeproxy.buffer.deadletters import DeadLetterFilter, iterate
from edgeproxy.buffer.inspecting import contents, examine
from edgeproxy.buffer.rows import every_event
from edgeproxy.buffer.sqlite import SqliteBuffer
from tests.buffers import event, letter, numbers

ALL = 10**9
_WORTH = ("null", "x'ff00'", "'text'", "cast(x'80ff' as text)", "1.5", "-1")
_EVENT = ("user", "received", "skew", "age", "checksum", "body")
_LETTER = (
    *("lane", "code", "message", "form", "received", "died", "message_id", "revision", "receipt"),
    *("status", "answer", "skew", "age", "checksum", "body"),
)


async def opened(path):
    return await SqliteBuffer.open(path, max_size=2**30, patience=0.3)


@pytest.fixture
async def folder(tmp_path):
    """A stopped buffer with ten events and five dead letters."""
    folder = tmp_path / "buffer"
    buffer = await opened(folder)
    await buffer.append("shop", 1, [event(n, n) for n in range(10)])
    await buffer.append("shop", 1, [], [letter(body=b'{"n":%d}' % n) for n in range(5)])
    await buffer.close()
    return folder


def spoil(folder, table, column, value, number=3):
    """Write what the table's own rules refuse, into the row of that number."""
    database = apsw.Connection(str(folder / DATABASE))
    names = [row[1] for row in database.execute(f"pragma table_info({table})")]
    (sql,) = database.execute("select sql from sqlite_schema where name = ?", (table,)).fetchone()
    key = names[0]
    kept = {"id": "id integer primary key", "number": "number integer primary key"}
    kept |= {"name": "name text primary key" if table == "totals" else "name unique"}
    lax = ", ".join(kept.get(name, name) for name in names)
    without = "without rowid" if table == "totals" else ""
    _rewrite(database, table, f"create table {table} ({lax}) {without}")
    database.close()
    database = apsw.Connection(str(folder / DATABASE))
    chosen = f"select {key} from {table} order by {key} limit 1 offset {number}"
    database.execute(f"update {table} set {column} = {value} where {key} = ({chosen})")
    assert database.changes() == 1
    _rewrite(database, table, sql)
    database.close()


def _rewrite(database, table, sql):
    database.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0)
    database.execute("pragma writable_schema = on")
    database.execute("update sqlite_schema set sql = ? where name = ?", (sql, table))
    database.execute("pragma writable_schema = reset")


@pytest.mark.parametrize("value", _WORTH)
@pytest.mark.parametrize("column", _EVENT)
async def test_a_salvage_keeps_a_spoiled_event_as_a_dead_letter(folder, column, value):
    spoil(folder, "events", column, value)
    with (folder / DATABASE).open("r+b") as file:
        file.write(b"nothing that SQLite knows")
    buffer = await opened(folder)
    found = await drained(buffer)
    reading = buffer.reading()
    codes = [stored.letter.code for stored in iterate(reading, DeadLetterFilter())]
    reading.close()
    await buffer.close()
    was_null = (column, value) == ("skew", "null")
    assert [n for n in range(10) if n not in found] == [3][was_null:]
    assert codes.count("invalid_event") == (not was_null)


@pytest.mark.parametrize("value", _WORTH)
async def test_when_the_oldest_event_came_is_told_whatever_its_row_holds(folder, value):
    buffer = await opened(folder)
    await buffer.append("zoo", 5, [event(1, n) for n in range(3)])
    await buffer.close()
    spoil(folder, "events", "received", value, 10)
    assert len(contents(folder).lanes) == 2
    buffer = await opened(folder)
    assert [lane.events for lane in buffer.stats().lanes] == [10, 3]
    await buffer.close()


async def drained(buffer):
    async with asyncio.timeout(10):
        found = []
        while True:
            taken = buffer.claim("shop", 50, ALL)
            found += numbers(taken)
            if taken:
                await buffer.ack("shop", taken)
            elif not buffer.stats().events and not buffer._restoring.is_holding:
                return found
            else:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("column", "value"),
    [(c, v) for c in _EVENT for v in _WORTH if (c, v) != ("skew", "null")],  # which it is
)
async def test_a_spoiled_event_becomes_a_dead_letter_and_stops_nobody(folder, column, value):
    spoil(folder, "events", column, value)
    connection = apsw.Connection(str(folder / DATABASE))
    assert sum(not stored.intact for stored in every_event(connection)) == 1
    connection.close()
    assert any("not what was stored" in what for what in _examined(folder))
    assert contents(folder).lanes[0].events == 10
    buffer = await opened(folder)
    assert buffer.stats().events == 10
    found = await drained(buffer)
    assert [n for n in range(10) if n not in found] == [3]
    await buffer.append("shop", 1, [event(1, 99)])
    assert await drained(buffer) == [99]
    assert buffer.stats().lanes[0].bytes == 0
    reading = buffer.reading()
    codes = [stored.letter.code for stored in iterate(reading, DeadLetterFilter())]
    reading.close()
    await buffer.close()
    assert codes.count("invalid_event") == 1
    assert list(folder.glob("*.damaged*")) == []


@pytest.mark.parametrize("value", _WORTH)
@pytest.mark.parametrize("column", _LETTER)
async def test_a_spoiled_dead_letter_can_be_listed_and_expires(folder, column, value):
    spoil(folder, "dead_letters", column, value)
    assert all("cannot be read" not in what for what in _examined(folder))
    buffer = await opened(folder)
    reading = buffer.reading()
    letters = list(iterate(reading, DeadLetterFilter()))
    reading.close()
    assert len(letters) == 5
    assert all(isinstance(stored.letter.body, bytes) for stored in letters)
    sound = [stored.intact for stored in letters]
    assert sound.count(False) == (column in {"checksum", "body"} or not _fits(column, value))
    buffer.limit_dead(0.001, 0)
    async with asyncio.timeout(10):
        while buffer.stats().dead_letters:  # noqa: ASYNC110 - tells nobody
            await asyncio.sleep(0.01)
    await buffer.append("shop", 1, [event(1, 99)])
    await buffer.close()


def _fits(column, value):
    """Whether a column may hold it: no checksum covers what is beside the body."""
    types = {
        "null": {"status", "skew"},
        "-1": {"received", "died", "age", "status", "skew"},
        "x'ff00'": {"receipt"},
        "cast(x'80ff' as text)": {"receipt"},
        "'text'": {"lane", "code", "message", "form", "message_id", "revision", "answer"},
    }
    return column in types.get(value, ())


@pytest.mark.parametrize("value", _WORTH[:-1])
@pytest.mark.parametrize(
    ("table", "column", "number"),
    [
        *(("lanes", column, 0) for column in ("name", "next_sequence", "events", "bytes")),
        *(("totals", "value", number) for number in range(4)),
    ],
)
async def test_spoiled_counters_have_the_database_set_aside_and_salvaged(
    folder, table, column, number, value
):
    spoil(folder, table, column, value, number)
    buffer = await opened(folder)
    await buffer.append("shop", 1, [event(1, 99)])
    assert await drained(buffer) == [*range(10), 99]
    await buffer.close()
    if (column, value) != ("name", "'text'"):
        assert len(list(folder.glob("*.salvaged"))) >= 1


def _examined(folder):
    return examine(folder, lambda _what, _share: None).damage

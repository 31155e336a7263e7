"""Damaged files: set aside, replaced at once, salvaged beside; nothing sound is lost."""

import asyncio
import itertools
import random
import shutil

import apsw
import pytest
from structlog.testing import capture_logs

from edgeproxy.buffer import aside, opening, restoring, salvage, sqlite
from edgeproxy.buffer.base import BufferFaultError, BufferFullError
from edgeproxy.buffer.database import DATABASE, PAGE
from edgeproxy.buffer.deadletters import DeadLetterFilter, Replayed, iterate
from edgeproxy.buffer.faults import BufferDamagedError
from edgeproxy.buffer.pages import Pages
from edgeproxy.buffer.repairing import repair
from edgeproxy.buffer.restoring import Restoring
from edgeproxy.buffer.sqlite import SqliteBuffer
from tests.buffers import event, letter, numbers

ALL = 10**9
WAL = DATABASE + "-wal"


async def opened(path, **limits):
    return await SqliteBuffer.open(path, **({"max_size": 2**30, "patience": 0.3} | limits))


@pytest.fixture(scope="module")
def crashed(tmp_path_factory):
    """The files of a buffer that was killed: 300 events in database and WAL, and a dead letter."""
    source, copy = tmp_path_factory.mktemp("running"), tmp_path_factory.mktemp("crashed") / "b"

    async def fill():
        buffer = await opened(source)
        for number in range(300):
            # Some are larger than a page, some small; several users.
            size = 40_000 if number % 50 == 7 else 700
            await buffer.append("shop", 1, [event(number % 7, number, size=size)])
            if number == 200:
                await buffer._committer.submit_alone(buffer._upkeep.truncate)
        await buffer.append("blog", 1, [], [letter(body=b'{"kept":1}')])
        shutil.copytree(source, copy)
        await buffer.close()

    asyncio.run(fill())
    return copy


@pytest.fixture
def folder(crashed, tmp_path):
    target = tmp_path / "buffer"
    shutil.copytree(crashed, target)
    (target / (DATABASE + "-shm")).unlink()
    return target


async def settled(buffer, taken):
    """Acknowledge, as the flusher does: again where it failed."""
    while True:
        try:
            return await buffer.ack("shop", taken)
        except BufferFaultError:
            await asyncio.sleep(0.01)


async def everything(buffer, *, patience=20):
    """All events that come out, once nothing is being salvaged any more, and the letters' codes."""
    async with asyncio.timeout(patience):
        found = []
        while True:
            taken = buffer.claim("shop", 50, ALL)
            found += numbers(taken)
            if taken:
                await settled(buffer, taken)
            elif not buffer.stats().events and not buffer._restoring.is_holding:
                break  # damage may have been found by the claim itself
            else:
                await asyncio.sleep(0.01)
    connection = buffer.reading()
    codes = [stored.letter.code for stored in iterate(connection, DeadLetterFilter())]
    connection.close()
    return found, codes


def flip(path, at, bits=0xFF):
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ bits]))


async def test_an_undamaged_buffer_needs_no_salvage(folder):
    buffer = await opened(folder)
    assert aside.not_salvaged(folder) == []
    assert await everything(buffer) == (list(range(300)), ["too_old"])
    await buffer.close()


@pytest.mark.parametrize("damage", ["empty", "foreign", "header", "missing", "schema", "cut short"])
async def test_a_damaged_database_is_set_aside_with_its_wal_and_salvaged(folder, damage):
    database = folder / DATABASE
    pages = database.stat().st_size // PAGE
    match damage:
        case "empty":
            database.write_bytes(b"")
        case "foreign":
            database.write_bytes(b"not a database at all" * 1000)
        case "header":
            flip(database, 5)
        case "missing":
            database.unlink()
        case "schema":
            (folder / WAL).unlink()
            flip(database, 130)
            flip(database, 100)
        case "cut short":
            with database.open("r+b") as file:
                file.truncate(pages // 2 * PAGE + 100)
    buffer = await opened(folder)
    await buffer.append("shop", 2, [event(1, 1000)])  # at once
    found, codes = await everything(buffer)
    await buffer.close()
    names = sorted(path.name for path in folder.iterdir())
    assert any(name.startswith(f"{DATABASE}.damaged-") for name in names), names
    assert aside.not_salvaged(folder) == []
    assert found[-1] == 1000, "what was accepted later comes later"
    assert len(found) == len(set(found))
    in_wal = set(range(201, 300))
    if damage == "header":
        assert set(found) == {*range(300), 1000}
        assert found == sorted(found)
    if damage != "schema":
        assert set(found) >= in_wal
        assert codes == ["too_old"]
    else:
        assert set(found) >= set(range(200))


async def test_a_salvage_that_is_interrupted_goes_on_after_the_next_start(folder):
    flip(folder / DATABASE, 5)
    for turns in range(3):
        buffer = await opened(folder)
        for _ in range(turns * 5):
            await asyncio.sleep(0.002)
        await buffer.close()
    buffer = await opened(folder)
    found, codes = await everything(buffer)
    await buffer.close()
    assert found == list(range(300))
    assert codes == ["too_old"]


@pytest.fixture
def interrupted(monkeypatch):
    """A salvage in small pieces; before the third of them the disk is full for a moment."""
    monkeypatch.setattr(salvage, "_CHUNK_ROWS", 50)
    store = Restoring._store
    pieces = itertools.count(1)

    async def sometimes(self, chunk, names):
        if next(pieces) == 3:
            raise BufferFullError("disk full")
        return await store(self, chunk, names)

    monkeypatch.setattr(Restoring, "_store", sometimes)


async def some(buffer):
    """Acknowledge what can be claimed now."""
    found = []
    while taken := buffer.claim("shop", 50, ALL):
        found += numbers(taken)
        await settled(buffer, taken)
    return found


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - tells nobody
            await asyncio.sleep(0.01)


@pytest.mark.usefixtures("interrupted")
async def test_what_comes_back_behind_later_events_is_given_without_a_restart(folder):
    flip(folder / DATABASE, 5)
    buffer = await opened(folder)
    await buffer.append("shop", 1, [event(99, 1000)])
    await until(lambda: not buffer._restoring.is_holding)
    found = await some(buffer)  # some of the old ones, and the new one
    assert found[-1] == 1000
    await until(lambda: buffer._restoring._task is None)
    rest, _ = await everything(buffer)
    await buffer.close()
    assert sorted(found + rest) == [*range(300), 1000]


@pytest.mark.usefixtures("interrupted")
@pytest.mark.parametrize("by", ["a start", "a repair"])
async def test_what_was_delivered_during_an_interrupted_salvage_does_not_come_back(folder, by):
    flip(folder / DATABASE, 5)
    buffer = await opened(folder)
    await until(lambda: not buffer._restoring.is_holding)
    found = await some(buffer)
    await buffer.close()
    assert 0 < len(found) < 300
    if by == "a repair":
        repair(folder, lambda _: None)
    buffer = await opened(folder)
    rest, _ = await everything(buffer)
    await buffer.close()
    assert sorted(found + rest) == list(range(300))


@pytest.mark.usefixtures("interrupted")
async def test_a_dead_letter_that_was_replayed_during_an_interrupted_salvage_does_not_come_back(
    folder,
):
    buffer = await opened(folder)
    # On the first pages, which are read before the disk is full.
    (stored,) = stored_letters(buffer)
    buffer._replace_soon("for a test")
    await until(lambda: buffer._restoring.is_holding)
    await until(lambda: stored_letters(buffer))
    move = Replayed(stored.id, "blog", 1, event(5, 2000))
    assert await buffer.replay([move]) == 1
    await until(lambda: buffer._restoring._task is None)
    assert stored_letters(buffer) == []
    await buffer.close()


def stored_letters(buffer):
    connection = buffer.reading()
    try:
        return list(iterate(connection, DeadLetterFilter()))
    finally:
        connection.close()


async def test_what_was_delivered_before_a_second_replacement_does_not_come_back(
    folder, monkeypatch
):
    buffer = await opened(folder)
    taken = buffer.claim("shop", 50, ALL)
    with monkeypatch.context() as patched:
        patched.setattr(Restoring, "_salvage", lambda _self, _path: asyncio.sleep(3600))
        for _ in range(2):
            before = buffer._database
            buffer._replace_soon("for a test")
            await until(lambda before=before: buffer._database is not before)
            await settled(buffer, taken)  # the second time it is gone
        await buffer.close()
    buffer = await opened(folder)
    rest, _ = await everything(buffer)
    await buffer.close()
    assert rest == list(range(50, 300))


async def test_dead_letters_of_databases_that_were_replaced_in_one_second_are_all_kept(
    tmp_path, monkeypatch
):
    buffer = await opened(tmp_path / "b")
    with monkeypatch.context() as patched:
        patched.setattr(Restoring, "_salvage", lambda _self, _path: asyncio.sleep(3600))
        for number in range(5):
            await buffer.append("shop", 1, [], [letter(body=b'{"n":%d}' % number)])
            before = buffer._database
            buffer._replace_soon("for a test")
            await until(lambda before=before: buffer._database is not before)
        await buffer.close()
    buffer = await opened(tmp_path / "b")
    _, codes = await everything(buffer)
    await buffer.close()
    assert len(codes) == 5


@pytest.mark.parametrize("seed", range(12))
async def test_a_flipped_byte_anywhere_costs_at_most_what_lies_there(folder, seed):
    chance = random.Random(seed)
    file = folder / chance.choice([DATABASE, WAL])
    flip(file, chance.randrange(file.stat().st_size), 1 << chance.randrange(8))
    buffer = await opened(folder)
    found, codes = await everything(buffer)
    await buffer.close()
    assert len(found) == len(set(found))
    assert set(found) <= set(range(300))
    users = {user: [n for n in found if n % 7 == user] for user in range(7)}
    assert all(order == sorted(order) for order in users.values())
    lost = 300 - len(found)
    buried = sum(code == "invalid_event" for code in codes)
    assert lost - buried <= 25, (file.name, lost, codes)  # a page holds about 20


@pytest.mark.parametrize("seed", range(10))
async def test_a_wal_cut_at_any_byte_keeps_what_is_before_the_cut(folder, seed):
    wal = folder / WAL
    size = wal.stat().st_size
    with wal.open("r+b") as file:
        file.truncate(random.Random(seed).randrange(size))
    buffer = await opened(folder)
    found, _ = await everything(buffer)
    await buffer.close()
    assert found == list(range(len(found)))
    assert len(found) >= 201
    assert aside.not_salvaged(folder) == []


async def test_events_behind_a_broken_transaction_in_the_wal_are_salvaged(folder):
    flip(folder / WAL, 32 + 24 + 5000)  # in its first frame: SQLite sees none of it any more
    buffer = await opened(folder)
    found, codes = await everything(buffer)
    await buffer.close()
    assert set(found) >= set(range(202, 300))
    assert len(found) >= 298
    assert codes.count("too_old") == 1


async def test_damage_that_shows_while_running_replaces_the_database(tmp_path, folder):
    buffer = await opened(folder)
    await buffer._committer.submit_alone(buffer._upkeep.truncate)
    held = buffer.claim("shop", 30, ALL)
    assert numbers(held) == list(range(30))
    with (folder / DATABASE).open("r+b") as file:
        for page in range(6, file.seek(0, 2) // PAGE, 9):
            file.seek(page * PAGE)
            file.write(b"\x07" * 8)  # no page of any kind begins like this
    found = []
    async with asyncio.timeout(20):
        while len(found) < 150:
            taken = buffer.claim("shop", 200, ALL)
            if taken:
                found += numbers(taken)
                await settled(buffer, taken)
            elif held:
                await settled(buffer, held)  # in flight meanwhile: it must not come back
                held = []
            await asyncio.sleep(0.02)
    await buffer.append("shop", 2, [event(1, 1000)])
    rest, _ = await everything(buffer)
    await buffer.close()
    found += rest
    assert len(found) == len(set(found))
    assert not set(found) & set(range(30))
    assert found[-1] == 1000
    assert any(".damaged-" in path.name for path in folder.iterdir())


@pytest.mark.parametrize("failing", ["sync_folder", "make", "Database", "Ledger"])
@pytest.mark.parametrize("error", [apsw.IOError("disk I/O error"), apsw.FullError("full")])
async def test_a_replacement_that_the_disk_does_not_let_through_is_tried_again(
    folder, monkeypatch, failing, error
):
    buffer = await opened(folder)
    held = buffer.claim("shop", 10, ALL)
    module = aside if failing == "sync_folder" else opening
    attempts, is_bad = [], True
    real = getattr(module, failing)

    def sometimes(*arguments, **more):
        attempts.append(failing)
        if is_bad:
            raise OSError(5, "I/O error") if failing == "sync_folder" else error
        return real(*arguments, **more)

    monkeypatch.setattr(module, failing, sometimes)
    monkeypatch.setattr(sqlite, "_TICK", 0.02)
    buffer._cannot_read("shop", apsw.CorruptError("malformed"))
    await until(lambda: len(attempts) > 3)
    with pytest.raises(BufferFaultError, match="place"):
        await buffer.append("shop", 2, [event(1, 999)])
    with pytest.raises(BufferFaultError):
        await buffer.ack("shop", held)
    assert "place" in (buffer.full_reason() or "")
    assert buffer.claim("shop", 10, ALL) == []
    assert buffer.stats().lanes
    is_bad = False
    await until(lambda: buffer.full_reason() is None)
    await settled(buffer, held)
    await buffer.append("shop", 2, [event(1, 1000)])
    found, codes = await everything(buffer)
    await buffer.close()
    assert (found, codes) == ([*range(10, 300), 1000], ["too_old"])
    assert len([p for p in folder.iterdir() if p.name.endswith("salvaged")]) == 2  # and its WAL


@pytest.mark.parametrize(
    "error",
    [
        BufferDamagedError("damaged: a counter is no number"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        apsw.CorruptError("malformed"),
    ],
)
async def test_counters_that_cannot_be_read_after_a_failed_commit_replace_the_database(
    folder, monkeypatch, error
):
    buffer = await opened(folder)

    def failing(*_):
        raise error

    def refused():
        monkeypatch.undo()
        monkeypatch.setattr(buffer._ledger, "load", failing)
        raise apsw.IOError("disk I/O error")

    monkeypatch.setattr(buffer._committer, "_commit", refused)
    async with asyncio.timeout(10):
        with pytest.raises(BufferFaultError):
            await buffer.append("shop", 2, [event(1, 999)])
    await until(lambda: buffer.full_reason() is None)
    await buffer.append("shop", 2, [event(1, 1000)])
    found, _ = await everything(buffer)
    assert found == [*range(300), 1000]
    assert len(aside.not_salvaged(folder)) == 0
    await buffer.close()


async def test_a_header_that_is_damaged_while_it_runs_replaces_the_database(folder):
    buffer = await opened(folder)
    await buffer._committer.submit_alone(buffer._upkeep.truncate)
    with (folder / DATABASE).open("r+b") as file:
        file.seek(3)
        file.write(b"\xff")
    async with asyncio.timeout(10):
        await buffer.append("shop", 2, [event(1, 1000)])
        await until(lambda: list(folder.glob("*.damaged-*")))
        found, _ = await everything(buffer)
    assert found == [*range(300), 1000]
    await buffer.close()


async def test_with_nothing_to_set_aside_nothing_is_waited_for(folder):
    buffer = await opened(folder)
    for suffix in ("", "-wal"):
        (folder / (DATABASE + suffix)).unlink()
    buffer._replace_soon("somebody took the files away")
    await until((folder / DATABASE).exists)
    await buffer.append("shop", 2, [event(1, 1000)])
    assert await everything(buffer) == ([1000], [])
    await buffer.close()


@pytest.mark.parametrize("named", [True, False])
async def test_a_replacement_that_was_cut_short_is_made_up_for_by_the_next_start(folder, named):
    if not named:
        (folder / "lanes.json").unlink()
    aside.set_aside(folder)  # and here the power went
    buffer = await opened(folder)
    assert [path.name.count("damaged") for path in aside.not_salvaged(folder)] == [1]
    await buffer.append("shop", 2, [event(1, 1000)])
    assert await everything(buffer) == ([*range(300), 1000], ["too_old"])
    await buffer.close()


@pytest.mark.parametrize("refusals", [5, 10**9])
async def test_what_the_disk_refuses_to_read_is_read_again_and_keeps_nothing_else_back(
    folder, monkeypatch, refusals
):
    bad = 40 * (PAGE + 24)  # in the middle of the WAL
    left = [refusals]

    class Sick:
        def __init__(self, file):
            self.seek, self.close, self._file = file.seek, file.close, file

        def read(self, size):
            if left[0] and self._file.tell() in range(bad, bad + 5 * PAGE):
                left[0] -= 1
                raise OSError(5, "Input/output error")
            return self._file.read(size)

    class SickPages(Pages):
        def __init__(self, database):
            super().__init__(database)
            self._wal = self._wal and Sick(self._wal)

    monkeypatch.setattr(salvage, "Pages", SickPages)
    monkeypatch.setattr(restoring, "_PAUSE", 0.02)
    flip(folder / DATABASE, 5)
    with capture_logs() as log:
        buffer = await opened(folder)
        found, _ = await everything(buffer)
        await buffer.close()
    last = log[-1]
    assert last["event"] == "buffer_salvaged"
    assert aside.not_salvaged(folder) == []
    if refusals == 5:
        assert (found, last["unreadable"]) == (list(range(300)), 0)
    else:
        assert last["unreadable"] > 0
        assert found == sorted(found)
        assert 270 < len(found) < 300


async def test_a_mistake_in_the_salvage_keeps_nothing_sound_back(folder, monkeypatch):
    is_wrong = True

    def wrong(path):
        if is_wrong:
            raise ZeroDivisionError
        yield from salvage.read_chunks(path)

    monkeypatch.setattr(restoring, "read_chunks", wrong)
    monkeypatch.setattr(restoring, "_LONG_PAUSE", 0.02)
    flip(folder / DATABASE, 5)
    with capture_logs() as log:
        buffer = await opened(folder)
        await buffer.append("shop", 2, [event(1, 1000)])
        await until(lambda: not buffer._restoring.is_holding)
        found = await some(buffer)
        is_wrong = False
        await until(lambda: buffer._restoring._task is None)
        rest, _ = await everything(buffer)
        await buffer.close()
    assert (found, rest) == ([1000], list(range(300)))
    assert "salvage_failed" in {line["event"] for line in log}


async def test_rows_with_a_wrong_checksum_become_dead_letters_and_block_nobody(folder):
    buffer = await opened(folder)
    buffer._database.writer.execute("update events set body = x'7b7d' where rowid % 10 = 3")
    found, codes = await everything(buffer)
    assert len(found) == 270
    assert codes.count("invalid_event") == 30
    assert buffer.stats().events == 0
    await buffer.close()


async def test_a_damaged_event_becomes_one_dead_letter_although_its_database_is_set_aside(folder):
    buffer = await opened(folder)
    buffer._database.writer.execute("update events set body = x'7b7d' where rowid % 100 = 3")
    taken = buffer.claim("shop", 300, ALL)  # meets it, and will bury it
    buffer._replace_soon("for a test")
    await until(lambda: buffer._restoring.is_holding)
    buffer.release("shop", taken)
    _, codes = await everything(buffer)
    await buffer.close()
    assert codes.count("invalid_event") == 3


async def test_a_lane_whose_name_is_damaged_keeps_its_events(folder):
    buffer = await opened(folder)
    await buffer.close()
    raw = (folder / DATABASE).read_bytes()
    at = raw.index(b"shop")
    while raw[at - 40 : at].count(b"{"):  # not in an event
        at = raw.index(b"shop", at + 1)
    flip(folder / DATABASE, at, 1)
    buffer = await opened(folder)
    found, _ = await everything(buffer)
    assert found == list(range(300))
    assert buffer.lanes()[0] == "shop"
    await buffer.close()


async def test_events_that_are_not_found_by_their_numbers_do_not_stay_for_ever(tmp_path):
    folder = tmp_path / "buffer"
    buffer = await opened(folder)
    await buffer.append("shop", 1, [event(n % 7, n, size=700) for n in range(400)])
    await buffer.close()
    database = folder / DATABASE
    content = database.read_bytes()
    above = next(at for at in range(PAGE, len(content), PAGE) if content[at] == 5)  # no leaf
    for pointer in range(above + 12, above + 12 + 2 * 10, 2):
        cell = above + int.from_bytes(content[pointer : pointer + 2], "big")
        ends = cell + 4 + 6  # the greatest number in the page below: its last seven bits
        if content[ends] & 4:
            break
    flip(database, ends, 4)  # the way to the last four events of that page now leads past them
    sequence = (content[ends - 1] & 0x7F) << 7 | content[ends]
    buffer = await opened(folder)
    taken = buffer.claim("shop", 400, ALL)
    (lost,) = [event for event in taken if event.id & (1 << 14) - 1 == sequence]
    with pytest.raises(BufferFaultError, match="not found by their numbers"):
        await buffer.ack("shop", [lost])
    await settled(buffer, [lost])
    buffer.release("shop", [event for event in taken if event is not lost])
    found, _ = await everything(buffer)
    await buffer.close()
    assert sorted([*found, *numbers([lost])]) == list(range(400))
    buffer = await opened(folder)
    assert await everything(buffer) == ([], [])
    await buffer.close()

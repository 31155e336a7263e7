"""Damage to the numbers of events, and to the pages that lead to them: all are found again."""

import asyncio
import random
import shutil
from collections import Counter

import apsw
import pytest

from edgeproxy.buffer.database import DATABASE, PAGE
from edgeproxy.buffer.deadletters import DeadLetterFilter, iterate
from edgeproxy.buffer.pages import Pages
from edgeproxy.buffer.sqlite import SqliteBuffer
from tests.buffers import event, letter, numbers

ALL = 10**9
EVENTS = 400


async def opened(path):
    return await SqliteBuffer.open(path, max_size=2**30, patience=0.3)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A stopped buffer whose events fill some twenty pages below one that leads to them."""
    folder = tmp_path_factory.mktemp("stored") / "buffer"

    async def fill():
        buffer = await opened(folder)
        for first in range(0, EVENTS, 10):
            some = [event(n % 7, n, size=700) for n in range(first, first + 10)]
            await buffer.append("shop", 1, some)
        await buffer.close()

    asyncio.run(fill())
    return folder


@pytest.fixture
def folder(stored, tmp_path):
    """A copy of it."""
    target = tmp_path / "buffer"
    shutil.copytree(stored, target)
    return target


def set_lane(folder, column, value):
    """Write a lane's counter."""
    database = apsw.Connection(str(folder / DATABASE))
    database.execute(f"update lanes set {column} = ?", (value,))
    database.close()


def places(database):
    """Where the heads of events lie in a file (sizes and numbers), and where the ways to them."""
    heads, ways = [], []
    with Pages(database) as pages:
        for number in range(2, database.stat().st_size // PAGE + 1):
            page, start = pages._page(number), (number - 1) * PAGE
            count = int.from_bytes(page[3:5], "big")
            first = {0x05: 12, 0x0D: 8}.get(page[0])
            if first is None:
                continue
            cells = [page[first + 2 * n : first + 2 * n + 2] for n in range(count)]
            starts = [start + int.from_bytes(cell, "big") for cell in cells]
            if page[0] == 0x05:
                ways += [at + n for at in starts for n in range(12)]
                ways += range(start, start + first + 2 * count)
            elif any(len(values) == 7 for _, values in pages._cells(page)):
                heads += [at + n for at in starts for n in range(10)]
    return heads, ways


async def drained(buffer, most):
    """The numbers of all events that come out."""
    found = []
    async with asyncio.timeout(20):
        while True:
            taken = buffer.claim("shop", most, ALL)
            found += numbers(taken)
            if taken:
                await acknowledged(buffer, taken)
            elif not buffer.stats().events and not buffer._restoring.is_running:
                return found
            else:
                await asyncio.sleep(0.002)


async def acknowledged(buffer, taken):
    while True:
        try:
            return await buffer.ack("shop", taken)
        except Exception:  # noqa: BLE001 - as the flusher does
            await asyncio.sleep(0.002)


@pytest.mark.parametrize("what", ["heads", "ways"])
@pytest.mark.parametrize("seed", range(25))
async def test_a_bit_that_leads_astray_costs_at_most_its_own_event(folder, what, seed):
    rng = random.Random(seed)
    heads, ways = places(folder / DATABASE)
    at, most = rng.choice(heads if what == "heads" else ways), rng.choice([7, 50, 500])
    with (folder / DATABASE).open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << rng.randrange(8)]))
    buffer = await opened(folder)
    found = await drained(buffer, most)
    await buffer.append("shop", 2, [event(1, 1000)])
    assert await drained(buffer, most) == [1000]
    reading = buffer.reading()
    dead = Counter(bytes(one.letter.body) for one in iterate(reading, DeadLetterFilter()))
    reading.close()
    await buffer.close()
    assert EVENTS - len(set(found)) <= (what == "heads")
    assert [body for body, times in dead.items() if times > 1] == []
    if what == "heads":  # pages that are led to twice may give twice what was deleted from them
        assert len(found) == len(set(found))


@pytest.mark.parametrize("events", [-3, 0, 150, 399, 401, 10**6])
async def test_a_counter_that_is_wrong_keeps_no_event_back(folder, events):
    set_lane(folder, "events", events)
    buffer = await opened(folder)
    found = []
    async with asyncio.timeout(20):
        while len(found) < EVENTS:
            while buffer.waiting("shop")[0] and (taken := buffer.claim("shop", 10, ALL)):
                found += numbers(taken)
                await acknowledged(buffer, taken)
            await asyncio.sleep(0.005)
    assert sorted(found) == list(range(EVENTS))
    assert await drained(buffer, 10) == []
    assert buffer.waiting("shop") == (0, 0)
    await buffer.close()


@pytest.mark.parametrize("sequence", [-27, 0, 1, 200, EVENTS, 2**30, 2**46 + 7, 2**62, 2**63 - 1])
async def test_a_lane_that_numbers_wrongly_mixes_no_events_up(folder, sequence):
    set_lane(folder, "next_sequence", sequence)
    buffer = await opened(folder)
    await buffer.append("blog", 2, [event(1, 2000)])
    await buffer.append("shop", 2, [event(1, 1000)])
    async with asyncio.timeout(10):
        while not (taken := buffer.claim("blog", 5, ALL)):  # noqa: ASYNC110 - after a salvage
            await asyncio.sleep(0.01)
    assert numbers(taken) == [2000]
    await buffer.ack("blog", taken)
    assert await drained(buffer, 50) == [*range(EVENTS), 1000]
    await buffer.append("shop", 2, [event(1, 1001)])
    assert await drained(buffer, 50) == [1001]
    await buffer.close()
    asides = list(folder.glob("*.damaged-*.salvaged"))
    assert len(asides) <= 2, "one database and its WAL"
    assert bool(asides) == (sequence not in range(EVENTS + 1, 2**46))


async def test_dead_letters_on_pages_that_lead_back_are_not_listed_for_ever(tmp_path):
    folder = tmp_path / "buffer"
    buffer = await opened(folder)
    await buffer.append("shop", 1, [], [letter(body=b'"%0300d"' % n) for n in range(1200)])
    await buffer.close()
    with Pages(folder / DATABASE) as pages:
        count = (folder / DATABASE).stat().st_size // PAGE
        (way,) = (n for n in range(2, count + 1) if pages._page(n)[0] == 0x05)
        page = pages._page(way)
    first = int.from_bytes(page[12:14], "big")
    with (folder / DATABASE).open("r+b") as file:
        file.seek((way - 1) * PAGE + 8)
        file.write(page[first : first + 4])  # the last page is the first one
    connection = apsw.Connection(str(folder / DATABASE))
    with pytest.raises(apsw.CorruptError):
        for _ in iterate(connection, DeadLetterFilter()):
            pass
    connection.close()


async def test_counters_that_are_right_set_nothing_aside(folder):
    buffer = await opened(folder)
    for number in range(50):
        await buffer.append("shop", 1, [event(1, 1000 + number)])
        for _ in range(3):
            taken = buffer.claim("shop", 4, ALL)
            buffer.release("shop", taken[2:])
            await acknowledged(buffer, taken[:2])
            buffer.claim("blog", 4, ALL)
    async for _ in buffer.purge_events(user="2"):
        await drained(buffer, 7)
    await drained(buffer, 7)
    await buffer.close()
    assert list(folder.glob("*damaged*")) == []

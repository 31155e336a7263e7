"""Disks that are full, fail, forbid writing, or change what they hold."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.harness.machine import injecting, needs_strace
from tests.crash.harness.oracle import Rules
from tests.crash.harness.senders import IMPATIENT, Patience
from tests.crash.harness.upstream import FINE, Plan
from tests.crash.harness.world import World, open_world

_DOWN = Plan(status=503, body=b"")
_PAGE = 16_384  # bytes of a page of the database
#: What the proxy could not sync may be on the disk all the same, and the client repeats it.
_UNSURE = Rules(duplicates="crash", refused_stay_out=False)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """24 MB of a file system, where the buffer goes."""
    folder = tmp_path / "buffer"
    folder.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=0700", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


async def _until_refused(world: World, requests: int) -> None:
    def refused() -> int:
        return sum(1 for attempt in world.ledger.attempts if attempt.status == 503)

    before = refused()
    await world.until(lambda: refused() > before + requests, "clients to be refused")


@pytest.mark.settings(buffer={"max_size": "3MiB"})
async def test_a_full_buffer_refuses_and_recovers_by_itself(world: World):
    world.upstream.choose = lambda _: _DOWN
    await world.proxy.start()
    world.load(6, padding=20_000)
    await _until_refused(world, 20)
    stats = (await world.proxy.status())["buffer"]
    assert stats["bytes"] <= 1.2 * 3 * 2**20
    world.upstream.choose = lambda _: FINE
    accepted = len([s for s in world.ledger.sent.values() if s.accepted])
    await world.until(
        lambda: len([s for s in world.ledger.sent.values() if s.accepted]) > accepted + 200,
        "events to be accepted again",
    )
    await world.settle()


@needs_root
async def test_a_full_disk_refuses_and_recovers_by_itself(small_disk: Path, world: World):
    world.upstream.choose = lambda _: _DOWN
    await world.proxy.start()
    world.load(6, padding=60_000)
    for _ in range(2):
        await _until_refused(world, 20)
        accepted = len([s for s in world.ledger.sent.values() if s.accepted])
        world.upstream.choose = lambda _: FINE
        await world.until(
            lambda before=accepted: (
                len([s for s in world.ledger.sent.values() if s.accepted]) > before + 200
            ),
            "events to be accepted again",
        )
        world.upstream.choose = lambda _: _DOWN
    await world.settle()


@pytest.mark.torture
@needs_root
@pytest.mark.parametrize("free", [4, 7, 8, 11])
async def test_a_burst_on_a_disk_that_is_nearly_full_can_be_removed_once_it_is_delivered(
    small_disk: Path, world: World, free: int
):
    world.upstream.choose = lambda _: _DOWN
    await world.proxy.start()
    disk = os.statvfs(small_disk)
    with (small_disk / "filler").open("wb") as file:
        file.write(bytes(disk.f_bavail * disk.f_frsize - free * 2**20))
    # One transaction takes them all, in the WAL; from there they must go to the database.
    bursts = [world.send_batch(60, padding=92_000, patience=IMPATIENT) for _ in range(3)]
    await asyncio.gather(*bursts, world.send_batch(5))
    await world.pass_time(1.5)
    world.upstream.choose = lambda _: FINE
    await world.empty()
    await world.until_ready()
    figures = await world.settle()
    assert figures.delivered == figures.accepted >= 5


@pytest.mark.torture
@needs_root
async def test_a_disk_that_others_fill_and_empty_loses_nothing(small_disk: Path, world: World):
    filler = small_disk / "filler"
    world.upstream.choose = lambda _: world.rng.choice([FINE, _DOWN])
    await world.proxy.start()
    world.load(6, padding=5_000)
    for _ in range(3):
        await world.pass_time(0.2, 0.6)
        _fill(filler)
        await world.pass_time(0.5)
        filler.unlink()
        await world.pass_time(0.2)
    await world.settle()


@needs_root
async def test_killed_on_a_full_disk_it_starts_there_and_loses_nothing(
    small_disk: Path, world: World
):
    filler = small_disk / "filler"
    world.upstream.choose = lambda _: _DOWN
    await world.proxy.start()
    world.load(6, padding=20_000)
    await world.pass_time(0.5)
    _fill(filler)
    await _until_refused(world, 10)
    world.proxy.signal()
    await world.proxy.ended()
    _fill(filler)
    await world.proxy.start()
    world.upstream.choose = lambda _: FINE  # what is delivered makes room
    await world.pass_time(0.5)
    filler.unlink()
    await world.settle(Rules(duplicates="crash"))


def _fill(filler: Path) -> None:
    with filler.open("ab") as file:
        while True:
            try:
                file.write(b"\0" * 65_536)
                file.flush()
            except OSError:
                break
        # What is left is less than a block of any size.


@needs_strace
@pytest.mark.parametrize(
    ("calls", "when"),
    [
        ("fdatasync,fsync", "10+15"),
        pytest.param("pwrite64", "100..200", marks=pytest.mark.torture),
        pytest.param("fdatasync,fsync", "25..60", marks=pytest.mark.torture),
        pytest.param("pwrite64", "80+40", marks=pytest.mark.torture),
        pytest.param("pread64", "60+10", marks=pytest.mark.torture),
    ],
)
async def test_a_disk_that_fails_now_and_then_loses_nothing(world: World, calls: str, when: str):
    world.proxy.prefix = injecting(calls, "EIO", when)
    world.upstream.choose = lambda _: world.rng.choice([FINE, FINE, _DOWN])
    await world.proxy.start()
    world.load(4, patience=Patience(pause=0.02))
    for _ in range(15):
        await world.pass_time(0.1)
        if not world.proxy.is_running:  # systemd would do the same
            await world.proxy.ended()
            await world.proxy.start()
    world.upstream.heal()
    await world.stop_senders(patience=1.0)
    if calls != "pread64":  # what is read is in memory most of the time
        assert any(line.get("level") in {"error", "critical"} for line in world.proxy.log)
    world.proxy.signal()
    await world.proxy.ended()
    world.proxy.prefix = ()
    await world.proxy.start()
    await world.settle(_UNSURE)


async def _damaged(world: World, damage: str) -> None:
    """Kill it while events wait, damage the files, start it again."""
    world.upstream.choose = lambda _: _DOWN
    await world.proxy.start()
    world.load(4)
    await world.pass_time(0.8)
    await world.stop_senders()
    world.proxy.signal()
    await world.proxy.ended()
    database = world.proxy.buffer / "events.sqlite"
    wal = database.with_name("events.sqlite-wal")
    rng = world.rng
    match damage:
        case "wal_cut":
            os.truncate(wal, rng.randrange(wal.stat().st_size))
        case "wal_flipped":
            _flip(wal, rng.randrange(wal.stat().st_size))
        case "database_flipped":
            _flip(database, rng.randrange(database.stat().st_size))
        case "database_cut":
            os.truncate(database, rng.randrange(database.stat().st_size))
        case "database_empty":
            os.truncate(database, 0)
        case "database_foreign":
            database.write_bytes(rng.randbytes(50_000))
    await world.proxy.start()
    world.upstream.heal()
    world.load(2)
    await world.pass_time(1.0)


def _flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 0x10]))


@pytest.mark.parametrize(
    "damage",
    [
        *("wal_cut", "database_flipped"),
        pytest.param("database_empty", marks=pytest.mark.torture),
        pytest.param("wal_flipped", marks=pytest.mark.torture),
        pytest.param("database_cut", marks=pytest.mark.torture),
        pytest.param("database_foreign", marks=pytest.mark.torture),
    ],
)
async def test_with_damaged_files_it_starts_accepts_and_sends_nothing_that_is_wrong(
    world: World, damage: str
):
    await _damaged(world, damage)
    # What was in the damaged part is gone; what arrives is what was sent, and later events arrive.
    before = sum(
        1 for s in world.ledger.sent.values() if s.ref.startswith(("s0", "s1", "s2", "s3"))
    )
    await world.settle(Rules(duplicates="crash", lost=before))
    late = [s for s in world.ledger.sent.values() if s.ref.startswith(("s4", "s5"))]
    assert len(late) > 20
    assert all(world.ledger.delivered(s.ref) for s in late)


@pytest.mark.torture
@pytest.mark.timeout(900)
@pytest.mark.parametrize("damage", ["wal_cut", "wal_flipped", "database_flipped", "database_cut"])
async def test_damaged_at_many_places_it_starts_and_sends_nothing_that_is_wrong(
    tmp_path: Path, seed: int, damage: str
):
    for number in range(20):
        folder = tmp_path / str(number)
        folder.mkdir()
        async with open_world(f"damaged_at_many_places[{damage}]", seed + number, folder) as world:
            await _damaged(world, damage)
            await world.settle(Rules(duplicates="crash", lost=len(world.ledger.sent)))


@pytest.mark.torture
@pytest.mark.timeout(120)
@needs_root
async def test_damaged_on_a_disk_without_room_for_a_copy_it_sends_everything_once(
    small_disk: Path, world: World
):
    database = small_disk / "events.sqlite"
    world.upstream.choose = lambda _: _DOWN
    await world.proxy.start()
    world.load(4, padding=20_000)
    await world.until(lambda: database.stat().st_size > 14 * 2**20, "a backlog of 14 MiB")
    await world.stop_senders()
    await world.proxy.stop()
    _flip(database, 5)  # the database's header: all of it is set aside and salvaged
    world.upstream.heal()
    await world.proxy.start()
    await world.pass_time(0.5, 3.0)
    await world.proxy.stop()
    await world.proxy.start()
    await world.until(lambda: bool(world.proxy.logged("buffer_salvaged")), "the salvage")
    assert world.proxy.logged("salvage_interrupted")
    # What comes back late is sent late: delivering makes the room for it.
    figures = await world.settle(Rules(order=False))
    assert figures.accepted == figures.delivered


@pytest.mark.torture
@pytest.mark.timeout(600)
@pytest.mark.parametrize("stops", [0, 3])
async def test_damaged_while_it_runs_it_repeats_nothing_and_loses_what_lay_there(
    tmp_path: Path, seed: int, stops: int
):
    for number in range(4):
        folder = tmp_path / str(number)
        folder.mkdir()
        name = f"damaged_while_it_runs[{stops}]"
        async with open_world(name, seed + number, folder) as world:
            world.upstream.choose = lambda _: _DOWN
            await world.proxy.start()
            world.load(4, padding=4_000)
            await world.pass_time(2.0)
            held = len(world.ledger.sent)
            _scribble(world.proxy.buffer / "events.sqlite", world.rng)
            world.upstream.choose = lambda _, rng=world.rng: Plan(delay=rng.uniform(0, 0.1))
            for _ in range(stops):  # within the salvage, if the machine wants it so
                await world.pass_time(0.0, 0.8)
                assert await world.proxy.stop() == 0
                await world.proxy.start()
            await world.settle(Rules(lost=held // 5))


def _scribble(database: Path, rng: random.Random) -> None:
    """Overwrite up to ten pages, in part or whole."""
    pages = database.stat().st_size // _PAGE
    with database.open("r+b") as file:
        for _ in range(rng.choice([1, 3, 10])):
            file.seek(rng.randrange(1, pages) * _PAGE)
            file.write(rng.randbytes(rng.choice([100, _PAGE])))

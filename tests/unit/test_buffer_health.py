"""Full and failing disks: what is refused meanwhile, and how the buffer gets well by itself."""

import asyncio
import os
import subprocess

import apsw
import pytest

from edgeproxy.buffer.base import BufferFullError, BufferUnusableError, BufferWriteError
from edgeproxy.buffer.health import Health
from edgeproxy.buffer.reserve import Reserve
from edgeproxy.buffer.sqlite import SqliteBuffer
from tests.buffers import event

ALL = 10**9
MB = 2**20


@pytest.fixture
def reserve(tmp_path):
    return Reserve(tmp_path, 64 * MB)


def test_the_reserve_is_held_from_the_start(tmp_path, reserve):
    health = Health(reserve)
    assert health.is_well
    assert health.reason is None
    assert (tmp_path / "reserve").stat().st_blocks * 512 >= reserve.size == 2 * MB
    health.refuse_events()


def test_a_full_disk_gives_the_reserve_up_and_makes_it_again(tmp_path, reserve):
    health = Health(reserve)
    health.failed(BufferFullError("disk full"))
    assert health.reason == "disk full"
    with pytest.raises(BufferFullError, match="disk full"):
        health.refuse_events()
    health.refuse_writes()  # what was delivered can be removed
    seen = []
    health.recover(lambda: seen.append((tmp_path / "reserve").exists()))
    assert seen == [False]
    assert health.is_well
    assert reserve.is_held


def test_after_a_failed_sync_nothing_is_acknowledged_until_a_checkpoint_succeeds(reserve):
    health = Health(reserve)
    health.failed(BufferWriteError("cannot be written: disk I/O error"))
    health.failed(BufferFullError("disk full"))  # the worse of both stays
    for refuse in (health.refuse_events, health.refuse_writes):
        with pytest.raises(BufferWriteError, match="disk I/O error"):
            refuse()

    def failing():
        raise apsw.IOError("still")

    with pytest.raises(apsw.IOError):
        health.recover(failing)
    assert not health.is_well
    health.recover(lambda: None)
    health.refuse_events()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 24 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "none", folder]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting is not possible here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


async def test_on_a_full_disk_events_are_refused_and_can_be_settled(small_disk, monkeypatch):
    monkeypatch.setattr("edgeproxy.buffer.sqlite._TICK", 0.05)
    buffer = await SqliteBuffer.open(small_disk / "buffer", max_size=2**30)
    accepted = await append_until_full(buffer)
    assert accepted > 300
    assert buffer.full_reason() == "disk full"
    filler = small_disk / "filler"
    fill(filler)  # nothing at all is left but the reserve
    settled = 0
    async with asyncio.timeout(30):
        while settled < 100:
            taken = buffer.claim("shop", 20, ALL)
            await acknowledge(buffer, taken)
            settled += len(taken)
    filler.unlink()
    async with asyncio.timeout(20):
        while buffer.full_reason() is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await buffer.append("shop", 1, [event(1, size=50_000)])
    assert buffer.stats().events == accepted - settled + 1
    await buffer.close()


async def test_a_drained_full_disk_accepts_again_by_itself(small_disk, monkeypatch):
    monkeypatch.setattr("edgeproxy.buffer.sqlite._TICK", 0.05)
    buffer = await SqliteBuffer.open(small_disk / "buffer", max_size=2**30)
    for _ in range(2):
        accepted = await append_until_full(buffer)
        async with asyncio.timeout(30):
            while taken := buffer.claim("shop", 50, ALL):
                await acknowledge(buffer, taken)
                accepted -= len(taken)
            assert accepted == 0
            while buffer.full_reason() is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    await buffer.close()


async def test_a_disk_without_any_space_at_the_first_start_is_named(small_disk):
    fill(small_disk / "filler")
    with pytest.raises(BufferUnusableError, match="buffer"):
        await SqliteBuffer.open(small_disk / "buffer", max_size=2**30)


async def append_until_full(buffer):
    accepted = 0
    while True:
        try:
            await buffer.append("shop", 1, [event(accepted % 5, accepted, size=50_000)])
        except BufferFullError:
            return accepted
        accepted += 1


async def acknowledge(buffer, taken):
    while True:
        try:
            return await buffer.ack("shop", taken)
        except BufferFullError:
            await asyncio.sleep(0.05)


def fill(filler):
    with filler.open("wb", buffering=0) as file:
        for block in (2**16, 2**12, 1):
            try:
                while True:
                    file.write(b"\0" * block)
            except OSError:
                continue

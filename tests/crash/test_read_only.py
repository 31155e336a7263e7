"""A disk that turns read-only under a proxy that writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.harness.disk import Disk, open_disk
from tests.crash.harness.machine import (
    NotPermittedError,
    injecting,
    needs_strace,
    unavailable,
)
from tests.crash.harness.oracle import Rules
from tests.crash.harness.senders import Patience
from tests.crash.harness.upstream import FINE, Plan
from tests.crash.harness.world import World

_DOWN = Plan(status=503, body=b"")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Where the buffer goes."""
    try:
        with open_disk(tmp_path / "image", tmp_path / "buffer") as disk:
            yield disk
    except NotPermittedError as error:
        unavailable(error)


_READ_ONLY = "Read-only file system"
#: What could not be synced may be on the disk all the same, and the client repeats it.
_UNSURE = Rules(duplicates="crash", refused_stay_out=False)


async def _refuses_and_says_why(world: World) -> None:
    def refused() -> int:
        return sum(1 for attempt in world.ledger.attempts if attempt.status == 503)

    before = refused()
    await world.until(lambda: refused() > before + 10, "clients to be refused")
    status, body = await world.proxy.get("/readyz")
    assert status == 503
    assert _READ_ONLY in json.loads(body)["reason"]
    (line,) = world.proxy.logged("buffer_not_writable")
    assert _READ_ONLY in str(line["reason"])
    assert (await world.proxy.get("/healthz"))[0] == 200


@pytest.mark.settings(flush={"interval": "20ms", "drain_timeout": "500ms"})
async def test_a_disk_that_turns_read_only_is_named_and_loses_nothing(world: World, disk: Disk):
    world.upstream.choose = lambda _: world.rng.choice([FINE, FINE, _DOWN])
    await world.proxy.start()
    world.load(4, patience=Patience(pause=0.02))
    await world.pass_time(0.3, 0.8)
    disk.turn_read_only()
    await _refuses_and_says_why(world)
    # A file system that gave up must be unmounted, so the proxy must end. It does not begin again
    # before that; systemd tries until it does.
    assert await world.proxy.stop() == 0
    await world.proxy.spawn()
    assert await world.proxy.ended() == 1
    assert _READ_ONLY in world.proxy.tail()
    disk.repair()
    await world.proxy.start()
    await world.settle(_UNSURE)


@pytest.mark.torture
@needs_strace
async def test_a_disk_that_is_read_only_for_a_while_is_written_again_without_a_restart(
    world: World,
):
    calls = "pwrite64,fdatasync,fsync,ftruncate"
    world.proxy.prefix = injecting(calls, "EROFS", "60..62")
    await world.proxy.start()
    world.load(4, patience=Patience(pause=0.02))
    await _refuses_and_says_why(world)
    await world.until(lambda: bool(world.proxy.logged("buffer_writable_again")), "its recovery")
    assert (await world.proxy.get("/readyz"))[0] == 200
    await world.pass_time(0.3)
    figures = await world.settle(_UNSURE)
    assert figures.starts == 1

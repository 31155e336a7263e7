"""Too little memory: systemd would start it anew, and so does the harness."""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.harness.machine import NotPermittedError, unavailable
from tests.crash.harness.memory import Group, open_group
from tests.crash.harness.oracle import Rules
from tests.crash.harness.senders import Patience
from tests.crash.harness.world import World

_ROOM = (16, 32, 64, 96)  # MiB beside what the process needs to live; a thread's stack takes 8


def _data(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))


async def test_out_of_memory_again_and_again_it_loses_nothing(world: World):
    await world.proxy.start()
    assert world.proxy.process is not None
    needed = _data(world.proxy.process.pid)
    await world.proxy.stop()

    def limited() -> None:
        limit = needed + world.rng.choice(_ROOM) * 2**20
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

    world.proxy.preexec = limited
    await world.proxy.start()
    world.load(8, patience=Patience(tolerant=True, most=60), padding=60_000)
    for _ in range(4):
        await world.pass_time(0.1, 0.6)
        if not world.proxy.is_running:
            await world.proxy.ended()
            await world.proxy.start()
    if world.proxy.is_running:
        world.proxy.signal()
        await world.proxy.ended()
    world.proxy.preexec = None
    await world.proxy.start()
    figures = await world.settle(Rules(duplicates="crash", refused_stay_out=False))
    told = Counter(attempt.status for attempt in world.ledger.attempts)
    print(told, world.proxy.starts, world.proxy.codes)
    assert told[500] + told[None] + told[503], "memory never ran out"
    assert figures.accepted > 100


@pytest.fixture
def group() -> Iterator[Group]:
    try:
        with open_group() as group:
            yield group
    except NotPermittedError as error:
        unavailable(error)


@pytest.fixture
def bounded(group: Group, world: World) -> World:
    """A world whose proxy is in a group of its own (and ends before that is removed)."""
    world.proxy.preexec = group.join
    return world


async def _killed_for_memory(world: World, group: Group, times: int) -> None:
    await world.proxy.start()
    needed = group.used()
    world.load(8, patience=Patience(most=60), padding=60_000)
    for number in range(times):
        group.limit(needed + world.rng.choice(_ROOM[:2]) * 2**20)
        await world.until(lambda number=number: group.kills() > number, "the kernel to kill it")
        assert await world.proxy.ended() in {-9, 255}  # 255: another waiter took its status
        group.limit(2**40)
        await world.proxy.start()
    figures = await world.settle(Rules(duplicates="crash", refused_stay_out=False))
    assert figures.starts > times
    assert figures.accepted > 100


async def test_killed_by_the_kernel_for_its_memory_it_loses_nothing(bounded: World, group: Group):
    await _killed_for_memory(bounded, group, 2)


@pytest.mark.torture
@pytest.mark.timeout(300)
async def test_killed_by_the_kernel_again_and_again_it_loses_nothing(bounded: World, group: Group):
    await _killed_for_memory(bounded, group, 30)

"""Power cuts: copies of the files that hold only what was synced, and any part of the rest."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from tests.crash.harness.oracle import Leftovers, Rules
from tests.crash.harness.process import leftovers
from tests.crash.harness.recorder import Recording, recording
from tests.crash.harness.senders import Patience
from tests.crash.harness.upstream import FINE, Plan
from tests.crash.harness.world import World

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")


def _missing_at(world: World, moment: float, left: Leftovers) -> list[str]:
    """Events that were told 200 before the cut and are neither delivered by then nor here."""
    here = b"\n".join([*left.events, *(body for _, body in left.dead)])
    return [
        ref
        for ref, sent in world.ledger.sent.items()
        if sent.accepted is not None
        and sent.accepted_wall < moment
        and not world.ledger.delivered(ref)
        and b'"%b"' % ref.encode() not in here
    ]


async def _recorded(
    world: World, tmp_path: Path, seconds: float, cuts: int, *, syncs: int = 20, down: bool = False
) -> None:
    """Record a run with at least so many syncs, and cut it at random moments."""
    # A base to begin from: an empty buffer, closed.
    await world.proxy.start()
    await world.proxy.stop()
    base = tmp_path / "base"
    shutil.copytree(world.proxy.buffer, base)
    since = time.time()
    traces = tmp_path / "traces"
    traces.mkdir()
    world.proxy.prefix = recording(traces / "t")
    answers = [Plan(status=503, body=b""), *([] if down else [FINE])]
    world.upstream.choose = lambda _: world.rng.choice(answers)
    await world.proxy.start()
    world.load(4, patience=Patience(pause=0.03), padding=4_000)
    await world.pass_time(seconds)
    await world.stop_senders()
    world.proxy.signal()
    await world.proxy.ended()
    taken = Recording(traces / "t", world.proxy.buffer, since)
    first = min(s.accepted_wall for s in world.ledger.sent.values() if s.accepted is not None)
    moments = [moment for moment in taken.moments if moment > first]
    assert len(moments) > 100
    assert len(taken.syncs["events.sqlite-wal"]) >= syncs
    for number in range(cuts):
        moment = world.rng.choice(moments) + world.rng.uniform(0, 0.0005)
        target = tmp_path / f"cut{number}"
        target.mkdir()
        taken.cut(base, target, moment, world.rng)
        left = leftovers(target)
        missing = _missing_at(world, moment, left)
        assert not missing, f"CRASH_SEED={world.seed}: lost at a cut: {missing[:5]}"
        shutil.rmtree(target)


async def test_after_a_power_cut_every_acknowledged_event_is_on_the_disk(
    world: World, tmp_path: Path
):
    await _recorded(world, tmp_path, 1.5, 40)
    world.proxy.prefix = ()
    await world.settle(Rules(duplicates="crash"))


@pytest.mark.torture
@pytest.mark.timeout(900)
async def test_after_a_thousand_power_cuts_every_acknowledged_event_is_on_the_disk(
    world: World, tmp_path: Path
):
    await _recorded(world, tmp_path, 15.0, 1000)
    world.proxy.prefix = ()
    await world.settle(Rules(duplicates="crash"))


@pytest.mark.settings(buffer={"durability": "os"})
async def test_without_the_sync_a_power_cut_is_noticed(world: World, tmp_path: Path):
    with pytest.raises(AssertionError, match="lost at a cut"):
        # Nothing is delivered: what was not synced is nowhere else.
        await _recorded(world, tmp_path, 1.5, 40, syncs=0, down=True)


@pytest.mark.torture
@pytest.mark.settings(buffer={"durability": "os"})
async def test_without_the_sync_a_killed_process_still_loses_nothing(world: World):
    await world.proxy.start()
    world.load(4)
    for _ in range(2):
        await world.pass_time(0.5)
        world.proxy.signal()
        await world.proxy.ended()
        await world.proxy.start()
    await world.settle(Rules(duplicates="crash"))

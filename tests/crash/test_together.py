"""Several faults in one run, in any order: what each alone does not show."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from tests.crash.harness.ledger import fields
from tests.crash.harness.oracle import Rules
from tests.crash.harness.senders import Patience
from tests.crash.harness.upstream import FINE, Plan
from tests.crash.harness.world import World

_BROKEN = Plan(status=500, body=b"")
_TROUBLES = [
    Plan(status=503, body=b""),
    Plan(status=429, headers=("Retry-After: 0",)),
    Plan(status=401, body=b""),
    Plan("reset", "head"),
    Plan("reset", "body"),
    Plan("drip", delay=0.001),
    Plan("garbage", body=b"SSH-2.0-OpenSSH_9.2\r\n", status=0),
]


def _breaks(text: bytes) -> bool:
    ref = msgspec.json.decode(bytes(fields(text)["ref"]), type=str)
    return int(ref.rpartition(".")[2]) % 61 == 7


class _Hostile:
    """Does something to a world, again and again."""

    def __init__(self, world: World, *, kills: bool) -> None:
        self._world = world
        self._rng = world.rng
        self._acts: list[Callable[[], Awaitable[None]]] = [
            self._reload,
            self._reload,
            self._trouble,
            self._break,
            self._heal,
            self._heal,
            self._restart,
        ]
        if kills:
            self._acts += [self._kill, self._kill]

    async def act(self) -> None:
        await self._rng.choice(self._acts)()
        await self._world.pass_time(0.05, 0.5)

    async def _reload(self) -> None:
        """Batches of another size, so that what waits is given back; lanes in another order."""
        world, settings = self._world, self._world.settings()
        settings["flush"] = {
            "max_events": self._rng.choice([1, 3, 20, 500]),
            "max_bytes": self._rng.choice([97_000, 475_000]),
            "max_in_flight": self._rng.choice([1, 4, 8]),
            "interval": f"{self._rng.choice([1, 20, 200])}ms",
            "timeout": "2s",
        }
        settings["sources"] = settings["sources"][:: self._rng.choice([1, -1])]
        world.proxy.write_config(settings)
        world.proxy.signal(signal.SIGHUP)

    async def _trouble(self) -> None:
        plans = self._rng.sample(_TROUBLES, 2)
        share = self._rng.choice([0.3, 0.9, 1.0])
        world = self._world
        world.upstream.choose = lambda _: (
            self._rng.choice(plans) if self._rng.random() < share else FINE
        )

    async def _break(self) -> None:
        """Some events make the server fail: their batches are halved, and halved again."""
        self._world.upstream.judge = lambda _, texts: _BROKEN if any(map(_breaks, texts)) else None

    async def _heal(self) -> None:
        self._world.upstream.choose = lambda _: Plan(delay=self._rng.uniform(0, 0.03))
        self._world.upstream.judge = lambda _key, _texts: None

    async def _restart(self) -> None:
        assert await self._world.proxy.stop() == 0
        await self._world.proxy.start()

    async def _kill(self) -> None:
        self._world.proxy.signal()
        await self._world.proxy.ended()
        await self._world.proxy.start()


async def _together(world: World, acts: int, *, kills: bool) -> None:
    await world.proxy.start()
    world.load(4, users=8, patience=Patience(pause=0.02))
    hostile = _Hostile(world, kills=kills)
    for _ in range(acts):
        await hostile.act()
    world.proxy.write_config(world.settings())
    world.proxy.signal(signal.SIGHUP)
    figures = await world.settle(Rules(duplicates="crash" if kills else "none"))
    assert figures.dead == 0
    assert figures.accepted > 10 * acts


_QUICK = {
    "flush": {"interval": "20ms", "timeout": "2s"},
    "retry": {"initial": "5ms", "max": "50ms"},
}


@pytest.mark.torture
@pytest.mark.timeout(300)
@pytest.mark.settings(**_QUICK)
async def test_halving_reloads_and_restarts_together_lose_and_repeat_nothing(world: World):
    await _together(world, 40, kills=False)


@pytest.mark.torture
@pytest.mark.timeout(300)
@pytest.mark.settings(**_QUICK)
async def test_halving_reloads_restarts_and_kills_together_lose_nothing(world: World):
    await _together(world, 40, kills=True)

"""A scenario's world: proxy, senders, server, ledger; `settle` ends it and judges."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import msgspec

from edgeproxy.buffer import aside
from tests.crash.harness.ledger import Ledger, Sent
from tests.crash.harness.oracle import Figures, Rules, findings
from tests.crash.harness.process import Proxy, Settings, leftovers
from tests.crash.harness.senders import Patience, Sender
from tests.crash.harness.upstream import Upstream
from tests.crash.harness.writing import Writer

__all__ = ["OracleError", "World", "open_world"]

_SETTLE = 30.0  # seconds until everything is delivered, once nothing is in the way


class OracleError(AssertionError):
    """A promise was broken."""


class World:
    """What a scenario holds."""

    def __init__(self, name: str, seed: int, folder: Path, tables: Settings) -> None:
        self.name = name
        self.seed = seed
        self.rng = random.Random(seed)
        self.ledger = Ledger()
        self.upstream = Upstream(self.ledger)
        self.folder = folder
        self.tables = tables
        self.began = time.monotonic()
        self.proxy: Proxy
        self._numbers = count()
        self._senders: list[tuple[Sender, asyncio.Task[None]]] = []

    def settings(self) -> Settings:
        """The configuration file: fast pauses, two sources, no address of its own."""
        settings: Settings = {
            "hightouch": {"write_key": "at-hightouch", "endpoint": self.upstream.url},
            "server": {"host": "127.0.0.1", "port": 0},
            "admin": {"port": 0},
            "buffer": {"path": str(self.folder / "buffer")},
            "flush": {"interval": "20ms", "timeout": "2s"},
            "retry": {"initial": "20ms", "max": "200ms"},
            "sources": [
                {"name": "web", "write_key": "key-web", "hightouch_write_key": "out-web"},
                {"name": "app", "write_key": "key-app", "hightouch_write_key": "out-app"},
            ],
            "log": {"level": "info", "format": "json"},
        }
        for table, values in self.tables.items():
            if isinstance(values, dict):
                settings[table] = {**settings.get(table, {}), **values}
            else:
                settings[table] = values
        return settings

    # --- what happens -------------------------------------------------------------------------

    def load(
        self,
        senders: int = 6,
        *,
        patience: Patience | None = None,
        source: str | None = None,
        users: int = 4,
        padding: int = 0,
    ) -> None:
        """Let clients send until the scenario ends."""
        for _ in range(senders):
            sender = self._sender(source, users, padding, patience or Patience())
            task = asyncio.create_task(sender.run())
            self._senders.append((sender, task))

    async def send_batch(
        self, count: int, *, users: int = 4, padding: int = 0, patience: Patience | None = None
    ) -> list[Sent]:
        """Let one client of the first source send one batch of so many events."""
        sender = self._sender("web", users, padding, patience or Patience())
        return await sender.send_batch(count)

    def _sender(self, source: str | None, users: int, padding: int, patience: Patience) -> Sender:
        number = next(self._numbers)
        name = source or ("web", "app")[number % 2]
        rng = random.Random(self.rng.random())
        writer = Writer(
            rng, f"s{number}", source=name, key=f"key-{name}", users=users, padding=padding
        )
        return Sender(self.ledger, lambda: self.proxy.address, writer, rng, patience)

    async def pass_time(self, least: float, most: float | None = None) -> None:
        """Let a random time pass."""
        await asyncio.sleep(self.rng.uniform(least, most if most is not None else least))

    async def until(
        self, done: Callable[[], bool], what: str, *, patience: float = _SETTLE
    ) -> None:
        """Wait for something in other processes: looked at often."""
        limit = time.monotonic() + patience
        while not done():
            if time.monotonic() > limit:
                raise OracleError(f"waited {patience} s in vain for {what}: {self.proxy.tail()}")
            await asyncio.sleep(0.01)

    async def until_lane(self, name: str, state: str, reason: str) -> None:
        """Wait until a lane is in trouble, and says why."""
        limit = time.monotonic() + _SETTLE
        while True:
            lanes = {lane["name"]: lane for lane in (await self.proxy.status())["lanes"]}
            if (lanes[name]["state"], lanes[name]["reason"]) == (state, reason):
                return
            if time.monotonic() > limit:
                raise OracleError(f"{self._where()}: {name} is {lanes[name]}, not {state}")
            await asyncio.sleep(0.02)

    async def until_ready(self) -> None:
        """Wait until it can accept."""
        limit = time.monotonic() + _SETTLE
        while (await self.proxy.get("/readyz"))[0] != 200:
            if time.monotonic() > limit:
                raise OracleError(f"{self._where()}: it does not recover: {self.proxy.tail()}")
            await asyncio.sleep(0.05)

    async def stop_senders(self, *, patience: float = 15.0) -> None:
        """Let each finish the request it is at; those that still repeat then are cut off."""
        for sender, _ in self._senders:
            sender.stop()
        tasks = [task for _, task in self._senders]
        if tasks:
            await asyncio.wait(tasks, timeout=patience)
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
        self._senders.clear()

    async def empty(self, *, patience: float = _SETTLE) -> None:
        """Wait until nothing is buffered any more, and everything is salvaged that was set aside."""
        limit = time.monotonic() + patience
        status: dict = {}
        while time.monotonic() < limit:
            # Before and after: in between a database may be set aside, and its events with it.
            to_salvage = aside.not_salvaged(self.proxy.buffer)
            status = await self.proxy.status()
            to_salvage += aside.not_salvaged(self.proxy.buffer)
            if status["buffer"]["events"] == 0 and not to_salvage:
                return
            await asyncio.sleep(0.05)
        raise OracleError(
            f"{self._where()}: after {patience} s events are still not delivered: "
            f"{json.dumps(status)}\n{self.proxy.tail()}"
        )

    # --- the end ------------------------------------------------------------------------------

    async def settle(self, rules: Rules = Rules(), *, patience: float = _SETTLE) -> Figures:  # noqa: B008
        """End the load and every fault, deliver what is there (`patience` seconds), stop, judge."""
        if not self.proxy.is_running:
            await self.proxy.start()
        await self.stop_senders()
        self.upstream.heal()
        await self.empty(patience=patience)
        code = await self.proxy.stop()
        assert code == 0, f"{self._where()}: exit code {code}: {self.proxy.tail()}"
        return self.judge(rules)

    def judge(self, rules: Rules = Rules()) -> Figures:  # noqa: B008
        """Compare; raises OracleError with everything that was found."""
        left = leftovers(self.proxy.buffer)
        found = findings(self.ledger, left, rules)
        figures = self._figures(len(left.events), len(left.dead))
        if found:
            more = f"\n… and {len(found) - 20} more" if len(found) > 20 else ""
            raise OracleError(f"{self._where()}:\n" + "\n".join(found[:20]) + more)
        _keep(figures)
        return figures

    def _figures(self, left: int, dead: int) -> Figures:
        ledger = self.ledger
        accepted = [s for s in ledger.sent.values() if s.accepted is not None]
        taken = {ref: ledger.times_delivered(ref) for ref in ledger.arrivals}
        return Figures(
            scenario=self.name,
            seed=self.seed,
            sent=len(ledger.sent),
            accepted=len(accepted),
            requests=len(ledger.attempts),
            failed_requests=sum(1 for a in ledger.attempts if a.status is None),
            refused_requests=sum(1 for a in ledger.attempts if a.status == 503),
            delivered=sum(1 for times in taken.values() if times),
            deliveries=len(ledger.deliveries),
            repeated=sum(times - 1 for times in taken.values() if times > 1),
            dead=dead,
            left=left,
            starts=self.proxy.starts,
            seconds=round(time.monotonic() - self.began, 2),
            slowest_answer=round(
                max((a.seconds for a in ledger.attempts if a.status is not None), default=0), 3
            ),
            peak_memory_mb=round(self.proxy.peak_memory_mb, 1),
        )

    def _where(self) -> str:
        return f"{self.name} (CRASH_SEED={self.seed} repeats it)"


def _keep(figures: Figures) -> None:
    """Append to the file that CRASH_FIGURES names: what docs/reliability.md quotes."""
    path = os.environ.get("CRASH_FIGURES")
    if path:
        with Path(path).open("ab") as file:
            file.write(msgspec.json.encode(figures) + b"\n")


@asynccontextmanager
async def open_world(
    name: str, seed: int, folder: Path, tables: Settings | None = None
) -> AsyncIterator[World]:
    """Put a world together; its proxy is not started yet. Afterwards nothing of it runs."""
    world = World(name, seed, folder, tables or {})
    async with world.upstream.serve():
        world.proxy = Proxy(folder, world.settings())
        try:
            yield world
        finally:
            for _, task in world._senders:
                task.cancel()
            world.proxy.signal()
            if world.proxy.process is not None:
                await world.proxy.process.wait()

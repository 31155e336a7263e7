"""Purges and replays: changes that a person asks for, safe while events come and go."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import apsw
from msgspec import Struct

from edgeproxy.buffer import deadletters
from edgeproxy.buffer.base import Claimed
from edgeproxy.buffer.commit import Committer
from edgeproxy.buffer.deadletters import DeadLetterFilter, Purged, Replayed
from edgeproxy.buffer.health import Health
from edgeproxy.buffer.ledger import Ledger
from edgeproxy.buffer.rows import ROW_OVERHEAD, every_event

__all__ = ["Erasing", "Step"]

_AT_A_TIME = 500

T = TypeVar("T")


class Step(Struct, frozen=True):
    """One step of a purge."""

    looked_at: int
    removed: int


class Erasing:
    """Every method works in steps that are durable one by one, so that none holds up the events."""

    def __init__(
        self,
        ledger: Callable[[], Ledger],
        committer: Committer,
        health: Health,
        reader: Callable[[], apsw.Connection],
        leaving: Callable[[Sequence[int]], None],
    ) -> None:
        """Take what it works with.

        Args:
            reader: opens a further connection.
            leaving: told in a transaction of the dead letters that it removes.
        """
        self._ledger = ledger
        self._committer = committer
        self._health = health
        self._reader = reader
        self._leaving = leaving

    async def purge_dead(self, chosen: DeadLetterFilter) -> int:
        """Remove the dead letters that a filter fits; how many.

        They go some hundred at a time, each time durably; cancelling stops between two such steps.
        """
        removed = 0
        connection = self._reader()
        try:
            found = (stored.id for stored in deadletters.iterate(connection, chosen))
            while ids := await asyncio.to_thread(_some, found):
                removed += await self.remove_dead(ids)
        finally:
            connection.close()
        return removed

    async def remove_dead(self, ids: Sequence[int]) -> int:
        """Remove dead letters by their numbers, in one transaction; how many there were."""

        def job() -> int:
            self._leaving(ids)
            return self._ledger().delete_dead(ids)

        return await self._in_transaction(job)

    async def purge_user(self, user: str) -> Purged:
        """Erase everything of a user: events and dead letters that name them.

        The user is an anonymousId or a userId. What is claimed at this moment may still be sent.
        """
        removed = 0
        async for step in self.purge_events(user=user):
            removed += step.removed
        return Purged(removed, await self.purge_dead(DeadLetterFilter(user=user)))

    async def purge_events(
        self, *, source: str | None = None, user: str | None = None
    ) -> AsyncGenerator[Step, None]:
        """Remove the events of a source, of a user, or of a user in a source; step by step."""
        connection = self._reader()
        try:
            for name in [n for n in self._ledger().lanes if source in {None, n}]:
                found = every_event(connection, name)
                while stored := await asyncio.to_thread(_some, found):
                    chosen = [
                        one.event
                        for one in stored
                        if user is None or deadletters.is_of_user(one.event.body, user)
                    ]
                    yield Step(len(stored), await self._purge(name, chosen) if chosen else 0)
        finally:
            connection.close()

    async def replay(self, moves: Sequence[Replayed]) -> int:
        """Turn dead letters into events again, all in one transaction; how many left.

        Those with a refusal get their new reason and are not counted.

        A letter that is gone meanwhile is left out, so that none is moved twice. Cancelling does
        not stop it. Raises BufferFullError or BufferWriteError: then nothing was moved.
        """
        self._health.refuse_events()

        def job() -> int:
            self._health.refuse_events()
            ledger = self._ledger()
            moved = 0
            for move in moves:
                if move.refusal is not None:
                    ledger.refuse_again(move.id, move.refusal, move.revision)
                    continue
                if not ledger.delete_dead([move.id]):
                    continue
                self._leaving([move.id])
                moved += 1
                if move.event is not None:
                    size = len(move.event.body) + ROW_OVERHEAD
                    ledger.insert(move.lane, move.received, [move.event], size)
            return moved

        return await self._in_transaction(job)

    async def _purge(self, name: str, events: Sequence[Claimed]) -> int:
        removed = await self._in_transaction(lambda: self._ledger().purge(name, events))
        self._ledger().lanes[name].order.forget()
        return removed

    async def _in_transaction(self, job: Callable[[], int]) -> int:
        result = 0

        def run() -> None:
            nonlocal result
            result = job()

        await asyncio.shield(self._committer.submit(run))
        return result


def _some(found: Iterator[T]) -> list[T]:
    return list(islice(found, _AT_A_TIME))

"""The proxy with a fault built in, for the harness: `CRASH_CHILD` says which.

Only the buffer's verbs are wrapped, so that this outlives what lies under them. `break` makes the
buffer break a promise, which the oracle must notice; `kill` ends the process at a chosen place.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import random
import signal
import struct
import time
from collections.abc import Callable
from typing import Any

from edgeproxy.__main__ import main
from edgeproxy.buffer.sqlite import SqliteBuffer


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _ack_before_the_commit() -> None:
    """Answer at once; store a moment later."""
    append = SqliteBuffer.append

    def early(self: SqliteBuffer, *args: Any, **kwargs: Any) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        loop.call_later(0.05, lambda: append(self, *args, **kwargs))
        done: asyncio.Future[None] = loop.create_future()
        done.set_result(None)
        return done

    SqliteBuffer.append = early  # type: ignore[method-assign]


def _delete_before_delivery() -> None:
    """Forget events as soon as they are claimed."""
    claim, ack = SqliteBuffer.claim, SqliteBuffer.ack

    def eager(self: SqliteBuffer, lane: str, *args: Any, **kwargs: Any) -> list[Any]:
        events = claim(self, lane, *args, **kwargs)
        if events:
            ack(self, lane, events)
        return events

    def nothing(self: SqliteBuffer, *_: Any) -> asyncio.Future[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    SqliteBuffer.claim = eager  # type: ignore[method-assign]
    SqliteBuffer.ack = nothing  # type: ignore[method-assign]


def _drop_the_wal() -> None:
    """Begin without what was committed but not yet checkpointed."""
    opening = SqliteBuffer.open.__func__  # type: ignore[attr-defined]

    async def forgetful(cls: type[SqliteBuffer], path: Any, **kwargs: Any) -> SqliteBuffer:
        for suffix in ("-wal", "-shm"):
            (path / f"events.sqlite{suffix}").unlink(missing_ok=True)
        return await opening(cls, path, **kwargs)

    SqliteBuffer.open = classmethod(forgetful)  # type: ignore[assignment]


def _reverse_batches() -> None:
    """Send the last event of a batch first."""
    claim = SqliteBuffer.claim

    def reversed_(self: SqliteBuffer, *args: Any, **kwargs: Any) -> list[Any]:
        return claim(self, *args, **kwargs)[::-1]

    SqliteBuffer.claim = reversed_  # type: ignore[method-assign]


def _change_a_number() -> None:
    """Spell numbers anew, as a decode and encode of the event would."""
    claim = SqliteBuffer.claim

    def spelled(self: SqliteBuffer, *args: Any, **kwargs: Any) -> list[Any]:
        events = claim(self, *args, **kwargs)
        for event in events:
            event.body = event.body.replace(b":1.10", b":1.1")
        return events

    SqliteBuffer.claim = spelled  # type: ignore[method-assign]


def _repeat_batches() -> None:
    """Never delete what was delivered."""

    def kept(self: SqliteBuffer, lane: str, events: Any) -> asyncio.Future[None]:
        self.release(lane, events)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    SqliteBuffer.ack = kept  # type: ignore[method-assign]


def _kill_after_commit(every: int, seed: int) -> None:
    """Die when an append is durable and its client has not been told, once in `every` times."""
    append = SqliteBuffer.append
    chance = random.Random(seed)

    def fatal(self: SqliteBuffer, *args: Any, **kwargs: Any) -> asyncio.Future[None]:
        stored = append(self, *args, **kwargs)
        if chance.randrange(every) == 0:
            stored.add_done_callback(lambda _: _die())
        return stored

    SqliteBuffer.append = fatal  # type: ignore[method-assign]


def _kill_before_delete(every: int, seed: int) -> None:
    """Die when Hightouch has taken a batch and the buffer has not been told, likewise."""
    ack = SqliteBuffer.ack
    chance = random.Random(seed)

    def fatal(self: SqliteBuffer, *args: Any) -> asyncio.Future[None]:
        if chance.randrange(every) == 0:
            _die()
        return ack(self, *args)

    SqliteBuffer.ack = fatal  # type: ignore[method-assign]


def _shift_the_clock(path: str) -> None:
    """Move the time of day (not the monotonic clock) by the seconds that a file holds."""
    with open(path, "rb") as file:  # noqa: PTH123
        shared = mmap.mmap(file.fileno(), 8, prot=mmap.PROT_READ)
    real = time.time_ns

    def shifted() -> int:
        return real() + int(struct.unpack("d", shared[:8])[0] * 1e9)

    time.time_ns = shifted
    time.time = lambda: shifted() / 1e9


_BREAKS: dict[str, Callable[[], None]] = {
    "ack_before_the_commit": _ack_before_the_commit,
    "delete_before_delivery": _delete_before_delivery,
    "drop_the_wal": _drop_the_wal,
    "reverse_batches": _reverse_batches,
    "change_a_number": _change_a_number,
    "repeat_batches": _repeat_batches,
}
_KILLS: dict[str, Callable[[int, int], None]] = {
    "after_commit": _kill_after_commit,
    "before_delete": _kill_before_delete,
}


if __name__ == "__main__":
    told = json.loads(os.environ["CRASH_CHILD"])
    if "break" in told:
        _BREAKS[told["break"]]()
    if "clock" in told:
        _shift_the_clock(told["clock"])
    if "kill" in told:
        _KILLS[told["kill"]](told["every"], told["seed"])
    main()

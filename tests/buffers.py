"""Every buffer engine, by one way to open it, and events to put in."""

from dataclasses import dataclass
from pathlib import Path

from edgeproxy.buffer.base import Buffer, DeadLetter
from edgeproxy.buffer.memory import MemoryBuffer
from edgeproxy.buffer.sqlite import SqliteBuffer
from edgeproxy.events.intake import Sealed

ROOM = 2**30


@dataclass(frozen=True)
class Engine:
    name: str
    on_disk: bool

    async def open(self, folder: Path, *, max_size: int = ROOM) -> Buffer:
        if self.on_disk:
            return await SqliteBuffer.open(folder, max_size=max_size, patience=0.5)
        return MemoryBuffer(max_size=max_size)


ENGINES = [Engine("memory", on_disk=False), Engine("sqlite", on_disk=True)]


def event(user: int, number: int = 0, *, size: int = 0, skew: int | None = None, age: int = 0):
    body = b'{"anonymousId":"%d","n":%d,"pad":"%b"}' % (user, number, b"x" * size)
    return Sealed(body, user, f"{user}-{number}", "track", skew, age)


def letter(code: str = "too_old", body: bytes = b'{"a":1}', **more):
    fields = {"lane": "shop", "message": "why", "form": "sent", "received": 5, "died": 6}
    return DeadLetter(code=code, body=body, **(fields | more))


def numbers(claimed):
    """The numbers that `event` was given, in the order of the claim."""
    return [int(c.body.split(b'"n":')[1].split(b",")[0]) for c in claimed]

"""Fills a buffer through its own append, as the server would, only without HTTP.

`python -m bench.fill FOLDER COUNT`
"""

import asyncio
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.cases import EVENT_BYTES, USERS
from edgeproxy.buffer.sqlite import SqliteBuffer
from edgeproxy.events.intake import Receipt, Sealed, normalise, seal
from edgeproxy.events.verdicts import Refusal
from edgeproxy.load import Shape
from edgeproxy.load.traffic import templates, timestamp

_CHUNK = 2000


def _sealed(count: int, received: int) -> Iterator[Sealed]:
    chance = random.Random(1)
    choice = templates(Shape(batch=50, size=EVENT_BYTES, users=USERS), chance)
    run_id = random.SystemRandom().getrandbits(64)
    now = timestamp(received / 1000)
    receipt = Receipt(received, sent_at=now.decode(), sent_at_ms=received)
    for number in range(count):
        user = b"load-%08d" % int(chance.random() * USERS)
        raw = chance.choice(choice)[1] % (b"%016x%016x" % (run_id, number), user, now)
        event = normalise(raw, receipt)
        assert not isinstance(event, Refusal), event
        sealed = seal(event, receipt, max_event=96_000, max_age=7 * 86400.0)
        assert not isinstance(sealed, Refusal), sealed
        yield sealed


async def fill(folder: Path, count: int) -> None:
    """Append `count` events to the lane `default` of the buffer in `folder`."""
    received = int(time.time() * 1000)
    buffer = await SqliteBuffer.open(folder, max_size=2**40)
    chunk: list[Sealed] = []
    for event in _sealed(count, received):
        chunk.append(event)
        if len(chunk) == _CHUNK:
            await buffer.append("default", received, chunk)
            chunk = []
    if chunk:
        await buffer.append("default", received, chunk)
    await buffer.close()


if __name__ == "__main__":
    asyncio.run(fill(Path(sys.argv[1]), int(sys.argv[2])))

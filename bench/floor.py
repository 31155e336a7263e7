"""The floor: the least that any program must do for a batch of events.

A single loop decodes the 50-event body, looks at each event's key fields and commits 200 events per
synced transaction. No HTTP, no deduplication, no order, no delivery, nothing beside it.
`python -m bench.floor FOLDER SECONDS` prints `{"events_per_second": …}`.
"""

import itertools
import json
import sys
import time
from pathlib import Path

import apsw
import msgspec

from bench.cases import EVENT_BYTES, USERS
from edgeproxy.load import Shape, Target, synthetic

_PER_REQUEST = 50
_REQUESTS_PER_COMMIT = 4


class _Key(msgspec.Struct):
    type: str
    messageId: str  # noqa: N815
    anonymousId: str | None = None  # noqa: N815
    userId: str | None = None  # noqa: N815
    event: str | None = None
    timestamp: str | None = None


class _Envelope(msgspec.Struct):
    batch: list[msgspec.Raw]
    sentAt: str | None = None  # noqa: N815


def _bodies() -> list[bytes]:
    shape = Shape(batch=_PER_REQUEST, size=EVENT_BYTES, users=USERS)
    requests = itertools.islice(synthetic(Target("http://127.0.0.1:1", "key"), shape), 100)
    return [request.wire.partition(b"\r\n\r\n")[2] for request in requests]


def _open(path: Path) -> apsw.Connection:
    database = apsw.Connection(str(path))
    database.execute("pragma page_size = 16384")
    database.execute("pragma journal_mode = wal")
    database.execute("pragma synchronous = full")
    database.execute("create table events (id integer primary key, body blob not null)")
    return database


def run(folder: Path, seconds: float) -> float:
    """Events per second."""
    path = folder / "floor.sqlite"
    database = _open(path)
    decode = msgspec.json.Decoder(_Envelope).decode
    look = msgspec.json.Decoder(_Key).decode
    bodies = itertools.cycle(_bodies())
    events = 0
    started = time.perf_counter()
    while (taken := time.perf_counter() - started) < seconds:
        rows = []
        for _ in range(_REQUESTS_PER_COMMIT):
            for raw in decode(next(bodies)).batch:
                key = look(raw)
                if not (key.type and key.messageId and (key.anonymousId or key.userId)):
                    raise AssertionError
                rows.append((bytes(raw),))
        with database:
            database.executemany("insert into events (body) values (?)", rows)
        events += len(rows)
    database.close()
    path.unlink()
    return events / taken


if __name__ == "__main__":
    print(json.dumps({"events_per_second": run(Path(sys.argv[1]), float(sys.argv[2]))}))

"""Bringing back what can be read of a database that was set aside.

Events come back under their old numbers, so nothing comes back twice however often this is
interrupted, and they stand before what was accepted since: until all are back none is claimed, and
order per user holds.
"""

import zlib
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any, cast

import apsw
import structlog
from msgspec import Struct, field

from edgeproxy.buffer.base import Claimed, DeadLetter
from edgeproxy.buffer.deadletters import letter_of
from edgeproxy.buffer.ledger import Ledger
from edgeproxy.buffer.pages import Pages, Row
from edgeproxy.buffer.rows import LANE_SHIFT, MOST_LANES, as_it_is, is_sound

__all__ = [
    "Chunk",
    "forget_settled",
    "lane_names",
    "note_settled",
    "read_chunks",
    "settled",
    "store",
]

_log = structlog.get_logger("edgeproxy.buffer")

_CHUNK_ROWS = 500
#: Likewise: half of what is kept free on a full disk (`Reserve`) at least, so that what is stored in
#: one transaction can be written back from the WAL there.
_CHUNK_BYTES = 2**19
_EVENT_COLUMNS = 7
_LANE_COLUMNS = 5
_LETTER_COLUMNS = 16


class Chunk(Struct):
    """Some of what was found, in no order."""

    events: list[Claimed] = field(default_factory=list)
    damaged: list[Claimed] = field(default_factory=list)  # not what was stored
    letters: list[tuple[int, DeadLetter]] = field(default_factory=list)
    unreadable: int = 0
    """Reads that the disk refused, all in all; in the last chunk."""


def lane_names(aside: Path, known: dict[int, str]) -> dict[int, str]:
    """Names by lane number: those that are known, else as the database itself has them."""
    names: dict[int, str] = {}
    with Pages(aside) as pages:
        for id_, values in pages.rows(last=_FIRST_PAGES):
            if len(values) == _LANE_COLUMNS and isinstance(values[1], str) and 0 < id_ < MOST_LANES:
                names[id_] = values[1]
    return names | known


#: Where the few lanes lie: the tables' first pages are made with the database.
_FIRST_PAGES = 64


def read_chunks(aside: Path) -> Generator[Chunk, None, None]:
    """Everything that can be read, checked against its checksums, in constant memory. Blocks."""
    with Pages(aside) as pages:
        chunk, rows, size = Chunk(), 0, 0
        for row in pages.rows():
            _sort(row, chunk)
            rows += 1
            size += sum(len(value) for value in row[1] if isinstance(value, bytes))
            if rows == _CHUNK_ROWS or size >= _CHUNK_BYTES:
                yield chunk
                chunk, rows, size = Chunk(), 0, 0
        chunk.unreadable = pages.unreadable
        yield chunk


def store(
    ledger: Ledger, chunk: Chunk, names: dict[int, str], settled: set[int], now: int
) -> tuple[int, int]:
    """Put a chunk into the tables; how many events and dead letters were not there yet.

    Args:
        names: of lanes by number; events of others come back in a lane named for the number.
        settled: ids of events that were settled since the database was set aside, and of dead
            letters that were removed or replayed (less than 0).
        now: ms since 1970.
    """
    by_lane: dict[int, list[Claimed]] = {}
    for event in chunk.events:
        if event.id not in settled:
            by_lane.setdefault(event.id >> LANE_SHIFT, []).append(event)
    inserted = 0
    for number, events in by_lane.items():
        name = ledger.restore(number, _name(ledger, number, names))
        inserted += ledger.insert_again(name, sorted(events, key=lambda event: event.id))
    letters = ledger.insert_dead_again(
        [(id_, letter) for id_, letter in chunk.letters if -id_ not in settled]
    )
    if chunk.damaged:
        letters += ledger.insert_dead_again(
            [
                (event.id, _damaged(event, _name(ledger, event.id >> LANE_SHIFT, names), now))
                for event in chunk.damaged
                if -event.id not in settled
            ]
        )
    return inserted, letters


def note_settled(connection: apsw.Connection, ids: Iterable[int]) -> None:
    """Note, with what else the open transaction changes, what must not come back (see `store`)."""
    connection.execute("create table if not exists settled (id integer primary key)")
    connection.executemany("insert or ignore into settled values (?)", [(id_,) for id_ in ids])


def settled(connection: apsw.Connection) -> set[int]:
    """What was noted and not forgotten since."""
    if not connection.table_exists(None, "settled"):
        return set()
    return {cast("int", id_) for (id_,) in connection.execute("select id from settled")}


def forget_settled(connection: apsw.Connection) -> None:
    """Nothing can come back any more."""
    connection.execute("drop table if exists settled")


def _name(ledger: Ledger, number: int, names: dict[int, str]) -> str:
    """What a lane of that number is called, whether there is one or not."""
    called = [lane.name for lane in ledger.lanes.values() if lane.number == number]
    return called[0] if called else names.get(number, f"salvaged-{number}")


def _sort(row: Row, chunk: Chunk) -> None:
    id_, values = row
    if len(values) == _EVENT_COLUMNS and id_ > 0:
        columns = (id_, *values[1:])
        event = as_it_is(columns)
        is_of_a_lane = 0 < id_ >> LANE_SHIFT < MOST_LANES
        (chunk.events if is_of_a_lane and is_sound(columns) else chunk.damaged).append(event)
    elif len(values) == _LETTER_COLUMNS:
        letter = _letter(values)
        if letter is not None:
            chunk.letters.append((id_, letter))


_STATUS, _SKEW = 10, 12  # the columns of a dead letter that may be null


def _letter(values: list[Any]) -> DeadLetter | None:
    texts = (values[1], values[2], values[3], values[4], values[7], values[8], values[11])
    if not all(isinstance(text, str) for text in texts) or not isinstance(values[15], bytes):
        return None
    if zlib.crc32(values[15]) != values[14] or values[4] not in {"received", "sent"}:
        return None
    if not _are_integers((values[5], values[6], values[13])) or not isinstance(values[9], bytes):
        return None
    for at in (_STATUS, _SKEW):
        values[at] = values[at] if isinstance(values[at], int) else None
    return letter_of(values[1:])


def _damaged(event: Claimed, lane: str, now: int) -> DeadLetter:
    return DeadLetter(
        lane=lane,
        code="invalid_event",
        message="damaged on disk: its checksum does not match",
        form="sent",
        received=event.received,
        died=now,
        body=event.body,
        skew=event.skew,
        age=event.age,
    )


def _are_integers(values: Iterable[object]) -> bool:
    return all(isinstance(value, int) for value in values)

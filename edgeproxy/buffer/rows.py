"""Events as rows: their numbers, their checksums, and reading them in order."""

import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, cast

import apsw
from isal import isal_zlib
from msgspec import Struct

from edgeproxy.buffer.base import Claimed
from edgeproxy.events.intake import Sealed

__all__ = [
    "DELETE",
    "INSERT",
    "LANE_SHIFT",
    "MOST_LANES",
    "OLDEST",
    "ROW_OVERHEAD",
    "SELECT",
    "SELECT_ANYHOW",
    "Numbered",
    "StoredEvent",
    "anyhow",
    "as_it_is",
    "checksum",
    "content",
    "every_event",
    "insert",
    "is_sound",
    "number",
    "pack",
    "ranges",
    "text",
    "to_events",
    "to_rows",
]

LANE_SHIFT = 46  # 70 thousand billion events a lane, …
MOST_LANES = 1 << 17  # … 131 thousand lanes, numbered from 1
ROW_OVERHEAD = 64  # bytes of a row that are not its body, as counted against a lane's limit

INSERT = "insert into events values (?, ?, ?, ?, ?, ?, ?)"


def anyhow(columns: Iterable[str]) -> str:
    """Columns of a `select` that gives text as bytes: a damaged one is none, and is refused as such."""
    return ", ".join(
        f"case typeof({name}) when 'text' then cast({name} as blob) else {name} end"
        for name in columns
    )


_COLUMNS = ("id", "user", "received", "skew", "age", "checksum", "body")
_SELECT = "select {} from events where id > ? and id < ? order by id limit ?"
SELECT = _SELECT.format(", ".join(_COLUMNS))
#: For rows that the other refuses with UnicodeDecodeError.
SELECT_ANYHOW = _SELECT.format(anyhow(_COLUMNS))
#: When the first event between two ids was received.
OLDEST = f"select {anyhow(['received'])} from events where id > ? and id < ? order by id limit 1"  # noqa: S608
DELETE = "delete from events where id between ? and ?"

_ROWS_AT_ONCE = 16
_INSERT_MANY = INSERT + ", (?, ?, ?, ?, ?, ?, ?)" * (_ROWS_AT_ONCE - 1)
_PAGE_ROWS = 500
_NO_SKEW = -(1 << 63)
_pack = struct.Struct("<qqqqq").pack
_crc32 = isal_zlib.crc32  # zlib's, at nearly twice the speed


class StoredEvent(Struct):
    """An event as it lies in the buffer."""

    lane: str
    event: Claimed
    intact: bool  # False: its checksum does not match


def checksum(id_: int, user: int, received: int, skew: int | None, age: int, body: bytes) -> int:
    """CRC-32 over an event's columns, verified whenever it is read."""
    columns = _pack(id_, user, received, _NO_SKEW if skew is None else skew, age)
    return _crc32(body, _crc32(columns))


def is_sound(row: Sequence[Any]) -> bool:
    """Whether a row of `SELECT` is what was stored; a damaged one can hold anything."""
    id_, user, received, skew, age, check, body = row
    try:
        columns = _pack(id_, user, received, _NO_SKEW if skew is None else skew, age)
        return bool(check == _crc32(body, _crc32(columns)))
    except (TypeError, struct.error):
        return False


def as_it_is(row: Sequence[Any]) -> Claimed:
    """The event of a damaged row of `SELECT`, whatever it holds, with values of the right types."""
    id_, user, received, skew, age, _, body = row
    skew = skew if isinstance(skew, int) else None
    return Claimed(id_, number(user), number(received), skew, number(age), content(body))


def number(value: object) -> int:
    """What a damaged row has where a number belongs."""
    return value if isinstance(value, int) else 0


def content(value: object) -> bytes:
    """What a damaged row has where bytes belong."""
    if isinstance(value, bytes):
        return value
    return b"" if value is None else str(value).encode("utf-8", "replace")


def text(value: object) -> str:
    """What a damaged row has where text belongs."""
    return value if isinstance(value, str) else content(value).decode("utf-8", "replace")


def pack(id_: int, user: int, received: int, skew: int | None, age: int) -> bytes:
    """An event's columns, as its checksum covers them."""
    return _pack(id_, user, received, _NO_SKEW if skew is None else skew, age)


class Numbered(Struct, gc=False):
    """Events of one request that are about to be stored, numbered from `first_id` on."""

    lane: str
    first_id: int
    received: int
    events: Sequence[Sealed]
    size: int
    """Bytes of their bodies."""

    def claimed(self) -> list[Claimed]:
        """The events as a claim gives them."""
        received = self.received
        return [
            Claimed(id_, event.user, received, event.skew, event.age, event.body)
            for id_, event in enumerate(self.events, self.first_id)
        ]


Row = tuple[int, int, int, int | None, int, int, bytes]


def to_rows(added: Sequence[Numbered]) -> list[Row]:
    """Events as rows for `INSERT`.

    Column by column: what every event passes is a loop of the interpreter's own, in C.
    """
    events = [event for some in added for event in some.events]
    ids = [id_ for some in added for id_ in range(some.first_id, some.first_id + len(some.events))]
    times = [some.received for some in added for _ in some.events]
    users = [event.user for event in events]
    skews = [event.skew for event in events]
    ages = [event.age for event in events]
    bodies = [event.body for event in events]
    checks = _checksums(ids, users, times, skews, ages, bodies)
    return list(zip(ids, users, times, skews, ages, checks, bodies, strict=True))


def insert(connection: apsw.Connection, rows: Sequence[Row]) -> None:
    """Store rows, many in one statement: binding and stepping a row costs as much as storing it."""
    whole = len(rows) - len(rows) % _ROWS_AT_ONCE
    together = [
        tuple(chain.from_iterable(rows[at : at + _ROWS_AT_ONCE]))
        for at in range(0, whole, _ROWS_AT_ONCE)
    ]
    if together:
        connection.executemany(_INSERT_MANY, together)
    if whole < len(rows):
        connection.executemany(INSERT, rows[whole:])


def _checksums(
    ids: Sequence[int],
    users: Sequence[int],
    times: Sequence[int],
    skews: Sequence[int | None],
    ages: Sequence[int],
    bodies: Sequence[bytes],
) -> Iterator[int]:
    if None in skews:
        skews = [_NO_SKEW if skew is None else skew for skew in skews]
    return map(_crc32, bodies, map(_crc32, map(_pack, ids, users, times, skews, ages)))


def to_events(rows: Sequence[Sequence[Any]]) -> list[Claimed] | None:
    """The events of rows of `SELECT`; None where one of them is not what was stored."""
    ids, users, times, skews, ages, checks, bodies = zip(*rows, strict=True)
    try:
        if tuple(_checksums(ids, users, times, skews, ages, bodies)) != checks:
            return None
    except (TypeError, struct.error):
        return None  # a damaged row can hold anything
    return list(map(Claimed, ids, users, times, skews, ages, bodies))


def every_event(connection: apsw.Connection, lane: str | None = None) -> Iterator[StoredEvent]:
    """All events (of one lane), lane by lane, each in its order, in constant memory.

    Reads page by page and holds no transaction between pages. Raises apsw.CorruptError where the
    database cannot be read.
    """
    for number, name in connection.execute(
        "select number, name from lanes order by number"
    ).fetchall():
        if lane not in {None, name}:
            continue
        after, end = cast("int", number) << LANE_SHIFT, (cast("int", number) + 1) << LANE_SHIFT
        while rows := _page(connection, (after, end, _PAGE_ROWS)):
            for row in rows:
                stored = _from_row(cast("str", name), row)
                if stored.event.id <= after:
                    # A walk over pages that stand in each other's place would never end.
                    raise apsw.CorruptError("events do not stand in the order of their numbers")
                yield stored
                after = stored.event.id


def _page(connection: apsw.Connection, bounds: tuple[int, int, int]) -> list[Any]:
    try:
        return connection.execute(SELECT, bounds).fetchall()
    except UnicodeDecodeError:
        return connection.execute(SELECT_ANYHOW, bounds).fetchall()


def _from_row(lane: str, row: Sequence[Any]) -> StoredEvent:
    if not is_sound(row):
        return StoredEvent(lane, as_it_is(row), intact=False)
    id_, user, received, skew, age, _, body = row
    return StoredEvent(lane, Claimed(id_, user, received, skew, age, body), intact=True)


def ranges(ids: list[int]) -> list[tuple[int, int]]:
    """Write ids as ranges of consecutive ones: a batch is a handful of statements."""
    ids = sorted(ids)
    if ids[-1] - ids[0] == len(ids) - 1:
        return [(ids[0], ids[-1])]  # as most are; they never repeat
    found: list[tuple[int, int]] = []
    start = end = ids[0]
    for id_ in ids[1:]:
        if id_ != end + 1:
            found.append((start, end))
            start = id_
        end = id_
    found.append((start, end))
    return found

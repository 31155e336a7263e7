"""Dead letters as rows: reading them with filters, for people and commands.

Reading goes page by page and holds no transaction between pages: it needs constant memory, and a
running proxy can write and checkpoint meanwhile. What is written to the table is the buffer's doing
(`SqliteBuffer.purge_dead`, `replay`, `purge_user`), since it keeps the counters.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, cast

import apsw
import msgspec
from msgspec import Struct

from edgeproxy.buffer.base import DeadLetter
from edgeproxy.buffer.rows import anyhow, content, number, text
from edgeproxy.events.intake import Sealed
from edgeproxy.events.verdicts import Refusal

__all__ = [
    "SIZE",
    "DeadLetterFilter",
    "Purged",
    "Replayed",
    "StoredDeadLetter",
    "count",
    "insert",
    "insert_again",
    "is_of_user",
    "iterate",
    "letter_of",
    "letter_size",
    "newest",
    "oldest",
    "refuse_again",
    "type_and_name",
]

_PAGE_ROWS = 200  # at most 20 MB where every body is as large as it may be

_NAME = 200  # characters of a name that are looked at

_OVERHEAD = 256  # bytes of a letter beside what a client sent
# Also of a damaged row, which can hold anything.
SIZE = f"coalesce(length(body), 0) + coalesce(length(receipt), 0) + {_OVERHEAD}"

# The table without its id.
_TABLE: dict[str, Any] = {
    "lane": str,
    "code": str,
    "message": str,
    "form": str,
    "received": int,
    "died": int,
    "message_id": str,
    "revision": str,
    "receipt": bytes,
    "status": int | None,
    "answer": str,
    "skew": int | None,
    "age": int,
    "checksum": int,
    "body": bytes,
}
_TYPES = (int, *_TABLE.values())
_COLUMNS = ", ".join(_TABLE)
_AS_IT_IS: dict[Any, Callable[[object], object]] = {
    int: number,
    str: text,
    bytes: content,
    int | None: lambda value: value if isinstance(value, int) else None,
}
_INSERT = f"insert into dead_letters ({_COLUMNS}) values ({', '.join('?' * len(_TABLE))})"  # noqa: S608


class DeadLetterFilter(Struct, frozen=True, forbid_unknown_fields=True):
    """Which dead letters are meant: those that every given field fits."""

    code: str | None = None
    source: str | None = None
    since: int | None = None  # ms since 1970: died then or later
    user: str | None = None  # the event's anonymousId, userId or previousId
    id: str | None = None  # the dead letter's number, or the event's messageId
    type: str | None = None  # as `type_and_name` has it; empty for none that can be read
    event: str | None = None  # likewise
    ids: tuple[int, ...] | None = None  # one of these numbers; with none in it, nothing fits

    @property
    def looks_inside(self) -> bool:
        """Whether each letter's event must be read to tell."""
        return (self.user, self.type, self.event) != (None, None, None)

    def fits(self, body: bytes) -> bool:
        """Whether what is inside a letter fits; the rest is the database's to tell."""
        if self.user is not None and not is_of_user(body, self.user):
            return False
        if self.type is None and self.event is None:
            return True
        type_, event = type_and_name(body)
        return self.type in {None, type_} and self.event in {None, event}


class StoredDeadLetter(Struct):
    """A dead letter with its number, which no other one ever gets."""

    id: int
    letter: DeadLetter
    intact: bool  # False: the body is not what was stored


class Replayed(Struct):
    """What becomes of one dead letter in a replay: an event again, or (None) only removed.

    With a `refusal` it stays what and where it is, for a new reason.
    """

    id: int  # the dead letter's
    lane: str
    received: int  # ms since 1970
    event: Sealed | None
    refusal: Refusal | None = None
    revision: str = ""  # of the mapping that refused it


class Purged(Struct, frozen=True):
    """How much a purge removed."""

    events: int
    dead_letters: int


class _Identity(Struct):
    anonymousId: Any = None  # noqa: N815 - the wire's spelling
    userId: Any = None  # noqa: N815
    previousId: Any = None  # noqa: N815


_identity = msgspec.json.Decoder(_Identity)


def is_of_user(body: bytes, user: str) -> bool:
    """Whether an event names a user as anonymousId, userId or previousId (of an alias).

    A body that cannot be decoded is the user's when it contains the name: better one too many is
    erased.
    """
    try:
        identity = _identity.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return user.encode("utf-8", "surrogatepass") in body
    ids = (identity.anonymousId, identity.userId, identity.previousId)
    return any(id_ is not None and str(id_) == user for id_ in ids)


class _Named(Struct):
    type: Any = None
    event: Any = None
    name: Any = None


_named = msgspec.json.Decoder(_Named)


def type_and_name(body: bytes) -> tuple[str, str]:
    """An event's type, and its `event` or `name`, shortened; empty where there is none."""
    try:
        found = _named.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "", ""
    names = [name for name in (found.event, found.name) if isinstance(name, str) and name]
    type_ = found.type if isinstance(found.type, str) else ""
    return type_[:_NAME], names[0][:_NAME] if names else ""


def count(connection: apsw.Connection, chosen: DeadLetterFilter) -> int:
    """How many dead letters a filter fits. Reads each one where the filter looks inside."""
    if chosen.looks_inside:
        return sum(1 for _ in iterate(connection, chosen))
    where, values = _where(chosen)
    row = connection.execute(f"select count(*) from dead_letters where {where}", values).fetchone()  # noqa: S608
    return 0 if row is None else int(row[0])


def iterate(
    connection: apsw.Connection, chosen: DeadLetterFilter, *, newest_first: bool = False
) -> Iterator[StoredDeadLetter]:
    """Those that a filter fits, in the order of their death, in constant memory.

    Those that die meanwhile may or may not be among them; removing what was given is safe.
    """
    where, values = _where(chosen)
    beyond, direction = ("<", "desc") if newest_first else (">", "asc")
    rest = f" where id {beyond} ? and {where} order by id {direction} limit {_PAGE_ROWS}"
    last = (1 << 62) if newest_first else 0
    while rows := _rows(connection, rest, (last, *values)):
        for row in rows:
            stored = _from_row(row)
            if (stored.id >= last) if newest_first else (stored.id <= last):
                # A walk over pages that lead back would never end.
                raise apsw.CorruptError("dead letters do not stand in the order of their numbers")
            last = stored.id
            if not chosen.looks_inside or chosen.fits(stored.letter.body):
                yield stored


def _rows(
    connection: apsw.Connection, rest: str, values: Sequence[str | int]
) -> Sequence[Sequence[Any]]:
    """Rows as `_TYPES` describes them, or as they are."""
    statement = f"select id, {{}} from dead_letters{rest}"  # noqa: S608 - constants only
    try:
        return connection.execute(statement.format(_COLUMNS), values).fetchall()
    except UnicodeDecodeError:
        rows = connection.execute(statement.format(anyhow(_TABLE)), values)
        return [list(map(_told, row, _TYPES)) for row in rows]


def _told(value: object, type_: object) -> object:
    """Text that was read as bytes, where it is text."""
    if type_ is not str or not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def insert(connection: apsw.Connection, letters: Sequence[DeadLetter]) -> None:
    """Add letters in the transaction that is open."""
    connection.executemany(_INSERT, [_to_row(letter) for letter in letters])


def insert_again(connection: apsw.Connection, id_: int, letter: DeadLetter) -> bool:
    """Add a letter under its old number, if that is free; whether it was."""
    statement = _INSERT.replace("insert", "insert or ignore", 1).replace("(lane", "(id, lane", 1)
    connection.execute(statement.replace("(?", "(?, ?", 1), (id_, *_to_row(letter)))
    return connection.changes() == 1


def refuse_again(connection: apsw.Connection, id_: int, refusal: Refusal, revision: str) -> None:
    """Give a letter a new reason, in the transaction that is open; its number and times stay."""
    connection.execute(
        "update dead_letters set code = ?, message = ?, revision = ? where id = ?",
        (refusal.code, refusal.message, revision, id_),
    )


def newest(connection: apsw.Connection) -> int:
    """The number of the newest letter; 0 where there is none."""
    row = connection.execute("select coalesce(max(id), 0) from dead_letters").fetchone()
    return 0 if row is None else int(row[0])


def letter_size(letter: DeadLetter) -> int:
    """What a dead letter counts against their limit."""
    return len(letter.body) + len(letter.receipt) + _OVERHEAD


def oldest(connection: apsw.Connection, most: int) -> list[tuple[int, int, str, int]]:
    """Number, death, lane and size of the `most` oldest letters."""
    rows = connection.execute(
        f"select {anyhow(('id', 'died', 'lane'))}, {SIZE} from dead_letters order by id limit ?",  # noqa: S608
        (most,),
    ).fetchall()
    return [(number(id_), number(died), text(lane), number(size)) for id_, died, lane, size in rows]


def _where(chosen: DeadLetterFilter) -> tuple[str, list[str | int]]:
    conditions = ["1"]
    values: list[str | int] = []
    for condition, value in (
        ("code = ?", chosen.code),
        ("lane = ?", chosen.source),
        ("died >= ?", chosen.since),
    ):
        if value is not None:
            conditions.append(condition)
            values.append(value)
    if chosen.id is not None:
        conditions.append("(message_id = ? or cast(id as text) = ?)")
        values += [chosen.id, chosen.id]
    if chosen.ids is not None:
        # As one value: SQLite takes a limited number of them.
        conditions.append("id in (select value from json_each(?))")
        values.append(msgspec.json.encode(chosen.ids).decode())
    return " and ".join(conditions), values


def _to_row(letter: DeadLetter) -> tuple[str | int | bytes | None, ...]:
    return (
        letter.lane,
        letter.code,
        letter.message,
        letter.form,
        letter.received,
        letter.died,
        letter.message_id,
        letter.revision,
        letter.receipt,
        letter.status,
        letter.answer,
        letter.skew,
        letter.age,
        zlib.crc32(letter.body),
        letter.body,
    )


def _from_row(row: Sequence[Any]) -> StoredDeadLetter:
    intact = all(map(isinstance, row, _TYPES)) and zlib.crc32(row[15]) == row[14]
    if not intact:
        row = [_AS_IT_IS[type_](value) for value, type_ in zip(row, _TYPES, strict=True)]
    return StoredDeadLetter(row[0], letter_of(row[1:]), intact)


def letter_of(columns: Sequence[Any]) -> DeadLetter:
    """A dead letter from its columns, in the table's order, without the id."""
    (lane, code, message, form, received, died, message_id, revision) = columns[:8]
    (receipt, status, answer, skew, age, _, body) = columns[8:]
    return DeadLetter(
        lane=lane,
        code=code,
        message=message,
        form=cast('Literal["received", "sent"]', form),
        received=received,
        died=died,
        body=body,
        message_id=message_id,
        revision=revision,
        receipt=receipt,
        status=status,
        answer=answer,
        skew=skew,
        age=age,
    )

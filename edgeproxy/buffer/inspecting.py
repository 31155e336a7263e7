"""Looking at what lies in the folder of a stopped proxy, and changing nothing.

The caller holds the folder's lock. Everything blocks, and says how far it has come.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import apsw
from msgspec import Struct, field

from edgeproxy.buffer import aside, deadletters, rows
from edgeproxy.buffer.base import BufferUnusableError
from edgeproxy.buffer.database import DATABASE, SCHEMA_VERSION, connect
from edgeproxy.buffer.deadletters import DeadLetterFilter
from edgeproxy.buffer.names import read_names
from edgeproxy.buffer.pages import wal_frames
from edgeproxy.buffer.rows import LANE_SHIFT, every_event

__all__ = ["Contents", "Examined", "LaneContents", "contents", "examine", "files"]

_LISTED = 100  # what is wrong is listed up to so many times
_STEPS = 20_000  # of SQLite's virtual machine between two reports
_ROWS = 1_000


class LaneContents(Struct):
    """What a lane holds, by its counters."""

    name: str
    events: int
    bytes: int
    oldest: int | None  # ms since 1970: receipt of the first event


class Contents(Struct):
    """What a buffer holds, by its counters."""

    lanes: list[LaneContents]
    dead_letters: int
    dead_letter_bytes: int
    pages: int
    free_pages: int


class Examined(Struct):
    """What was found where every page and every event was looked at."""

    damage: list[str] = field(default_factory=list)
    """What is wrong, in words; empty where all is well."""
    events: int = 0
    dead_letters: int = 0
    counted: dict[str, int] = field(default_factory=dict)
    """Events by lane as the counters have it; empty where they cannot be read."""

    def note(self, what: str) -> None:
        """Note damage, a bounded number of times."""
        if len(self.damage) < _LISTED:
            self.damage.append(what)
        elif len(self.damage) == _LISTED:
            self.damage.append("… and more")


def files(folder: Path) -> dict[str, int]:
    """Every file in a buffer's folder and its bytes."""
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}


def contents(folder: Path) -> Contents:
    """What the counters say.

    Raises apsw.Error where the database cannot be read, BufferUnusableError where it is of a newer
    version.
    """
    connection = connect(folder / DATABASE, read_only=True)
    try:
        _expect_known_version(connection)
        rows = connection.execute("select name, value from totals").fetchall()
        totals = dict(cast("list[tuple[str, int]]", rows))
        return Contents(
            [_lane(connection, row) for row in _lanes(connection)],
            totals["dead_letters"],
            totals["dead_letter_bytes"],
            int(connection.pragma("page_count")),
            int(connection.pragma("freelist_count")),
        )
    finally:
        connection.close()


def _expect_known_version(connection: apsw.Connection) -> None:
    version = connection.pragma("user_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise BufferUnusableError(
            f"{connection.filename}: was written by a newer edgeproxy (schema {version}, this one "
            f"knows up to {SCHEMA_VERSION}); install that version again to read it"
        )


def _lanes(connection: apsw.Connection) -> list[tuple[int, str, int, int]]:
    rows = connection.execute("select number, name, events, bytes from lanes order by number")
    return cast("list[tuple[int, str, int, int]]", rows.fetchall())


def _lane(connection: apsw.Connection, row: tuple[int, str, int, int]) -> LaneContents:
    number, name, events, size = row
    first = connection.execute(
        rows.OLDEST,
        (number << LANE_SHIFT, (number + 1) << LANE_SHIFT),
    ).fetchone()
    return LaneContents(name, events, size, None if first is None else rows.number(first[0]))


def examine(folder: Path, report: Callable[[str, float], None]) -> Examined:
    """Verify every page and every event's checksum.

    `report` is told what is looked at ("pages", "events" or "dead letters") and how much of it was,
    from 0 to 1. Raises BufferUnusableError for what is no buffer of this version.
    """
    found = Examined()
    for path in aside.not_salvaged(folder):
        found.note(
            f"{path.name} was set aside and is not salvaged yet; a start or a repair does it"
        )
    reason = aside.judge(folder)
    if reason is not None:
        found.note(f"{DATABASE}: {reason}")
        return found
    if not (folder / DATABASE).exists():
        return found
    try:
        connection = connect(folder / DATABASE, read_only=True)
    except apsw.Error as error:
        found.note(f"{DATABASE}: cannot be opened: {error}")
        return found
    try:
        _expect_known_version(connection)
        for look in (
            lambda: _look_at_lanes(connection, folder, found),
            lambda: _look_at_pages(connection, found, report),
            lambda: _look_at_wal(connection, folder, found),
            lambda: _look_at_events(connection, found, report),
            lambda: _look_at_letters(connection, found, report),
        ):
            _as_far_as_possible(look, found)
    finally:
        connection.close()
    return found


def _as_far_as_possible(look: Callable[[], None], found: Examined) -> None:
    try:
        look()
    except (apsw.Error, UnicodeDecodeError) as error:
        found.note(f"{DATABASE}: cannot be read on: {error}")


def _look_at_lanes(connection: apsw.Connection, folder: Path, found: Examined) -> None:
    lanes = _lanes(connection)
    found.counted = {name: events for _, name, events, _ in lanes}
    names = {number: name for number, name, _, _ in lanes}
    for number, name in read_names(folder).items():
        if names.get(number) != name:
            found.note(f"lane {number} is called {names.get(number)}, and was called {name}")


def _look_at_pages(
    connection: apsw.Connection, found: Examined, report: Callable[[str, float], None]
) -> None:
    pages = max(int(connection.pragma("page_count")), 1)

    def tell() -> bool:
        read, _ = connection.status(apsw.SQLITE_DBSTATUS_CACHE_MISS)
        report("pages", min(read / pages, 1.0))
        return False

    connection.set_progress_handler(tell, _STEPS)
    try:
        for (line,) in connection.execute(f"pragma integrity_check({_LISTED})"):
            if line != "ok":
                found.note(f"{DATABASE}: {line}")
    finally:
        connection.set_progress_handler(None)
    report("pages", 1.0)


def _look_at_wal(connection: apsw.Connection, folder: Path, found: Examined) -> None:
    wal = folder / f"{DATABASE}-wal"
    shared = folder / f"{DATABASE}-shm"
    if not wal.exists() or not shared.exists():
        return
    connection.execute("select count(*) from lanes").fetchall()  # so that the WAL was gone through
    with shared.open("rb") as file:
        valid = int.from_bytes(file.read(20)[16:20], sys.byteorder)
    lost = sum(ends for number, _, ends in wal_frames(wal) if number >= valid)
    if lost:
        found.note(f"{wal.name}: {lost} transactions lie behind a broken one")


def _look_at_events(
    connection: apsw.Connection, found: Examined, report: Callable[[str, float], None]
) -> None:
    total = max(sum(found.counted.values()), 1)
    there = dict.fromkeys(found.counted, 0)
    for stored in every_event(connection):
        found.events += 1
        there[stored.lane] = there.get(stored.lane, 0) + 1
        if not stored.intact:
            found.note(f"event {stored.event.id} of {stored.lane} is not what was stored")
        if found.events % _ROWS == 0:
            report("events", min(found.events / total, 1.0))
    report("events", 1.0)
    for lane, events in there.items():
        if events != found.counted.get(lane):
            told = found.counted.get(lane)
            found.note(f"{lane} has {events} events, and its counter says {told}")


def _look_at_letters(
    connection: apsw.Connection, found: Examined, report: Callable[[str, float], None]
) -> None:
    row = connection.execute("select value from totals where name = 'dead_letters'").fetchone()
    total = 0 if row is None else int(row[0])
    for stored in deadletters.iterate(connection, DeadLetterFilter()):
        found.dead_letters += 1
        if not stored.intact:
            found.note(f"dead letter {stored.id} is not what was stored")
        if found.dead_letters % _ROWS == 0:
            report("dead letters", min(found.dead_letters / max(total, 1), 1.0))
    report("dead letters", 1.0)
    if found.dead_letters != total:
        found.note(f"there are {found.dead_letters} dead letters, and their counter says {total}")

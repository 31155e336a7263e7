"""Opening what lies in a buffer's folder, or setting it aside and beginning afresh."""

import shutil
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

import apsw
import structlog
from msgspec import Struct

from edgeproxy.buffer import aside
from edgeproxy.buffer.base import BufferUnusableError
from edgeproxy.buffer.database import DATABASE, Database, make, remove
from edgeproxy.buffer.faults import BufferDamagedError, is_damage
from edgeproxy.buffer.ledger import Lane, Ledger
from edgeproxy.buffer.names import read_names
from edgeproxy.buffer.pages import wal_frames
from edgeproxy.buffer.reading import Reading
from edgeproxy.buffer.salvage import lane_names, note_settled

__all__ = ["Opened", "begin_afresh", "open_folder"]

_log = structlog.get_logger("edgeproxy.buffer")

_YEAR_2020 = 1_577_836_800
_FIRST_UNNAMED = 10_000


class Opened(Struct):
    """A database that is ready."""

    database: Database
    ledger: Ledger


def open_folder(folder: Path, *, durable: bool) -> Opened:
    """Open a locked folder's database, made if there is none, replaced if it is damaged.

    Raises:
        BufferUnusableError: it is another program's, a newer version's, or cannot be read.
    """
    reason = aside.judge(folder)
    if reason is None and _is_between_two(folder):
        reason = "none has taken the place yet of one that was set aside"
    if reason is None:
        try:
            return _open(folder, durable=durable)
        except BufferDamagedError as error:
            reason = str(error)
        except (apsw.Error, UnicodeDecodeError) as error:
            if isinstance(error, apsw.Error) and not is_damage(error):
                raise BufferUnusableError(f"{folder / DATABASE}: {error}") from error
            reason = f"damaged: {error}"
    return begin_afresh(folder, durable=durable, reason=reason)


def begin_afresh(
    folder: Path,
    *,
    durable: bool,
    reason: str,
    known: Iterable[Lane] = (),
    settled: Collection[int] = (),
) -> Opened:
    """Set a folder's database aside (nothing has it open any more) and begin a new one.

    Lanes keep their numbers and go on numbering behind everything that the old one can hold, so
    that salvaged events find their places before what is accepted now.

    Args:
        known: lanes of the old database where it was open; their order goes on.
        settled: what must not come back, as `note_settled` takes it.

    Raises:
        OSError, apsw.Error: the disk fails. The old one is aside, or not yet; call this again.
    """
    old = aside.set_aside(folder)
    if old is not None:
        _log.error("buffer_set_aside", file=old.name, reason=reason)
    # No lane takes 32768 events a second for years; nor do dead letters, however soon this one is
    # replaced as well.
    first_sequence = max(int((time.time() - _YEAR_2020) * 32_768), 32_768)
    try:
        make(folder / DATABASE, first_sequence=first_sequence)
        opened = _take_over(folder, durable, known, settled)
    except BaseException:
        remove(folder / DATABASE)  # or every attempt on a disk that fails would leave one behind
        raise
    opened.ledger.committed()
    return opened


def _take_over(
    folder: Path, durable: bool, known: Iterable[Lane], settled: Collection[int]
) -> Opened:
    """Open a new database, and give it the lanes of those that were set aside."""
    database = Database(folder / DATABASE, durable=durable)
    try:
        ledger = Ledger(database.writer)
        names = _names(folder)
        with database.writer:
            for lane in known:
                lane.order.forget()
                ledger.restore(lane.number, lane.name, lane)
            for number, name in names.items():
                ledger.restore(number, name)
            if settled:
                note_settled(database.writer, settled)
            ledger.write_counters()
    except BaseException:
        database.close(untouched=True)
        raise
    if not names:  # whose the old lanes' events are nobody knows: not those of a new lane
        ledger.first_lane = _FIRST_UNNAMED
    return Opened(database, ledger)


def _is_between_two(folder: Path) -> bool:
    """Whether a replacement was cut short."""
    return not (folder / DATABASE).exists() and bool(aside.not_salvaged(folder))


def _names(folder: Path) -> dict[int, str]:
    """Names by lane number, as they are known or as what was set aside has them."""
    names: dict[int, str] = {}
    for path in aside.not_salvaged(folder):
        with suppress(OSError):
            names = lane_names(path, names)
    return names | read_names(folder)


def _open(folder: Path, *, durable: bool) -> Opened:
    path = folder / DATABASE
    if not path.exists():
        make(path)
    database = Database(path, durable=durable)
    try:
        ledger = Ledger(database.writer)
        for table in ("events", "dead_letters"):
            database.reader.execute(f"select * from {table} limit 1").fetchall()  # noqa: S608
        _compare_names(folder, ledger)
        _compare_counters(database, ledger)
        _look_for_lost_frames(database, durable=durable)
    except BaseException:
        database.close(untouched=True)
        raise
    return Opened(database, ledger)


def _compare_names(folder: Path, ledger: Ledger) -> None:
    names = {lane.number: lane.name for lane in ledger.lanes.values()}
    for number, name in read_names(folder).items():
        if names.get(number) != name:
            raise BufferDamagedError(f"damaged: lane {number} was called {name}")


def _compare_counters(database: Database, ledger: Ledger) -> None:
    """A lane that is counted as empty must be, and none may have what it is still to number."""
    for lane in ledger.lanes.values():
        if lane.events <= 0 and Reading.has_more(database.reader, lane, lane.first_id):
            raise BufferDamagedError(f"damaged: {lane.name} has more events than it counts")
        last = lane.first_id + lane.next_sequence - 1
        if Reading.has_more(database.reader, lane, last):
            raise BufferDamagedError(f"damaged: {lane.name} has numbered more events than it says")


def _look_for_lost_frames(database: Database, *, durable: bool) -> None:
    """Find transactions in the WAL that SQLite does not see behind a damaged or torn one.

    One only may be what a power cut tore before it was synced, and was never acknowledged; its
    events are salvaged and nothing else. More were synced in their order: the WAL is damaged, and
    may contradict the database.
    """
    valid = database.valid_frames()
    lost = sum(ends for number, _, ends in wal_frames(database.wal) if number >= valid)
    if lost > 1 and durable:
        raise BufferDamagedError(f"damaged: {lost} transactions in the WAL behind a broken one")
    if lost:
        kept = aside.name_for(database.path.parent, suffix=f"{aside.AFTER}{valid}")
        shutil.copyfile(database.wal, kept.with_name(kept.name + "-wal"))
        _log.error("wal_torn", file=kept.name, transactions=lost)

"""Salvaging a stopped proxy's buffer into a new file, and writing one anew after an erasure.

The salvage is what a proxy does by itself when it meets damage, done at once and with a list of
what was lost. The caller holds the folder's lock.
"""

import time
from collections.abc import Callable
from pathlib import Path

import apsw
from msgspec import Struct, field

from edgeproxy.buffer import aside
from edgeproxy.buffer.database import DATABASE, connect
from edgeproxy.buffer.names import read_names, write_names
from edgeproxy.buffer.opening import Opened, begin_afresh
from edgeproxy.buffer.rows import LANE_SHIFT, ROW_OVERHEAD
from edgeproxy.buffer.salvage import Chunk, lane_names, read_chunks, settled, store

__all__ = ["Damaged", "Repaired", "repair", "rewrite"]


class Damaged(Struct):
    """An event whose checksum was wrong."""

    id: int
    lane: str
    bytes: int


class Repaired(Struct):
    """What came of it."""

    set_aside: list[str] = field(default_factory=list)
    """Files that were salvaged; nothing deletes them."""
    events: int = 0
    dead_letters: int = 0
    lanes: dict[str, int] = field(default_factory=dict)
    """Events that are in the new file, by lane."""
    damaged: list[Damaged] = field(default_factory=list)
    """Events that are not what was stored; they are dead letters now."""


def repair(folder: Path, report: Callable[[float], None]) -> Repaired:
    """Set the database aside, and store in a new one everything that can be read.

    Interrupted, it is done by the next start or repair, and nothing comes back twice. `report` is
    told how much was gone through, from 0 to 1. Raises OSError, apsw.Error or BufferFaultError when
    the disk fails.
    """
    delivered = _settled(folder)
    opened = begin_afresh(folder, durable=True, reason="repair")
    repaired = Repaired()
    try:
        waiting = aside.not_salvaged(folder)
        size = max(sum(map(_size, waiting)), 1)
        done = 0
        for path in waiting:
            names = lane_names(path, read_names(folder))
            for chunk in read_chunks(path):
                _store(opened, chunk, names, delivered, repaired)
                done += sum(len(event.body) + ROW_OVERHEAD for event in chunk.events)
                report(min(done / size, 1.0))
            aside.finish(path)
            repaired.set_aside += [
                found.name for found in sorted(folder.glob(f"{path.name}*.salvaged"))
            ]
        report(1.0)
        ledger = opened.ledger
        write_names(folder, {lane.number: lane.name for lane in ledger.lanes.values()})
        repaired.lanes = {lane.name: lane.events for lane in ledger.lanes.values()}
    finally:
        opened.database.close()
    return repaired


def rewrite(folder: Path) -> None:
    """Write the database anew, so that nothing of what was deleted is left in its pages.

    Needs about twice its size in space. Raises apsw.Error; then nothing has changed.
    """
    connection = connect(folder / DATABASE)
    try:
        connection.execute("vacuum")
    finally:
        connection.close()


def _settled(folder: Path) -> set[int]:
    """What was delivered while an earlier salvage was not done, if that can be read."""
    if aside.judge(folder) is not None or not (folder / DATABASE).exists():
        return set()
    try:
        connection = connect(folder / DATABASE, read_only=True)
        try:
            return settled(connection)
        finally:
            connection.close()
    except apsw.Error:
        return set()


def _store(
    opened: Opened, chunk: Chunk, names: dict[int, str], delivered: set[int], repaired: Repaired
) -> None:
    now = time.time_ns() // 1_000_000
    with opened.database.writer:  # one transaction
        events, letters = store(opened.ledger, chunk, names, delivered, now)
        opened.ledger.write_counters()
    opened.ledger.committed()
    repaired.events += events
    repaired.dead_letters += letters
    for event in chunk.damaged:
        lane = names.get(event.id >> LANE_SHIFT, "")
        repaired.damaged.append(Damaged(event.id, lane, len(event.body)))


def _size(path: Path) -> int:
    wal = path.with_name(path.name + "-wal")
    return sum(file.stat().st_size for file in (path, wal) if file.exists())

"""What is in the tables, and the counters that are kept with it. Runs inside transactions.

The counters in memory run ahead of the disk while a transaction is open; when it fails they are
read again. What others are shown (`Lane.shown`) changes only with a commit.
"""

import zlib
from collections.abc import Iterable, Sequence
from itertools import starmap
from typing import Any, cast

import apsw
from msgspec import Struct

from edgeproxy.buffer import deadletters, rows
from edgeproxy.buffer.base import Claimed, DeadLetter
from edgeproxy.buffer.deadletters import letter_size
from edgeproxy.buffer.faults import BufferDamagedError
from edgeproxy.buffer.order import Order
from edgeproxy.buffer.rows import (
    DELETE,
    INSERT,
    LANE_SHIFT,
    MOST_LANES,
    ROW_OVERHEAD,
    Numbered,
    pack,
    ranges,
)
from edgeproxy.events.intake import Sealed
from edgeproxy.events.verdicts import Refusal

__all__ = ["Lane", "Ledger"]


class Lane(Struct):
    """One lane's place in the table of events, its counters, and its order."""

    number: int
    name: str
    next_sequence: int
    events: int
    bytes: int
    order: Order
    shown: tuple[int, int]  # committed events and bytes

    @property
    def first_id(self) -> int:
        """Before every id of the lane."""
        return self.number << LANE_SHIFT

    @property
    def end_id(self) -> int:
        """After every id of the lane."""
        return (self.number + 1) << LANE_SHIFT


class Committed(Struct):
    """What a transaction changed."""

    appended: set[str]
    """Lanes that got events."""
    lane_added: bool
    emptied: list[Lane]
    """Lanes that lost events, and have none left as their counters say."""


class Ledger:
    """The tables of one database, through its writing connection."""

    def __init__(self, writer: apsw.Connection) -> None:
        """Read the counters. Raises apsw.Error, or BufferDamagedError, where they cannot be read."""
        self._writer = writer
        self.lanes: dict[str, Lane] = {}
        self.dead_letters = 0
        self.dead_bytes = 0
        self.first_sequence = 1
        self.first_lane = 1
        """The least number that a new lane gets."""
        self.appended: set[str] = set()
        """Lanes that got events in the transaction that is open."""
        self.added = False
        """The transaction that is open added a lane."""
        self._added: list[Numbered] = []
        self._written: list[Numbered] = []
        self._changed: set[str] = set()
        self._dead_changed = False
        self._purged: set[int] = set()
        """Claimed events that `purge` removed, so that `delete` need not go through the lane to see
        whether they are lost …"""
        self._purging: set[int] = set()
        """… and those of the transaction that is open."""
        self.load()

    # --- counters ---------------------------------------------------------------------------------

    def load(self) -> None:
        """Read the counters again: what was not committed is forgotten."""
        lanes = {}
        for row in self._writer.execute(
            "select number, name, next_sequence, events, bytes from lanes order by number"
        ):
            number, name, next_sequence, events, size = _sound(row, (int, str, int, int, int))
            if not (0 < number < MOST_LANES and 0 < next_sequence < 1 << LANE_SHIFT):
                # Its events would get other lanes' numbers, or those of events that are there.
                raise BufferDamagedError(f"damaged: lane {number} goes on at {next_sequence}")
            known = self.lanes.get(name)
            order = Order(number << LANE_SHIFT) if known is None else known.order
            lanes[name] = Lane(number, name, next_sequence, events, size, order, (events, size))
        totals: dict[str, int] = dict(
            _sound(row, (str, int)) for row in self._writer.execute("select * from totals")
        )
        try:
            self.dead_letters = totals["dead_letters"]
            self.dead_bytes = totals["dead_letter_bytes"]
            self.first_sequence = totals["first_sequence"]
        except KeyError as error:
            raise BufferDamagedError(f"damaged: no total {error}") from None
        self.lanes = lanes
        self._forget_transaction()

    def write_counters(self) -> None:
        """Write the events that were inserted, and what changed; the last thing in every transaction."""
        self._write_added()
        for name in self._changed:
            lane = self.lanes[name]
            self._writer.execute(
                "update lanes set next_sequence = ?, events = ?, bytes = ? where number = ?",
                (lane.next_sequence, lane.events, lane.bytes, lane.number),
            )
        if self._dead_changed:
            self._writer.executemany(
                "update totals set value = ? where name = ?",
                [(self.dead_letters, "dead_letters"), (self.dead_bytes, "dead_letter_bytes")],
            )

    def committed(self, *, may_be_claimed: bool = True) -> Committed:
        """Show what was committed.

        A lane that is read to its end gets the events from here, unless `may_be_claimed` is False.
        """
        if may_be_claimed:
            for added in self._written:
                order = self.lanes[added.lane].order
                if order.wants(added.first_id, len(added.events), added.size):
                    order.take_in(added.claimed(), added.size)
        changed = [self.lanes[name] for name in self._changed]
        for lane in changed:
            lane.shown = (lane.events, lane.bytes)
        self._purged |= self._purging
        emptied = [lane for lane in changed if lane.events <= 0]
        found = Committed(self.appended, self.added, emptied)
        self._forget_transaction()
        return found

    def _forget_transaction(self) -> None:
        self.appended = set()
        self.added = False
        self._added.clear()
        self._written.clear()
        self._changed.clear()
        self._dead_changed = False
        self._purging.clear()

    # --- events -----------------------------------------------------------------------------------

    def lane(self, name: str) -> Lane:
        """The lane of that name, added if there is none."""
        lane = self.lanes.get(name)
        if lane is None:
            number = max([self.first_lane - 1, *(lane.number for lane in self.lanes.values())]) + 1
            lane = self._add(number, name, self.first_sequence, Order(number << LANE_SHIFT))
        return lane

    def restore(self, number: int, name: str, known: Lane | None = None) -> str:
        """Have a lane as it was numbered in another database; the name that it has.

        `known` is that lane as it was there: its order and its numbering go on.
        """
        for lane in self.lanes.values():
            if lane.number == number:
                return lane.name
        if name in self.lanes:
            name = f"{name}-{number}"  # added here under another number meanwhile
        if known is None:
            self._add(number, name, self.first_sequence, Order(number << LANE_SHIFT))
        else:
            self._add(number, name, max(self.first_sequence, known.next_sequence), known.order)
        return name

    def _add(self, number: int, name: str, next_sequence: int, order: Order) -> Lane:
        self._writer.execute(
            "insert into lanes (number, name, next_sequence) values (?, ?, ?)",
            (number, name, next_sequence),
        )
        lane = Lane(number, name, next_sequence, 0, 0, order, (0, 0))
        self.lanes[name] = lane
        self.added = True
        return lane

    def insert(self, name: str, received: int, events: Sequence[Sealed], size: int) -> None:
        """Store events at the end of a lane; `size` is of their bodies and rows.

        They are written all together at the end of the transaction.
        """
        lane = self.lanes.get(name) or self.lane(name)
        first_id = lane.first_id + lane.next_sequence
        bodies = size - ROW_OVERHEAD * len(events)
        self._added.append(Numbered(name, first_id, received, events, bodies))
        lane.next_sequence += len(events)
        lane.events += len(events)
        lane.bytes += size
        self._changed.add(name)
        self.appended.add(name)

    def _write_added(self) -> None:
        if self._added:
            rows.insert(self._writer, rows.to_rows(self._added))
            self._written += self._added
            self._added.clear()

    def insert_again(self, name: str, events: Sequence[Claimed]) -> int:
        """Put events back under their old numbers; how many were not there."""
        self._write_added()
        lane = self.lanes[name]
        inserted = 0
        for event in events:
            fields = (event.id, event.user, event.received, event.skew, event.age)
            check = zlib.crc32(event.body, zlib.crc32(pack(*fields)))
            self._writer.execute(
                INSERT.replace("insert", "insert or ignore", 1), (*fields, check, event.body)
            )
            if self._writer.changes():
                inserted += 1
                lane.bytes += len(event.body) + ROW_OVERHEAD
                lane.next_sequence = max(lane.next_sequence, event.id - lane.first_id + 1)
        lane.events += inserted
        self._changed.add(name)
        return inserted

    def delete(self, name: str, events: Sequence[Claimed]) -> None:
        """Remove events that were claimed."""
        lane = self.lanes[name]
        if self._purged:
            there = [event for event in events if event.id not in self._purged]
            self._purged.difference_update([event.id for event in events])
            events = there
        if not events:
            return
        sizes = sum([len(event.body) for event in events]) + ROW_OVERHEAD * len(events)
        ids = [event.id for event in events]
        deleted = self._delete(lane, ids, sizes)
        if deleted != len(events):  # they are in a database that was set aside, or worse
            self._refuse_lost_ways(lane, ids)
            left = lane.events - deleted
            self.recount(lane)
            if lane.events != left:
                raise apsw.CorruptError(f"{lane.events} of {left} events are found")

    def purge(self, name: str, events: Sequence[Claimed]) -> int:
        """Remove events whoever has claimed them; how many were still there."""
        lane = self.lanes[name]
        removed = 0
        for event in events:
            if self._delete(lane, [event.id], len(event.body) + ROW_OVERHEAD):
                removed += 1
                if lane.order.is_claimed(event.id):
                    self._purging.add(event.id)
        return removed

    def take_out(self, name: str, events: Sequence[Claimed]) -> list[int]:
        """Remove damaged events; which of them were still there.

        Raises apsw.CorruptError where they are, and cannot be removed.
        """
        removed = [at for at, event in enumerate(events) if self.purge(name, [event])]
        if len(removed) < len(events):
            self._refuse_lost_ways(self.lanes[name], [event.id for event in events])
        return removed

    def _delete(self, lane: Lane, ids: list[int], sizes: int) -> int:
        before = self._writer.total_changes()
        self._writer.executemany(DELETE, ranges(ids))
        deleted = self._writer.total_changes() - before
        if deleted == len(ids):
            lane.events -= deleted
            # Of damaged events nobody knows what was counted.
            lane.bytes = lane.bytes - sizes if lane.events else 0
        self._changed.add(lane.name)
        return deleted

    def _refuse_lost_ways(self, lane: Lane, ids: list[int]) -> None:
        """Raise CorruptError where a walk still finds events that deleting did not find by number.

        A changed byte in a page above the leaves does that, and no checksum tells. They would be
        sent after every start, and never go.
        """
        walk = "select +id from events where id > ? and id < ?"
        gone = set(ids)
        for (id_,) in self._writer.execute(walk, (lane.first_id, lane.end_id)):
            if id_ in gone:
                raise apsw.CorruptError("events are not found by their numbers")

    def recount(self, lane: Lane) -> None:
        """Count a lane's events, where the counters cannot be right. Slow on a large lane."""
        self._write_added()
        row = self._writer.execute(
            "select count(*), coalesce(sum(length(body) + ?), 0) from events where id > ? and id < ?",
            (ROW_OVERHEAD, lane.first_id, lane.end_id),
        ).fetchone()
        lane.events, lane.bytes = cast("tuple[int, int]", row)
        self._changed.add(lane.name)

    # --- dead letters -----------------------------------------------------------------------------

    def insert_dead(self, letters: Sequence[DeadLetter]) -> None:
        """Store dead letters."""
        deadletters.insert(self._writer, letters)
        self.dead_letters += len(letters)
        self.dead_bytes += sum([letter_size(letter) for letter in letters])
        self._dead_changed = True

    def insert_dead_again(self, letters: Sequence[tuple[int, DeadLetter]]) -> int:
        """Put dead letters back under their old numbers; how many were not there."""
        inserted = 0
        for id_, letter in letters:
            if deadletters.insert_again(self._writer, id_, letter):
                inserted += 1
                self.dead_bytes += letter_size(letter)
        self.dead_letters += inserted
        self._dead_changed = True
        return inserted

    def prune_dead(self, before: int, max_bytes: int, most: int) -> dict[str, int]:
        """Remove the oldest dead letters beyond the limits, `most` at a time; how many per lane.

        Args:
            before: ms since 1970: what died earlier goes.
            max_bytes: what all may hold.
        """
        removed: dict[str, int] = {}
        excess = self.dead_bytes - max_bytes
        for id_, died, lane, size in deadletters.oldest(self._writer, most):
            if died >= before and excess <= 0:
                break
            excess -= size
            if not self.delete_dead([id_]):
                raise apsw.CorruptError("dead letters are not found by their numbers")
            removed[lane] = removed.get(lane, 0) + 1
        return removed

    def delete_dead(self, ids: Iterable[int]) -> int:
        """Remove dead letters; how many there were."""
        removed = 0
        for size in starmap(self._delete_letter, [(id_,) for id_ in ids]):
            if size is not None:
                removed += 1
                self.dead_bytes -= size
        self.dead_letters -= removed
        self._dead_changed = True
        return removed

    def refuse_again(self, id_: int, refusal: Refusal, revision: str) -> None:
        """Give a dead letter that a replay did not help its new reason."""
        deadletters.refuse_again(self._writer, id_, refusal, revision)

    def _delete_letter(self, id_: int) -> int | None:
        row = self._writer.execute(
            f"select {deadletters.SIZE} from dead_letters where id = ?",  # noqa: S608 - a constant
            (id_,),
        ).fetchone()
        if row is None:
            return None
        self._writer.execute("delete from dead_letters where id = ?", (id_,))
        return cast("int", row[0])


def _sound(row: Sequence[Any], types: Sequence[type]) -> Any:
    """A row, if it holds what it must. Raises BufferDamagedError."""
    if not all(map(isinstance, row, types)):
        raise BufferDamagedError("damaged: a counter is no number, or a name no text")
    return row

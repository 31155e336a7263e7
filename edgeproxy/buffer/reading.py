"""Reading events for a claim, each checked against its checksum."""

from collections.abc import Callable, Sequence
from itertools import islice
from operator import lt
from typing import Any

import apsw

from edgeproxy.buffer.base import Claimed, DeadLetter
from edgeproxy.buffer.ledger import Lane
from edgeproxy.buffer.rows import (
    OLDEST,
    SELECT,
    SELECT_ANYHOW,
    as_it_is,
    is_sound,
    number,
    to_events,
)

__all__ = ["Reading"]

Bury = Callable[[Lane, Sequence[Claimed], Callable[[], None]], None]


class Reading:
    """Reads rows; those that are not what was stored are buried, once, and never given."""

    def __init__(self, bury: Bury) -> None:
        """`bury` gets a lane, its damaged events, and what to call when they are dealt with."""
        self._bury = bury
        self._being_buried: set[int] = set()

    @property
    def is_busy(self) -> bool:
        """Some are being buried."""
        return bool(self._being_buried)

    def read(
        self, reader: apsw.Connection, lane: Lane, after: int, most: int, most_bytes: int
    ) -> list[Claimed]:
        """The next sound events after an id; empty at the lane's end. Raises apsw.Error."""
        events: list[Claimed] = []
        damaged: list[Claimed] = []
        while not events:
            last = self._read(reader, (after, lane.end_id, most), most_bytes, events, damaged)
            if last is None:
                break
            after = last
        fresh = [event for event in damaged if event.id not in self._being_buried]
        if fresh:
            ids = {event.id for event in fresh}
            self._being_buried |= ids
            self._bury(lane, fresh, lambda: self._being_buried.difference_update(ids))
        return events

    @staticmethod
    def _read(
        reader: apsw.Connection,
        bounds: tuple[int, int, int],
        most_bytes: int,
        events: list[Claimed],
        damaged: list[Claimed],
    ) -> int | None:
        """Sort the next rows; the last one's id."""
        try:
            rows = _within(reader, SELECT, bounds, most_bytes)
        except UnicodeDecodeError:
            rows = _within(reader, SELECT_ANYHOW, bounds, most_bytes)
        if not rows:
            return None
        ids = [row[0] for row in rows]
        if ids[0] <= bounds[0] or not all(map(lt, ids, islice(ids, 1, None))):
            # Who is led astray between the pages may read some of them again and again.
            raise apsw.CorruptError("events do not stand in the order of their numbers")
        sound = to_events(rows)
        if sound is not None:
            events.extend(sound)
        else:
            for row in rows:
                if is_sound(row):
                    id_, user, received, skew, age, _, body = row
                    events.append(Claimed(id_, user, received, skew, age, body))
                else:
                    damaged.append(as_it_is(row))
        return int(ids[-1])

    @staticmethod
    def oldest(reader: apsw.Connection, lane: Lane) -> int | None:
        """When the lane's first event was received; None also where it cannot be read."""
        if not lane.shown[0]:
            return None
        try:
            row = reader.execute(OLDEST, (lane.first_id, lane.end_id)).fetchone()
        except apsw.Error:
            return None  # a claim will find that out and do something about it
        return None if row is None else number(row[0])

    @staticmethod
    def has_more(reader: apsw.Connection, lane: Lane, after: int) -> bool:
        """Whether an event of the lane is found after an id. Raises apsw.Error."""
        statement = "select 1 from events where id > ? and id < ? limit 1"
        return reader.execute(statement, (after, lane.end_id)).fetchone() is not None

    @staticmethod
    def letter(lane: str, event: Claimed, died: int) -> DeadLetter:
        """A damaged event as it is kept."""
        return DeadLetter(
            lane=lane,
            code="invalid_event",
            message="damaged on disk: its checksum does not match",
            form="sent",
            received=event.received,
            died=died,
            body=event.body,
            skew=event.skew,
            age=event.age,
        )


def _within(
    reader: apsw.Connection, select: str, bounds: tuple[int, int, int], most_bytes: int
) -> list[tuple[Any, ...]]:
    """Rows up to the one that fills `most_bytes`."""
    rows = []
    left = most_bytes
    cursor = reader.execute(select, bounds)
    try:
        for row in cursor:
            rows.append(row)
            body = row[-1]
            left -= len(body) if isinstance(body, bytes) else 0  # a damaged row can hold anything
            if left <= 0:
                break
    finally:
        cursor.close()  # or its transaction stays open, and the WAL cannot be emptied
    return rows

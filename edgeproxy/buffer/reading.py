"""Reading events for a claim, each checked against its checksum."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import apsw

from edgeproxy.buffer.base import Claimed, DeadLetter
from edgeproxy.buffer.ledger import Lane
from edgeproxy.buffer.rows import SELECT, is_sound, to_events

__all__ = ["Reading"]

Bury = Callable[[Lane, Sequence[Claimed], Callable[[], None]], None]


class Reading:
    """Reads rows; those that are not what was stored are buried, once, and never given."""

    def __init__(self, bury: Bury) -> None:
        """`bury` gets a lane, its damaged events, and what to call when they are dealt with."""
        self._bury = bury
        self._being_buried: set[int] = set()

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
        cursor = reader.execute(SELECT, bounds)
        rows = _within(cursor, most_bytes)
        cursor.close()  # or its transaction stays open, and the WAL cannot be emptied
        if not rows:
            return None
        sound = to_events(rows)
        if sound is not None:
            events.extend(sound)
        else:
            for row in rows:
                id_, user, received, skew, age, _, body = row
                event = Claimed(id_, user, received, skew, age, body)
                if is_sound(row):
                    events.append(event)
                else:
                    damaged.append(_as_it_is(event))
        return int(rows[-1][0])

    @staticmethod
    def oldest(reader: apsw.Connection, lane: Lane) -> int | None:
        """When the lane's first event was received; None also where it cannot be read."""
        if not lane.shown[0]:
            return None
        try:
            row = reader.execute(
                "select received from events where id > ? and id < ? order by id limit 1",
                (lane.first_id, lane.end_id),
            ).fetchone()
        except apsw.Error:
            return None  # a claim will find that out and do something about it
        return None if row is None else int(row[0] or 0)

    @staticmethod
    def is_empty(reader: apsw.Connection, lane: Lane) -> bool:
        """Whether the lane has no event at all; no where that cannot be read."""
        try:
            statement = "select 1 from events where id > ? and id < ? limit 1"
            return reader.execute(statement, (lane.first_id, lane.end_id)).fetchone() is None
        except apsw.Error:
            return False

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
            body=bytes(event.body),
            skew=event.skew,
            age=event.age,
        )


def _within(cursor: Iterator[tuple[Any, ...]], most_bytes: int) -> list[tuple[Any, ...]]:
    """Rows up to the one that fills `most_bytes`."""
    rows = []
    left = most_bytes
    for row in cursor:
        rows.append(row)
        left -= len(row[-1])
        if left <= 0:
            break
    return rows


def _as_it_is(event: Claimed) -> Claimed:
    """A damaged event in a form that a dead letter can hold."""
    if not isinstance(event.body, bytes):
        event.body = str(event.body).encode("utf-8", "replace")
    event.received, event.age = _number(event.received), _number(event.age)
    return event


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
